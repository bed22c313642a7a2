"""The results that a run relies on: made current, and their descriptions updated where only `output:` has changed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim, hold, is_replaced_by_hand, later_than, pipeline_keyword
from crucible_lineage.errors import TRANSIENT, ForbiddenError, LineageError
from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.known import ProjectIndex
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.reliance import add_equal_parents, new_parents
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.pipeline.job.job import Job


@dataclass(frozen=True)
class SlotUpdate:
    """An instance with existing results, and the parents that it would be made from now."""

    instance: Instance
    results: Mapping[str, DatasetRef]
    used: tuple[UsedDataset, ...]


class SlotWriter:
    """Makes the results current that a run of a pipeline relies on. A result known to be current costs no call.

    `file` is the name of the declaration; None if there is none, and results take over the slots of recorded ones.
    Other names in a slot belong to other declarations if a file of that name is beside this one; else they are former
    names of this one. Results for a `campaign` become current with its promotion.
    """

    def __init__(
        self,
        session: Session,
        index: ProjectIndex,
        pipeline: str,
        run_id: str,
        path: Path | None,
        campaign: str = "",
    ) -> None:
        self.campaign = campaign
        self.session = session
        self.index = index
        self.pipeline = pipeline
        self.run_id = run_id
        self.file = path.name if path else None
        self.folder = path.parent if path else None
        self._relied_on: dict[str, str] = {}  # by slot, the result that this run relies on
        self._begun = datetime.now(UTC)
        self._lock = threading.Lock()
        self.again: list[str] = []  # instances whose result became current again
        self.wrote = False  # to an existing result
        self.notes: dict[str, str] = {}  # by instance, links that another account has to write

    def new_slots(self, instance: Instance) -> dict[str, dict[str, SlotClaim]]:
        """Return the slots that the result of each output fills once this run has made it."""
        if instance.step.spec.approve is not None:  # it becomes current once it is signed
            return {output: {} for output in instance.slots}
        return self.slots_of(instance)

    def slots_of(self, instance: Instance) -> dict[str, dict[str, SlotClaim]]:
        """Return the slots that the result of each output fills with this run, or once it is signed."""
        return {output: {key: self._claim(key) for key in keys} for output, keys in instance.slots.items()}

    def note_made(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        """Record results that this run made, and that are current once they are delivered."""
        for output, slots in self.new_slots(instance).items():
            keyword = pipeline_keyword(self.pipeline)
            self.session.mirror.note_held(self.index.project, [keyword], results[output].mfid, slots)
        if instance.step.spec.approve is None:
            self._note(instance, results)

    def write(
        self,
        updates: Iterable[SlotUpdate],
        client: CrucibleClient | None = None,
        away: Callable[[SlotUpdate], None] | None = None,
    ) -> dict[str, str]:
        """Make results current, and link them to the parents that they would be made from. Return errors by instance.

        `away` receives the updates for which `client` found the service away; these do not count as failed.
        """
        needed = [update for update in updates if self._is_needed(update) and not self._is_candidate(update)]
        if not needed:  # the usual case
            return {}
        client = client or self.session.client
        outcomes = client.at_once(*(partial(self._try, update, client, away) for update in needed))
        return {update.instance.name: error for update, error in zip(needed, outcomes, strict=True) if error}

    def _is_candidate(self, update: SlotUpdate) -> bool:
        approve = update.instance.step.spec.approve
        return approve is not None and any(self.index.is_candidate(one.mfid) for one in update.results.values())

    def _is_needed(self, update: SlotUpdate) -> bool:
        return bool(_new_parents(update)) or any(
            not self._holds(key, update.results[output].mfid)
            for output, keys in update.instance.slots.items()
            for key in keys
        )

    def _holds(self, key: str, mfid: str) -> bool:
        """Return whether this result alone is current in a slot for this declaration."""
        if self.campaign:
            own = self.index.results.claims.get(mfid, {}).get(key)
            if (own is not None and own.campaign == self.campaign) or self._holding(key) == [mfid]:
                return True
        before = self._relied_on.get(key)
        return before == mfid if before is not None else self._holding(key) == [mfid]

    def _try(self, update: SlotUpdate, client: CrucibleClient, away: Callable[[SlotUpdate], None] | None) -> str:
        try:
            self._write(update, client)
        except LineageError as error:
            if away is not None and isinstance(error, TRANSIENT):
                away(update)
                return ""
            return f"the result exists, but could not be marked as current: {error}"
        return ""

    def _write(self, update: SlotUpdate, client: CrucibleClient) -> None:
        equal = _new_parents(update)
        changed = False
        for output, keys in update.instance.slots.items():
            dataset = update.results[output]
            if equal:
                self._link(update.instance.name, dataset, equal, client)
            new = [key for key in keys if not self._holds(key, dataset.mfid)]
            by_hand = {key for key in new if self._is_replaced_by_hand(key, dataset.mfid)}
            missing = [key for key in new if key not in by_hand]
            if not missing:
                continue
            found = self.index.results.registered_as(dataset.mfid)
            slots = found.status.slots if found else {}
            alone = {key for key in new if self.index.holding(key) == (dataset.mfid,)}
            claims = {key: self._claim(key, dataset.mfid, slots.get(key)) for key in missing}
            self.wrote = True
            hold(self.session.mirror, client, self.index.project, dataset.mfid, claims)
            is_renamed = alone.issuperset(missing)  # only the declaration has another name
            changed = changed or not (self.campaign or is_renamed)
        if changed:
            with self._lock:
                self.again.append(update.instance.name)
        self._note(update.instance, update.results)

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

    def _holding(self, key: str) -> list[str]:
        """Return the datasets that are current in a slot for this declaration, as of the sync."""
        currency = self.index.results.slots
        holding = self.index.holding(key)
        return [mfid for mfid in holding if self.file is None or self.file in currency.slots(mfid)[key].files]

    def _is_replaced_by_hand(self, key: str, mfid: str) -> bool:
        def replaced(holder: str) -> str | None:
            one = self.index.results.registered_as(holder)
            return one.record.replaces if one and one.record and one.step_record is None else None

        return is_replaced_by_hand(self.index.holding(key), mfid, replaced)

    def _note(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        slots = {key: results[output].mfid for output, keys in instance.slots.items() for key in keys}
        with self._lock:
            self._relied_on |= slots

    def _claim(self, key: str, mfid: str = "", before: SlotClaim | None = None) -> SlotClaim:
        """Return this run's claim to a slot, later than all earlier ones."""
        since = later_than(self._begun, (claim.since for claim in self.index.claims(key)))
        if self.campaign:
            return SlotClaim(since, self.run_id, self.file or self._declared_in(key), campaign=self.campaign)
        if self.file is None or self.folder is None:
            previous = before or SlotClaim("", "")
            return SlotClaim(since, self.run_id, self._declared_in(key), previous.also, previous.was)
        names = {*before.files, *before.was} - {"", self.file} if before else set()
        if not names:
            return SlotClaim(since, self.run_id, self.file)
        others = names.intersection(self.index.results.slots.latest_for(mfid, key))
        also = {name for name in others if (self.folder / name).is_file()}
        return SlotClaim(since, self.run_id, self.file, tuple(sorted(also)), tuple(sorted(others - also)))

    def _declared_in(self, key: str) -> str:
        return max(self.index.claims(key), key=lambda one: one.since, default=SlotClaim("", "")).declared_in


