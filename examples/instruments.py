"""Raman spectra in files of the makers: B&W Tek's tables with a header, and two plain columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from crucible_lineage.demo.spectra import MIN_SNR, Array, Spectrum, band_top, read_spectrum

__all__ = ["laser_of", "position", "read_measured"]

SHIFT, COUNTS = "Raman Shift", "Dark Subtracted #1"
FINE_STEP_CM1 = 0.5


def read_measured(path: Path) -> Spectrum:
    """Read the spectrum in a maker's file, with its header. Raises ValueError with the file and the fault.

    B&W Tek writes `name;value` lines, a title row and a table with decimal comma or point, where pixels beyond the
    range have no shift; everything else is read as two columns.
    """
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    title = next((number for number, line in enumerate(lines) if line.startswith("Pixel;")), None)
    if title is None:
        return read_spectrum(path)
    header = dict(_pair(line) for line in lines[:title] if ";" in line)
    columns = lines[title].split(";")
    try:
        shift, counts = columns.index(SHIFT), columns.index(COUNTS)
        cells = [line.split(";") for line in lines[title + 1 :]]
        rows = np.array([[_number(row[shift]), _number(row[counts])] for row in cells if row[shift].strip()])
    except (ValueError, IndexError) as error:
        message = f"{path.name}: not a table of B&W Tek with {SHIFT!r} and {COUNTS!r} ({error})"
        raise ValueError(message) from error
    if len(rows) == 0 or (np.diff(rows[:, 0]) <= 0).any():
        raise ValueError(f"{path.name}: the Raman shift does not rise")
    return Spectrum(path, rows[:, 0], rows[:, 1], header)


def laser_of(spectrum: Spectrum, nominal_nm: float) -> float:
    """Return the laser wavelength behind the file's shifts: from its header, else the nominal one."""
    text = spectrum.header.get("laser_wavelength")
    return nominal_nm if text is None else _number(text)


def position(path: Path, shift_cm1: Array, intensity: Array, near_cm1: float, tolerance_cm1: float) -> float | None:
    """Return the top of a band in cm-1; None if none exceeds the noise within the tolerance.

    The samples are first joined by a cubic spline: the instruments' lie 0.2 to 4 cm-1 apart, and each is to be read in
    the same way.
    """
    low, high = near_cm1 - tolerance_cm1 - 2, near_cm1 + tolerance_cm1 + 2
    if shift_cm1[0] > low or shift_cm1[-1] < high:
        return None
    fine = np.arange(low, high, FINE_STEP_CM1)
    joined = CubicSpline(shift_cm1, intensity)(fine)
    if np.ptp(joined) < MIN_SNR * Spectrum(path, shift_cm1, intensity).noise:  # not the noise of the spline
        return None
    return band_top(Spectrum(path, fine, joined), near_cm1, tolerance_cm1)


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(";")
    return name.strip(), value.strip(" ;")


def _number(text: str) -> float:
    return float(text.replace(",", "."))
