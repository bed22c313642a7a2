"""Ten Raman instruments: what the calibration does for each, told as it is, and the lineage that says so."""

from __future__ import annotations

import json

import numpy as np
import pytest

from instruments import laser_of, read_measured
from raman import calibrate, wavenumber_axis
from tests.drawn import assert_stored, pictures
from tests.nights import by_night

all_instruments = by_night("31 steps of all ten instruments")

TABLE = """Pixel;Wavelength;Raman Shift;Dark;Dark Subtracted #1;
0;   ;   ;900;1,0;
1;532,1;100,5;900;-2,5;
2;532,2;102,25;900;7,0;
"""


@pytest.fixture
def lamps(example_data):
    """Paths of files of the raman data by what their names begin with."""
    folder = example_data("raman")
    return lambda beginning: sorted(folder.glob(f"{beginning}*"))


@pytest.mark.parametrize("comma", [",", "."])
def test_a_table_of_bw_tek_is_read_with_decimal_comma_or_point_and_without_pixels_beyond_the_range(tmp_path, comma):
    (tmp_path / "bw.txt").write_text("laser_wavelength;532,02\n".replace(",", comma) + TABLE.replace(",", comma))

    spectrum = read_measured(tmp_path / "bw.txt")

    assert spectrum.shift_cm1.tolist() == [100.5, 102.25]
    assert spectrum.intensity.tolist() == [-2.5, 7.0]
    assert laser_of(spectrum, 785.0) == 532.02


@pytest.mark.parametrize(
    ("neon", "silicon", "laser_nm"),
    [
        ("NeonSNQ043_iR785_OP02", "S0B10_iR785_OP02", 785.0),
        ("neon_new2", "S0B_HLR633", 632.991),
        ("Ne_532nm_x50", "S0B02_iRPlus532_Z050", 532.2),
    ],
)
def test_the_laser_is_found_from_the_lines_whatever_the_files_say_of_it(lamps, tmp_path, neon, silicon, laser_nm):
    axis = wavenumber_axis(lamps(neon), *lamps(silicon), out=tmp_path)

    assert axis["laser_nm"] == pytest.approx(laser_nm, abs=0.1)
    assert axis["lines"] >= 19
    assert axis["held_out_rms_cm1"] < 1.3


def test_two_exposures_show_more_lines_than_either_can(lamps, tmp_path):
    short, long = lamps("Ne_532nm_x50_25ms") + lamps("Ne_532nm_x50_800ms")
    (silicon,) = lamps("S0B02_iRPlus532_Z050")
    both = wavenumber_axis([short, long], silicon, out=tmp_path)

    assert both["lines"] > wavenumber_axis([short], silicon, out=tmp_path)["lines"]
    with pytest.raises(ValueError, match=r"Ne_532nm_x50_800ms\.txt: \d neon lines found, 6 are needed"):
        wavenumber_axis([long], silicon, out=tmp_path)  # all but the weakest are cut off


def test_silicon_lies_at_its_reference_on_the_axis_made_with_it(lamps, tmp_path):
    (silicon,) = lamps("S0B02_iRPlus785_Z050")
    wavenumber_axis(lamps("Ne_785nm"), silicon, out=tmp_path)
    calibrate(silicon, tmp_path / "axis.json", out=tmp_path)

    nominal, true, _ = np.loadtxt(tmp_path / f"{silicon.stem}.calibrated.csv", delimiter=",", skiprows=1, unpack=True)

    at = json.loads((tmp_path / "axis.json").read_text())["silicon_nominal_cm1"]
    assert np.interp(at, nominal, true) == pytest.approx(520.45, abs=0.01)


@all_instruments
def test_over_all_instruments_the_bands_come_nearer_to_the_standard(ran):
    table = ran("raman-instruments", "raman").metadata("table")

    assert table["instruments"] == 10
    assert table["nominal_mean_absolute_error_cm1"] == pytest.approx(1.44, abs=0.05)
    assert table["mean_absolute_error_cm1"] == pytest.approx(0.78, abs=0.05)


@all_instruments
def test_the_calibration_helps_six_instruments_and_harms_three(ran):
    table = ran("raman-instruments", "raman").metadata("table")

    assert (table["better"], table["worse"], table["same"]) == (6, 3, 1)


@all_instruments
def test_one_table_descends_from_31_measurements_by_63_links(ran):
    made = ran("raman-instruments", "raman")

    assert sum(map(len, made.inputs.values())) == 31
    assert len(made.products) == 31
    assert made.links("table") == (62, 63)


@all_instruments
def test_pictures_of_the_docs_show_this_run(ran):
    assert_stored(pictures.of_an_example("raman-instruments", ran("raman-instruments", "raman").data))


@all_instruments
def test_the_picture_of_the_page_shows_what_the_page_shows(ran):
    pytest.importorskip("playwright.sync_api")
    if pictures.CHROMIUM is None:
        pytest.skip("needs Chromium")

    assert_stored(pictures.of_the_page(ran("raman-instruments", "raman").data))
