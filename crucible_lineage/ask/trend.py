"""A returned number over the time of measurement: robust limits, points beyond them, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from crucible_lineage.lineage.labels import plain

SIGMAS = 3.0  # limits are the median plus and minus this many scaled median absolute deviations
SCALED = 1.4826  # scales the median absolute deviation of a normal distribution to its standard deviation
FEWEST = 5  # values needed for limits
WIDTH, HEIGHT, LEFT, RIGHT, TOP = 900, 190, 84, 20, 34
MOST_BEYOND = 10  # listed points


@dataclass(frozen=True)
class TrendPoint:
    """A result with its time of measurement and value: `beyond` the limits or not, `doubtful` or not."""

    mfid: str
    time: datetime
    value: float
    beyond: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class Series:
    """The results of one group by time, without limits if there are too few."""

    label: str
    points: tuple[TrendPoint, ...]
    median: float
    low: float | None
    high: float | None
    json_keys: ClassVar = "label median low high alarm"

    @property
    def alarm(self) -> bool:
        """Whether the last value lies beyond the limits."""
        return self.points[-1].beyond

    def lines(self) -> Iterator[str]:
        """Yield its span and limits in words, and the values beyond them."""
        limits = f", limits {self.low:.6g} to {self.high:.6g}" if self.low is not None and self.high is not None else ""
        span = f"{self.points[0].time:%Y-%m-%d} to {self.points[-1].time:%Y-%m-%d}"
        name = f"{self.label}: " if self.label else ""
        yield f"{name}{len(self.points)} values, {span}, median {self.median:.6g}{limits}"
        beyond = [point for point in self.points if point.beyond and not point.doubtful]
        for point in beyond[-MOST_BEYOND:]:
            yield f"  beyond  {point.time:%Y-%m-%d %H:%M}  {point.value:.6g}  {point.mfid}"
        if len(beyond) > MOST_BEYOND:
            yield f"  and {len(beyond) - MOST_BEYOND} earlier"
        if self.alarm:
            yield f"  the last value, {self.points[-1].value:.6g}, is beyond the limits"


def series_of(label: str, points: Iterable[TrendPoint]) -> Series:
    """Return points by time, with limits if there are enough; doubtful ones do not count for the limits."""
    ordered = sorted(points, key=lambda point: (point.time, point.mfid))
    good = [point.value for point in ordered if not point.doubtful] or [point.value for point in ordered]
    median = statistics.median(good)
    if len(good) < FEWEST:
        return Series(label, tuple(ordered), median, None, None)
    limit = SIGMAS * SCALED * statistics.median(abs(value - median) for value in good)
    low, high = median - limit, median + limit
    points = tuple(replace(point, beyond=not low <= point.value <= high) for point in ordered)
    return Series(label, points, median, low, high)


def series_svg(series: Sequence[Series], title: str) -> str:
    """Return a picture with one band for each series."""
    height = (HEIGHT + TOP) * len(series) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#111111">',
        '<rect width="100%" height="100%" fill="#FFFFFF"/>',
    ]
    for number, group in enumerate(series):
        parts += _band(group, title, number * (HEIGHT + TOP) + TOP)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _band(series: Series, title: str, top: float) -> Iterator[str]:
    levels = [series.median, *(limit for limit in (series.low, series.high) if limit is not None)]
    shown = [*levels, *(point.value for point in series.points)]
    least, most = min(shown), max(shown)
    margin = (most - least) * 0.08 or abs(most) * 0.1 or 1.0
    least, most = least - margin, most + margin
    first, last = series.points[0].time, series.points[-1].time
    span = (last - first).total_seconds() or 1.0

    def x(time: datetime) -> float:
        return LEFT + (time - first).total_seconds() / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return top + (most - value) / (most - least) * (HEIGHT - 40)

    bottom = top + HEIGHT - 40
    from xml.sax.saxutils import escape  # imports urllib, which only a picture needs

    heading = escape(plain(" · ".join(filter(None, (series.label, title)))))
    yield f'<text x="{LEFT}" y="{top - 10:.0f}" font-weight="600">{heading}</text>'
    if series.low is not None and series.high is not None:
        band = f'y="{y(series.high):.1f}" height="{max(0.5, y(series.low) - y(series.high)):.1f}"'
        yield f'<rect x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" {band} fill="#EAF2F8"/>'
    yield f'<path d="M{LEFT},{y(series.median):.1f}H{WIDTH - RIGHT}" stroke="#7A7A7A" stroke-dasharray="4 3"/>'
    yield f'<path d="M{LEFT},{top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#6B6B6B"/>'
    for value in dict.fromkeys(levels):
        yield f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#5A5A5A">{value:.4g}</text>'
    for point in series.points:
        fill = "#D55E00" if point.beyond else "#0072B2"
        paint = f'fill="#FFFFFF" stroke="{fill}"' if point.doubtful else f'fill="{fill}"'
        tooltip = f"{point.time:%Y-%m-%d %H:%M} {point.value:.6g} {point.mfid}"
        tooltip += " doubtful" if point.doubtful else ""
        centre = f'cx="{x(point.time):.1f}" cy="{y(point.value):.1f}" r="3.2"'
        yield f"<circle {centre} {paint}><title>{tooltip}</title></circle>"
    for time, anchor in ((first, "start"), (last, "end")):
        position = f'x="{x(time):.1f}" y="{bottom + 14:.1f}" text-anchor="{anchor}"'
        yield f'<text {position} fill="#5A5A5A">{time:%Y-%m-%d}</text>'
