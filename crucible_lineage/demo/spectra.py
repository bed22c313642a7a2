"""Spectra as two columns of text: reading, writing, and finding where a line or a band lies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]
CSV_COLUMNS = ("raman_shift_cm1", "intensity")
MIN_SNR = 5.0  # height over noise below which a peak is noise; the customary limit of detection is 3


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One measured spectrum. `header` holds what the file says about itself, as text; empty if it says nothing."""

    path: Path
    shift_cm1: Array
    intensity: Array
    header: dict[str, str] = field(default_factory=dict)

    @property
    def noise(self) -> float:
        """Standard deviation from one sample to the next, from second differences, which a smooth spectrum lacks."""
        second = np.diff(self.intensity, 2)
        return float(1.4826 * np.median(np.abs(second)) / math.sqrt(6))

    def near(self, center_cm1: float, half_window_cm1: float) -> tuple[Array, Array]:
        """The samples within a window, as two arrays."""
        inside = np.abs(self.shift_cm1 - center_cm1) <= half_window_cm1
        return self.shift_cm1[inside], self.intensity[inside]


def read_spectrum(path: Path) -> Spectrum:
    """The spectrum in a text file of two columns: Raman shift in cm-1, rising, and intensity.

    Columns are parted by tab, blank or comma. Lines `#name=value`, as LabSpec writes them, become the header; the
    title row of this package's own CSV files is passed over. ValueError names the file and the line at fault.
    """
    header: dict[str, str] = {}
    rows: list[tuple[float, float]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: not a text file in UTF-8 ({error})") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith("#"):
            name, _, value = text[1:].partition("=")
            header[name.strip()] = value.strip()
        elif text and (rows or text != ",".join(CSV_COLUMNS)):
            rows.append(_row(path, number, text))
    if not rows:
        raise ValueError(f"{path.name}: no numeric lines; expected two columns, Raman shift in cm-1 and intensity")
    table = np.array(rows)
    falling = np.flatnonzero(np.diff(table[:, 0]) <= 0)
    if falling.size:
        raise ValueError(f"{path.name}: the Raman shift does not rise after {table[falling[0], 0]:g} cm-1")
    return Spectrum(path, table[:, 0], table[:, 1], header)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes the rows under a title row: UTF-8, commas, "\\n" on every system, so that equal rows are equal bytes."""
    lines = [",".join(columns), *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def decimals(value: float, places: int) -> str:
    """`value` with so many decimals; never a minus sign before zero."""
    return f"{round(float(value), places) + 0.0:.{places}f}"


def fit_line(spectrum: Spectrum, near_cm1: float, half_window_cm1: float) -> float | None:
    """Where an emission line lies, in cm-1; None if there is none within the window.

    A Gaussian on a constant background, fitted by least squares about the strongest sample. Meant for lines as wide
    as the instrument's own profile, two or three samples, where only a fit tells the position between samples.
    """
    top = _strongest(spectrum, near_cm1, half_window_cm1)
    if top is None:
        return None
    x, y = spectrum.near(top, half_window_cm1)
    low, height = float(y.min()), float(y.max() - y.min())

    def residual(parameters: Array) -> Array:
        offset, width, scale, background = parameters
        model: Array = background + scale * np.exp(-(((x - top - offset) / width) ** 2))
        return model - (y - low) / height

    fit = least_squares(residual, [0.0, 1.5, 1.0, 0.0], method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14)
    offset, _, scale, _ = (float(value) for value in fit.x)
    if scale * height < MIN_SNR * spectrum.noise or abs(top + offset - near_cm1) > half_window_cm1:
        return None
    return top + offset


def band_top(spectrum: Spectrum, near_cm1: float, tolerance_cm1: float) -> float | None:
    """Where the top of a Raman band lies, in cm-1; None if no band has its top within the tolerance.

    The vertex of the parabola through the samples in the upper half of the band. Bands of a polymer are wide, lopsided
    and overlap: their flanks move a whole fitted profile, and much less the upper half.
    """
    top = _strongest(spectrum, near_cm1, tolerance_cm1)
    if top is None:
        return None
    x, y = spectrum.near(top, tolerance_cm1)
    peak = int(np.argmax(y))
    half = (float(y.max()) + float(y.min())) / 2
    below = np.flatnonzero(y < half)
    first = below[below < peak].max(initial=-1) + 1
    last = below[below > peak].min(initial=len(y))
    if last - first < 3:
        return None
    height = float(y.max() - y.min())
    # ascending powers of the distance to the strongest sample: unscaled, so that the vertex is in cm-1
    parabola = np.polynomial.polynomial.polyfit(x[first:last] - top, (y[first:last] - half) / height, 2)
    if parabola[2] >= 0:
        return None
    return top - float(parabola[1] / (2 * parabola[2]))


def _strongest(spectrum: Spectrum, near_cm1: float, half_window_cm1: float) -> float | None:
    """Position of the strongest sample in a window; None if it is the window's edge or does not stand out."""
    x, y = spectrum.near(near_cm1, half_window_cm1)
    if len(y) < 5:
        return None
    peak = int(np.argmax(y))
    if peak in (0, len(y) - 1) or float(y[peak] - y.min()) < MIN_SNR * spectrum.noise:
        return None
    return float(x[peak])


def _row(path: Path, number: int, text: str) -> tuple[float, float]:
    cells = text.replace(",", " ").split()
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        raise ValueError(f"{path.name}, line {number}: not numbers: {text[:60]!r}") from None
    if len(values) != 2:
        raise ValueError(f"{path.name}, line {number}: {len(values)} columns; expected Raman shift and intensity")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{path.name}, line {number}: {text[:60]!r} is not finite; cut such samples out first")
    return values[0], values[1]
