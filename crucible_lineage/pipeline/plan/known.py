"""What is known of a pipeline's datasets: the local store first, then one bulk look-up by the pipeline's keyword."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.places import SEVERAL, KnownPlaces, Seen
from crucible_lineage.core.slots import Currency, Filled
from crucible_lineage.errors import NotFoundError, RefusedError
from crucible_lineage.ids import has_derived_id
from crucible_lineage.pipeline.inputs.parent_facts import ParentFacts
from crucible_lineage.pipeline.plan.differences import Made, UsedFiles
from crucible_lineage.pipeline.plan.plan import Earlier
from crucible_lineage.provenance.recipe import UsedDataset, derived_mfid, first_attempt, gives_id
from crucible_lineage.refs import DatasetRef, ProjectChanges
from crucible_lineage.registration.others import Others
from crucible_lineage.registration.read import Registered, knows, read, refusals, registered
from crucible_lineage.registration.trust import lies_elsewhere, told_elsewhere, told_other_recipe
from crucible_lineage.server import project_changes, project_revision
from crucible_lineage.session import Session

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.provenance.schema import StepRecord

__all__ = ["ProjectKnowledge", "earlier_result", "pipeline_keyword", "step_records"]


def pipeline_keyword(pipeline: str) -> str:
    """The keyword that all datasets made by a pipeline carry."""
    return f"pipeline:{pipeline}"


FEW = 12  # chosen: datasets that are asked for one by one; a listing of all of them costs more, and then tells all


class ProjectKnowledge:
    """Answers from the store; asks Crucible when that does not know: for a few datasets, else once for all of the
    pipeline. Without a pipeline, for all datasets of the project.
    """

    def __init__(self, session: Session, project: str, pipeline: str | None) -> None:
        self.session = session
        self.project = project
        self.pipeline = pipeline
        self._lock = threading.Lock()
        self._found: dict[str, Registered] | None = None
        self._currency: Currency | None = None
        self._relied_on: Mapping[str, str] | None = None  # as it is at Crucible; None while that is not known
        self._asked: dict[str, Registered | None] = {}  # one by one
        self._others: set[str] = set()  # of these, the results of other pipelines
        self._refused: dict[str, str] = {}
        self._doubtful: frozenset[str] = frozenset()
        self._facts = ParentFacts(session, project)
        self._has_begun = False
        self._loading: Callable[[], dict[str, Registered]] | None = None

    def sync(self) -> None:
        """What the store knows of the pipeline's datasets is as Crucible has it: one cheap call if nothing changed.

        Without a pipeline nothing is kept that could be out of date.
        """
        if self.pipeline is None:
            return
        known = KnownPlaces(self.session.store, self.project, self.pipeline)
        seen = known.seen()
        changes = self._changes(seen.latest if seen else None)
        others = _changed_by_others(seen, changes, known.written()) if changes else frozenset()
        if seen is not None and changes is not None and not others and _nothing_lost(seen, changes):
            known.note_seen(Seen(changes.revision, max([*changes.modified.values(), seen.latest or ""]) or None))
            self._relied_on = known.relied_on()
            return
        self._doubtful = others
        if seen is None and changes is not None and not changes.modified:
            self._found = {}  # there is nothing of this pipeline, as was just told
        self._load()
        self._forget_missing(known)
        if changes is not None:
            known.note_seen(Seen(changes.revision, max(changes.modified.values(), default=None)))

    def begin(self, places: Collection[str]) -> None:
        """The project is there now: what is in it is known before anything is made, and what holds in these places.

        From now on nothing waits for the answer whether a result is there of which nobody had heard when the run began:
        it would be another pipeline's, and is found when it is registered.
        """
        if self.pipeline is not None and KnownPlaces(self.session.store, self.project, self.pipeline).seen() is None:
            self._found = self._currency = None
            self._asked.clear()
            self.sync()
        if not self.session.settings.embedded:
            self._read_holders(places)
        self._has_begun = True

    def _read_holders(self, places: Collection[str]) -> None:
        """The records of what holds there are read now, or are on their way: the service may be away when needed."""
        if not self._asks_for_few:
            return
        holders = {mfid for place in places for mfid in self.holding(place)} - self._asked.keys()
        if len(self._asked) + len(holders) > FEW:
            self._loading = self.session.client.ahead(self._ask)
        elif self._asks_for_few:  # else all have just been read
            read = self.session.at_once(partial(self._ask_for, mfid) for mfid in holders)
            self._asked |= dict(zip(holders, read, strict=True))

    @property
    def _asks_for_few(self) -> bool:
        """True while the store knows all of this pipeline but the records."""
        return self._found is None and self._relied_on is not None

    def _is_news(self, mfid: str) -> bool:
        """True of what nobody had heard of when the run began."""
        return self._has_begun and self._asks_for_few and mfid not in self._asked

    def others(self, client: CrucibleClient) -> Others | None:
        """What tells which of the pipeline's datasets others have changed since it was looked; None if nobody can."""
        store, pipeline = self.session.store, self.pipeline
        if pipeline is None or self.session.settings.embedded or store.assigns_ids():
            return None
        seen, keyword = KnownPlaces(store, self.project, pipeline).seen(), pipeline_keyword(pipeline)
        since = seen.latest if seen else None
        return Others(lambda since: client.datasets.changes(self.project, since, keyword), since)

    def _changes(self, since: str | None) -> ProjectChanges | None:
        """What was changed at Crucible since; None if the project is not there yet."""
        assert self.pipeline is not None
        settings = self.session.settings
        if settings.embedded:  # no server is started for the question whether anything is to be done
            folder = settings.data / "crucible"
            modified = project_changes(folder, self.project, since, pipeline_keyword(self.pipeline))
            revision = project_revision(folder, self.project)
            return ProjectChanges(revision, modified) if revision and modified is not None else None
        try:
            return self.session.client.datasets.changes(self.project, since, pipeline_keyword(self.pipeline))
        except (NotFoundError, RefusedError):
            return None

    def _forget_missing(self, known: KnownPlaces) -> None:
        """What Crucible has lost is not relied on, and what others relied on meanwhile is known."""
        relied_on, found = known.relied_on(), self._load()
        gone = set(relied_on.values()) - found.keys()
        self.session.store.forget(gone)
        keys = {*relied_on, *(key for _, key in self.currency().all_places())}
        now = {key: self.currency().current(key, self.project) for key in keys}
        known.replace({key: holding[0] if len(holding) == 1 else SEVERAL for key, holding in now.items() if holding})

    def complete(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is there and complete."""
        if known := self.session.known(mfid):
            return known
        if self._is_news(mfid):
            return None
        self.registered_as(mfid)
        return self.session.store.known(mfid)

    def is_begun(self, mfid: str) -> bool:
        """True if there is an incomplete record under this id."""
        found = None if self._is_news(mfid) else self.registered_as(mfid)
        return found is not None and found.is_begun

    def refusal(self, mfid: str) -> str:
        """Why what is under this id is not relied on; empty if it is, or if nothing is there."""
        if not self._is_news(mfid):
            self.registered_as(mfid)
        return self._refused.get(mfid, "")

    def registered_as(self, mfid: str) -> Registered | None:
        """The dataset, also an incomplete one, if it has a record; not if it is to be deleted."""
        with self._lock:
            if self._asks_for_few and self._loading is None:
                if mfid not in self._asked and len(self._asked) < FEW:
                    self._asked[mfid] = self._ask_for(mfid)
                if mfid in self._asked:
                    return self._asked[mfid]
        return self._load().get(mfid)

    def registered(self) -> Mapping[str, Registered]:
        """Every dataset that has a record, also incomplete ones."""
        return self._load()

    def current(self, place: str) -> Earlier | None:
        """The result that holds in a place now; the newest, if several declarations have the place."""
        found = {mfid: self.registered_as(mfid) for mfid in self.holding(place)}
        records = ((mfid, one.step_record) for mfid, one in found.items() if one)
        earlier = [earlier_result(mfid, record, self._names(record)) for mfid, record in records if record]
        return max(earlier, key=lambda one: one.mfid, default=None)

    def is_held(self, place: str) -> bool:
        """True if a result holds in a place."""
        return bool(self.holding(place))

    def holding(self, place: str) -> tuple[str, ...]:
        """The results that hold in a place."""
        if self._found is None and self._relied_on is not None:
            holder = self._relied_on.get(place, "")
            if holder != SEVERAL:
                return (holder,) if holder else ()
        return self.currency().current(place, self.project)

    def filled(self, place: str) -> Iterable[Filled]:
        """By whom a place is filled, as far as that may matter to who fills it next."""
        if self._found is None and self._relied_on is not None:
            found = [self.registered_as(mfid) for mfid in self.holding(place)]
            if self._found is None:
                return [one.standing.places[place] for one in found if one and place in one.standing.places]
        return self.currency().filled(place, self.project)

    def look_ahead(self, mfids: Collection[str]) -> None:
        """The facts about these datasets are read, several at a time."""
        self._facts.look_ahead(mfids)

    def facts(self, used: Sequence[UsedDataset]) -> Mapping[str, Any]:
        """What a recipe holds of the facts about these parents. InputError if one cannot be read."""
        return self._facts.of(used)

    def is_of_another_pipeline(self, mfid: str) -> bool:
        """True of a dataset that is there, and was not made or relied on by this pipeline."""
        return mfid not in self._found if self._found is not None else mfid in self._others

    def _names(self, record: StepRecord) -> dict[str, str]:
        """The names of parents, as far as they are known here."""
        known = (self.session.store.known(mfid) for mfid in record.parents)
        return {dataset.mfid: dataset.name for dataset in known if dataset}

    def currency(self) -> Currency:
        """Which of the datasets hold now, as far as Crucible knew at the look-up."""
        found = self._load()
        with self._lock:
            if self._currency is None:
                self._currency = Currency(one.standing for one in found.values())
            return self._currency

    def attempt(self, first_mfid: str) -> int:
        """The latest attempt at the recipe whose first attempt has this id."""
        if self._relied_on is None and self.session.known(first_mfid) is None:
            self._load()
        return self.session.store.attempt(first_mfid)

    def _load(self) -> Mapping[str, Registered]:
        with self._lock:
            if self._found is None:
                self._found = self._loading() if self._loading else self._ask()
            return self._found

    def _ask(self) -> dict[str, Registered]:
        keyword: Any = {"keyword": pipeline_keyword(self.pipeline)} if self.pipeline else {}
        try:
            listed = self.session.client.datasets.list(
                project_id=self.project, include_metadata=True, include_links=True, limit=None, **keyword
            )
        except (NotFoundError, RefusedError):  # the project is not there yet
            return {}
        everything = (registered(self.session.client, dataset) for dataset in listed)
        found = {one.mfid: one for one in everything if one.record is not None}
        self._remember(found.values())
        return found

    def _ask_for(self, mfid: str) -> Registered | None:
        """One dataset. What the store does not know, though it knows all of this pipeline, is of another one."""
        one = read(self.session.client, mfid)
        if one is not None and lies_elsewhere(one.dataset, self.project):
            self._refused[mfid] = told_elsewhere(self.session.client, one.dataset, self.project, f"result {mfid}")
            return None
        if one is None or one.record is None or one.dataset.is_to_be_deleted:
            return None
        if self.session.store.known(one.mfid) is None and one.ref is not None:
            self._others.add(one.mfid)
        self._remember([one])
        return one

    def _remember(self, found: Collection[Registered]) -> None:
        complete: dict[str, DatasetRef] = {}
        assigned: dict[str, DatasetRef] = {}
        refused = dict(self._refusals(found))
        self._refused |= refused
        self.session.store.forget(refused)
        for one in found:
            if one.ref is None or one.record is None or one.mfid in refused:
                continue
            complete[one.mfid] = one.ref
            if one.step_record:
                assigned[derived_mfid(one.record.recipe)] = one.ref  # another one at a service that assigns ids itself
            if one.record.recipe.get("attempt"):
                self.session.store.note_attempt(*first_attempt(one.record.recipe))
        there = {one.mfid for one in found}
        complete |= {mfid: ref for mfid, ref in assigned.items() if mfid not in there}
        self.session.store.remember_as(complete)

    def _refusals(self, found: Collection[Registered]) -> Iterator[tuple[str, str]]:
        """What says that it is complete and is not what its id or its record says, and why.

        Files are compared where this data folder does not know the dataset yet, or others have changed it.
        """
        client, store = self.session.client, self.session.store
        new = []
        for one in found:
            if one.ref is None or one.record is None:
                continue
            if has_derived_id(one.mfid) and not gives_id(one.record.recipe, one.mfid):
                yield one.mfid, told_other_recipe(client, one.dataset, f"result {one.mfid}")
            elif one.mfid in self._doubtful or not knows(store, one):
                new.append(one)
        yield from refusals(client, new).items()


def step_records(found: Mapping[str, Registered]) -> dict[str, StepRecord]:
    """The records of what steps have made, by id."""
    return {mfid: record for mfid, one in found.items() if (record := one.step_record) is not None}


def _changed_by_others(seen: Seen | None, changes: ProjectChanges, written: frozenset[str]) -> frozenset[str]:
    """What was changed since then, and not by this data folder; everything, if it has never looked."""
    latest = seen.latest if seen else None
    return frozenset({mfid for mfid, when in changes.modified.items() if when != latest} - written)


def _nothing_lost(seen: Seen, changes: ProjectChanges) -> bool:
    """True if nothing was lost; a service that tells no revision may have lost anything."""
    lost, _, made = changes.revision.rpartition(":")
    lost_then, _, made_then = seen.revision.rpartition(":")
    is_back = made.isdigit() and made_then.isdigit() and int(made) < int(made_then)
    return bool(lost) and lost == lost_then and not is_back


def earlier_result(mfid: str, record: StepRecord, names: Mapping[str, str]) -> Earlier:
    """A result, with what it was made by; `names` are those of its parents, as far as they are known."""
    code = record.activity.code
    used = tuple(
        UsedFiles(
            role=part.role,
            name=names.get(part.mfid, ""),
            source=part.origin or part.mfid,
            files={file.name: (file.sha256, file.size) for file in part.files or ()},
        )
        for part in record.used
    )
    return Earlier(mfid, Made(record.recipe, code.source, code.pieces or {}, used))
