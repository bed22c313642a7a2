"""Steps for powder diffraction of LaB6: fit its lines, correct them for a displaced sample, determine the cell."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from crucible_lineage.demo.spectra import Array, decimals, write_csv
from crucible_lineage.step import step
from powder_figures import draw_cells, draw_lines, draw_shifts

__all__ = ["correct_displacement", "fit_lines", "lattice_parameter"]

# Cu K alpha 1 and 2 in Angstrom: Hoelzer et al., Phys. Rev. A 56, 4554 (1997).
K_ALPHA_1, K_ALPHA_2 = 1.5405929, 1.5444274
SRM_660A = 4.15692  # Angstrom at 22.5 degrees Celsius: NIST certificate of Standard Reference Material 660a
WINDOW_DEG = 0.6  # to each side of a line
LEAST_HEIGHT_OVER_NOISE = 5.0
LINE_COLUMNS = ("squares", "two_theta_deg", "uncertainty_deg")  # squares: h² + k² + l²


@dataclass(frozen=True)
class _Line:
    squares: int
    two_theta_deg: float
    uncertainty_deg: float

    @property
    def cell(self) -> float:
        """The lattice parameter from this line alone, in Angstrom."""
        return float(K_ALPHA_1 * np.sqrt(self.squares) / (2 * np.sin(np.radians(self.two_theta_deg / 2))))


@step(measurement="powder diffraction", data_type="line positions", thumbnail="*.png")
def fit_lines(
    pattern: Path, *, first_deg: float = 18.0, last_deg: float = 148.0, near_cell: float = 4.157, out: Path
) -> dict[str, Any]:
    """Fit the positions of all lines of a primitive cubic cell, in `lines.csv`: K alpha 1 of a doublet.

    `pattern` has three columns: two theta in degrees, counts, uncertainty; it may be packed by bzip2. Each half of a
    line has its own width, as the divergence along the axis makes low lines lopsided.
    """
    angle, counts, noise = np.loadtxt(pattern, unpack=True)
    lines, curves = [], []
    for squares in _squares(2 * np.sin(np.radians(last_deg / 2)) * near_cell / K_ALPHA_1):
        expected = _two_theta(squares, near_cell, K_ALPHA_1)
        second = _two_theta(squares, near_cell, K_ALPHA_2)
        inside = (angle > expected - WINDOW_DEG) & (angle < second + WINDOW_DEG) & (noise > 0)
        if expected < first_deg or not inside.any():
            continue
        fitted = _fit_doublet(angle[inside], counts[inside], noise[inside], expected)
        if fitted is not None:
            position, uncertainty, model = fitted
            lines.append(_Line(squares, position, uncertainty))
            curves.append((angle[inside], counts[inside], model))
    if len(lines) < 5:
        raise ValueError(f"{pattern.name}: {len(lines)} lines of a cubic cell of {near_cell:g} A found, 5 are needed")
    _write_lines(out / "lines.csv", lines)
    draw_lines(out / "lines.png", curves, [line.squares for line in lines])
    return {
        "lines": len(lines),
        "first_deg": round(lines[0].two_theta_deg, 4),
        "last_deg": round(lines[-1].two_theta_deg, 4),
        "median_uncertainty_deg": round(float(np.median([line.uncertainty_deg for line in lines])), 5),
    }


@step(measurement="powder diffraction", data_type="corrected line positions", thumbnail="*.png")
def correct_displacement(lines: Path, *, radius_mm: float = 337.0, out: Path) -> dict[str, Any]:
    """Correct the lines to a sample on the axis of the goniometer, in `lines.csv`.

    A sample that stands off by s moves a line by -2 s cos(theta) / R. Of all s, that one is taken with which the lines
    agree best on one cell; the cell itself is not given.
    """
    measured = _read_lines(lines)
    displacement = _displacement_mm(measured, radius_mm)
    moved = [_moved(line, displacement, radius_mm) for line in measured]
    _write_lines(out / "lines.csv", moved)
    draw_shifts(out / "shifts.png", *_shifts(measured, moved))
    pairs = [
        _moved(line, _displacement_mm([other for other in measured if other is not line], radius_mm), radius_mm)
        for line in measured
    ]
    return {
        "displacement_mm": round(displacement, 4),
        "radius_mm": radius_mm,
        "held_out_spread_angstrom": round(_spread(pairs), 6),
    }


@step(measurement="powder diffraction", data_type="lattice parameter", thumbnail="*.png")
def lattice_parameter(lines: Path, corrected: Path, *, out: Path) -> dict[str, Any]:
    """Determine the cell from all corrected lines, in `cell.csv` line by line, beside the measured ones."""
    before, after = _read_lines(lines), _read_lines(corrected)
    rows = (
        (str(old.squares), decimals(old.two_theta_deg, 4), decimals(old.cell, 6), decimals(new.cell, 6))
        for old, new in zip(before, after, strict=True)
    )
    write_csv(out / "cell.csv", ("squares", "two_theta_deg", "measured_angstrom", "corrected_angstrom"), rows)
    angles = [line.two_theta_deg for line in before]
    draw_cells(out / "cell.png", angles, [line.cell for line in before], [line.cell for line in after], SRM_660A)
    cell = float(np.mean([line.cell for line in after]))
    return {
        "lattice_parameter_angstrom": round(cell, 5),
        "uncorrected_angstrom": round(float(np.mean([line.cell for line in before])), 5),
        "certified_angstrom": SRM_660A,
        "uncertainty_angstrom": round(_spread(after) / len(after) ** 0.5, 6),
        "difference_ppm": round(1e6 * (cell / SRM_660A - 1), 1),
        "spread_angstrom": round(_spread(after), 6),
        "uncorrected_spread_angstrom": round(_spread(before), 6),
        "spread_ratio": round(_spread(before) / _spread(after), 2),
    }


def _fit_doublet(angle: Array, counts: Array, noise: Array, expected: float) -> tuple[float, float, Array] | None:
    """Return the position of K alpha 1 with its uncertainty, and the fitted curve; None if there is no line."""
    height = float(counts.max() - np.median(counts))
    if height < LEAST_HEIGHT_OVER_NOISE * float(np.median(noise)):
        return None

    def model(parameters: Array) -> Array:
        position, left, right, mix, scale, level, slope, ratio = parameters
        second = 2 * np.degrees(np.arcsin(np.sin(np.radians(position / 2)) * K_ALPHA_2 / K_ALPHA_1))
        profile = _profile(angle - position, left, right, mix) + ratio * _profile(angle - second, left, right, mix)
        curve: Array = height * (level + slope * (angle - expected) + scale * profile)
        return curve

    start = [float(angle[counts.argmax()]), 0.04, 0.04, 0.5, 1.0, float(np.median(counts)) / height, 0.0, 0.5]
    low = [expected - 0.3, 0.005, 0.005, 0.0, 0.0, 0.0, -np.inf, 0.3]
    high = [expected + 0.3, 0.5, 0.5, 1.0, np.inf, np.inf, np.inf, 0.7]
    if not low[0] < start[0] < high[0]:
        return None
    fit = least_squares(
        lambda p: (model(p) - counts) / noise, start, bounds=(low, high), x_scale=[0.01] * 3 + [0.1] * 5
    )
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac)
    return float(fit.x[0]), float(np.sqrt(covariance[0, 0])), model(fit.x)


def _profile(offset: Array, left: float, right: float, mix: float) -> Array:
    """Return a pseudo-Voigt of height 1 with separate half widths to the left and to the right."""
    squared = (offset / np.where(offset < 0, left, right)) ** 2
    profile: Array = mix / (1 + squared) + (1 - mix) * np.exp(-np.log(2) * squared)
    return profile


def _squares(largest: float) -> list[int]:
    """Return all sums of three squares with a root of at most `largest`: the lines of a primitive cubic cell."""
    steps = range(int(largest) + 1)
    sums = {h * h + k * k + m * m for h in steps for k in steps for m in steps}
    return sorted(value for value in sums if 0 < value <= largest**2)


def _two_theta(squares: int, cell: float, wavelength: float) -> float:
    return float(2 * np.degrees(np.arcsin(min(1.0, wavelength * np.sqrt(squares) / (2 * cell)))))


def _displacement_mm(lines: list[_Line], radius_mm: float) -> float:
    """Fit a straight line through the cells: a displaced sample changes them by a s/R cos²(theta) / sin(theta)."""
    theta = np.radians([line.two_theta_deg / 2 for line in lines])
    slope, cell = np.polyfit(np.cos(theta) ** 2 / np.sin(theta), [line.cell for line in lines], 1)
    return float(slope / cell * radius_mm)


def _moved(line: _Line, displacement_mm: float, radius_mm: float) -> _Line:
    shift = 2 * displacement_mm / radius_mm * np.cos(np.radians(line.two_theta_deg / 2))
    return _Line(line.squares, line.two_theta_deg + float(np.degrees(shift)), line.uncertainty_deg)


def _shifts(measured: list[_Line], moved: list[_Line]) -> tuple[Array, Array, Array]:
    """Return the angles, the difference of each line from the mean corrected cell, and its correction."""
    cell = float(np.mean([line.cell for line in moved]))
    angles = np.array([line.two_theta_deg for line in measured])
    expected = np.array([_two_theta(line.squares, cell, K_ALPHA_1) for line in measured])
    return angles, angles - expected, angles - np.array([line.two_theta_deg for line in moved])


def _spread(lines: list[_Line]) -> float:
    return float(np.std([line.cell for line in lines], ddof=1))


def _write_lines(path: Path, lines: list[_Line]) -> None:
    rows = ((str(line.squares), decimals(line.two_theta_deg, 6), decimals(line.uncertainty_deg, 6)) for line in lines)
    write_csv(path, LINE_COLUMNS, rows)


def _read_lines(path: Path) -> list[_Line]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != LINE_COLUMNS:
        raise ValueError(f"{path.name}: not a table of lines as fit_lines writes it")
    return [_Line(int(squares), float(angle), float(uncertainty)) for squares, angle, uncertainty in rows[1:]]
