"""Three steps of a Raman calibration, with pictures: an axis from neon and silicon, a spectrum on it, its bands."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crucible_lineage.demo.spectra import (
    CSV_COLUMNS,
    Array,
    Spectrum,
    band_top,
    decimals,
    fit_line,
    read_spectrum,
    write_csv,
)
from crucible_lineage.step import step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ne I emission lines, wavelengths in VACUUM, in nm: NIST Atomic Spectra Database (air wavelengths of the Ne I lines,
# turned into vacuum by the five-term formula of Peck and Reeder, J. Opt. Soc. Am. 62, 958 (1972), as NIST does).
# Lines with another neon line of comparable strength within 0.5 nm are left out: this instrument would mix the two.
NEON_VACUUM_NM = (
    *(638.4756, 640.4018, 650.8326, 653.4687, 660.0776, 668.0120, 671.8897, 693.1379, 703.4352, 717.5915, 724.7163),
    *(744.0947, 749.0933, 753.7849, 754.6121, 794.5366, 813.8643, 830.2607, 837.9910, 849.7694, 859.3618, 863.7019),
)
HENE_VACUUM_NM = 632.991  # where the neon lines are first looked for
NOMINAL_LASER_NM = 632.8  # turns the nominal shift into a nominal wavelength; the polynomial absorbs what it is off
SILICON_CM1 = 520.45
# Polystyrene bands of ASTM E1840, Standard Guide for Raman Shift Standards, in cm-1.
POLYSTYRENE_CM1 = (620.9, 795.8, 1001.4, 1031.8, 1155.3, 1450.5, 1583.1, 1602.3)

NEON_WINDOW_CM1 = 6.0  # to each side: less than half the distance between the nearest two of the lines
SILICON_WINDOW_CM1 = 10.0
WORST_RMS_CM1 = 5.0  # an axis that misses its own lines by more was not made from a neon lamp
INK, BLUE, RED, GREY = "#1b1f24", "#1f6fb4", "#c8442f", "#8b949e"
ZOOM_CM1 = (989.0, 1013.0)  # the ring-breathing band, the strongest and narrowest of polystyrene
SHOWN_CM1 = (180.0, 3300.0)  # below lies the edge filter's flank, above there are no bands


@dataclass(frozen=True)
class _Line:
    """A neon line: where it lies in vacuum, and where the nominal axis has it."""

    vacuum_nm: float
    nominal_cm1: float


@dataclass(frozen=True)
class _Axis:
    """Nominal Raman shift to calibrated: a polynomial from nominal to vacuum wavelength, and the laser's."""

    coefficients_nm: tuple[float, ...]  # rising powers of the nominal wavelength, scaled to -1..1 over domain_nm
    domain_nm: tuple[float, float]
    nominal_laser_nm: float
    laser_nm: float

    def wavelength_nm(self, nominal_cm1: Array) -> Array:
        low, high = self.domain_nm
        scaled = (2 * _nominal_nm(nominal_cm1, self.nominal_laser_nm) - low - high) / (high - low)
        value: Array = np.polynomial.polynomial.polyval(scaled, np.array(self.coefficients_nm))
        return value

    def shift_cm1(self, nominal_cm1: Array) -> Array:
        return 1e7 / self.laser_nm - 1e7 / self.wavelength_nm(nominal_cm1)


