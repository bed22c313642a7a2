"""Pictures of backscatter patterns: before and after, measured beside simulated, and a map of orientations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crucible_lineage.demo.spectra import Array
from crystal import inverse_pole_colour
from ebsd_files import Patterns
from figures import BLUE, INK, RED, new_figure, save

__all__ = ["draw_map", "draw_matches", "draw_patterns"]


def draw_patterns(path: Path, measured: Array, static: Array, corrected: Array) -> None:
    """Draw a PNG of a measured pattern, the static background, and the difference."""
    figure = new_figure(8, 3.1)
    plots = [figure.add_subplot(1, 3, place) for place in (1, 2, 3)]
    titles = ("measured", "static background", "corrected")
    for plot, title, image in zip(plots, titles, (measured[0], static, corrected[0]), strict=True):
        plot.imshow(image, cmap="gray")
        plot.set(title=title, xticks=(), yticks=())
    save(figure, plots, path)


def draw_matches(path: Path, measured: Patterns, simulated: Sequence[Array], scores: Sequence[float]) -> None:
    """Draw a PNG of each pattern of the scan beside the simulated one of its orientation."""
    rows, columns = measured.grid
    figure = new_figure(2.9 * columns, 1.75 * rows)
    plots = []
    for point, (image, model) in enumerate(zip(measured.images, simulated, strict=True)):
        plot = figure.add_subplot(rows, columns, point + 1)
        both = [(half - half.mean()) / half.std() for half in (image, model)]
        plot.imshow(np.hstack(both), cmap="gray", vmin=-2.5, vmax=2.5)
        plot.axvline(image.shape[1] - 0.5, color=RED, linewidth=1.5)
        plot.set(title=f"{scores[point]:.2f}", xticks=(), yticks=())
        plots.append(plot)
    save(figure, plots, path)


def draw_map(
    path: Path,
    orientations: Sequence[Array],
    differences_deg: Sequence[float],
    grid: tuple[int, int],
    tolerance_deg: float,
) -> None:
    """Draw a PNG of the map, coloured by crystal direction, and of each point's difference from the stored one."""
    figure = new_figure(8.4, 3.9)
    layout = figure.add_gridspec(1, 2, width_ratios=(1, 1.35))
    chart, bars = figure.add_subplot(layout[0]), figure.add_subplot(layout[1])
    colours = np.array([inverse_pole_colour(orientation) for orientation in orientations]).reshape(*grid, 3)
    chart.imshow(colours)
    for point, difference in enumerate(differences_deg):
        row, column = divmod(point, grid[1])
        chart.text(column, row, f"{difference:.2f}°", ha="center", va="center", color=INK, fontsize=12)
    chart.set(title="001 red, 101 green, 111 blue", xticks=range(grid[1]), yticks=range(grid[0]))
    points = np.arange(len(differences_deg))
    bars.bar(points, differences_deg, color=[BLUE if off <= tolerance_deg else RED for off in differences_deg])
    bars.axhline(tolerance_deg, color=INK, linewidth=1.2, linestyle="--")
    bars.set(yscale="log", xticks=points, xlabel="point", ylabel="from stored orientation (°)")
    bars.set(ylim=(0.01, max(1.0, 1.3 * max(differences_deg))))
    within = sum(difference <= tolerance_deg for difference in differences_deg)
    bars.set(title=f"{within} of {len(points)} within {tolerance_deg:g}°")
    save(figure, (chart, bars), path)
