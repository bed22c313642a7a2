"""The results that a run relies on: made current."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword
from crucible_lineage.errors import TRANSIENT, ForbiddenError, LineageError
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.register import add_equal_parents, new_parents
from crucible_lineage.session import Session
from crucible_lineage.standing.currency import Currency
from crucible_lineage.standing.slots import ClaimingRun

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient


class SlotWriter:
    """Makes the results current that a run of a pipeline relies on. A result known to be current costs no call."""

    def __init__(self, session: Session, plan: PipelinePlan, pipeline: str, run_id: str, path: Path | None) -> None:
        self.session = session
        self.instances = plan.instances
        self.index = plan.index
        self.pipeline = pipeline
        file, folder = (path.name, path.parent) if path else (None, None)
        self.run = ClaimingRun(run_id, datetime.now(UTC), file, folder)
        self._relied_on: dict[str, str] = {}  # by slot, the result that this run relies on
        self._lock = threading.Lock()
        self.again: list[str] = []  # instances whose result became current again
        self.wrote = False  # to an existing result
        self.notes: dict[str, str] = {}  # by instance, links that another account has to write
        self.client: CrucibleClient | None = None  # with a short timeout, while steps are executed
        self._is_away = plan.index.is_away
        self._delayed: list[StepPlan] = []

    @property
    def _slots(self) -> tuple[Currency, str]:
        """What fills the slots of the project, and the project."""
        return self.index.results.slots, self.index.project

    def new_slots(self, instance: Instance) -> dict[str, dict[str, SlotClaim]]:
        """Return the slots that the result of each output fills once this run has made it."""
        if instance.step.spec.approve is not None:  # it becomes current once it is signed
            return {output: {} for output in instance.slots}
        return self.slots_of(instance)

    def slots_of(self, instance: Instance) -> dict[str, dict[str, SlotClaim]]:
        """Return the slots that the result of each output fills with this run, or once it is signed."""
        return {
            output: {key: self.run.claim(*self._slots, key) for key in keys} for output, keys in instance.slots.items()
        }

    def note_made(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        """Record results that this run made, and that are current once they are delivered."""
        for output, slots in self.new_slots(instance).items():
            keyword = pipeline_keyword(self.pipeline)
            self.session.mirror.note_slots(self.index.project, [keyword], results[output].mfid, slots)
        if instance.step.spec.approve is None:
            self._note(instance, results)

    def write(self, updates: list[StepPlan]) -> dict[str, str]:
        """Make results of steps current, linked to the parents that they would be made from. Return errors by instance.

        Updates of results that are not at Crucible yet are delayed, as are all updates while steps are executed and the
        service is away.
        """
        ready = self._ready(updates)
        if self._is_away:
            self._delayed += ready
            return {}
        return self._write_now(ready)

    def write_delayed(self, instances: Collection[str]) -> dict[str, str]:
        """Write the delayed updates of these instances, now waiting for the service; return errors by instance."""
        updates, self._delayed, self._is_away, self.client = self._delayed, [], False, None
        return self._write_now(self._ready([update for update in updates if update.name in instances]))

    def waits(self, datasets: Iterable[DatasetRef]) -> bool:
        """Return whether one of the datasets is not at Crucible yet."""
        outbox = self.session.outbox
        return not outbox.is_empty and any(outbox.find(dataset.mfid) for dataset in datasets)

    def _ready(self, updates: list[StepPlan]) -> list[StepPlan]:
        """Return the updates of results that are at Crucible; delay the others."""
        if self.session.outbox.is_empty:
            return updates
        ready: list[StepPlan] = []
        for update in updates:
            datasets = (*update.results.values(), *(part.dataset for part in update.used))
            (self._delayed if self.waits(datasets) else ready).append(update)
        return ready

    def _write_now(self, updates: list[StepPlan]) -> dict[str, str]:
        needed = [
            update
            for update in updates  # results that wait for a signature stay, whatever the declaration says now
            if self._is_needed(update) and not any(self.index.is_candidate(ref.mfid) for ref in update.results.values())
        ]
        if not needed:  # the usual case
            return {}
        client = self.client or self.session.client
        outcomes = client.at_once(*(partial(self._write, update, client) for update in needed))
        return {update.name: error for update, error in zip(needed, outcomes, strict=True) if error}

    def _is_needed(self, update: StepPlan) -> bool:
        return bool(_new_parents(update)) or any(
            not self._is_current(key, update.results[output].mfid)
            for output, keys in self.instances[update.name].slots.items()
            for key in keys
        )

    def _is_current(self, key: str, mfid: str) -> bool:
        """Return whether this result alone is current in a slot for this declaration."""
        before = self._relied_on.get(key)
        return before == mfid if before is not None else self.run.current(*self._slots, key) == {mfid}

    def _write(self, update: StepPlan, client: CrucibleClient) -> str:
        """Make the results of a step current. Return why that is impossible; empty if it is done or delayed."""
        equal = _new_parents(update)
        changed = False
        try:
            for output, keys in self.instances[update.name].slots.items():
                dataset = update.results[output]
                if equal:
                    self._link(update.name, dataset, equal, client)
                new = [key for key in keys if not self._is_current(key, dataset.mfid)]
                made = self.run.make_current(self.session.mirror, client, *self._slots, dataset.mfid, new)
                self.wrote = self.wrote or bool(made)
                changed = changed or any(self.index.current_in(key) != (dataset.mfid,) for key in made)
        except LineageError as error:
            if self.client is None or not isinstance(error, TRANSIENT):
                return f"the result exists, but could not be marked as current: {error}"
            self._is_away = True
            self._delayed.append(update)
            return ""
        if changed:  # and not only the declaration has another name
            with self._lock:
                self.again.append(update.name)
        self._note(self.instances[update.name], update.results)
        return ""

    def _link(self, name: str, dataset: DatasetRef, equal: Mapping[str, str], client: CrucibleClient) -> None:
        """Link the dataset to further parents; if this account may not do that, add a note."""
        try:
            add_equal_parents(client, dataset.mfid, equal)
        except ForbiddenError as refusal:  # contributors may not link datasets of other members
            record = read_record(client.metadata.get(dataset.mfid) or {})
            if record is None or not equal.keys() <= (record.equal_parents or {}).keys():
                reason = str(refusal).partition("\n")[0]
                self.notes[name] = (
                    f"current, but not linked to {', '.join(equal)}, from which it would be made now: {reason}; "
                    "the owner or an editor of the project can add the links by running this once"
                )
                return
        self.session.mirror.trust({dataset.mfid: replace(dataset, equals=(*dataset.equals, *equal))})

    def _note(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        slots = {key: results[output].mfid for output, keys in instance.slots.items() for key in keys}
        with self._lock:
            self._relied_on |= slots


def _new_parents(update: StepPlan) -> dict[str, str]:
    dataset = next(iter(update.results.values()), None)
    own = {ref.mfid for ref in update.results.values()}
    return new_parents(dataset, update.used, own) if dataset else {}
