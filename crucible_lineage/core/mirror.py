"""The mirror: what this machine knows of a Crucible, as one account of it sees it.

A cache, in one SQLite file for each Crucible and account: what one account may see, another one may not.

A plan asks for the datasets of one pipeline, those with its keyword: `sync` costs one call while nothing has changed.
Where the service tells a revision, only what changed is read; where it does not, the keyword's datasets are listed. The
results that hold are read from the slots of these datasets. What is trusted was compared with its record, files and
all, and has not changed since; what this machine writes, it notes, so that nobody reads it back.

Lists and pages ask for a project, which is kept up by `snapshot`: two calls while little has changed, for what was
modified since the last one, and for how many datasets there are, which shows that some are gone. Seen is all that moves
a dataset's `modification_time` or that number. A change that moves neither is seen when the listing is a day old, or
with `refresh`: one dataset gone and an older one become visible in between, or a link at a service that does not date
its links. Where a service does not date metadata at all, as completed registrations show, the whole project is listed
each time.

Each row carries a checksum. A damaged one is read again and never shown.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.calibrations import Certificate, counting_certificates
from crucible_lineage.core import tables
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.core.summary import Summary
from crucible_lineage.core.tables import EVERYTHING, SCHEMA, FeedState, Record, Row, Snapshot, StoredRecord
from crucible_lineage.errors import InputError, NotFoundError, RefusedError
from crucible_lineage.local.checksummed import unsealed
from crucible_lineage.refs import DatasetRef, ProjectChanges
from crucible_lineage.server import present_datasets, project_changes, project_revision, statements_token
from crucible_lineage.service import DATES, Observation, ServiceProfile
from crucible_lineage.statements import (
    CERTIFY,
    CHECK,
    KEYWORD,
    REMAKE,
    CheckResult,
    ReproductionCount,
    Statement,
    StatementIndex,
)

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

log = logging.getLogger(__name__)

MAX_AGE_S = 24 * 3600
OVERLAP = timedelta(seconds=10)  # a change may be dated before one that could be read earlier: transactions take time
MOST_HELD = 4  # snapshots that a process keeps in memory, beside the file


@dataclass(frozen=True)
class Judgements:
    """What follows from records: datasets to be trusted, by the ids that their recipes give, and attempts at recipes.

    An id that is not the dataset's own is the one that it was asked for, at a service that assigns ids itself.
    """

    trusted: Mapping[str, DatasetRef] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)


Judge = Callable[[Mapping[str, Record], Collection[str]], Judgements]


class Mirror:
    """What is known of one Crucible. Thread-safe; `where` says which one it is, for messages.

    `embedded` is the folder of an embedded Crucible, which is asked for changes without a server. `service` is what the
    Crucible does, as far as it was learnt.
    """

    def __init__(
        self, path: Path, client: Callable[[], CrucibleClient], where: str, embedded: Path | None = None
    ) -> None:
        self.database = LocalDatabase(path, SCHEMA)
        self._client = client
        self._where = where
        self._embedded = embedded
        self.service = ServiceProfile(self._learnt, self._learn, is_ours=embedded is not None)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def _learnt(self) -> list[Observation]:
        rows = self.database.rows("SELECT name, holds, seen, source, at FROM trait")
        return [Observation(name, None if holds is None else bool(holds), *rest) for name, holds, *rest in rows]

    def _learn(self, found: Observation) -> None:
        row = (found.name, found.holds, found.seen, found.by, found.at)
        self.database.write("INSERT OR REPLACE INTO trait VALUES (?, ?, ?, ?, ?)", *row)

    # What is trusted

    def known(self, mfid: str) -> DatasetRef | None:
        """Return the dataset, if it is trusted to be complete with just these files."""
        row = self.database.row("SELECT ref FROM trusted WHERE mfid = ?", mfid)
        return DatasetRef.from_json(ref) if row and (ref := unsealed(row[0], mfid)) else None

    def known_among(self, mfids: Collection[str]) -> dict[str, DatasetRef]:
        """Return those of these datasets that are trusted, by the ids that were asked for."""
        sql = "SELECT mfid, ref FROM trusted WHERE mfid IN (SELECT value FROM json_each(?))"
        rows = self.database.rows(sql, json.dumps(list(mfids)))
        return {mfid: DatasetRef.from_json(ref) for mfid, text in rows if (ref := unsealed(text, mfid))}

    def trust(self, datasets: Mapping[str, DatasetRef]) -> None:
        """Trust these datasets from now on, under the ids that their recipes give."""
        self.database.transaction(lambda db: tables.trust(db, datasets))

    def forget(self, mfids: Iterable[str] | None = None) -> None:
        """Trust these datasets no more; without `mfids` read everything again when it is asked for."""
        if mfids is not None:
            self.database.write_many("DELETE FROM trusted WHERE mfid = ?", [(mfid,) for mfid in mfids])
            return

        def everything(db: sqlite3.Connection) -> None:
            for table in ("dataset", "trusted", "member", "slot", "feed", "stated", "absent"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608  a name of ours

        self.database.transaction(everything)

    def attempts(self) -> dict[str, int]:
        """Return the latest attempt known at recipes that were made again, by the id of their first attempt."""
        return dict(self.database.rows("SELECT first, attempt FROM attempt"))

    def note_attempt(self, first: str, attempt: int) -> None:
        """Note that the recipe was made again, as this attempt; a later one stands."""
        self.database.transaction(lambda db: tables.note_attempts(db, {first: attempt}))

    def lost(self, mfid: str) -> tuple[str, ...]:
        """Return the files of a dataset that Crucible is known to have lost."""
        return tuple(file for (file,) in self.database.rows("SELECT file FROM lost WHERE mfid = ? ORDER BY file", mfid))

    def all_lost(self) -> frozenset[str]:
        """Return the datasets of which Crucible is known to have lost a file."""
        return frozenset(mfid for (mfid,) in self.database.rows("SELECT DISTINCT mfid FROM lost"))

    def note_lost(self, mfid: str, file: str) -> None:
        """Note that Crucible has lost a file of a dataset."""
        self.database.write("INSERT OR IGNORE INTO lost VALUES (?, ?)", mfid, file)

    def note_whole(self, mfid: str, file: str) -> None:
        """Note that Crucible has a file of a dataset, after all or again."""
        self.database.write("DELETE FROM lost WHERE mfid = ? AND file = ?", mfid, file)

    # What one pipeline has made

    def sync(self, project: str, scope: str, judge: Judge) -> dict[str, dict[str, SlotClaim]]:
        """Bring up to date what is known of a pipeline's datasets in a project; `scope` is their keyword.

        `judge` is given the records that are new or were changed, and which of them others have changed. Returns which
        slots of the pipeline the complete datasets fill: {MFID: {slot: by whom}}.
        """
        before = self._feed(project, scope)
        changes = self.changes(project, before.latest or None if before else None, scope)
        if changes is None:  # the project is not there
            self.database.transaction(lambda db: tables.forget_scope(db, project, scope))
            self.sync_statements()
            return {}
        is_there = (
            "seen <> '' OR EXISTS (SELECT 1 FROM trusted WHERE trusted.mfid = member.mfid)"  # else it may wait here
        )
        sql = f"SELECT mfid, seen, {is_there} FROM member WHERE project = ? AND scope = ?"  # noqa: S608  a text of ours
        rows_here = self.database.rows(sql, project, scope)
        members = {mfid: when for mfid, when, _ in rows_here}
        self.sync_statements(changes.statements)
        delivered = {mfid: when for mfid, when, is_delivered in rows_here if is_delivered}
        is_older = before is not None and _is_older(before, changes, delivered)
        whole = before is None or is_older or not _nothing_lost(before.revision, changes.revision)
        changed = {mfid for mfid, when in changes.modified.items() if members.get(mfid) != when}
        if whole:
            rows = self._listed(project, scope) if before is not None or changes.modified else []
            seen = {row.mfid: row.modified for row in rows}
            gone = members.keys() - seen.keys()
            if is_older and gone:
                log.warning(
                    "this Crucible lacks %d datasets of %s that were there (%s): an older copy of it was put back; "
                    "what is lost is made again",
                    len(gone), scope, ", ".join(sorted(gone)[:3]),
                )  # fmt: skip
        else:
            rows = self._changed(project, scope, changed, before.latest if before else "") if changed else []
            found = {row.mfid: row.modified for row in rows}
            seen = {mfid: when for mfid, when in changes.modified.items() if mfid not in changed} | found
            gone = changed - found.keys()
        after = FeedState(changes.revision, max([*changes.modified.values(), before.latest if before else ""]))
        if rows or gone or after != before or any(members.get(mfid) != when for mfid, when in seen.items()):
            judged = judge({row.mfid: StoredRecord(row.record) for row in rows}, changed) if rows else Judgements()

            def store(db: sqlite3.Connection) -> None:
                tables.drop(db, gone)
                if whole and before is not None and before.revision:  # what else was trusted may be lost, too
                    db.execute("DELETE FROM trusted WHERE mfid NOT IN (SELECT mfid FROM member)")
                db.executemany("DELETE FROM trusted WHERE mfid = ?", [(mfid,) for mfid in changed])
                tables.write(db, rows)
                entries = [(project, scope, mfid, when) for mfid, when in seen.items()]
                db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)", entries)
                tables.trust(db, judged.trusted)
                tables.note_attempts(db, judged.attempts)
                tables.set_feed(db, project, scope, after)

            self.database.transaction(store)
        slots = self._slots(project, scope)
        return self.sync(project, scope, judge) if slots is None else slots

    def slots(self, project: str, scope: str) -> dict[str, dict[str, SlotClaim]]:
        """Return the same as `sync`, as of the last one, without asking."""
        return self._slots(project, scope) or {}

    def _slots(self, project: str, scope: str) -> dict[str, dict[str, SlotClaim]] | None:
        """Return which slots are filled by what was seen at Crucible; None if some were damaged, which are dropped."""
        pipeline = scope.partition(":")[2]
        rows = self.database.rows(
            "SELECT mfid, slot, filled FROM slot JOIN member USING (project, mfid)"
            " WHERE project = ? AND scope = ? AND slot >= ? AND slot < ? AND"
            " (EXISTS (SELECT 1 FROM trusted WHERE there = slot.mfid AND trusted.mfid = slot.mfid)"
            " OR EXISTS (SELECT 1 FROM dataset WHERE dataset.mfid = slot.mfid))",
            *(project, scope, f"{pipeline}/", f"{pipeline}0"),
        )
        found: dict[str, dict[str, SlotClaim]] = {}
        damaged = set()
        for mfid, slot, text in rows:
            if (entry := unsealed(text, slot, mfid)) is None:
                damaged.add(mfid)
            else:
                found.setdefault(mfid, {})[slot] = SlotClaim.from_json(entry)
        if not damaged:
            return found

        def list_again(db: sqlite3.Connection) -> None:
            tables.drop(db, damaged)
            db.execute("DELETE FROM feed WHERE project = ? AND scope <> ''", (project,))

        self.database.transaction(list_again)
        return None

    def _feed(self, project: str, scope: str) -> FeedState | None:
        """Return the state of Crucible up to which all was seen; None if it is not known."""
        row = self.database.row("SELECT state FROM feed WHERE project = ? AND scope = ?", project, scope)
        state = unsealed(row[0], project.casefold(), scope) if row else None
        return FeedState(*state) if state else None

    def latest(self, project: str, scope: str) -> str | None:
        """Return the latest change that a sync has seen, as the service dates it."""
        feed = self._feed(project, scope)
        return feed.latest or None if feed else None

    def is_synced(self, project: str, scope: str) -> bool:
        """Return whether a sync has found the project."""
        return self.database.row("SELECT 1 FROM feed WHERE project = ? AND scope = ?", project, scope) is not None

    def members(self, project: str, scope: str) -> frozenset[str]:
        """Return the ids of the datasets with the keyword `scope`, as of the last sync."""
        rows = self.database.rows("SELECT mfid FROM member WHERE project = ? AND scope = ?", project, scope)
        return frozenset(mfid for (mfid,) in rows)

    def is_member(self, project: str, scope: str, mfid: str) -> bool:
        """Return whether a dataset has the keyword `scope`, as far as that is known."""
        sql = "SELECT 1 FROM member WHERE project = ? AND scope = ? AND mfid = ?"
        return self.database.row(sql, project, scope, mfid) is not None

    def note_held(self, project: str, scopes: Iterable[str], mfid: str, slots: Mapping[str, SlotClaim]) -> None:
        """Note that this machine has written that a dataset, which has these keywords, fills these slots."""

        def note(db: sqlite3.Connection) -> None:
            tables.fill(db, project, mfid, slots)
            members = [(project, scope, mfid) for scope in scopes]
            db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, '')", members)

        self.database.transaction(note)

    def settle(self, project: str, scope: str, there: Mapping[str, tuple[str, Mapping[str, SlotClaim]]]) -> None:
        """Note when what this machine has written was modified: {MFID: (when, the slots that it fills)}, as listed now.

        The next sync need not read it back. Where somebody else has changed the slots since, or nothing is settled, as
        the run died or was away, it does.
        """

        def note(db: sqlite3.Connection) -> None:
            noted: dict[str, dict[str, SlotClaim]] = {}
            own = "SELECT mfid, slot, filled FROM member JOIN slot USING (project, mfid)"
            where = "project = ? AND scope = ? AND seen = '' AND mfid IN (SELECT there FROM trusted)"
            for mfid, slot, text in db.execute(f"{own} WHERE {where}", (project, scope)):
                noted.setdefault(mfid, {})[slot] = SlotClaim.from_json(unsealed(text, slot, mfid) or {"since": ""})
            seen = [(there[mfid][0], project, scope, mfid) for mfid, slots in noted.items()
                    if mfid in there and there[mfid][1] == slots]  # fmt: skip
            db.executemany("UPDATE member SET seen = ? WHERE project = ? AND scope = ? AND mfid = ?", seen)

        self.database.transaction(note)

    def records(self, mfids: Collection[str]) -> dict[str, Record]:
        """Return the records of these datasets as they were last read, as far as they were."""
        names = ", ".join(tables.READ)
        sql = f"SELECT {names} FROM dataset WHERE mfid IN (SELECT value FROM json_each(?))"  # noqa: S608  names of ours
        rows = self.database.rows(sql, json.dumps(list(mfids)))
        return {kept[0]: StoredRecord(kept[-1]) for *kept, seal in rows if tables.seal_of(kept) == seal}

    def may_have(self, mfids: Collection[str]) -> Collection[str]:
        """Return those of these datasets that may be at Crucible: all, where only a call can tell."""
        if self._embedded is None:
            return mfids
        there = present_datasets(self._embedded, mfids)
        return mfids if there is None else there

    def lost_here(self, mfids: Collection[str]) -> frozenset[str]:
        """Return those of these datasets that the embedded Crucible does not have; none where only a call can tell."""
        return frozenset(mfids).difference(self.may_have(mfids))

    def unread(self, project: str) -> int:
        """Return how many datasets of a project were never read. One call; none of a project that is not there."""
        try:
            there = self._client().datasets.count(**_within(project))
        except (NotFoundError, RefusedError):
            return 0
        row = self.database.row(f"SELECT count(*) FROM dataset WHERE {tables.of_project(project)}", project)  # noqa: S608
        return max(0, there - int(row[0]))

    def read(self, mfids: Collection[str]) -> dict[str, Record]:
        """Read these datasets at Crucible by their ids, as far as they are there, and keep their records."""
        rows = self._read(mfids)
        self.database.transaction(lambda db: tables.write(db, rows))
        return {row.mfid: StoredRecord(row.record) for row in rows}

    def read_scope(self, project: str, scope: str) -> dict[str, Record]:
        """Read all datasets of a project with the keyword `scope` at Crucible, and keep their records."""
        rows = self._listed(project, scope)
        self.database.transaction(lambda db: tables.write(db, rows))
        return {row.mfid: StoredRecord(row.record) for row in rows}

    def changes(self, project: str, since: str | None, scope: str) -> ProjectChanges | None:
        """Ask what was changed since; None if the project is not there."""
        if self._embedded is not None:  # no server is started for the question whether anything is to be done
            modified = project_changes(self._embedded, project, since, scope)
            revision = project_revision(self._embedded, project)
            statements = statements_token(self._embedded)
            return ProjectChanges(revision, modified, statements) if revision and modified is not None else None
        try:
            return self._client().datasets.changes(project, since, scope)
        except (NotFoundError, RefusedError):
            return None

    def _changed(self, project: str, scope: str, changed: Collection[str], latest: str) -> list[Row]:
        """Read the datasets that were changed since: those that are few by their ids, else as they are listed."""
        from crucible_lineage.core.datasets import ONE_BY_ONE  # most runs ask for none

        if len(changed) <= ONE_BY_ONE or not latest:
            return self._read(changed)
        return [row for row in self._listed(project, scope, modification_time_gte=latest) if row.mfid in changed]

    def _listed(self, project: str, scope: str, **filters: Any) -> list[Row]:
        listed = self._client().datasets.iter(
            project_id=project, keyword=scope, include_metadata=True, include_links=True, **filters
        )
        try:
            return [Row.of(dataset.model_dump()) for dataset in listed]
        except (NotFoundError, RefusedError):  # the project is not there yet
            return []

    # What is stated

    def sync_statements(self, token: str | None = None) -> None:
        """Bring up to date which statements there are that this key may see, and which are in force.

        `token` is what the service tells of them, if it was heard already: none is read while it is the same. Else one
        call; where the service tells nothing, what is gone is found out once a day.
        """
        before = self._feed(EVERYTHING, KEYWORD)
        latest = before.latest if before else ""
        changed: Mapping[str, str] | None = None
        if token is None and self._embedded is not None:
            token = statements_token(self._embedded) or "0:"  # there is no database yet
        elif token is None:
            changes = self._client().datasets.changes(EVERYTHING, latest or None, KEYWORD)
            token, changed = changes.statements, changes.modified
        if before is not None and token is not None and before.revision == token:
            return
        known = dict(self.database.rows("SELECT mfid, seen FROM member WHERE project = '' AND scope = ?", KEYWORD))
        if token is not None and token.startswith("0:"):
            changed = {}
        elif changed is None:
            changed = self._client().datasets.changes(EVERYTHING, latest or None, KEYWORD).modified
        none = token is not None and token.startswith("0:")
        listed = self.database.row("SELECT listed FROM feed WHERE project = '' AND scope = ?", KEYWORD)
        is_recent = token is None and listed is not None and 0 <= time.time() - listed[0] < MAX_AGE_S
        rows, gone = self._read_stated(known, changed, latest, none=none, is_recent=is_recent)
        after = FeedState(token or "", max([latest, *changed.values()]))

        def store(db: sqlite3.Connection) -> None:
            tables.drop(db, gone)
            tables.write(db, rows)
            members = [(EVERYTHING, KEYWORD, row.mfid, row.modified) for row in rows]
            db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)", members)
            tables.set_feed(db, EVERYTHING, KEYWORD, after)
            if rows or gone or before is None:
                tables.set_stated(db)

        if rows or gone or after != before or not is_recent:
            self.database.transaction(store)

    def _read_stated(
        self, known: Mapping[str, str], changed: Mapping[str, str], latest: str, *, none: bool, is_recent: bool
    ) -> tuple[list[Row], Collection[str]]:
        """Read the statements that are new or were changed, and find those that are gone: all, if there are `none`.

        Where nothing is new and that was found out recently, nothing is asked for.
        """
        from crucible_lineage.core.datasets import ONE_BY_ONE  # most plans ask for none

        if none:
            return [], known.keys()
        new = {mfid for mfid, when in changed.items() if known.get(mfid) != when}
        datasets, rows = self._client().datasets, list[Row]()
        gone: Collection[str] = ()
        if not new and is_recent:
            return rows, gone
        if datasets.count(keyword=KEYWORD) != len(known.keys() | new):  # some are gone, or became visible
            listed = {one.unique_id for one in datasets.iter(keyword=KEYWORD)}
            new, gone = (new & listed) | (listed - known.keys()), known.keys() - listed
        if len(new) <= ONE_BY_ONE:
            return self._read(new) if new else rows, gone
        since: dict[str, Any] = {"modification_time_gte": latest} if latest and not gone else {}
        for one in datasets.iter(keyword=KEYWORD, include_metadata=True, include_links=True, **since):
            if one.unique_id in new:
                rows.append(Row.of(one.model_dump()))
        return rows, gone

    def stated(self, verb: str) -> StatementIndex:
        """Return the statements of this verb that are in force, as of the last sync, by what they are about."""
        row = self.database.row("SELECT found FROM stated WHERE verb = ?", verb)
        if row is None:
            return StatementIndex()
        if (found := unsealed(row[0], verb)) is None:
            self.database.transaction(tables.set_stated)
            return self.stated(verb)
        return StatementIndex.from_json(found)

    def verdicts(self) -> dict[str, dict[str, CheckResult]]:
        """Return the verdicts of checks, as of the last sync: {dataset: {PIPELINE/STEP/CHECK: verdict}}."""
        row = self.database.row("SELECT found FROM stated WHERE verb = ?", CHECK)
        if row is None:
            return {}
        if (found := unsealed(row[0], CHECK)) is None:
            self.database.transaction(tables.set_stated)
            return self.verdicts()
        return {mfid: {name: CheckResult(*one) for name, one in some.items()} for mfid, some in found.items()}

    def remade(self) -> dict[str, ReproductionCount]:
        """Return how often results were made again, as of the last sync."""
        row = self.database.row("SELECT found FROM stated WHERE verb = ?", REMAKE)
        if row is None:
            return {}
        if (found := unsealed(row[0], REMAKE)) is None:
            self.database.transaction(tables.set_stated)
            return self.remade()
        return {mfid: ReproductionCount(*one) for mfid, one in found.items()}

    def promoted(self) -> dict[str, str]:
        """Return the campaigns that are promoted, each with the moment since when, as of the last sync."""
        return self.database.transaction(tables.promoted_now)

    def certificates(self, project: str, kind: str | None = None) -> list[Certificate]:
        """Return the certificates of calibrations that count in a project, of one kind or all, as of the last sync."""
        row = self.database.row("SELECT found FROM stated WHERE verb = ?", CERTIFY)
        if row is None or (found := unsealed(row[0], CERTIFY)) is None:
            self.database.transaction(tables.set_stated)
            return self.certificates(project, kind)
        return counting_certificates(found, project, kind)

    def statements(self, mfids: Collection[str] | None = None) -> dict[str, Statement]:
        """Return these statements, or all, as of the last sync: those too that are revoked, or count nowhere."""
        return self.database.transaction(lambda db: tables.statements_of(db, mfids))

    def records_beside(self, project: str) -> dict[str, Record]:
        """Return the records of statements, and of what results rest on, in a project; no snapshot holds these."""
        sql = f"SELECT mfid FROM dataset WHERE (statement <> '' OR supports) AND {tables.of_project(project)}"  # noqa: S608  a text of ours
        return self.records([mfid for (mfid,) in self.database.rows(sql, project)])

    def summaries(self, mfids: Collection[str], *, ask: bool = True) -> dict[str, Summary]:
        """Return what is known of these datasets; with `ask`, read at Crucible where they were not read before.

        What is not there, or not for this key to see, is asked for again after a day.
        """
        found = self.database.transaction(lambda db: tables.summaries_of(db, mfids))
        lacking = [mfid for mfid in mfids if mfid not in found]
        if not lacking or not ask:
            return found
        sql = "SELECT mfid FROM absent WHERE asked > ? AND mfid IN (SELECT value FROM json_each(?))"
        earliest = time.time() - MAX_AGE_S
        absent = {mfid for (mfid,) in self.database.rows(sql, earliest, json.dumps(lacking))}
        if wanted := [mfid for mfid in lacking if mfid not in absent]:
            rows = self._read(wanted)
            absent = set(wanted) - {row.mfid for row in rows}

            def store(db: sqlite3.Connection) -> None:
                tables.write(db, rows)
                db.executemany("INSERT OR REPLACE INTO absent VALUES (?, ?)", [(one, time.time()) for one in absent])

            self.database.transaction(store)
            found |= {row.mfid: row.summary for row in rows}
        return found

    # What a project holds

    def snapshot(self, project: str, *, refresh: bool = False) -> Snapshot:
        """Return all datasets of a project with metadata and links; download what changed, with `refresh` everything.

        Of EVERYTHING, all that this key sees. Raises InputError if there is no such project.
        """
        self.sync_statements()
        latest = None if refresh else self._latest(project)
        changed = self._changed_since(project, latest) if latest else self._modified_since(project)
        total = self._client().datasets.count(**_within(project))
        downloaded, present = self.database.transaction(
            lambda db: (tables.store(db, project, changed, everything=latest is None), tables.ids_of(db, project))
        )
        if len(present) != total:
            downloaded += self._reconcile(project, present)
        return self._snapshot(project, downloaded)

    def _latest(self, project: str) -> str | None:
        """Return the latest modification that was seen; None if the project has to be listed."""
        row = self.database.row("SELECT listed FROM feed WHERE project = ? AND scope = ''", project)
        if row is None or not 0 <= time.time() - row[0] < MAX_AGE_S or self._is_undated(project):
            return None
        return self.latest(project, EVERYTHING)

    def _is_undated(self, project: str) -> bool:
        sql = f"SELECT mfid FROM dataset WHERE {tables.of_project(project)} AND {tables.IS_UNDATED} LIMIT 1"  # noqa: S608  texts of ours
        if self.service.holds(DATES) is not False and (row := self.database.row(sql, project)) is not None:
            self.service.note(DATES, False, f"{row[0]} was completed after it was created, and both have the same time")
        return self.service.holds(DATES) is False

    def _changed_since(self, project: str, latest: str) -> list[Row]:
        """Read what was modified since then and is not known in this state; list what is known without metadata."""
        sql = f"SELECT mfid, modified FROM dataset WHERE {tables.of_project(project)}"  # noqa: S608  a text of ours
        known = dict(self.database.rows(sql, project))
        earliest = datetime.fromisoformat(latest) - OVERLAP
        listed = self._client().datasets.iter(
            sort="updated", direction="asc", modification_time_gte=earliest, **_within(project)
        )
        try:
            new = [one.modification_time for one in listed if known.get(one.unique_id) != (one.modification_time or "")]
        except (NotFoundError, RefusedError) as error:
            raise self._no_project(project, error) from error
        times = [datetime.fromisoformat(one) for one in new if one]
        return self._modified_since(project, min(times)) if times else []

    def _modified_since(self, project: str, earliest: datetime | None = None) -> list[Row]:
        """Read what was modified since then, or all; in that order, a change while listing is listed too."""
        filters = {**_within(project), **({"modification_time_gte": earliest} if earliest else {})}
        found = self._client().datasets.iter(
            include_metadata=True, include_links=True, sort="updated", direction="asc", **filters
        )
        try:
            return [Row.of(dataset.model_dump()) for dataset in found]
        except (NotFoundError, RefusedError) as error:
            raise self._no_project(project, error) from error

    def _no_project(self, project: str, error: Exception) -> InputError:
        from crucible_lineage.core.datasets import no_project

        if isinstance(error, RefusedError) and self._client().projects.find(project) is not None:
            return InputError(f"list the datasets of project {project!r}: {error}")
        return no_project(self._client(), project, self._where)

    def _reconcile(self, project: str, present: set[str]) -> int:
        """Drop what is gone, and read what came without having been modified. Return how many those are."""
        listed = {dataset.unique_id for dataset in self._client().datasets.iter(**_within(project))}
        from crucible_lineage.core.datasets import ONE_BY_ONE

        new = listed - present
        rows = self._read(new) if len(new) <= ONE_BY_ONE else self._modified_since(project)

        def reconcile(db: sqlite3.Connection) -> int:
            tables.drop(db, present - listed)
            db.executemany("DELETE FROM dataset WHERE mfid = ?", [(mfid,) for mfid in new])  # it may be a damaged row
            return tables.store(db, project, rows, everything=False)

        return self.database.transaction(reconcile)

    def _read(self, mfids: Collection[str]) -> list[Row]:
        """Read datasets by their ids, as far as they are there."""
        from crucible_lineage.core.datasets import fetch_datasets  # most runs ask for none

        return [Row.of(one) for one in fetch_datasets(self._client(), mfids, include_links=True).found.values()]

    def _snapshot(self, project: str, downloaded: int) -> Snapshot:
        """Return the newest first, as Crucible lists them; the same object while nothing has changed."""
        key = (self.database.path, project.casefold())
        row = self.database.row("SELECT token FROM feed WHERE project = ? AND scope = ''", project)
        with _held_lock:
            before, held = _held.get(key, ("", None))
            if held is not None and row is not None and row[0] == before:
                _held.move_to_end(key)
                return replace(held, downloaded=downloaded) if downloaded else held
        token, found, damaged = self.database.transaction(lambda db: tables.snapshot_of(db, project))
        if damaged:
            rows = self._modified_since(project)

            def replace_all(db: sqlite3.Connection) -> None:
                tables.drop(db, damaged)
                tables.store(db, project, rows, everything=True)

            self.database.transaction(replace_all)
        if damaged or token is None:  # the file was begun anew meanwhile
            return self.snapshot(project)
        with _held_lock:
            _held[key] = token, found
            _held.move_to_end(key)
            while len(_held) > MOST_HELD:
                _held.popitem(last=False)
        return replace(found, downloaded=downloaded) if downloaded else found


def _within(project: str) -> dict[str, Any]:
    return {} if project == EVERYTHING else {"project_id": project}


def _nothing_lost(seen: str, now: str) -> bool:
    """Return whether nothing was lost between these revisions; where a service tells none, anything may be."""
    lost, _, made = now.rpartition(":")
    lost_then, _, made_then = seen.rpartition(":")
    return bool(lost) and lost == lost_then and not _is_fewer(made, made_then)


def _is_older(before: FeedState, changes: ProjectChanges, members: Mapping[str, str]) -> bool:
    """Return whether a Crucible that tells revisions lacks what was last seen there, or delivered by this machine.

    Both are among the changes since then, unless an older copy was put back, whatever has come to that meanwhile. A
    deletion changes the revision.
    """
    lost, _, made = changes.revision.rpartition(":")
    lost_then, _, made_then = before.revision.rpartition(":")
    if not lost or lost != lost_then:
        return False
    last = {mfid for mfid, when in members.items() if not when or when >= before.latest}
    return not last <= changes.modified.keys() or _is_fewer(made, made_then)


def _is_fewer(made: str, then: str) -> bool:
    return made.isdigit() and then.isdigit() and int(made) < int(then)


_held: OrderedDict[tuple[Path, str], tuple[str, Snapshot]] = OrderedDict()
_held_lock = threading.Lock()
