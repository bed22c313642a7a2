"""The steps of a run: their outcomes, results and messages, and which of them can begin."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import networkx

from crucible_lineage.core import journal as rows
from crucible_lineage.pipeline.plan.bound import graph_of
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.run.result import Listener, Outcome, StepEvent
from crucible_lineage.refs import DatasetRef

if TYPE_CHECKING:  # a run in which all is fresh has no job
    from crucible_lineage.pipeline.job.job import Job

_MAX_REMADE = 5  # chosen: how often a run makes a step again because others registered other parents
_ROW: Mapping[str, str] = {
    Outcome.FAILED: rows.FAILED,
    Outcome.SKIPPED: rows.SKIPPED,
    Outcome.STOPPED: rows.STOPPED,
    Outcome.REUSED: rows.OVERTAKEN,
}


@dataclass
class StepState:
    """The state of a step in a run: its outcome once it has ended, its results, and messages about it."""

    outcome: str = ""
    results: Mapping[str, DatasetRef] | None = None
    error: str = ""
    log: str = ""
    trace: str = ""
    note: str = ""
    began: float | None = None
    took: float | None = None
    remade: int = 0
    needs: set[str] = field(default_factory=set)  # parents without a result yet

    @property
    def outputs(self) -> Mapping[str, DatasetRef]:
        """The results; empty if there are none."""
        return self.results or {}

    @property
    def mfids(self) -> list[str]:
        """The ids of the results."""
        return list(ids_of(self.outputs).values())


class Steps(dict[str, StepState]):
    """The states of all step instances of a run, by name. Outcomes are recorded in the journal, and reported.

    `jobs` are those of the steps under way, `ready` are the steps whose parents are done.
    """

    def __init__(
        self, instances: Mapping[str, Instance], journal: rows.Journal, run_id: str, project: str, listener: Listener
    ) -> None:
        super().__init__((name, StepState()) for name in instances)
        self.journal = journal
        self.run_id = run_id
        self.project = project
        self.listener = listener
        self.jobs: dict[str, Job] = {}
        self.ready: list[str] = []
        self.has_failed = False
        self._made_by: dict[str, str] = {}  # dataset -> step
        self.follow(instances)

    def follow(self, instances: Mapping[str, Instance]) -> None:
        """Take the parents of steps from these instances."""
        self.instances = instances
        self._graph = graph_of(instances)

    def set_results(self, name: str, outputs: Mapping[str, DatasetRef]) -> None:
        """Set the results of a step."""
        self[name].results = outputs
        self._made_by |= dict.fromkeys((dataset.mfid for dataset in outputs.values()), name)

    def makers(self, mfids: Collection[str]) -> list[str]:
        """Return the steps whose results are among these datasets."""
        made_by = dict.fromkeys(self._made_by.get(mfid, "") for mfid in mfids)
        return [name for name in made_by if name and not set(self[name].mfids).isdisjoint(mfids)]

    def wait(self, name: str) -> None:
        """Let a step begin when its parents are done, or end it if one cannot be."""
        state, needs = self[name], self.instances[name].needs
        if left_out := [need for need in needs if self[need].outcome == Outcome.LEFT_OUT]:
            message = f"its parent {left_out[0]} is missing and was left out; run without --only, or --from it"
            self.end(name, Outcome.FAILED, error=message)
            return
        state.needs = {need for need in needs if self[need].results is None}
        if not state.needs:
            self.ready.append(name)
        elif bad := self._bad_parent(name):
            self.end(name, Outcome.SKIPPED, error=_missing(bad))

    def release(self, name: str) -> None:
        """Let the steps begin for which this one, now done, was the last parent."""
        for child in self._graph.succ[name]:
            state = self[child]
            if name in state.needs:
                state.needs.discard(name)
                if not state.needs and not state.outcome:
                    self.ready.append(child)

    def end(
        self,
        name: str,
        outcome: Outcome,
        outputs: Mapping[str, DatasetRef] | None = None,
        error: str = "",
        failed: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Record the outcome of a step; skip the descendants of a failed one. `failed` identifies a failure's count."""
        state, mfids = self[name], ids_of(outputs or self[name].outputs)
        state.outcome, state.error = outcome, error
        seconds = state.took
        if seconds is None and state.began is not None:
            seconds = time.monotonic() - state.began
        size = sum(f.size for dataset in (outputs or {}).values() for f in dataset.files) or None
        if outcome in _ROW:
            facts = {"error": error or None, "log": state.log or None, "seconds": seconds, **failed}
            self.journal.end_step(self.run_id, self.project, name, _ROW[outcome], mfids, **facts)
        elif outcome == Outcome.EXECUTED:
            self.journal.measure(self.run_id, name, seconds, size)
        self.listener(StepEvent(name, outcome, error or ", ".join(mfids.values()), seconds))
        if outcome in (Outcome.FAILED, Outcome.SKIPPED):
            self.has_failed = self.has_failed or outcome == Outcome.FAILED
            for child in self._graph.succ[name]:
                if not self[child].outcome and child not in self.jobs and self[child].needs:
                    self.end(child, Outcome.SKIPPED, error=_missing(name))

    def make_again(self, name: str, reason: str) -> None:
        """Reset a step and its descendants, and let them begin again."""
        fixed = {other for other, state in self.items() if other in self.jobs or state.outcome == Outcome.LEFT_OUT}
        below = networkx.descendants(networkx.restricted_view(self._graph, fixed - {name}, ()), name)
        names = [step for step in self.instances if step == name or step in below]
        for step in names:
            state = self[step]
            state.remade += state.results is not None
            state.outcome, state.error, state.results, state.took, state.began = "", "", None, None, None
        self.journal.plan(self.run_id, self.project, names)
        for step in names:
            if self[step].remade > _MAX_REMADE:
                self.end(step, Outcome.FAILED, error=f"it was made {_MAX_REMADE} times, and each time {reason}")
            elif not self[step].outcome:
                self.wait(step)

    def skip_reason(self, name: str, *, stopped: bool) -> str:
        """Return why a step was not begun."""
        if stopped:
            return "the run was stopped before it was begun"
        bad = self._bad_parent(name)
        return _missing(bad) if bad else "not started, because another step failed"

    def _bad_parent(self, name: str) -> str | None:
        needs = self.instances[name].needs
        return next((need for need in needs if self[need].outcome in (Outcome.FAILED, Outcome.SKIPPED)), None)


def ids_of(outputs: Mapping[str, DatasetRef]) -> dict[str, str]:
    """Return {output: id of its dataset}."""
    return {output: dataset.mfid for output, dataset in outputs.items()}


def _missing(need: str) -> str:
    return f"{need}, which it needs, has no result"
