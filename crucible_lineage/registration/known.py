"""What is known of the results of a pipeline in a project: which are there and may be relied on, and which hold.

Ids decide whether something is there, whatever the pipeline is called: those that the recipes give, also at a service
that gives datasets other ones. What the sync of this run has not seen under the pipeline's keyword is asked for by its
id: few one by one, many with a listing of their project if that is small.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.datasets import in_threads
from crucible_lineage.core.mirror import Judgements, Mirror
from crucible_lineage.core.slots import Currency, DatasetStatus, SlotClaim, pipeline_keyword
from crucible_lineage.errors import InputError
from crucible_lineage.ids import has_derived_id
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt, gives_id
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import (
    Registered,
    knows,
    recipe_keyword,
    refusals,
    registered,
    withdrawn_text,
)
from crucible_lineage.registration.trust import files_of, lies_elsewhere, told_elsewhere, told_other_recipe
from crucible_lineage.service import DERIVED_IDS

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import FileRecord

FEW = 12  # chosen: datasets that are asked for one by one; a listing of all of them costs more, and then tells all
LISTED_FOR_ONE = 50  # chosen: a project is listed for several ids if it has no more datasets than this for each
MOST_FOUND = 500  # chosen: records in memory, 60 kB each; more are read from the mirror again when they are needed
Record = Mapping[str, Any]
Files = Mapping[str, Sequence["FileRecord"]]


class KnownResults:
    """The results of one pipeline in a project; without a pipeline, all that are recorded in it. Thread-safe.

    With `is_away` the service is not asked: what is known is what earlier syncs have seen.
    """

    def __init__(
        self,
        mirror: Mirror,
        client: Callable[[], CrucibleClient],
        project: str,
        pipeline: str | None,
        *,
        is_away: bool = False,
    ) -> None:
        self.mirror = mirror
        self.is_away = is_away
        self.project = project
        self.scope = pipeline_keyword(pipeline) if pipeline is not None else None
        self.members: frozenset[str] = frozenset()  # of the last sync: what has the keyword, and what fills which slots
        self.filled: Mapping[str, Mapping[str, SlotClaim]] = {}
        self._client = client
        self._lock = threading.RLock()
        self._trusted: dict[str, DatasetRef] = {}
        self._found: dict[str, Registered | None] = {}  # as Crucible has them; None of what is not there
        self._in_mirror = deque[str]()  # those of them that the mirror has whole, in the order in which they were read
        self._refused: dict[str, str] = {}
        self._attempts: dict[str, int] | None = None
        self._slots: Currency | None = None
        self._everything: dict[str, Registered] | None = None

    def sync(self) -> None:
        """Bring up to date what is known: one cheap call if nothing changed. Without a pipeline nothing is kept."""
        if self.scope is None:
            return
        with self._lock:
            self._found.clear()
            self._in_mirror.clear()
            if self.is_away:
                self.filled = self.mirror.slots(self.project, self.scope)
            else:
                self.filled = self.mirror.sync(self.project, self.scope, self._judged)
            self.members = self.mirror.members(self.project, self.scope)
            standings = (DatasetStatus(mfid, self.project, True, True, slots) for mfid, slots in self.filled.items())
            self._slots, self._everything, self._attempts = Currency(standings, self.mirror.promoted()), None, None
            self._let_go()

    @property
    def slots(self) -> Currency:
        """Which results hold, as of the last sync."""
        with self._lock:
            if self._slots is None:
                self._slots = Currency((one.status for one in self.registered().values()), self.mirror.promoted())
            return self._slots

    def look(self, mfids: Iterable[str], *, ask: bool = True) -> None:
        """Find out about these datasets together; with `ask`, also of those that no sync has seen."""
        with self._lock:
            new = [mfid for mfid in dict.fromkeys(mfids) if mfid not in self._trusted]
            self._trusted |= self.mirror.known_among(new) if new else {}
            rest = [mfid for mfid in new if mfid not in self._trusted and mfid not in self._refused]
            self._find([mfid for mfid in rest if ask or mfid in self.members])
            self._trust(one for mfid in rest if (one := self._found.get(mfid)) and one.ref is not None)
            self._let_go()

    def known(self, mfid: str, *, ask: bool = True) -> DatasetRef | None:
        """Return the dataset, if it is there, complete and to be relied on."""
        if mfid not in self._trusted:
            self.look([mfid], ask=ask)
        return self._trusted.get(mfid)

    def attempt(self, first: str) -> int:
        """Return the latest attempt at the recipe whose first attempt has this id; 0 is the first."""
        if self._attempts is None:
            self._attempts = self.mirror.attempts()
        return self._attempts.get(first, 0)

    def refusal(self, mfid: str) -> str:
        """Return why what is complete under this id is not relied on; empty if it is, or if nothing was found there."""
        return self._refused.get(mfid, "")

    def registered_as(self, mfid: str) -> Registered | None:
        """Return the dataset, also an incomplete one, if it has a record; not if it is to be deleted."""
        with self._lock:
            self._find([mfid])
            found = self._found.get(mfid)
            self._let_go()
            return found

    def read_ahead(self, mfids: Collection[str]) -> None:
        """Read the records of these datasets that were not read yet, together."""
        with self._lock:
            self._find(mfids)
            self._let_go()

    def registered(self) -> Mapping[str, Registered]:
        """Return every dataset that has a record, also incomplete ones."""
        with self._lock:
            if self._everything is None:
                self._everything = self._read_everything()
            return self._everything

    def was_found(self, mfid: str) -> bool:
        """Return whether it is known by now whether something is there."""
        return mfid in self._trusted or mfid in self._found or mfid in self._refused or mfid in self.members

    def _read_everything(self) -> dict[str, Registered]:
        if self.scope is None:
            records = self._of_project()
        else:
            records = self.mirror.records(self.members)
            if len(records) < len(self.members):
                records = self.mirror.read_scope(self.project, self.scope)
        found = {mfid: one for mfid, record in records.items() if (one := self._registered(record)).record is not None}
        self._trust(one for one in found.values() if one.ref is not None)
        return found

    def _find(self, mfids: Collection[str]) -> None:
        """Read what is not known yet: what the sync has seen from the mirror, the rest at Crucible."""
        new = [mfid for mfid in mfids if mfid not in self._found]
        records = self.mirror.records([mfid for mfid in new if mfid in self.members]) if new else {}
        if lacking := [mfid for mfid in new if mfid not in records]:
            records |= self._asked(lacking)
        for mfid in new:
            self._note(mfid, self._usable(mfid, self._registered(records[mfid])) if mfid in records else None)

    def _note(self, mfid: str, found: Registered | None) -> None:
        self._found[mfid] = found
        if found is not None and found.record is not None and found.record.attached is None:
            self._in_mirror.append(mfid)

    def _let_go(self) -> None:
        """Let go of what was read first and can be read from the mirror again, since there may be thousands."""
        while len(self._in_mirror) > MOST_FOUND:
            if (mfid := self._in_mirror.popleft()) in self.members:
                self._found.pop(mfid, None)

    def _asked(self, mfids: Collection[str]) -> dict[str, Record]:
        """Read datasets at Crucible by their ids, or with all of the pipeline or project where those are many."""
        if self.is_away:
            return {}
        wanted = self.mirror.may_have(mfids)
        if len(wanted) > FEW:
            if self.scope is not None and self.members.issuperset(wanted):
                return self.mirror.read_scope(self.project, self.scope)
            if self.mirror.unread(self.project) <= LISTED_FOR_ONE * len(wanted):
                return self._by_recipe(self._of_project())
        found = self.mirror.read(wanted)
        lacking = [mfid for mfid in wanted if mfid not in found and has_derived_id(mfid)]
        return (
            found
            if not lacking or self.mirror.service.accepts_client_ids
            else {**self._under_other_ids(lacking), **found}
        )

    def _under_other_ids(self, mfids: Sequence[str]) -> dict[str, Record]:
        """Read what a service that assigns ids itself may have given another one than these, which recipes give."""

        def read(mfid: str) -> dict[str, Record]:
            return self._by_recipe(self.mirror.read_scope(self.project, recipe_keyword(mfid)))

        return {mfid: record for found in in_threads(read, mfids) for mfid, record in found.items() if mfid in mfids}

    def _by_recipe(self, records: dict[str, Record]) -> dict[str, Record]:
        """Return the records also under the ids that their recipes give: of several complete ones the oldest."""
        if self.mirror.service.accepts_client_ids:
            return records
        found: dict[str, tuple[bool, str, Record]] = {}
        for mfid, record in records.items():
            one = read_record(record.get("scientific_metadata"))
            if one is not None and one.as_step is not None and (gives := derived_mfid(one.recipe)) != mfid:
                rank = (not one.is_complete, str(record.get("creation_time")), record)
                found[gives] = min(rank, found.get(gives, rank), key=lambda ranked: ranked[:2])
        return {**{mfid: record for mfid, (_, _, record) in found.items()}, **records}

    def _of_project(self) -> dict[str, Record]:
        try:
            return dict(self.mirror.snapshot(self.project).records)
        except InputError:  # the project is not there yet
            return {}

    def _registered(self, record: Record) -> Registered:
        from crucible_lineage.client.models import (
            Dataset,  # pydantic, which a run that has nothing to do should not pay
        )

        return registered(self._client(), Dataset.model_validate(dict(record)))

    def _usable(self, mfid: str, one: Registered) -> Registered | None:
        """Return what was found under an id, if it has a record, lies in the project, and is not to be deleted."""
        if lies_elsewhere(one.dataset, self.project):
            self._refused[mfid] = told_elsewhere(self._client(), one.dataset, self.project, f"result {mfid}")
            return None
        if reason := withdrawn_text(one):
            self._refused[mfid] = reason
            return None
        return None if one.record is None else one

    def _trust(self, found: Iterable[Registered]) -> None:
        judged = self._judgement([list(found)], frozenset())
        if judged.trusted:
            self.mirror.trust(judged.trusted)
            self._trusted |= judged.trusted
        for first, attempt in judged.attempts.items():
            self.mirror.note_attempt(first, attempt)

    def _judged(self, records: Mapping[str, Record], changed: Collection[str]) -> Judgements:
        """Judge what a sync has read; `changed` are those that others have changed."""
        self._trusted = {mfid: ref for mfid, ref in self._trusted.items() if mfid not in changed}
        known = self.mirror.known_among(records)
        new = [mfid for mfid in records if mfid in changed or mfid not in known]
        files = files_of(self._client(), new) if len(new) > MOST_FOUND else {}  # of few they are asked for below
        return self._judgement(self._read_in_turn(records.values()), changed, files)

    def _read_in_turn(self, records: Iterable[Record]) -> Iterator[list[Registered]]:
        """Yield what has a record, some at a time; the last ones stay in memory, all come into the mirror."""
        rest = iter(records)
        while some := list(islice(rest, MOST_FOUND)):
            found = [one for record in some if (one := self._registered(record)).record is not None]
            for one in found:
                self._note(one.mfid, self._usable(one.mfid, one))
            while len(self._in_mirror) > MOST_FOUND:
                self._found.pop(self._in_mirror.popleft(), None)
            yield found

    def _judgement(
        self, found: Iterable[Collection[Registered]], changed: Collection[str], files: Files = MappingProxyType({})
    ) -> Judgements:
        trusted: dict[str, DatasetRef] = {}
        assigned: dict[str, DatasetRef] = {}
        attempts: dict[str, int] = {}
        there: set[str] = set()
        for some in found:
            refused = dict(self._refusals(some, changed, files))
            self._refused |= refused
            there |= {one.mfid for one in some}
            for one in some:
                if one.ref is None or one.record is None or one.mfid in refused:
                    continue
                trusted[one.mfid] = one.ref
                if one.step_record:  # another one at a service that assigns ids itself
                    assigned[derived_mfid(one.record.recipe)] = one.ref
                if one.record.recipe.get("attempt"):
                    first, attempt = first_attempt(one.record.recipe)
                    attempts[first] = max(attempt, attempts.get(first, 0))
        elsewhere = {mfid: ref for mfid, ref in assigned.items() if mfid not in there}
        for mfid, ref in elsewhere.items():
            self.mirror.service.note(DERIVED_IDS, False, f"{ref.mfid} was given to a dataset that was to be {mfid}")
        if not elsewhere and (kept := assigned.keys() & there):
            self.mirror.service.note(DERIVED_IDS, True, f"{min(kept)} was kept")
        trusted |= elsewhere
        return Judgements(trusted, attempts)

    def _refusals(
        self, found: Collection[Registered], changed: Collection[str], files: Files
    ) -> Iterator[tuple[str, str]]:
        """Yield what says that it is complete and is not what its id or its record says, and why.

        Files are compared where this data folder does not know the dataset yet, or others have changed it.
        """
        new = []
        for one in found:
            if one.ref is None or one.record is None:
                continue
            if has_derived_id(one.mfid) and not gives_id(one.record.recipe, one.mfid):
                yield one.mfid, told_other_recipe(self._client(), one.dataset, f"result {one.mfid}")
            elif one.mfid in changed or not knows(self.mirror, one):
                new.append(one)
        yield from refusals(self._client(), new, files).items() if new else ()