def _new_parents(update: SlotUpdate) -> dict[str, str]:
    dataset = next(iter(update.results.values()), None)
    own = {one.mfid for one in update.results.values()}
    return new_parents(dataset, update.used, own) if dataset else {}


class SlotUpdates:
    """The slot updates of one run, with those that have to wait for delivery or for the service."""

    def __init__(self, writer: SlotWriter, outbox: Outbox, *, is_away: bool = False) -> None:
        self._writer = writer
        self._outbox = outbox
        self._delayed: list[SlotUpdate] = []
        self._is_away = is_away
        self.client: CrucibleClient | None = None  # with a short timeout, while steps are executed

    def write(self, updates: list[SlotUpdate]) -> dict[str, str]:
        """Make results current; return errors by instance.

        Updates of results that are not at Crucible yet are delayed, as are all updates while steps are executed and the
        service is away.
        """
        ready = self._ready(updates)
        if self._is_away:
            self._delayed += ready
            return {}
        return self._writer.write(ready, self.client, self._note_away if self.client else None)

    def write_delayed(self, instances: Collection[str]) -> dict[str, str]:
        """Write the delayed updates of these instances, now waiting for the service; return errors by instance."""
        updates, self._delayed, self._is_away = self._delayed, [], False
        return self._writer.write(self._ready([update for update in updates if update.instance.name in instances]))

    def _note_away(self, update: SlotUpdate) -> None:
        self._is_away = True
        self._delayed.append(update)

    def _ready(self, updates: list[SlotUpdate]) -> list[SlotUpdate]:
        """Return the updates of results that are at Crucible; delay the others."""
        if self._outbox.is_empty:
            return updates
        ready: list[SlotUpdate] = []
        for update in updates:
            datasets = (*update.results.values(), *(part.dataset for part in update.used))
            (self._delayed if self.waits(datasets) else ready).append(update)
        return ready

    def waits(self, datasets: Iterable[DatasetRef]) -> bool:
        """Return whether one of the datasets is not at Crucible yet."""
        return not self._outbox.is_empty and any(self._outbox.find(dataset.mfid) for dataset in datasets)


