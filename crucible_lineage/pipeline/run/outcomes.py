"""How the steps of a run ended, and what they gave: each end is written down and told."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from crucible_lineage.core.store import Store
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.run.result import FAILED, MOST_RETURNED, Listener, StepEvent
from crucible_lineage.refs import DatasetRef

__all__ = ["Outcomes", "ids_of"]


class Outcomes:
    """By name of the instance: how it ended (`of`), its results, why it failed, where its log is, what is told."""

    def __init__(self, run_id: str, instances: Mapping[str, Instance], store: Store, listener: Listener) -> None:
        self.of: dict[str, str] = {}
        self.results: dict[str, Mapping[str, DatasetRef]] = {}
        self.errors: dict[str, str] = {}
        self.logs: dict[str, str] = {}
        self.tracebacks: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.returned: dict[str, Mapping[str, Mapping[str, object]]] = {}
        self.took: dict[str, float] = {}
        self.has_failure = False
        self._run_id = run_id
        self._instances = instances
        self._store = store
        self._listener = listener
        self._started: dict[str, float] = {}

    def begin(self, name: str, when: float) -> None:
        """It is being made since then."""
        self._started.setdefault(name, when)

    def has_begun(self, name: str) -> bool:
        """True if it was being made in this run."""
        return name in self._started

    def end(
        self, name: str, outcome: str, datasets: Mapping[str, str], error: str = "", size: int | None = None
    ) -> None:
        """So it ended, with these datasets by output."""
        self.of[name] = outcome
        if error:
            self.errors[name] = error
        self.has_failure = self.has_failure or outcome == FAILED
        seconds = self.took.get(name)
        if seconds is None and name in self._started:
            seconds = time.monotonic() - self._started[name]
        log = self.logs.get(name)
        self._store.record_step(self._run_id, name, outcome, datasets, seconds, error or None, size, log)
        self._listener(StepEvent(name, outcome, error or ", ".join(datasets.values()), seconds))

    def forget(self, name: str) -> None:
        """It is to be made again."""
        self.results.pop(name, None)
        self.errors.pop(name, None)
        del self.of[name]

    def note_returned(self, name: str, returned: Mapping[str, Mapping[str, object]]) -> None:
        """Kept of the last steps, so that nobody asks Crucible for what was just sent there."""
        self.returned[name] = returned
        if len(self.returned) > 4 * MOST_RETURNED:
            last = [name for name in self._instances if name in self.returned][-MOST_RETURNED:]
            self.returned = {name: self.returned[name] for name in last}

    def forget_returned(self, theirs: Collection[str]) -> None:
        """What another machine has registered first is there with what it returned there."""
        for name, outputs in self.results.items() if theirs else ():
            if not set(ids_of(outputs).values()).isdisjoint(theirs):
                self.returned.pop(name, None)


def ids_of(outputs: Mapping[str, DatasetRef]) -> dict[str, str]:
    """{output: id of its dataset}."""
    return {output: dataset.mfid for output, dataset in outputs.items()}
