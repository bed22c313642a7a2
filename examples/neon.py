"""Neon lines of a lamp on a spectrometer's nominal wavelength scale: their assignment, and the true scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crucible_lineage.demo.spectra import Array, Spectrum, fit_line

__all__ = ["NeonLine", "WavelengthScale", "neon_lines", "nominal_nm", "nominal_shift", "scale_from"]

# Ne I emission lines, wavelengths in AIR, in nm: NIST Atomic Spectra Database. Lines with another neon line of
# comparable strength beside them, as near as the coarsest of the instruments resolves, are left out.
NEON_AIR_NM = (
    *(540.0562, 576.4419, 582.0156, 585.2488, 588.1895, 594.4834, 597.5534, 602.9997, 607.4338, 609.6163, 614.3063),
    *(616.3594, 621.7281, 626.6495, 630.4789, 633.4428, 638.2992, 640.2248, 650.6528, 653.2882, 659.8953, 667.8277),
    *(671.7043, 692.9467, 702.4051, 703.2413, 717.3938, 724.5167, 743.8898, 748.8871, 753.5774, 754.4044, 794.3181),
    *(808.2458, 813.6405, 830.0326, 837.7608, 849.5360, 854.4696, 859.1258, 863.4647, 870.4112, 877.1656, 885.3867),
    *(891.9501, 914.8672, 920.1759, 930.0853, 932.6507, 942.5379, 948.6682, 953.4163, 954.7405, 966.5420),
)
SATURATED_COUNTS = 60_000  # just below the limit of a 16-bit converter, which cuts off the top of a line
FIRST_WINDOW_CM1 = 14.0  # largest error of a nominal scale
WINDOW_CM1 = 7.0  # once its drift is known
LEAST_SAMPLES = 3.2  # to each side of a line: a coarse detector needs a wider window to have enough to fit
WORST_OFFSET_NM = 0.6  # of a line from the median of all: beyond it, the assignment is wrong
WORST_RESIDUAL_CM1 = 1.0  # lines with a larger residual, and four times the usual, are other lines


@dataclass(frozen=True)
class NeonLine:
    """A line: its wavelength in vacuum, and on the spectrometer's scale."""

    vacuum_nm: float
    nominal_nm: float


@dataclass(frozen=True)
class WavelengthScale:
    """Nominal wavelength to vacuum: a polynomial in the nominal one, scaled to -1..1 over `domain_nm`."""

    coefficients_nm: tuple[float, ...]
    domain_nm: tuple[float, float]

    def vacuum_nm(self, nominal: Array | float) -> Array:
        low, high = self.domain_nm
        scaled = (2 * np.asarray(nominal) - low - high) / (high - low)
        value: Array = np.polynomial.polynomial.polyval(scaled, np.array(self.coefficients_nm))
        return value

    def residuals_cm1(self, lines: Sequence[NeonLine]) -> Array:
        """Return the difference of each line from the scale."""
        vacuum = np.array([line.vacuum_nm for line in lines])
        return 1e7 / vacuum - 1e7 / self.vacuum_nm(np.array([line.nominal_nm for line in lines]))


def nominal_nm(shift_cm1: Array | float, laser_nm: float) -> Array:
    """Return the wavelength of a Raman shift."""
    return np.asarray(1e7 / (1e7 / laser_nm - np.asarray(shift_cm1)))


def nominal_shift(wavelength_nm: float, laser_nm: float) -> float:
    """Return the Raman shift of a wavelength."""
    return 1e7 / laser_nm - 1e7 / wavelength_nm


def neon_lines(lamps: Sequence[tuple[Spectrum, float]], degree: int) -> tuple[list[NeonLine], WavelengthScale]:
    """Return the lines in spectra of the lamp, each with its nominal laser in nm, and the scale through them.

    Of several exposures each line is taken from the one that shows it highest without being cut off. Looked for twice:
    near its nominal place, then near where the first ones say it is. ValueError if too few are found.
    """
    vacuum = [_vacuum_nm(air) for air in NEON_AIR_NM]
    first = _found(lamps, [(line, line) for line in vacuum], FIRST_WINDOW_CM1)
    _enough(first, lamps, degree)
    offsets = np.array([line.vacuum_nm - line.nominal_nm for line in first])
    usual = np.abs(offsets - np.median(offsets)) < WORST_OFFSET_NM
    drift = np.polynomial.Polynomial.fit(np.array([line.vacuum_nm for line in first])[usual], offsets[usual], 1)
    lines = _found(lamps, [(line, line - float(drift(line))) for line in vacuum], WINDOW_CM1)
    while True:
        _enough(lines, lamps, degree)
        scale = scale_from(lines, degree)
        misses = np.abs(scale.residuals_cm1(lines))
        worst = int(np.argmax(misses))
        if misses[worst] <= max(WORST_RESIDUAL_CM1, 4 * 1.4826 * float(np.median(misses))):
            return lines, scale
        del lines[worst]


def scale_from(lines: Sequence[NeonLine], degree: int, domain_nm: tuple[float, float] | None = None) -> WavelengthScale:
    """Fit the scale with a polynomial of this degree to the lines."""
    nominal = np.array([line.nominal_nm for line in lines])
    low, high = domain_nm or (round(float(nominal.min()), 3), round(float(nominal.max()), 3))
    fit = np.polynomial.Polynomial.fit(nominal, [line.vacuum_nm for line in lines], degree, domain=[low, high])
    return WavelengthScale(tuple(round(float(value), 7) + 0.0 for value in fit.coef), (low, high))


def _found(
    lamps: Sequence[tuple[Spectrum, float]], places_nm: Sequence[tuple[float, float]], window_cm1: float
) -> list[NeonLine]:
    """Return the lines above the noise; candidates are (wavelength in vacuum, expected position)."""
    lines = []
    for vacuum, place in places_nm:
        seen = [found for spectrum, laser in lamps if (found := _line(spectrum, laser, place, window_cm1))]
        if seen:
            lines.append(NeonLine(vacuum, max(seen)[1]))
    return lines


def _line(spectrum: Spectrum, laser_nm: float, place_nm: float, window_cm1: float) -> tuple[float, float] | None:
    """Return height and nominal wavelength of the line at a position; None if there is none, or its top is cut off."""
    at = nominal_shift(place_nm, laser_nm)
    window = max(window_cm1, LEAST_SAMPLES * float(np.median(np.diff(spectrum.shift_cm1))))
    _, counts = spectrum.near(at, max(window, FIRST_WINDOW_CM1))
    if not counts.size or counts.max() > SATURATED_COUNTS:
        return None
    found = fit_line(spectrum, at, window)
    return None if found is None else (float(counts.max() - np.median(counts)), float(nominal_nm(found, laser_nm)))


def _enough(lines: Sequence[NeonLine], lamps: Sequence[tuple[Spectrum, float]], degree: int) -> None:
    if len(lines) < degree + 3:
        names = ", ".join(spectrum.path.name for spectrum, _ in lamps)
        raise ValueError(f"{names}: {len(lines)} neon lines found, {degree + 3} are needed; is this a neon lamp?")


def _vacuum_nm(air_nm: float) -> float:
    """Convert by the five-term index of air of Peck and Reeder, J. Opt. Soc. Am. 62, 958 (1972), like NIST."""
    vacuum = air_nm
    for _ in range(3):
        squared = (1e3 / vacuum) ** 2
        index = 1 + 1e-8 * (8060.51 + 2480990 / (132.274 - squared) + 17455.7 / (39.32957 - squared))
        vacuum = air_nm * index
    return vacuum
