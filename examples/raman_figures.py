"""Pictures of the Raman comparison: a spectrum on both axes, and all instruments side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crucible_lineage.demo.raman import SILICON_CM1
from crucible_lineage.demo.spectra import Array, Spectrum
from figures import BLUE, GREY, INK, RED, new_figure, save

__all__ = ["Agreement", "draw_calibrated", "draw_table"]

ZOOM_CM1 = (986.0, 1044.0)  # the strongest two bands of polystyrene
SHOWN_CM1 = (500.0, 1700.0)


@dataclass(frozen=True)
class Agreement:
    """Errors of an instrument's bands: mean absolute error in cm-1 on each axis."""

    name: str
    bands: int
    nominal: float
    calibrated: float
    verdict: str


def draw_calibrated(
    path: Path, measured: Spectrum, shift_cm1: Array, axis: Mapping[str, Any], references_cm1: Sequence[float]
) -> None:
    """Draw a PNG of the spectrum with reference bands, its strongest bands on both axes, and the correction."""
    figure = new_figure()
    grid = figure.add_gridspec(2, 2, height_ratios=(1.25, 1), width_ratios=(1.9, 1))
    whole, zoom, correction = (figure.add_subplot(grid[place]) for place in ((0, 0), (0, 1), (1, slice(None))))

    _bands(whole, shift_cm1, measured.intensity, SHOWN_CM1, references_cm1)
    whole.set(title=measured.path.stem, ylabel="intensity (10³ counts)")
    _bands(zoom, shift_cm1, measured.intensity, ZOOM_CM1, references_cm1)
    near = (measured.shift_cm1 > ZOOM_CM1[0]) & (measured.shift_cm1 < ZOOM_CM1[1])
    zoom.plot(measured.shift_cm1[near], measured.intensity[near] / 1e3, color=GREY, linewidth=1.6, zorder=1)
    zoom.set(title="grey: nominal axis", xticks=(990, 1015, 1040))

    lines = axis["neon"]
    at = np.array([line["nominal_cm1"] for line in lines])
    true = 1e7 / axis["laser_nm"] - 1e7 / np.array([line["vacuum_nm"] for line in lines])
    correction.plot(measured.shift_cm1, shift_cm1 - measured.shift_cm1, color=BLUE, linewidth=2.2, label="correction")
    correction.plot(at, true - at, "o", color=RED, markersize=6, label="neon lines")
    silicon = axis["silicon_nominal_cm1"]
    correction.plot(silicon, SILICON_CM1 - silicon, "D", color=INK, markersize=7, label="silicon")
    correction.axhline(0, color=GREY, linewidth=0.8)
    shown = (measured.shift_cm1 > 100) & (measured.shift_cm1 < max(2000.0, float(at.max()) + 50))
    offsets = np.concatenate([(shift_cm1 - measured.shift_cm1)[shown], true - at, [0.0]])
    margin = 0.1 * float(np.ptp(offsets))
    correction.set(xlabel="Raman shift (cm⁻¹)", ylabel="true − nominal (cm⁻¹)")
    correction.set(xlim=(100, float(measured.shift_cm1[shown][-1])))
    correction.set(ylim=(float(offsets.min()) - margin, float(offsets.max()) + 3 * margin))
    correction.legend(frameon=False, ncols=3, loc="upper left")
    save(figure, (whole, zoom, correction), path)


def draw_table(path: Path, rows: Sequence[Agreement], tables: Mapping[str, Array]) -> None:
    """Draw a PNG of the mean absolute errors of each instrument on both axes, and of each single band."""
    figure = new_figure(11, 0.55 * len(rows) + 1.8)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.25))
    means = figure.add_subplot(grid[0])
    single = figure.add_subplot(grid[1], sharey=means)
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        colour = {"better": BLUE, "worse": RED, "same": GREY}[row.verdict]
        means.plot((row.nominal, row.calibrated), (place, place), color=colour, linewidth=3, alpha=0.4, zorder=1)
        means.plot(row.nominal, place, "o", color="white", markeredgecolor=INK, markersize=7)
        means.plot(row.calibrated, place, "o", color=colour, markersize=8)
        off = tables[row.name][:, 1:] - tables[row.name][:, :1]
        single.plot(off[:, 0], np.full(len(off), place + 0.16), "o", color="white", markeredgecolor=INK, markersize=5)
        single.plot(off[:, 1], np.full(len(off), place - 0.16), "o", color=colour, markersize=5)
    means.set_yticks(places, [row.name for row in rows])
    means.set(xlim=(0, None), xlabel="mean absolute error (cm⁻¹)", title="hollow: nominal, filled: calibrated")
    single.axvline(0, color=INK, linewidth=0.9)
    single.tick_params(labelleft=False)
    single.set(xlabel="band − reference (cm⁻¹)", title="each polystyrene band")
    save(figure, (means, single), path)


def _bands(
    plot: Any, shift_cm1: Array, counts: Array, window: tuple[float, float], references: Sequence[float]
) -> None:
    inside = (shift_cm1 > window[0]) & (shift_cm1 < window[1])
    plot.plot(shift_cm1[inside], counts[inside] / 1e3, color=BLUE, linewidth=1.6, zorder=2)
    for reference in references:
        if window[0] < reference < window[1]:
            plot.axvline(reference, color=RED, linewidth=1.2, linestyle="--", alpha=0.7, zorder=0)
    plot.set(xlim=window)
