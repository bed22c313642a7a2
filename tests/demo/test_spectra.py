"""Reading spectra, refusing bad ones, and finding peaks whose place is known."""

from __future__ import annotations

import numpy as np
import pytest

from crucible_lineage.demo.spectra import Spectrum, band_top, decimals, fit_line, read_spectrum


@pytest.fixture
def lamp(tmp_path):
    """A narrow Gaussian line at 500.37 cm-1 over a little noise, sampled each cm-1."""
    x = np.arange(400.0, 600.0)
    noise = np.random.default_rng(7).normal(0, 2, len(x))
    return Spectrum(tmp_path / "lamp.txt", x, 30 + 1000 * np.exp(-(((x - 500.37) / 1.4) ** 2)) + noise)


def test_header_lines_become_the_header(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("#Laser (nm)=633\n#Title\n100.0\t5\r\n101.0\t6\r\n")

    spectrum = read_spectrum(path)

    assert spectrum.header == {"Laser (nm)": "633", "Title": ""}
    assert spectrum.shift_cm1.tolist() == [100.0, 101.0]
    assert spectrum.intensity.tolist() == [5.0, 6.0]


def test_commas_and_a_title_row_are_read_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("raman_shift_cm1,intensity\n100.000,5.0\n")

    assert read_spectrum(path).intensity.tolist() == [5.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"bad\.txt: no numeric lines"),
        ("#only=header\n", r"bad\.txt: no numeric lines"),
        ("100 5\n101 six\n", r"bad\.txt, line 2: not numbers"),
        ("100 5\n\n101 6 7\n", r"bad\.txt, line 3: 3 columns"),
        ("100\n", r"bad\.txt, line 1: 1 columns"),
        ("100 5\n101 nan\n", r"bad\.txt, line 2: .* is not finite"),
        ("100 5\n101 inf\n", r"bad\.txt, line 2: .* is not finite"),
        ("100 5\n102 5\n101 6\n", r"bad\.txt: the Raman shift does not rise after 102"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_line(content, message, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text(content)

    with pytest.raises(ValueError, match=message):
        read_spectrum(path)


def test_a_picture_is_refused_as_not_being_text(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")

    with pytest.raises(ValueError, match=r"picture\.png: not a text file"):
        read_spectrum(path)


def test_a_line_is_found_between_two_samples(lamp):
    assert fit_line(lamp, 502.0, 6.0) == pytest.approx(500.37, abs=0.01)


def test_no_line_is_found_in_noise(lamp):
    assert fit_line(lamp, 450.0, 6.0) is None


def test_no_line_is_found_outside_the_spectrum(lamp):
    assert fit_line(lamp, 900.0, 6.0) is None


def test_the_top_of_a_lopsided_band_is_told_better_than_by_its_centre_of_gravity(tmp_path):
    x = np.arange(900.0, 1100.0)
    height = 500 * np.exp(-(((x - 1000.5) / np.where(x < 1000.5, 12.0, 6.0)) ** 2))
    centre_of_gravity = float(np.sum(x * height) / np.sum(height))

    top = band_top(Spectrum(tmp_path / "band.txt", x, 100 + height), 1002.0, 8.0)

    assert top is not None
    assert abs(top - 1000.5) < 0.5 * abs(centre_of_gravity - 1000.5)


def test_a_band_whose_top_lies_beyond_the_tolerance_is_not_found(lamp):
    assert band_top(lamp, 510.0, 8.0) is None


@pytest.mark.parametrize(("value", "places", "text"), [(-0.0001, 3, "0.000"), (1.23456, 3, "1.235"), (2, 1, "2.0")])
def test_numbers_have_fixed_decimals_and_no_minus_zero(value, places, text):
    assert decimals(value, places) == text
