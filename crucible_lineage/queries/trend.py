"""The trend of a returned number over the time of measurement: robust limits, points beyond them, and changes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crucible_lineage.amounts import amount
from crucible_lineage.core.slots import CURRENT
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.model import DOUBTFUL
from crucible_lineage.lineage.records import activity_code
from crucible_lineage.queries.table import ProjectFacts
from crucible_lineage.session import Session
from crucible_lineage.statements import HOLD
from crucible_lineage.times import utc

SIGMAS = 3.0  # limits are the median plus and minus this many scaled median absolute deviations
SCALED = 1.4826  # scales the median absolute deviation of a normal distribution to its standard deviation
FEWEST = 5  # values needed for limits


@dataclass(frozen=True)
class TrendPoint:
    """A result with its time of measurement and value: `beyond` the limits or not, `doubtful` or not."""

    mfid: str
    time: datetime
    value: float
    beyond: bool = False
    doubtful: bool = False

    def to_json(self) -> dict[str, object]:
        """Return it as `trend --json` prints it."""
        return {**vars(self), "time": self.time.isoformat()}


@dataclass(frozen=True)
class AxisMark:
    """A change of the code or of a calibration (a parent that several results share), or a hold."""

    time: datetime
    kind: str
    text: str

    def to_json(self) -> dict[str, object]:
        """Return it as `trend --json` prints it."""
        return {**vars(self), "time": self.time.isoformat()}


@dataclass(frozen=True)
class Series:
    """The results of one group by time, without limits if there are too few. `marks` are changes."""

    label: str
    points: tuple[TrendPoint, ...]
    median: float
    low: float | None
    high: float | None
    marks: tuple[AxisMark, ...] = ()

    @property
    def alarm(self) -> bool:
        """Whether the last value lies beyond the limits."""
        return self.points[-1].beyond

    def is_beyond(self, value: float) -> bool:
        """Return whether a value lies beyond the limits."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def to_json(self) -> dict[str, object]:
        """Return it as `trend --json` prints it."""
        points, marks = [one.to_json() for one in self.points], [one.to_json() for one in self.marks]
        return {**vars(self), "alarm": self.alarm, "points": points, "marks": marks}


@dataclass(frozen=True)
class Trend:
    """A column of a step's results over time, in groups. `left_out` counts results without a number or a time."""

    project: str
    step: str
    column: str
    series: tuple[Series, ...]
    left_out: int

    def to_json(self) -> dict[str, object]:
        """Return it as `trend --json` prints it."""
        return {**vars(self), "series": [one.to_json() for one in self.series]}


def trend_of(
    session: Session, project: str, step: str, column: str, *, by: str | None = None, pipeline: str | None = None
) -> Trend:
    """Return a column of a step's current results over the time of measurement, for each value of `by`.

    Doubtful results are included and marked, but ignored for limits. Raises InputError if the step is unknown, or no
    result has both a number and a time of measurement.
    """
    facts = ProjectFacts(session, project)
    results = facts.results("trend", step, pipeline)
    shown = [one.mfid for one in results if facts.entries[one.mfid].state in (CURRENT, DOUBTFUL)]
    groups: dict[str, list[TrendPoint]] = {}
    left_out = 0
    for mfid in shown:
        value, time = facts.value(mfid, column), _time(facts, mfid)
        if isinstance(value, bool) or not isinstance(value, int | float) or time is None:
            left_out += 1
            continue
        label = str(facts.value(mfid, by)) if by else ""
        is_doubtful = facts.entries[mfid].state == DOUBTFUL
        groups.setdefault(label, []).append(TrendPoint(mfid, time, float(value), doubtful=is_doubtful))
    if not groups:
        raise InputError(
            f"trend of {step} {column}: none of {amount(len(shown), 'result')} has both this number and a time of "
            "measurement"
        )
    series = tuple(_marked(facts, series_of(label, points)) for label, points in sorted(groups.items()))
    return Trend(project, step, column, series, left_out)


def _time(facts: ProjectFacts, mfid: str) -> datetime | None:
    """Return the time of measurement: a dataset's own, else the last one of the measured data that it comes from."""
    value = facts.value(mfid, "timestamp") or facts.value(mfid, "raw.timestamp")
    times = [time for time in (value if isinstance(value, list) else [value]) if time]
    return max((utc(str(time)) for time in times), default=None)


def series_of(label: str, points: Iterable[TrendPoint]) -> Series:
    """Return points by time, with limits if there are enough; doubtful ones do not count for the limits."""
    ordered = sorted(points, key=lambda one: (one.time, one.mfid))
    good = [one.value for one in ordered if not one.doubtful] or [one.value for one in ordered]
    median, limit = statistics.median(good), SIGMAS * spread_of(good)
    low, high = (median - limit, median + limit) if len(good) >= FEWEST else (None, None)
    series = Series(label, (), median, low, high)
    return replace(series, points=tuple(replace(one, beyond=series.is_beyond(one.value)) for one in ordered))


def spread_of(values: Sequence[float]) -> float:
    """Return the scaled median absolute deviation."""
    median = statistics.median(values)
    return SCALED * statistics.median(abs(value - median) for value in values)


def _marked(facts: ProjectFacts, series: Series) -> Series:
    marks = (*_changes(facts, series.points), *_holds(facts, series.points))
    return replace(series, marks=tuple(sorted(marks, key=lambda one: (one.time, one.kind))))


def _changes(facts: ProjectFacts, points: Sequence[TrendPoint]) -> Iterator[AxisMark]:
    """Yield changes of the code and of shared parents, at the first result with the new one."""
    shared = _shared(facts, points)
    code: str | None = None
    used: dict[str, tuple[str, ...]] = {}
    for point in points:
        new_code = activity_code(facts.copy.records.get(point.mfid))
        if code is not None and new_code != code:
            yield AxisMark(point.time, "code", f"code {code[:12]} -> {new_code[:12]}")
        code = new_code
        for role, parents in facts.of(point.mfid).used.items():
            calibrations = tuple(one for one in parents if one in shared)
            if calibrations and used.get(role, calibrations) != calibrations:
                names = ", ".join(str(facts.value(one, "name") or one) for one in calibrations)
                yield AxisMark(point.time, "calibration", f"{role}: {names}")
            if calibrations:
                used[role] = calibrations


def _shared(facts: ProjectFacts, points: Sequence[TrendPoint]) -> set[str]:
    """Return the parents that more than one of the results has."""
    counts: dict[str, int] = {}
    for point in points:
        for mfid in {one for parents in facts.of(point.mfid).used.values() for one in parents}:
            counts[mfid] = counts.get(mfid, 0) + 1
    return {mfid for mfid, count in counts.items() if count > 1}


def _holds(facts: ProjectFacts, points: Sequence[TrendPoint]) -> Iterator[AxisMark]:
    """Yield the holds on these results: one on a span of measurements at its start, others when they were placed."""
    holds = {doubt.statement.mfid: doubt.statement for point in points if (doubt := facts.entries[point.mfid].doubt)}
    for one in holds.values():
        if one.verb == HOLD:
            yield AxisMark(utc(one.about.since or one.when), "hold", f"hold {one.attribution}")
