"""The results that a run relies on: made current, and described again where only their `output:` has changed."""

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
from crucible_lineage.core.store import Store
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
from crucible_lineage.registration.reliance import add_equal_parents
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.pipeline.job.job import Job


@dataclass(frozen=True)
class SlotUpdate:
    """An instance whose results are there: they, and the parents that it would be made of now."""

    instance: Instance
    results: Mapping[str, DatasetRef]
    used: tuple[UsedDataset, ...]


class SlotWriter:
    """What a run of a pipeline relies on. A result that holds already, as far as is known, costs no call.

    `file` is that of the declaration; None where there is none, and results take over the slots of recorded ones.
    Other declarations of this name are told from former names of this one by whether they lie beside it. What it relies
    on for a `campaign` holds once that is promoted.
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
        self._relied_on: dict[str, str] = {}  # by slot, what this run relies on
        self._begun = datetime.now(UTC)
        self._lock = threading.Lock()
        self.again: list[str] = []  # instances whose result has become current again
        self.wrote = False  # something that was there already
        self.notes: dict[str, str] = {}  # by instance, what of its result is for others to note

    def new_slots(self, instance: Instance) -> dict[str, dict[str, SlotClaim]]:
        """For each output, the slots that its result holds once it is made by this run."""
        if instance.step.spec.approve is not None:  # it holds once it is signed
            return {output: {} for output in instance.slots}
        return self.slots_of(instance)

    def slots_of(self, instance: Instance) -> dict[str, dict[str, SlotClaim]]:
        """For each output, the slots that this run makes its result hold, or that it will hold once it is signed."""
        return {output: {key: self._filled(key) for key in keys} for output, keys in instance.slots.items()}

    def note_made(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        """Note that these results were made by this run, and hold once they are delivered."""
        for output, slots in self.new_slots(instance).items():
            keyword = pipeline_keyword(self.pipeline)
            self.session.mirror.note_held(self.index.project, [keyword], results[output].mfid, slots)
        if instance.step.spec.approve is None:
            self._note(instance, results)

    def rely(
        self,
        relied: Iterable[SlotUpdate],
        client: CrucibleClient | None = None,
        away: Callable[[SlotUpdate], None] | None = None,
    ) -> dict[str, str]:
        """The results hold, and are linked to the parents they would be of. Why that failed, by instance.

        `away` hears of those for which `client` found the service away, and then that is no failure yet.
        """
        wanted = [one for one in relied if self._is_news(one) and not self._is_candidate(one)]
        attempt = partial(self._try, client=client, away=away)
        if not wanted:  # as mostly
            return {}
        outcomes = (client or self.session.client).at_once(*(partial(attempt, one) for one in wanted))
        return {one.instance.name: error for one, error in zip(wanted, outcomes, strict=True) if error}

    def _is_candidate(self, relied: SlotUpdate) -> bool:
        approve = relied.instance.step.spec.approve
        return approve is not None and any(self.index.is_candidate(one.mfid) for one in relied.results.values())

    def _is_news(self, relied: SlotUpdate) -> bool:
        return bool(_new_parents(relied)) or any(
            not self._holds(key, relied.results[output].mfid)
            for output, keys in relied.instance.slots.items()
            for key in keys
        )

    def _holds(self, key: str, mfid: str) -> bool:
        """Return whether just this result holds in a slot for this declaration."""
        if self.campaign:
            own = self.index.results.filled.get(mfid, {}).get(key)
            if (own is not None and own.campaign == self.campaign) or self._holding(key) == [mfid]:
                return True
        before = self._relied_on.get(key)
        return before == mfid if before is not None else self._holding(key) == [mfid]

    def _try(self, relied: SlotUpdate, client: CrucibleClient | None, away: Callable[[SlotUpdate], None] | None) -> str:
        try:
            self._rely(relied, client or self.session.client)
        except LineageError as error:
            if away is not None and isinstance(error, TRANSIENT):
                away(relied)
                return ""
            return f"the result exists, but could not be marked as current: {error}"
        return ""

    def _rely(self, relied: SlotUpdate, client: CrucibleClient) -> None:
        equal = _new_parents(relied)
        changed = False
        for output, keys in relied.instance.slots.items():
            dataset = relied.results[output]
            if equal:
                self._link(relied.instance.name, dataset, equal, client)
            news = [key for key in keys if not self._holds(key, dataset.mfid)]
            by_hand = {key for key in news if self._is_replaced_by_hand(key, dataset.mfid)}
            missing = [key for key in news if key not in by_hand]
            if not missing:
                continue
            found = self.index.registered_as(dataset.mfid)
            slots = found.status.slots if found else {}
            alone = {key for key in news if self.index.holding(key) == (dataset.mfid,)}
            filled = {key: self._filled(key, dataset.mfid, slots.get(key)) for key in missing}
            self.wrote = True
            hold(self.session.mirror, client, self.index.project, dataset.mfid, filled)
            changed = changed or not (
                self.campaign or alone.issuperset(missing)
            )  # else only its declaration was renamed
        if changed:
            with self._lock:
                self.again.append(relied.instance.name)
        self._note(relied.instance, relied.results)

    def _link(self, name: str, dataset: DatasetRef, equal: Mapping[str, str], client: CrucibleClient) -> None:
        """The dataset is a child of these too; if this account may not say so of it, that is noted."""
        try:
            add_equal_parents(client, dataset.mfid, equal)
        except ForbiddenError as refusal:  # what another member has made, a contributor may use and not link
            record = read_record(client.metadata.get(dataset.mfid) or {})
            if record is None or not equal.keys() <= (record.equal_parents or {}).keys():
                reason = str(refusal).partition("\n")[0]
                self.notes[name] = (
                    f"current, but not linked to {', '.join(equal)}, from which it would be made now: {reason}; "
                    "the owner or an editor of the project can add the links by running this once"
                )
                return
        self.session.mirror.trust({dataset.mfid: _with_equals(dataset, equal)})

    def _holding(self, key: str) -> list[str]:
        """Return what holds in a slot for this declaration, as of the sync."""
        currency = self.index.currency()
        holding = self.index.holding(key)
        return [mfid for mfid in holding if self.file is None or self.file in currency.slots(mfid)[key].files]

    def _is_replaced_by_hand(self, key: str, mfid: str) -> bool:
        def replaced(holder: str) -> str | None:
            one = self.index.registered_as(holder)
            return one.record.replaces if one and one.record and one.step_record is None else None

        return is_replaced_by_hand(self.index.holding(key), mfid, replaced)

    def _note(self, instance: Instance, results: Mapping[str, DatasetRef]) -> None:
        slots = {key: results[output].mfid for output, keys in instance.slots.items() for key in keys}
        with self._lock:
            self._relied_on |= slots

    def _filled(self, key: str, mfid: str = "", before: SlotClaim | None = None) -> SlotClaim:
        """That this run relied on something there: later than whoever filled the slot before."""
        since = later_than(self._begun, (filled.since for filled in self.index.claims(key)))
        if self.campaign:
            return SlotClaim(since, self.run_id, self.file or self._declared_in(key), campaign=self.campaign)
        if self.file is None or self.folder is None:
            kept = before or SlotClaim("", "")
            return SlotClaim(since, self.run_id, self._declared_in(key), kept.also, kept.was)
        names = {*before.files, *before.was} - {"", self.file} if before else set()
        if not names:
            return SlotClaim(since, self.run_id, self.file)
        others = names.intersection(self.index.currency().latest_for(mfid, key))
        also = {name for name in others if (self.folder / name).is_file()}
        return SlotClaim(since, self.run_id, self.file, tuple(sorted(also)), tuple(sorted(others - also)))

    def _declared_in(self, key: str) -> str:
        return max(self.index.claims(key), key=lambda one: one.since, default=SlotClaim("", "")).declared_in


def _new_parents(relied: SlotUpdate) -> dict[str, str]:
    """{parent that it would be made of now: parent that it was made of}, where that is another one and is not noted."""
    dataset = next(iter(relied.results.values()), None)
    if dataset is None or len(dataset.parents) != len(relied.used):
        return {}
    own = {one.mfid for one in relied.results.values()}  # a step that leaves its own result as it is
    noted = {*dataset.parents, *dataset.equals, *own}
    pairs = zip(relied.used, dataset.parents, strict=True)
    return {part.dataset.mfid: was for part, was in pairs if part.dataset.mfid not in noted}


def _with_equals(dataset: DatasetRef, equal: Mapping[str, str]) -> DatasetRef:
    return replace(dataset, equals=(*dataset.equals, *equal))


class SlotUpdates:
    """The reliance of one run, and what of it has to wait."""

    def __init__(self, reliance: SlotWriter, outbox: Outbox, *, is_away: bool = False) -> None:
        self._reliance = reliance
        self._outbox = outbox
        self._later: list[SlotUpdate] = []
        self._is_away = is_away
        self.client: CrucibleClient | None = None  # one that gives up soon, while steps are being made

    def rely(self, relied: list[SlotUpdate]) -> dict[str, str]:
        """Make them hold from now on.

        Returns the reason by instance where that failed. Of what is not at Crucible yet it is noted later.
        So it is while steps are being made and the service is away.
        """
        ready = self._ready(relied)
        if self._is_away:
            self._later += ready
            return {}
        if self.client is None:
            return self._reliance.rely(ready)
        return self._reliance.rely(ready, self.client, self._note_away)

    def rely_on_arrived(self, wanted: Collection[str]) -> dict[str, str]:
        """The same of what had to wait, as far as these instances are still wanted. Now the service is waited for."""
        relied, self._later, self._is_away = self._later, [], False
        return self._reliance.rely(self._ready([one for one in relied if one.instance.name in wanted]))

    def _note_away(self, relied: SlotUpdate) -> None:
        self._is_away = True
        self._later.append(relied)

    def _ready(self, relied: list[SlotUpdate]) -> list[SlotUpdate]:
        """Return those that are at Crucible; keep the rest for later."""
        later = [one for one in relied if self._is_on_its_way(one)] if not self._outbox.is_empty else []
        self._later += later
        return [one for one in relied if one not in later] if later else relied

    def waits(self, datasets: Iterable[DatasetRef]) -> bool:
        """True if one of them is not at Crucible yet."""
        return not self._outbox.is_empty and any(self._outbox.find(dataset.mfid) for dataset in datasets)

    def _is_on_its_way(self, relied: SlotUpdate) -> bool:
        return self.waits((*relied.results.values(), *(part.dataset for part in relied.used)))


WHOLE = ""  # the declaration as a whole
FIELDS = ("measurement", "data_type", "session_name")


@dataclass(frozen=True)
class DescriptionChanges:
    """By instance: what was changed, in words, and why that failed."""

    told: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def apply_descriptions(
    pipeline: BoundPipeline,
    steps: Iterable[StepPlan],
    instances: Mapping[str, Instance],
    session: Session,
    run_id: str,
) -> DescriptionChanges:
    """Apply a changed `output:` to the results of its step that are there."""
    described, found = _Redescription(session.store, pipeline), DescriptionChanges()
    for step in steps if described.changed else ():
        instance = instances[step.name]
        if instance.step.name not in described.changed:
            continue
        from crucible_lineage.pipeline.job.job import job_of  # most runs describe nothing again

        job = job_of(pipeline, instance, step.used, step.outputs, {"run_id": run_id}, {})
        try:
            told = _redescribe(job, step.results, session)
        except ForbiddenError as refusal:  # a contributor may use what another member has made, not rename it
            reason = str(refusal).partition("\n")[0]
            found.told[step.name] = (
                f"the description was not updated: {reason}; "
                "the owner or an editor of the project can update it by running this once"
            )
            described.left = True
            continue
        except LineageError as error:
            found.errors[step.name] = f"the result exists, but its description could not be updated: {error}"
            continue
        if told:
            found.told[step.name] = told
    if not found.errors and not described.left:
        described.note()
    return found


class _Redescription:
    """Which declared steps describe their outputs otherwise than when their results were last looked at."""

    def __init__(self, store: Store, pipeline: BoundPipeline) -> None:
        self.store = store
        self.pipeline = pipeline
        self.before = store.described(pipeline.spec.project, pipeline.name)
        self.left = False  # something is for others to change
        whole = {WHOLE: pipeline.spec.digest}
        same = self.before.get(WHOLE) == pipeline.spec.digest  # most runs: no step need be looked at
        self.now = whole if same else {**whole, **{step.name: _digest(step) for step in pipeline.steps.values()}}

    @property
    def changed(self) -> frozenset[str]:
        """The steps whose results are to be described anew."""
        names = self.now.keys() - {WHOLE}
        return frozenset(name for name in names if self.before.get(name, self.now[name]) != self.now[name])

    def note(self) -> None:
        """All results are described as is declared now."""
        if len(self.now) > 1:
            self.store.note_described(self.pipeline.spec.project, self.pipeline.name, self.now)


def _redescribe(job: Job, results: Mapping[str, DatasetRef], session: Session) -> str:
    """Change the records of a step's results.

    Returns what was changed and what was not, in words; empty if nothing had to be.
    """
    told, left = list[str](), list[str]()
    for output, dataset in results.items():
        found = session.client.datasets.get(dataset.mfid, include_metadata=True)
        wanted = _wanted(job, output, found.scientific_metadata or {}, session)
        fields = {name: value for name, value in wanted.items() if value is not None and getattr(found, name) != value}
        if fields:
            session.client.datasets.update(dataset.mfid, **fields)
        present = {word.keyword for word in session.client.datasets.get_keywords(dataset.mfid)}
        words = [word for word in job.spec.output.keywords if word not in present]
        for word in words:
            session.client.datasets.add_keyword(dataset.mfid, word)
        told += [f"{name} is {value!r}" for name, value in fields.items()]
        told += [f"keyword {word!r} was added" for word in words]
        left += _not_applied(job, output, found.scientific_metadata or {})
    return "; ".join(([f"description updated: {'; '.join(told)}"] if told else []) + left)


def _not_applied(job: Job, output: str, present: Mapping[str, object]) -> list[str]:
    """Declared metadata that the result has not: its record holds the hash of those with which it was made."""
    lacking = [name for name, value in job.spec.output.metadata.items() if present.get(name, ...) != value]
    where = "" if len(job.inspection.outputs) == 1 else f" of {output}"
    step = job.name.partition("[")[0]
    return [f"metadata {name!r}{where} is unchanged until `--force {step}` reruns the step" for name in lacking]


def _wanted(job: Job, output: str, metadata: Mapping[str, object], session: Session) -> dict[str, object]:
    from crucible_lineage.pipeline.job.job import dataset_name

    declared, inspection = job.spec.output, job.inspection
    name, _ = dataset_name(job, output, metadata, lambda mfid: _fields(mfid, session))
    by_step = {"measurement": inspection.measurement, "data_type": inspection.data_type}
    described = {field: getattr(declared, field) or by_step.get(field) for field in FIELDS}
    return {"dataset_name": name, **described}


def _fields(mfid: str, session: Session) -> Mapping[str, object]:
    return session.client.datasets.get(mfid, include_metadata=True).model_dump()


def _digest(step: BoundStep) -> str:
    declared = step.spec.output
    output = declared.model_dump(mode="json", include={"dataset_name", "keywords", *FIELDS})
    if declared.metadata:
        output["metadata"] = declared.metadata
    return hashlib.sha256(canonical_json(output)).hexdigest()[:16]