@step(measurement="Raman Spectroscopy", data_type="wavenumber axis")
def wavenumber_axis(neon: Path, silicon: Path, *, degree: int = 3, out: Path) -> dict[str, Any]:
    """The instrument's true axis, in `axis.json`: wavelengths from neon lines, the laser's from silicon at 520.45 cm-1.

    `held_out_rms_cm1` predicts each neon line from the others; `held_out_rms_shift_cm1` does so with a constant shift
    of the nominal axis in cm-1, which is all that silicon without neon could give.
    """
    if not 1 <= degree <= 6:
        raise ValueError(f"degree {degree}: the axis is a polynomial of degree 1 to 6")
    lines = _neon_lines(read_spectrum(neon), at_least=degree + 3)
    silicon_cm1 = _silicon_band(read_spectrum(silicon))
    domain = _domain(lines)
    coefficients = tuple(round(value, 7) + 0.0 for value in _polynomial(lines, degree, domain))
    axis = _Axis(coefficients, domain, NOMINAL_LASER_NM, laser_nm=0.0)
    at_silicon = float(axis.wavelength_nm(np.array([silicon_cm1]))[0])
    axis = _Axis(coefficients, domain, NOMINAL_LASER_NM, laser_nm=round(1e7 / (1e7 / at_silicon + SILICON_CM1), 5))

    fitted = axis.wavelength_nm(np.array([line.nominal_cm1 for line in lines]))
    residuals = [1e7 / line.vacuum_nm - 1e7 / float(nm) for line, nm in zip(lines, fitted, strict=True)]
    if _rms(residuals) > WORST_RMS_CM1:
        raise ValueError(
            f"{neon.name}: the {len(lines)} peaks taken for neon lines miss a polynomial of degree {degree} by "
            f"{_rms(residuals):.1f} cm-1 rms; this does not look like a neon lamp"
        )
    summary = {
        "laser_nm": axis.laser_nm,
        "degree": degree,
        "lines": len(lines),
        "rms_cm1": round(_rms(residuals), 3),
        "held_out_rms_cm1": round(_rms(_held_out(lines, degree)), 3),
        "held_out_rms_shift_cm1": round(_rms(_held_out_shift(lines)), 3),
        "silicon_nominal_cm1": round(silicon_cm1, 3),
        "range_cm1": [round(lines[0].nominal_cm1, 3), round(lines[-1].nominal_cm1, 3)],
    }
    neon_rows = [
        {"vacuum_nm": line.vacuum_nm, "nominal_cm1": round(line.nominal_cm1, 3), "residual_cm1": round(off, 3) + 0.0}
        for line, off in zip(lines, residuals, strict=True)
    ]
    record = {
        **summary,
        "coefficients_nm": list(coefficients),
        "domain_nm": list(domain),
        "nominal_laser_nm": NOMINAL_LASER_NM,
        "silicon_reference_cm1": SILICON_CM1,
        "neon": neon_rows,
    }
    (out / "axis.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
    return summary


@step(measurement="Raman Spectroscopy", data_type="calibrated spectrum", thumbnail="*.png")
def calibrate(spectrum: Path, axis: Path, *, out: Path) -> dict[str, Any]:
    """The spectrum on the true axis, in `calibrated.csv`, with a picture of what changed. Intensities stay."""
    measured = read_spectrum(spectrum)
    record, true_axis = _read_axis(axis)
    shift = true_axis.shift_cm1(measured.shift_cm1)
    rows = ((decimals(x, 3), decimals(y, 1)) for x, y in zip(shift, measured.intensity, strict=True))
    write_csv(out / "calibrated.csv", CSV_COLUMNS, rows)

    line_cm1 = np.array([line["nominal_cm1"] for line in record["neon"]])
    line_true_cm1 = 1e7 / true_axis.laser_nm - 1e7 / np.array([line["vacuum_nm"] for line in record["neon"]])
    draw_calibration(
        out / "calibrated.png",
        measured=measured,
        calibrated_cm1=shift,
        references_cm1=POLYSTYRENE_CM1,
        neon=(line_true_cm1, line_true_cm1 - line_cm1),
        silicon=(record["silicon_reference_cm1"], record["silicon_reference_cm1"] - record["silicon_nominal_cm1"]),
    )
    correction = shift - measured.shift_cm1
    low, high = record["range_cm1"]
    return {
        "laser_nm": true_axis.laser_nm,
        "points": len(shift),
        "points_beyond_the_neon_lines": int(np.sum((measured.shift_cm1 < low) | (measured.shift_cm1 > high))),
        "range_cm1": [round(float(shift[0]), 3), round(float(shift[-1]), 3)],
        "smallest_correction_cm1": round(float(correction.min()), 3),
        "largest_correction_cm1": round(float(correction.max()), 3),
    }


@step(measurement="Raman Spectroscopy", data_type="band positions", thumbnail="*.png")
def find_bands(spectrum: Path, *, tolerance_cm1: float = 8.0, out: Path) -> dict[str, Any]:
    """The polystyrene bands beside their ASTM E1840 positions, in `bands.csv`, with a picture.

    Takes a calibrated spectrum or one on its nominal axis. ValueError if a band has no top within `tolerance_cm1`.
    """
    measured = read_spectrum(spectrum)
    found = {reference: band_top(measured, reference, tolerance_cm1) for reference in POLYSTYRENE_CM1}
    bands = [(reference, round(top, 3)) for reference, top in found.items() if top is not None]
    missing = [f"{reference:g}" for reference, top in found.items() if top is None]
    if missing:
        raise ValueError(
            f"{spectrum.name}: no polystyrene band within {tolerance_cm1:g} cm-1 of {', '.join(missing)} cm-1; "
            "is this polystyrene, and is its axis in cm-1?"
        )
    differences = [round(top - reference, 3) for reference, top in bands]
    rows = [
        (decimals(reference, 1), decimals(top, 3), decimals(difference, 3))
        for (reference, top), difference in zip(bands, differences, strict=True)
    ]
    write_csv(out / "bands.csv", ("reference_cm1", "measured_cm1", "difference_cm1"), rows)
    draw_bands(out / "bands.png", spectrum=measured, bands=bands)
    return {
        "reference": "ASTM E1840 polystyrene",
        "bands": len(bands),
        "mean_absolute_error_cm1": round(_mean([abs(difference) for difference in differences]), 3),
        "largest_absolute_error_cm1": round(max(abs(difference) for difference in differences), 3),
        "mean_error_cm1": round(_mean(differences), 3) + 0.0,
    }


def _neon_lines(spectrum: Spectrum, *, at_least: int) -> list[_Line]:
    lines = []
    for vacuum_nm in NEON_VACUUM_NM:
        found = fit_line(spectrum, 1e7 / HENE_VACUUM_NM - 1e7 / vacuum_nm, NEON_WINDOW_CM1)
        if found is not None:
            lines.append(_Line(vacuum_nm, found))
    if len(lines) < at_least:
        raise ValueError(
            f"{spectrum.path.name}: {len(lines)} of {len(NEON_VACUUM_NM)} neon lines found, {at_least} are needed; "
            "is this a neon lamp, measured with the 633 nm laser's axis?"
        )
    return lines


def _silicon_band(spectrum: Spectrum) -> float:
    top = band_top(spectrum, SILICON_CM1, SILICON_WINDOW_CM1)
    if top is None:
        raise ValueError(
            f"{spectrum.path.name}: no silicon band within {SILICON_WINDOW_CM1:g} cm-1 of {SILICON_CM1} cm-1; "
            "is this a silicon wafer, and is its axis in cm-1?"
        )
    return top


def _nominal_nm(nominal_cm1: Array, laser_nm: float = NOMINAL_LASER_NM) -> Array:
    return 1e7 / (1e7 / laser_nm - nominal_cm1)


def _domain(lines: Sequence[_Line]) -> tuple[float, float]:
    low, high = _nominal_nm(np.array([lines[0].nominal_cm1, lines[-1].nominal_cm1]))
    return round(float(low), 3), round(float(high), 3)


def _polynomial(lines: Sequence[_Line], degree: int, domain: tuple[float, float]) -> list[float]:
    nominal = _nominal_nm(np.array([line.nominal_cm1 for line in lines]))
    vacuum = np.array([line.vacuum_nm for line in lines])
    fit = np.polynomial.Polynomial.fit(nominal, vacuum, degree, domain=list(domain))
    return [float(value) for value in fit.coef]


def _held_out(lines: Sequence[_Line], degree: int) -> list[float]:
    """Return the distance of each line, in cm-1, from the polynomial through all the others."""
    domain = _domain(lines)
    errors = []
    for index, line in enumerate(lines):
        others = [*lines[:index], *lines[index + 1 :]]
        axis = _Axis(tuple(_polynomial(others, degree, domain)), domain, NOMINAL_LASER_NM, laser_nm=0.0)
        predicted = float(axis.wavelength_nm(np.array([line.nominal_cm1]))[0])
        errors.append(1e7 / predicted - 1e7 / line.vacuum_nm)
    return errors


def _held_out_shift(lines: Sequence[_Line]) -> list[float]:
    """The same, when the nominal axis is only moved by the mean of what all the others ask for, in cm-1."""
    asked = [-1e7 / line.vacuum_nm - line.nominal_cm1 for line in lines]
    return [value - _mean(asked[:index] + asked[index + 1 :]) for index, value in enumerate(asked)]


def _read_axis(path: Path) -> tuple[dict[str, Any], _Axis]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        low, high = record["domain_nm"]
        axis = _Axis(tuple(record["coefficients_nm"]), (low, high), record["nominal_laser_nm"], record["laser_nm"])
        _ = record["neon"], record["range_cm1"], record["silicon_reference_cm1"], record["silicon_nominal_cm1"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: not an axis as wavenumber_axis writes it ({error!r})") from error
    return record, axis


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(_mean([value * value for value in values]))


def draw_calibration(
    path: Path,
    *,
    measured: Spectrum,
    calibrated_cm1: Array,
    references_cm1: Sequence[float],
    neon: tuple[Array, Array],
    silicon: tuple[float, float],
) -> None:
    """A PNG: the calibrated spectrum, its strongest band on both axes, and the correction along the axis.

    `neon` and `silicon` are (true position, true minus nominal) of the lines that the correction rests on.
    """
    figure = _figure()
    grid = figure.add_gridspec(2, 2, height_ratios=(1.25, 1), width_ratios=(1.9, 1))
    whole, zoom, correction = (figure.add_subplot(grid[place]) for place in ((0, 0), (0, 1), (1, slice(None))))

    whole.plot(calibrated_cm1, measured.intensity / 1e3, color=BLUE, linewidth=1.2)
    shown = (calibrated_cm1 > SHOWN_CM1[0]) & (calibrated_cm1 < SHOWN_CM1[1])
    whole.set(xlim=SHOWN_CM1, ylim=(0, 1.08 * float(measured.intensity[shown].max()) / 1e3))
    whole.set(title="Calibrated spectrum", ylabel="intensity (10³ counts)")

    near = (calibrated_cm1 > ZOOM_CM1[0] - 5) & (calibrated_cm1 < ZOOM_CM1[1] + 5)
    zoom.plot(measured.shift_cm1[near], measured.intensity[near] / 1e3, color=GREY, linewidth=1.8, label="nominal")
    zoom.plot(calibrated_cm1[near], measured.intensity[near] / 1e3, color=BLUE, linewidth=2.2, label="calibrated")
    for reference in references_cm1:
        if ZOOM_CM1[0] < reference < ZOOM_CM1[1]:
            zoom.axvline(reference, ymax=0.74, color=RED, linewidth=1.6, linestyle="--", label="reference")
    zoom.set(xlim=ZOOM_CM1, ylim=(0, 1.4 * float(measured.intensity[near].max()) / 1e3), title="Strongest band")
    zoom.set_xticks([990, 1000, 1010])
    zoom.legend(frameon=False, loc="upper left", handlelength=1.2, borderaxespad=0.1)

    correction.plot(calibrated_cm1, calibrated_cm1 - measured.shift_cm1, color=BLUE, linewidth=2.2, label="correction")
    correction.plot(*neon, "o", color=RED, markersize=6, label="neon lines")
    correction.plot(*silicon, "D", color=INK, markersize=7, label="silicon")
    correction.set(xlim=(0, float(calibrated_cm1[-1])), xlabel="Raman shift (cm⁻¹)", ylabel="true − nominal (cm⁻¹)")
    correction.axhline(0, color=GREY, linewidth=0.8)
    correction.legend(frameon=False, ncols=3, loc="lower left")
    _save(figure, (whole, zoom, correction), path)


def draw_bands(path: Path, *, spectrum: Spectrum, bands: Sequence[tuple[float, float]]) -> None:
    """A PNG: the spectrum with its bands, given as (reference, measured), and how far each is off."""
    figure = _figure()
    grid = figure.add_gridspec(2, 1, height_ratios=(1.5, 1))
    top = figure.add_subplot(grid[0])
    bottom = figure.add_subplot(grid[1], sharex=top)
    reference = np.array([band[0] for band in bands])
    difference = np.array([band[1] - band[0] for band in bands])
    error = float(np.mean(np.abs(difference)))

    window = (float(reference.min()) - 60, float(reference.max()) + 60)
    shown = (spectrum.shift_cm1 > window[0]) & (spectrum.shift_cm1 < window[1])
    top.vlines(reference, 0, 1, transform=top.get_xaxis_transform(), color=RED, linewidth=1.2, alpha=0.55)
    top.semilogy(spectrum.shift_cm1[shown], spectrum.intensity[shown], color=BLUE, linewidth=1.6)
    top.set(xlim=window, ylabel="intensity (counts)", title="Polystyrene bands, ASTM E1840 positions in red")
    top.tick_params(labelbottom=False)

    bottom.axhspan(-error, error, color=BLUE, alpha=0.14, linewidth=0)
    bottom.axhline(0, color=INK, linewidth=0.9)
    bottom.vlines(reference, 0, difference, color=RED, linewidth=2)
    bottom.plot(reference, difference, "o", color=RED, markersize=7)
    limit = 1.25 * float(np.abs(difference).max())
    bottom.set(ylim=(-limit, limit), xlabel="Raman shift (cm⁻¹)", ylabel="measured −\nreference (cm⁻¹)")
    bottom.set_title(f"mean absolute error {error:.2f} cm⁻¹")
    _save(figure, (top, bottom), path)


def _figure() -> Figure:
    # matplotlib is heavy and belongs to the `demo` extra; the object API keeps no state and needs no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.6), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, plots: Sequence[Axes], path: Path) -> None:
    """Gives every plot the same look and writes the file, without the version stamp that matplotlib puts into it."""
    for plot in plots:
        plot.spines[["top", "right"]].set_visible(False)
        plot.tick_params(labelsize=11)
        plot.title.set(fontsize=12.5, color=INK)
        plot.xaxis.label.set_fontsize(12)
        plot.yaxis.label.set_fontsize(12)
    figure.savefig(path, metadata={"Software": None})
