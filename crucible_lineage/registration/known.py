"""Known results of a pipeline in a project: which exist and may be relied on, and which are current.

Results are identified by the ids that their recipes give, whatever the pipeline is called. Results that the run's sync
has not seen under the pipeline's keyword are read by id: a few one by one, many with a listing of their project if that
is small.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from crucible_lineage.core.datasets import ONE_BY_ONE
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.core.tables import StoredRecord
from crucible_lineage.errors import IdTakenError, InputError, WithdrawnError
from crucible_lineage.ids import has_derived_id
from crucible_lineage.provenance.recipe import first_attempt, gives_id
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import (
    Registered,
    files_of,
    knows,
    other_recipe_message,
    refusals,
    registered,
    require_not_withdrawn,
    require_project,
)
from crucible_lineage.standing.slots import Currency, currency_of

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import FileRecord

LISTED_FOR_ONE = 50  # chosen: a project is listed for several ids if it has no more datasets than this for each
MAX_RECORDS = 500  # chosen: records in memory, 60 kB each; the others are read from the mirror when needed
Files = Mapping[str, Sequence["FileRecord"]]


@dataclass(eq=False)
class KnownResults:
    """The results of one pipeline in a project; without a pipeline, all recorded results of the project. Thread-safe.

    With `is_away` the service is not asked, and only what earlier syncs have seen is known. Without `asks`, datasets
    that were not looked up before count as absent.
    """

    mirror: Mirror
    client: Callable[[], CrucibleClient]
    project: str
    pipeline: str | None
    is_away: bool = False
    asks: bool = True

    def __post_init__(self) -> None:
        self.scope = pipeline_keyword(self.pipeline) if self.pipeline is not None else None
        self.members: frozenset[str] = frozenset()  # of the last sync: the datasets with the keyword, and their slots
        self._lock = threading.RLock()
        self._trusted: dict[str, DatasetRef] = {}
        self._found: dict[str, Registered | None] = {}  # where the mirror has not all; None if absent
        self._parsed = lru_cache(MAX_RECORDS)(self._parse)
        self._refused: dict[str, str] = {}
        self._attempts: dict[str, int] | None = None
        self._slots: Currency | None = None
        self._everything: dict[str, Registered] | None = None

    def sync(self) -> None:
        """Update what is known, with one cheap call if nothing changed. Does nothing without a pipeline."""
        if self.scope is None:
            return
        with self._lock:
            self._found.clear()
            if self.is_away:
                filling = self.mirror.slots(self.project, self.scope) or {}
            else:
                filling = self.mirror.sync(self.project, self.scope, self._judge)
            self.members = self.mirror.members(self.project, self.scope)
            self._slots = currency_of(beside=filling.values())
            self._everything = self._attempts = None

    @property
    def slots(self) -> Currency:
        """Which results are current, as of the last sync."""
        with self._lock:
            if self._slots is None:
                self._slots = currency_of(self.mirror.snapshot(self.project))
            return self._slots

    def look_up(self, mfids: Iterable[str]) -> None:
        """Look up these datasets together."""
        with self._lock:
            new = [mfid for mfid in dict.fromkeys(mfids) if mfid not in self._trusted]
            self._trusted |= self.mirror.known_among(new) if new else {}
            rest = [mfid for mfid in new if mfid not in self._trusted and mfid not in self._refused]
            found = self._find([mfid for mfid in rest if self.asks or mfid in self.members])
            self._trust(item for item in found.values() if item.ref is not None)

    def known(self, mfid: str) -> DatasetRef | None:
        """Return the dataset if it exists, is complete and may be relied on."""
        if mfid not in self._trusted:
            self.look_up([mfid])
        return self._trusted.get(mfid)

    def attempt(self, first: str) -> int:
        """Return the latest attempt at the recipe whose first attempt has this id; 0 is the first."""
        if self._attempts is None:
            self._attempts = self.mirror.attempts()
        return self._attempts.get(first, 0)

    def refusal(self, mfid: str) -> str:
        """Return why the complete dataset with this id is not relied on; empty if it is, or if there is none."""
        return self._refused.get(mfid, "")

    def registered_as(self, mfid: str) -> Registered | None:
        """Return the dataset, complete or not, if it has a record and is not to be deleted."""
        with self._lock:
            is_known = mfid in self._trusted or mfid in self._refused or mfid in self._found or mfid in self.members
            return self._find([mfid]).get(mfid) if self.asks or is_known else None

    def read_ahead(self, mfids: Collection[str]) -> None:
        """Read the records of these datasets together, except those read already."""
        with self._lock:
            self._find(mfids)

    def registered(self) -> Mapping[str, Registered]:
        """Return all datasets of the project with a record, including incomplete ones."""
        with self._lock:
            if self._everything is None:
                records = self._project_records()
                everything = {mfid: self._registered(record) for mfid, record in records.items()}
                self._everything = {mfid: found for mfid, found in everything.items() if found.record is not None}
                self._trust(found for found in self._everything.values() if found.ref is not None)
            return self._everything

    def _find(self, mfids: Collection[str]) -> dict[str, Registered]:
        """Return the usable ones: from the mirror if the sync has seen them, else from Crucible, asked only once."""
        new = [mfid for mfid in mfids if mfid not in self._found]
        records = self.mirror.records([mfid for mfid in new if mfid in self.members]) if new else {}
        if missing := [mfid for mfid in new if mfid not in records]:
            records |= self._fetch(missing)
        found = {mfid: self._found[mfid] for mfid in mfids if mfid in self._found}
        for mfid in new:
            item = self._usable(mfid, self._registered(records[mfid])) if mfid in records else None
            found[mfid] = item
            if mfid not in self.members or item is None or (item.record is not None and item.record.attached):
                self._found[mfid] = item
        return {mfid: item for mfid, item in found.items() if item is not None}

    def _fetch(self, mfids: Collection[str]) -> dict[str, StoredRecord]:
        """Read datasets at Crucible: a few by id, many by listing the project if it is small."""
        if self.is_away:
            return {}
        possible = self.mirror.may_have(mfids)
        if len(possible) > ONE_BY_ONE and self.mirror.unread(self.project) <= LISTED_FOR_ONE * len(possible):
            return self._project_records()
        return self.mirror.read(possible)

    def _project_records(self) -> dict[str, StoredRecord]:
        try:
            return dict(self.mirror.snapshot(self.project).records)
        except InputError:  # the project does not exist yet
            return {}

    def _registered(self, record: StoredRecord) -> Registered:
        return self._parsed(record.stored)

    def _parse(self, stored: bytes) -> Registered:
        from crucible_lineage.client.models import Dataset  # pydantic, which a run with nothing to do should not pay

        return registered(self.client(), Dataset.model_validate(dict(StoredRecord(stored))))

    def _usable(self, mfid: str, found: Registered) -> Registered | None:
        """Return the dataset if it has a record, is in the project, and is not to be deleted; else note the refusal."""
        try:
            require_project(self.client(), found.dataset, self.project, f"result {mfid}")
            require_not_withdrawn(found)
        except (IdTakenError, WithdrawnError) as error:
            self._refused[mfid] = str(error)
            return None
        return None if found.record is None else found

    def _trust(self, found: Iterable[Registered]) -> None:
        if trusted := self._trusted_among(found, frozenset()):
            self.mirror.trust(trusted)
            self._trusted |= trusted

    def _judge(self, records: Mapping[str, StoredRecord], changed: Collection[str]) -> dict[str, DatasetRef]:
        """Judge the records that a sync has read; `changed` are the ids of those that others have changed."""
        self._trusted = {mfid: ref for mfid, ref in self._trusted.items() if mfid not in changed}
        known = self.mirror.known_among(records)
        new = [mfid for mfid in records if mfid in changed or mfid not in known]
        files = files_of(self.client(), new) if len(new) > MAX_RECORDS else {}  # those of a few are read below
        rest, trusted = iter(records.values()), dict[str, DatasetRef]()
        while batch := list(islice(rest, MAX_RECORDS)):  # only the last ones stay in memory
            datasets = [item for record in batch if (item := self._registered(record)).record is not None]
            for item in datasets:
                self._usable(item.mfid, item)
            trusted |= self._trusted_among(datasets, changed, files)
        return trusted

    def _trusted_among(
        self, datasets: Iterable[Registered], changed: Collection[str], files: Files = MappingProxyType({})
    ) -> dict[str, DatasetRef]:
        """Return the datasets to trust, which match their ids and their records; note their attempts at recipes.

        Files are compared where this data folder does not know the dataset yet, or where others have changed it.
        """
        complete = [(item, item.record, item.ref) for item in datasets if item.record is not None and item.ref]
        refused: dict[str, str] = {}
        new, trusted = list[Registered](), dict[str, DatasetRef]()
        for item, record, _ in complete:
            if has_derived_id(item.mfid) and not gives_id(record.recipe, item.mfid):
                refused[item.mfid] = other_recipe_message(self.client(), item.dataset, f"result {item.mfid}")
            elif item.mfid in changed or not knows(self.mirror, item):
                new.append(item)
        refused |= refusals(self.client(), new, files) if new else {}
        self._refused |= refused
        for item, record, ref in complete:
            if item.mfid in refused:
                continue
            trusted[item.mfid] = ref
            if record.recipe.get("attempt"):
                self.mirror.note_attempt(*first_attempt(record.recipe))
        return trusted
