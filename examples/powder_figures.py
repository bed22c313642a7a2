"""Pictures of powder lines: with their fits, corrections, and the cell from each one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crucible_lineage.demo.spectra import Array
from figures import BLUE, GREY, INK, RED, new_figure, save

__all__ = ["draw_cells", "draw_lines", "draw_shifts"]


def draw_lines(path: Path, curves: Sequence[tuple[Array, Array, Array]], squares: Sequence[int]) -> None:
    """Draw a PNG of all lines: counts as dots, the fitted doublet as a curve. `curves` are (angle, counts, fit)."""
    columns = 6
    rows = -(-len(curves) // columns)
    figure = new_figure(1.75 * columns, 1.6 * rows)
    plots = []
    for place, ((angle, counts, fit), number) in enumerate(zip(curves, squares, strict=True), start=1):
        plot = figure.add_subplot(rows, columns, place)
        plot.plot(angle, counts, ".", color=GREY, markersize=2.5)
        plot.plot(angle, fit, color=BLUE, linewidth=1.4)
        middle = float(angle[fit.argmax()])
        plot.set(title=f"{number}: {middle:.2f}°", xlim=(middle - 0.35, middle + 0.95), xticks=(), yticks=())
        plots.append(plot)
    save(figure, plots, path)


def draw_shifts(path: Path, angle: Array, offset: Array, shift: Array) -> None:
    """Draw a PNG of each line's difference from the corrected cell, and of the part from the displaced sample."""
    figure = new_figure(8, 3.8)
    plot = figure.add_subplot()
    order = np.argsort(angle)
    plot.plot(angle[order], 1e3 * shift[order], color=BLUE, linewidth=2.2, label="displaced sample")
    plot.plot(angle, 1e3 * offset, "o", color=RED, markersize=6, label="measured lines")
    plot.axhline(0, color=GREY, linewidth=0.8)
    plot.set(xlabel="2θ (°)", ylabel="measured − cell (10⁻³ °)")
    plot.legend(frameon=False)
    save(figure, (plot,), path)


def draw_cells(
    path: Path, angle: Sequence[float], measured: Sequence[float], corrected: Sequence[float], certified: float
) -> None:
    """Draw a PNG of the lattice parameter from each line, before and after, beside the certified one."""
    figure = new_figure(8, 4.4)
    plot = figure.add_subplot()
    plot.axhline(certified, color=INK, linewidth=1.2, linestyle="--", label=f"SRM 660a: {certified} Å")
    plot.plot(angle, measured, "o", color="white", markeredgecolor=INK, markersize=7, label="as measured")
    plot.plot(angle, corrected, "o", color=BLUE, markersize=7, label="corrected")
    spread = np.std(measured, ddof=1) / np.std(corrected, ddof=1)
    plot.set(title=f"mean {np.mean(corrected):.5f} Å, spread {spread:.1f} times smaller")
    plot.set(xlabel="2θ (°)", ylabel="lattice parameter (Å)")
    plot.ticklabel_format(axis="y", useOffset=False)
    plot.legend(frameon=False, loc="lower right")
    save(figure, (plot,), path)
