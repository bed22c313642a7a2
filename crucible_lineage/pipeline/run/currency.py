"""The results that a run relies on: made current, and checked.

Conditions are evaluated once. Verdicts are recorded as statements, many in one, and evaluated again only if the
condition has changed. A dataset whose check fails is put on hold at once if the check says so; the hold is lifted when
a later condition is met.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword
from crucible_lineage.errors import CrucibleError, ForbiddenError, LineageError
from crucible_lineage.json_types import JsonMapping, mapping
from crucible_lineage.lineage.fields import fields_of
from crucible_lineage.pipeline.declare.parts import FAIL, WARN, Check
from crucible_lineage.pipeline.declare.pipeline import Approve
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.inputs import Inputs
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.pipeline.plan.planner import ProjectIndex
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.register import add_equal_parents, new_parents
from crucible_lineage.session import Session
from crucible_lineage.standing.currency import Currency
from crucible_lineage.standing.slots import ClaimingRun
from crucible_lineage.statements.statements import AWAIT, CHECK, FLAG, HOLD, About, CheckResult, Mention
from crucible_lineage.statements.stating import account_ids, makers_of, revoke, state

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient

MAX_VERDICTS = 200  # chosen: verdicts in one statement, so that its record fits into metadata
Returned = Mapping[str, Mapping[str, object]]


class SlotWriter:
    """Makes the results current that a run of a pipeline relies on. A result known to be current costs no call."""

    def __init__(self, session: Session, plan: PipelinePlan, pipeline: str, run_id: str, path: Path | None) -> None:
        self.session = session
        self.instances = plan.instances
        self.index = plan.index
        self.pipeline = pipeline
        file, folder = (path.name, path.parent) if path else (None, None)
        self.run = ClaimingRun(run_id, datetime.now(UTC), file, folder)
        self._made: dict[str, str] = {}  # by slot, the result that this run made
        self._reused: dict[str, StepPlan] = {}  # by instance, those that the run relies on
        self.again: list[str] = []  # instances whose result became current again
        self.wrote = False  # to an existing result
        self.notes: dict[str, str] = {}  # by instance, links that another account has to write

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
            slots = {ref.mfid: self.instances[name].slots.get(output, ()) for output, ref in update.results.items()}
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


# Checks


@dataclass(frozen=True)
class _Subject:
    """A dataset to be checked: the step or input that declares the checks, and the name of the instance."""

    declared_by: str
    name: str
    mfid: str
    checks: Mapping[str, Check]
    params: Mapping[str, object] = field(default_factory=dict)
    output: str = ""


@dataclass
class RunChecks:
    """The checks and candidates of one run. `failed` are steps that failed because of a check, `held` those whose
    results a check put on hold, `waiting` those whose results need a signature, `messages` are by step; `has_lifted`
    says that a hold was revoked.
    """

    pipeline: BoundPipeline
    session: Session
    index: ProjectIndex
    messages: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    has_lifted: bool = False
    _new: dict[str, dict[str, dict[str, CheckResult]]] = field(default_factory=dict)
    _known: Mapping[str, Mapping[str, CheckResult]] | None = None

    def evaluate_inputs(self, inputs: Inputs) -> None:
        """Evaluate the checks of inputs whose metadata Crucible has ingested."""
        for name, declared in self.pipeline.spec.inputs.items():
            if declared.checks:
                mfids = [item.dataset.mfid for item in inputs.get(name, ()) if item.dataset]
                self._look([_Subject(name, name, mfid, declared.checks) for mfid in mfids], {})

    def evaluate(
        self, instances: Sequence[tuple[Instance, Mapping[str, DatasetRef]]], returned: Returned | None = None
    ) -> None:
        """Evaluate the checks of these instances on their results, except for conditions evaluated before.

        `returned` are the values that the step of a single instance returned, by output, if known here.
        """
        self._look(
            [
                _Subject(
                    instance.step.name,
                    instance.name,
                    ref.mfid,
                    instance.step.spec.checks,
                    instance.inspection.params,
                    output,
                )
                for instance, results in instances
                for output, ref in results.items()
            ],
            returned or {},
        )

    def record(self) -> None:
        """Register the new verdicts: one statement for many."""
        if not self._new:
            return
        for declared_by, verdicts in self._new.items():
            listed = sorted(verdicts.items())
            for first in range(0, len(listed), MAX_VERDICTS):
                batch = dict(listed[first : first + MAX_VERDICTS])
                conditions = {name: it.that for given in batch.values() for name, it in given.items()}
                entries = {
                    mfid: {name: {"passed": it.passed, "values": dict(it.values)} for name, it in given.items()}
                    for mfid, given in batch.items()
                }
                body = {"of": f"{self.pipeline.name}/{declared_by}", "checks": conditions, "verdicts": entries}
                state(self.session, self.pipeline.spec.project, CHECK, About(tuple(batch)), body=body)
        self._new.clear()

    def _look(self, subjects: Sequence[_Subject], returned: Returned) -> None:
        open_checks = [(subject, checks) for subject in subjects if (checks := self._open(subject))]
        self.index.results.read_ahead([subject.mfid for subject, _ in open_checks if subject.output not in returned])
        for subject, checks in open_checks:
            fields = {**self._fields(subject, returned), "params": subject.params}
            for name, check in checks.items():
                verdict = check.of(fields)
                is_step = subject.declared_by in self.pipeline.steps
                if not is_step and None in verdict.values.values():  # it may not be ingested yet
                    self._add_message(subject, f"check {name} was not evaluated: {verdict.values_text}")
                else:
                    self._judge(subject, name, check, verdict)

    def _judge(self, subject: _Subject, name: str, check: Check, verdict: CheckResult) -> None:
        try:
            self._apply(subject, name, check, verdict)
        except CrucibleError as error:
            self._add_message(subject, f"check {name} is not recorded; the next run records it: {error}")
            if not verdict.passed and check.otherwise != WARN:
                self.index.note_on_hold(subject.mfid, f"{subject.mfid} is to be on hold: {check.that} is not met")
        else:
            self._new.setdefault(subject.declared_by, {}).setdefault(subject.mfid, {})[name] = verdict

    def _open(self, subject: _Subject) -> dict[str, Check]:
        """Return the checks without a verdict; report the failed ones among the others."""
        if self._known is None:
            self._known = self.session.mirror.verdicts(self.pipeline.spec.project)
        known, left = self._known.get(subject.mfid, {}), {}
        for name, check in subject.checks.items():
            before = known.get(self._key(subject, name))
            if before is None or before.that != check.that:
                left[name] = check
            elif not before.passed:
                self._note(subject, name, check, before)
        return left

    def _fields(self, subject: _Subject, returned: Returned) -> JsonMapping:
        """Return the fields of the dataset, if need be by what its step returned."""
        if subject.output in returned:
            return dict.fromkeys(("results", "metadata"), returned[subject.output])
        found = self.index.results.registered_as(subject.mfid)
        return fields_of(found.dataset.model_dump()) if found else {}

    def _apply(self, subject: _Subject, name: str, check: Check, verdict: CheckResult) -> None:
        """Put a dataset whose check failed on hold, or flag it; revoke the statements of earlier conditions."""
        key, mirror = self._key(subject, name), self.session.mirror
        mentions = (
            entry for verb in (HOLD, FLAG) for entry in mirror.statement_index(verb).datasets.get(subject.mfid, ())
        )
        ids = [Mention(*entry).mfid for entry in mentions]
        before = [found for found in mirror.statements(ids).values() if found.body.get("check") == key] if ids else []
        if not verdict.passed:
            self._note(subject, name, check, verdict)
            verb = FLAG if check.otherwise == WARN else HOLD
            why = f"check {name}: {check.that} is not met, {verdict.values_text}"
            body = {"check": key, "that": check.that, **({"flag": name} if verb == FLAG else {})}
            project = self.pipeline.spec.project
            new = state(self.session, project, verb, About((subject.mfid,)), why=why, body=body).statement
            before = [statement for statement in before if statement.mfid != new.mfid]
        if before:
            revoke(self.session, before, f"check {name}: {check.that} {'is met' if verdict.passed else 'counts now'}")
            self.has_lifted = True
        if before or not verdict.passed:
            self.index.refresh_statements()

    def _note(self, subject: _Subject, name: str, check: Check, verdict: CheckResult) -> None:
        message = f"check {name} failed: {check.that}, and {verdict.values_text}"
        self._add_message(subject, message)
        if check.otherwise == FAIL:
            self.failed[subject.name] = message
        elif check.otherwise != WARN:
            self.held[subject.name] = message

    def _add_message(self, subject: _Subject, message: str) -> None:
        messages = self.messages.setdefault(subject.name, [])
        if message not in messages:
            messages.append(message)

    def _key(self, subject: _Subject, name: str) -> str:
        return f"{self.pipeline.name}/{subject.declared_by}/{name}"

    def await_signatures(self, instance: Instance, results: Mapping[str, DatasetRef], writer: SlotWriter) -> None:
        """State that results wait for signatures, if their step declares so; collect those that do."""
        approve = instance.step.spec.approve
        if approve is None:
            return
        slots = writer.slots_of(instance)
        for output, dataset in results.items():
            try:
                self._await(approve, instance.step.name, dataset.mfid, slots.get(output, {}))
            except LineageError as error:
                message = f"{dataset.mfid} needs a signature, which could not be stated: {error}"
                self.index.note_on_hold(dataset.mfid, message)
                self.waiting[instance.name] = message
                continue
            if self.index.is_candidate(dataset.mfid):
                self.waiting[instance.name] = f"{dataset.mfid} waits for a signature"

    def _await(self, approve: Approve, step: str, mfid: str, slots: Mapping[str, SlotClaim]) -> None:
        names = account_ids(self.session, self.index.project, approve.by)
        policy = {"by": list(names), "count": approve.count, "makers": makers_of(self.session, mfid)}
        if approve.other_than:
            policy["not"] = approve.other_than
        mentions = (Mention(*mention) for mention in self.session.mirror.statement_index(AWAIT).datasets.get(mfid, ()))
        stated = self.session.mirror.statements({mention.mfid for mention in mentions if mention.account})
        bodies = [statement.body for statement in stated.values() if policy.items() <= statement.body.items()]
        claimed = {key for body in bodies for key in mapping(body.get("slots"))}
        if bodies and (slots.keys() <= claimed or not self.index.is_candidate(mfid)):
            return  # under another name of its pipeline, it fills other slots once it is signed
        body = {**policy, "names": names, "slots": {key: claim.to_json() for key, claim in slots.items()}}
        why = f"a result of {step} counts once it is signed"
        state(self.session, self.index.project, AWAIT, About((mfid,)), why=why, body=body)
        self.index.refresh_statements()
