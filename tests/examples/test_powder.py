"""LaB6: the certified lattice parameter, and what the displacement correction does for it."""

from __future__ import annotations

import numpy as np
import pytest

from powder import K_ALPHA_1, K_ALPHA_2, SRM_660A, correct_displacement, fit_lines, lattice_parameter
from tests.drawn import assert_stored, pictures

RADIUS_MM = 337.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pattern of a cubic cell of 4.16 Angstrom whose sample stands 0.05 mm off, and the folder it is in."""
    angle = np.arange(20, 148, 0.01)
    counts = np.full_like(angle, 50.0)
    for squares in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 24, 25):
        for wavelength, height in ((K_ALPHA_1, 4000), (K_ALPHA_2, 2000)):
            theta = np.arcsin(wavelength * np.sqrt(squares) / (2 * 4.16))
            place = np.degrees(2 * theta - 2 * 0.05 / RADIUS_MM * np.cos(theta))
            counts += height / (1 + ((angle - place) / 0.04) ** 2)
    folder = tmp_path_factory.mktemp("made")
    np.savetxt(folder / "made.xye", np.stack([angle, counts, np.sqrt(counts)], axis=1), fmt="%.5f")
    for name in ("lines", "corrected", "cell"):
        (folder / name).mkdir()
    return folder


def test_cell_and_displacement_of_a_made_pattern_are_found_again(made):
    fit_lines(made / "made.xye", near_cell=4.158, out=made / "lines")
    moved = correct_displacement(made / "lines" / "lines.csv", out=made / "corrected")
    cell = lattice_parameter(made / "lines" / "lines.csv", made / "corrected" / "lines.csv", out=made / "cell")

    assert moved["displacement_mm"] == pytest.approx(0.05, abs=0.001)
    assert cell["lattice_parameter_angstrom"] == pytest.approx(4.16, abs=2e-5)


def test_a_pattern_without_lines_is_refused(tmp_path):
    angle = np.arange(20, 148, 0.05)
    np.savetxt(tmp_path / "flat.xye", np.stack([angle, angle * 0 + 50, angle * 0 + 7], axis=1))

    with pytest.raises(ValueError, match=r"flat\.xye: 0 lines of a cubic cell of 4\.157 A found"):
        fit_lines(tmp_path / "flat.xye", out=tmp_path)


def test_the_lattice_parameter_is_the_certified_one_and_the_correction_brings_it_there(ran):
    cell = ran("lab6", "lab6").metadata("cell")

    assert cell["lattice_parameter_angstrom"] == pytest.approx(SRM_660A, abs=1e-4)
    assert cell["uncorrected_angstrom"] == pytest.approx(4.15663, abs=5e-5)


def test_after_the_correction_the_lines_agree_more_than_two_and_a_half_times_better(ran):
    cell, corrected = (ran("lab6", "lab6").metadata(step) for step in ("cell", "corrected"))

    assert cell["spread_ratio"] > 2.5
    assert corrected["held_out_spread_angstrom"] < cell["uncorrected_spread_angstrom"] / 2
    assert -0.03 < corrected["displacement_mm"] < -0.01


def test_the_lattice_parameter_comes_from_both_tables_of_lines(ran):
    assert ran("lab6", "lab6").links("cell") == (4, 4)


def test_pictures_of_the_docs_show_this_run(ran):
    assert_stored(pictures.of_an_example("lab6", ran("lab6", "lab6").data))