WHOLE = ""  # the declaration as a whole
FIELDS = ("measurement", "data_type", "session_name")


@dataclass(frozen=True)
class DescriptionChanges:
    """The changed descriptions in words, and the errors, by instance."""

    messages: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def apply_descriptions(
    pipeline: BoundPipeline,
    steps: Iterable[StepPlan],
    instances: Mapping[str, Instance],
    session: Session,
    run_id: str,
) -> DescriptionChanges:
    """Apply a changed `output:` to the existing results of its step."""
    changes, is_partial, project = DescriptionChanges(), False, pipeline.spec.project
    before = session.store.described(project, pipeline.name)
    if before.get(WHOLE) == pipeline.spec.digest:  # most runs: no step need be checked
        return changes
    now = {WHOLE: pipeline.spec.digest, **{step.name: _digest(step) for step in pipeline.steps.values()}}
    changed = {name for name in pipeline.steps if before.get(name, now[name]) != now[name]}
    for step in steps:
        instance = instances[step.name]
        if instance.step.name not in changed:
            continue
        from crucible_lineage.pipeline.job.job import job_of  # most runs change no description

        job = job_of(pipeline, instance, step.used, step.outputs, {"run_id": run_id}, {})
        try:
            message = _redescribe(job, step.results, session)
        except ForbiddenError as refusal:  # contributors may not rename datasets of other members
            reason = str(refusal).partition("\n")[0]
            changes.messages[step.name] = (
                f"the description was not updated: {reason}; "
                "the owner or an editor of the project can update it by running this once"
            )
            is_partial = True  # others have to change some descriptions
            continue
        except LineageError as error:
            changes.errors[step.name] = f"the result exists, but its description could not be updated: {error}"
            continue
        if message:
            changes.messages[step.name] = message
    if not changes.errors and not is_partial:
        session.store.note_described(project, pipeline.name, now)
    return changes


def _redescribe(job: Job, results: Mapping[str, DatasetRef], session: Session) -> str:
    """Change the records of a step's results.

    Return what was and was not changed, in words; empty if nothing had to be.
    """
    changed, unchanged = list[str](), list[str]()
    for output, dataset in results.items():
        record = session.client.datasets.get(dataset.mfid, include_metadata=True)
        declared = _declared_fields(job, output, record.scientific_metadata or {}, session)
        fields = {name: text for name, text in declared.items() if getattr(record, name) != text}
        if fields:
            session.client.datasets.update(dataset.mfid, **fields)
        present = {word.keyword for word in session.client.datasets.get_keywords(dataset.mfid)}
        keywords = [word for word in job.spec.output.keywords if word not in present]
        for keyword in keywords:
            session.client.datasets.add_keyword(dataset.mfid, keyword)
        changed += [f"{name} is {value!r}" for name, value in fields.items()]
        changed += [f"keyword {keyword!r} was added" for keyword in keywords]
        unchanged += _not_applied(job, output, record.scientific_metadata or {})
    return "; ".join(([f"description updated: {'; '.join(changed)}"] if changed else []) + unchanged)


def _not_applied(job: Job, output: str, present: Mapping[str, object]) -> list[str]:
    """Describe declared metadata that the result lacks: they cannot change, since its record has their hash."""
    missing = [name for name, value in job.spec.output.metadata.items() if present.get(name, ...) != value]
    where = "" if len(job.inspection.outputs) == 1 else f" of {output}"
    step = job.name.partition("[")[0]
    return [f"metadata {name!r}{where} is unchanged until `--force {step}` reruns the step" for name in missing]


def _declared_fields(job: Job, output: str, metadata: Mapping[str, object], session: Session) -> dict[str, object]:
    from crucible_lineage.pipeline.job.job import dataset_name
    from crucible_lineage.pipeline.job.materialize import fields_of

    name, _ = dataset_name(job, output, metadata, partial(fields_of, session))
    described = job.inspection.described(job.spec.output)
    return {"dataset_name": name, **{field: described[field] for field in FIELDS if field in described}}


def _digest(step: BoundStep) -> str:
    declared = step.spec.output
    output = declared.model_dump(mode="json", include={"dataset_name", "keywords", *FIELDS})
    if declared.metadata:
        output["metadata"] = declared.metadata
    return hashlib.sha256(canonical_json(output)).hexdigest()[:16]
