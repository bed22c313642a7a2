"""Reading spectra, and refusing bad ones."""

from __future__ import annotations

import pytest

from crucible_lineage.demo.spectra import read_spectrum


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
