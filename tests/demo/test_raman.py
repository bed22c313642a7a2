"""The three steps on the measured files: what they find, and which files they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from crucible_lineage import demo
from crucible_lineage.demo.raman import calibrate, find_bands, wavenumber_axis

DATA = Path(demo.__file__).parent / "data"
RAW = {
    "neon": DATA / "neon_new2_Z010.txt",
    "silicon": DATA / "S0B_HLR633_Z010_100_40sx5.txt",
    "polystyrene": DATA / "Pol_HLR633_Z010_100_15sx5.txt",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the steps returned, and the folder of each."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("axis", "calibrated", "bands")}
    returned = {
        "axis": wavenumber_axis(RAW["neon"], RAW["silicon"], out=folders["axis"]),
        "calibrated": calibrate(RAW["polystyrene"], folders["axis"] / "axis.json", out=folders["calibrated"]),
        "bands": find_bands(folders["calibrated"] / "calibrated.csv", out=folders["bands"]),
    }
    return returned, folders


def test_the_laser_comes_out_within_a_twentieth_of_a_nanometre_of_the_helium_neon_line(results):
    assert results[0]["axis"]["laser_nm"] == pytest.approx(632.991, abs=0.05)


def test_without_the_neon_lines_held_out_lines_are_missed_more_than_twice_as_far(results):
    axis = results[0]["axis"]

    assert axis["lines"] == 22
    assert axis["held_out_rms_cm1"] < 0.7
    assert axis["held_out_rms_shift_cm1"] > 2 * axis["held_out_rms_cm1"]


@pytest.mark.parametrize(
    ("neon", "silicon", "at_fault"),
    [
        ("polystyrene", "silicon", "polystyrene"),
        ("silicon", "silicon", "silicon"),
        ("neon", "polystyrene", "polystyrene"),
        ("neon", "neon", "neon"),
    ],
)
def test_a_file_in_the_wrong_place_is_refused_by_name_and_nothing_is_written(neon, silicon, at_fault, tmp_path):
    with pytest.raises(ValueError, match=RAW[at_fault].name):
        wavenumber_axis(RAW[neon], RAW[silicon], out=tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_bands_of_something_else_than_polystyrene_are_refused_with_the_missing_positions(tmp_path):
    with pytest.raises(ValueError, match=r"S0B_HLR633.* no polystyrene band within 8 cm-1 of 620\.9"):
        find_bands(RAW["silicon"], out=tmp_path)
