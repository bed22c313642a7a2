"""The pipelines of a project as its records tell of them: their steps, how their results stand, and the newest runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from crucible_lineage.core.mirror import Snapshot
from crucible_lineage.queries.graph.standing import Entry, entries_of_copy
from crucible_lineage.session import Session

__all__ = ["PipelineStep", "PipelineSummary", "pipelines_of"]


@dataclass(frozen=True)
class PipelineStep:
    """A step, with how many of its results are in each state. `run` is the newest that relied on one, begun `since`."""

    name: str
    states: Mapping[str, int]
    run: str
    since: str


@dataclass(frozen=True)
class PipelineSummary:
    """A pipeline, its steps in the order in which they first gave results."""

    name: str
    steps: tuple[PipelineStep, ...]

    @property
    def states(self) -> Mapping[str, int]:
        """Count its results by state."""
        return sum((Counter(step.states) for step in self.steps), Counter())

    @property
    def newest(self) -> PipelineStep:
        """The step that the newest run relied on."""
        return max(self.steps, key=lambda step: step.since)


def pipelines_of(session: Session, project: str) -> tuple[PipelineSummary, ...]:
    """The pipelines of a project, that of the newest run first. What one of them is told of is what records say.

    A result that several pipelines rely on counts in each of them.
    """
    copy = session.mirror.snapshot(project)
    found = _pipelines.get(copy)
    if found is None:
        found = _pipelines[copy] = _told_by(entries_of_copy(copy).values())
    return found


_pipelines: WeakKeyDictionary[Snapshot, tuple[PipelineSummary, ...]] = WeakKeyDictionary()


def _told_by(entries: Iterable[Entry]) -> tuple[PipelineSummary, ...]:
    found: dict[str, dict[str, list[tuple[Entry, str, str]]]] = {}
    for entry in sorted(entries, key=lambda one: (one.summary.created, one.mfid)):
        for pipeline, step, run, since in _parts(entry):
            found.setdefault(pipeline, {}).setdefault(step, []).append((entry, run, since))
    pipelines = (
        PipelineSummary(name, tuple(_step(step, relied) for step, relied in steps.items()))
        for name, steps in found.items()
    )
    return tuple(sorted(pipelines, key=lambda one: one.newest.since, reverse=True))


def _parts(entry: Entry) -> Iterable[tuple[str, str, str, str]]:
    """(pipeline, step, run, begun) of all that a result stands for; of one that is not complete, of what makes it."""
    one = entry.summary
    parts: dict[tuple[str, str], tuple[str, str]] = {}
    if one.pipeline and one.step:
        parts[one.pipeline, one.step] = ("", "")
    for key, filled in one.standing.fills.items():
        pipeline, step, *_ = f"{key}/".split("/")
        if step and filled.since >= parts.get((pipeline, step), ("", ""))[1]:
            parts[pipeline, step] = (filled.run, filled.since)
    return [(*names, *relied) for names, relied in parts.items()]


def _step(name: str, relied: list[tuple[Entry, str, str]]) -> PipelineStep:
    _, run, since = max(relied, key=lambda one: one[2])
    return PipelineStep(name, Counter(entry.state for entry, _, _ in relied), run, since)
