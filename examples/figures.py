"""Common style of the pictures of the examples, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "INK", "RED", "new_figure", "save"]

INK, BLUE, RED, GREY = "#1b1f24", "#1f6fb4", "#c8442f", "#8b949e"


def new_figure(width: float = 8, height: float = 5.6) -> Figure:
    """Return an empty figure of a size in inches, without a display."""
    # matplotlib is heavy and belongs to the `demo` extra; the object API keeps no state
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, plots: Sequence[Axes], path: Path) -> None:
    """Style every plot and write a PNG, without matplotlib's version stamp."""
    for plot in plots:
        plot.spines[["top", "right"]].set_visible(False)
        plot.tick_params(labelsize=11)
        plot.title.set(fontsize=12.5, color=INK)
        plot.xaxis.label.set_fontsize(12)
        plot.yaxis.label.set_fontsize(12)
    figure.savefig(path, metadata={"Software": None})
