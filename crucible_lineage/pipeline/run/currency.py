"""The results that a run relies on: made current, unless they wait for signatures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword
from crucible_lineage.errors import ForbiddenError, LineageError
from crucible_lineage.json_types import mapping
from crucible_lineage.pipeline.declare.pipeline import Approve
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.register import add_equal_parents, new_parents
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import ClaimingRun, Currency
from crucible_lineage.statements.statements import AWAIT, About
from crucible_lineage.statements.stating import account_ids, makers_of, state

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient


class SlotWriter:
    """Makes the results current that a run of a pipeline relies on. A result known to be current costs no call."""

    def __init__(self, session: Session, plan: PipelinePlan, pipeline: str, run_id: str, path: Path | None) -> None:
        self.session = session
        self.index = plan.index
        self.pipeline = pipeline
        file, folder = (path.name, path.parent) if path else (None, None)
        self.run = ClaimingRun(run_id, datetime.now(UTC), file, folder)
        self._made: dict[str, str] = {}  # by slot, the result that this run made
        self._reused: dict[str, StepPlan] = {}  # by instance, those that the run relies on
        self.again: list[str] = []  # instances whose result became current again
        self.wrote = False  # to an existing result
        self.notes: dict[str, str] = {}  # by instance, links that another account has to write
        self.unsigned: dict[str, str] = {}  # by instance, why its results wait for signatures

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
            self._made |= {key: results[output].mfid for output, keys in instance.slots.items() for key in keys}
        self._reused.pop(instance.name, None)

    def rely_on(self, reused: StepPlan) -> None:
        """Let the run rely on existing results of a step, linked to the parents that they would be made from now."""
        self._reused[reused.name] = reused

    def write(self, instances: Collection[str]) -> dict[str, str]:
        """Make the reused results of these instances current; return errors by instance.

        A later run does that for results that are not at Crucible yet, and for those that wait for a signature.
        """
        needed: dict[str, Callable[[], str]] = {}
        for name, update in self._reused.items():
            slots = {ref.mfid: update.instance.slots.get(output, ()) for output, ref in update.results.items()}
            new = {mfid: [key for key in keys if not self._is_current(key, mfid)] for mfid, keys in slots.items()}
            first = next(iter(update.results.values()), None)
            equal = new_parents(first, update.used, new) if first else {}
            if name not in instances or not (equal or any(new.values())):  # the usual case
                continue
            waits = self.waits((*update.results.values(), *(part.dataset for part in update.used)))
            if not waits and not any(map(self.index.is_candidate, new)):
                needed[name] = partial(self._write, update, equal, new)
        outcomes = self.session.client.at_once(*needed.values()) if needed else []
        errors = {name: error for name, error in zip(needed, outcomes, strict=True) if error}
        for name in needed.keys() - errors.keys():
            del self._reused[name]
        return errors

    def waits(self, datasets: Iterable[DatasetRef]) -> bool:
        """Return whether one of the datasets is not at Crucible yet."""
        outbox = self.session.outbox
        return not outbox.is_empty and any(outbox.find(dataset.mfid) for dataset in datasets)

    def _is_current(self, key: str, mfid: str) -> bool:
        """Return whether this result alone is current in a slot for this declaration."""
        before = self._made.get(key)
        return before == mfid if before is not None else self.run.current(*self._slots, key) == {mfid}

    def _write(self, update: StepPlan, equal: Mapping[str, str], new: Mapping[str, Iterable[str]]) -> str:
        """Make the results of a step current in new slots. Return why that is impossible; empty if it is done."""
        changed, client = False, self.session.client
        try:
            for dataset in update.results.values():
                if equal:
                    self._link(update.name, dataset, equal, client)
                made = self.run.make_current(self.session.mirror, client, *self._slots, dataset.mfid, new[dataset.mfid])
                self.wrote = self.wrote or bool(made)
                changed = changed or any(self.index.current_in(key) != (dataset.mfid,) for key in made)
        except LineageError as error:
            return f"the result exists, but could not be marked as current: {error}"
        if changed:  # and not only the declaration has another name
            self.again.append(update.name)
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

    # Signatures

    def await_signatures(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        """State that results wait for signatures, if their step declares so; collect those that do."""
        approve = instance.step.spec.approve
        if approve is None:
            return
        slots = self.slots_of(instance)
        for output, dataset in results.items():
            try:
                self._await(approve, instance.step.name, dataset.mfid, slots.get(output, {}))
            except LineageError as error:
                message = f"{dataset.mfid} needs a signature, which could not be stated: {error}"
                self.index.note_on_hold(dataset.mfid, message)
                self.unsigned[instance.name] = message
                continue
            if self.index.is_candidate(dataset.mfid):
                self.unsigned[instance.name] = f"{dataset.mfid} waits for a signature"

    def _await(self, approve: Approve, step: str, mfid: str, slots: Mapping[str, SlotClaim]) -> None:
        names = account_ids(self.session, self.index.project, approve.by)
        policy = {"by": list(names), "count": approve.count, "makers": makers_of(self.session, mfid)}
        if approve.other_than:
            policy["not"] = approve.other_than
        active = self.session.mirror.in_force().statements.values()
        stated = (one for one in active if one.verb == AWAIT and one.account and mfid in one.about.datasets)
        bodies = [statement.body for statement in stated if policy.items() <= statement.body.items()]
        claimed = {key for body in bodies for key in mapping(body.get("slots"))}
        if bodies and (slots.keys() <= claimed or not self.index.is_candidate(mfid)):
            return  # under another name of its pipeline, it fills other slots once it is signed
        body = {**policy, "names": names, "slots": {key: claim.to_json() for key, claim in slots.items()}}
        why = f"a result of {step} counts once it is signed"
        state(self.session, self.index.project, AWAIT, About((mfid,)), why=why, body=body)
        self.index.refresh_statements()
