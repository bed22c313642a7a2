"""The demo's two pictures: a spectrum before and after calibration, and its bands against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crucible_lineage.demo.spectra import Array, Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BLUE, RED, GREY = "#1b1f24", "#1f6fb4", "#c8442f", "#8b949e"
ZOOM_CM1 = (989.0, 1013.0)  # the ring-breathing band, the strongest and narrowest of polystyrene
SHOWN_CM1 = (180.0, 3300.0)  # below lies the edge filter's flank, above there are no bands


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
