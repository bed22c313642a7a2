"""The mirror: what this machine knows of a Crucible, as one account sees it.

A cache, in one SQLite file for each Crucible and account, since accounts see different datasets.

A plan needs the datasets of one pipeline, those with its keyword: `sync` costs one call while nothing has changed.
Where the service has a revision, only changes are read; where it has none, the keyword's datasets are listed. The
current results are read from the slots of these datasets. A trusted dataset was compared with its record, including
its files, and has not changed since. Writes of this machine are recorded here, so that no sync reads them back.

Lists and pages need a project, which `snapshot` updates: two calls while little has changed, for what was modified
since the last one, and for the number of datasets, which shows that some are gone. It sees every change of a dataset's
`modification_time` or of that number. A change of neither is seen when the listing is a day old: one dataset removed
and an older one made visible in between, or a link at a service that does not date its links.

Each row has a checksum. A damaged row is read again and never shown.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core import tables
from crucible_lineage.core.datasets import ONE_BY_ONE, no_project
from crucible_lineage.core.slots import DatasetStatus, SlotClaim
from crucible_lineage.core.stated import StatedMirror
from crucible_lineage.core.tables import EVERYTHING, FeedState, Snapshot, StoredRecord
from crucible_lineage.errors import InputError, NotFoundError, RefusedError
from crucible_lineage.machine.checksums import unsealed
from crucible_lineage.refs import DatasetRef, ProjectChanges
from crucible_lineage.server.database import present_datasets, project_changes, project_revision, statements_token

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

log = logging.getLogger(__name__)

OVERLAP = timedelta(seconds=10)  # transactions take time: a change may be dated before one that was visible earlier
OLDEST_FIRST: dict[str, Any] = {"sort": "updated", "direction": "asc"}  # so that changes made meanwhile are listed, too
MAX_SNAPSHOTS = 4  # that a process keeps in memory, beside the file


Judge = Callable[[Mapping[str, StoredRecord], Collection[str]], Mapping[str, DatasetRef]]


class Mirror(StatedMirror):
    """The local copy of one Crucible, thread-safe; changes of an `embedded` one are read without a server."""

    def __init__(
        self, path: Path, client: Callable[[], CrucibleClient], where: str, embedded: Path | None = None
    ) -> None:
        super().__init__(path, client, embedded)
        self._where = where

    # Trusted datasets

    def known(self, mfid: str) -> DatasetRef | None:
        """Return the dataset if it is trusted to be complete with exactly these files."""
        return self.known_among([mfid]).get(mfid)

    def known_among(self, mfids: Collection[str]) -> dict[str, DatasetRef]:
        """Return the trusted ones among these datasets, by the requested ids."""
        sql = "SELECT mfid, ref FROM trusted WHERE mfid IN (SELECT value FROM json_each(?))"
        rows = self.rows(sql, json.dumps(list(mfids)))
        return {mfid: DatasetRef.from_json(ref) for mfid, text in rows if (ref := unsealed(text, mfid))}

    def trust(self, datasets: Mapping[str, DatasetRef]) -> None:
        """Trust datasets, under the ids that their recipes give."""
        self.transaction(lambda db: tables.trust(db, datasets))

    def forget(self, mfids: Iterable[str]) -> None:
        """Stop trusting these datasets."""
        self.write_many("DELETE FROM trusted WHERE mfid = ?", [(mfid,) for mfid in mfids])

    def note_corrected(self, mfid: str) -> None:
        """Read a dataset that this machine has corrected, and trust it no more: lists may be late."""
        self.forget([mfid])
        self.read([mfid])

    def attempts(self) -> dict[str, int]:
        """Return the latest known attempt at each repeated recipe, by the id of its first attempt."""
        return dict(self.rows("SELECT first, attempt FROM attempt"))

    def note_attempt(self, first: str, attempt: int) -> None:
        """Record an attempt at a recipe that was made again, unless a later one is recorded."""
        sql = "INSERT INTO attempt VALUES (?, ?) ON CONFLICT DO UPDATE SET attempt = max(attempt, excluded.attempt)"
        self.write_many(sql, [(first, attempt)])

    # Datasets of one pipeline

    def sync(self, project: str, scope: str, judge: Judge) -> dict[str, DatasetStatus]:
        """Update the datasets of a pipeline in a project; `scope` is their keyword.

        `judge` receives the new and changed records, and the ids of those that others have changed; it returns the
        trusted ones. Return the complete datasets that fill slots of the pipeline, by id.
        """
        before = self._feed(project, scope)
        latest = before.latest if before else ""
        changes = self.changes(project, latest or None, scope)
        if changes is None:  # the project does not exist
            self.transaction(lambda db: tables.forget_scope(db, project, scope))
            self.sync_statements()
            return {}
        members = self._seen(project, scope)
        changed = {mfid for mfid, when in changes.modified.items() if members.get(mfid) != when}
        is_older = None if before is None else self._is_older(before, changes, members)
        self.sync_statements(changes.statements)
        is_full = is_older is not False
        if is_full:
            has_any = latest or changes.modified
            rows, seen = list(self._listed(project_id=project, keyword=scope)) if has_any else [], {}
        else:
            rows = self._read(changed, changes.modified, project_id=project, keyword=scope)
            seen = {mfid: when for mfid, when in changes.modified.items() if mfid not in changed}
        seen |= {row.mfid: row.modified for row in rows}
        missing = (members.keys() if is_full else changed) - seen.keys()
        if is_older and missing:
            _warn_of_loss(scope, missing)
        after = FeedState(changes.revision, max([*changes.modified.values(), latest]))
        if rows or missing or after != before or not seen.items() <= members.items():
            trusted = judge({row.mfid: StoredRecord(row.record) for row in rows}, changed) if rows else {}

            def store(db: sqlite3.Connection) -> None:
                tables.drop(db, missing)
                if is_full and before is not None and before.revision:  # other trusted datasets may be lost, too
                    db.execute("DELETE FROM trusted WHERE mfid NOT IN (SELECT mfid FROM member)")
                db.executemany("DELETE FROM trusted WHERE mfid = ?", [(mfid,) for mfid in changed])
                tables.write(db, rows)
                tables.join(db, project, scope, seen)
                tables.trust(db, trusted)
                tables.set_feed(db, project, scope, after)

            self.transaction(store)
        slots = self.slots(project, scope)
        return self.sync(project, scope, judge) if slots is None else slots

    def _is_older(self, before: FeedState, changes: ProjectChanges, members: Mapping[str, str]) -> bool | None:
        """Return whether a Crucible lacks datasets that were last seen there or delivered by this machine.

        Both are among the changes since then, unless an older copy was restored, even if that has changed meanwhile.
        None if that is open: where datasets were deleted, which changes the revision, or where the service has no
        revisions.
        """
        lost, _, made = changes.revision.rpartition(":")
        lost_then, _, made_then = before.revision.rpartition(":")
        if not lost or lost != lost_then:
            return None
        last = {mfid for mfid, when in members.items() if when and when >= before.latest}
        last |= self.known_among([mfid for mfid, when in members.items() if not when]).keys()  # else it may wait here
        is_fewer = made.isdigit() and made_then.isdigit() and int(made) < int(made_then)
        return is_fewer or not last <= changes.modified.keys()

    def slots(self, project: str, scope: str) -> dict[str, DatasetStatus] | None:
        """Return the result of the last `sync`, without a call; None after dropping damaged rows."""
        pipeline = scope.partition(":")[2]
        rows = self.rows(
            "SELECT mfid, slot, filled, (SELECT replaces FROM dataset WHERE dataset.mfid = slot.mfid)"
            " FROM slot JOIN member USING (project, mfid)"
            " WHERE project = ? AND scope = ? AND slot >= ? AND slot < ? AND"
            " (EXISTS (SELECT 1 FROM trusted WHERE there = slot.mfid AND trusted.mfid = slot.mfid)"
            " OR EXISTS (SELECT 1 FROM dataset WHERE dataset.mfid = slot.mfid))",
            *(project, scope, f"{pipeline}/", f"{pipeline}0"),
        )
        slots: dict[str, dict[str, SlotClaim]] = {}
        replaces: dict[str, str | None] = {}
        damaged = set()
        for mfid, key, text, replaces[mfid] in rows:
            if (entry := unsealed(text, key, mfid)) is None:
                damaged.add(mfid)
            else:
                slots.setdefault(mfid, {})[key] = SlotClaim.from_json(entry)
        if damaged:
            self._read_again(project, damaged)
            return None
        return {mfid: DatasetStatus(mfid, project, True, True, slot, replaces[mfid]) for mfid, slot in slots.items()}

    def _read_again(self, project: str, damaged: Collection[str]) -> None:
        """Drop damaged rows, and let the next sync and snapshot of the project read everything."""

        def drop(db: sqlite3.Connection) -> None:
            tables.drop(db, damaged)
            db.execute("DELETE FROM feed WHERE project = ?", (project,))

        self.transaction(drop)

    def is_synced(self, project: str, scope: str) -> bool:
        """Return whether a sync has found the project."""
        return self._feed(project, scope) is not None

    def members(self, project: str, scope: str) -> frozenset[str]:
        """Return the ids of the datasets with the keyword `scope`, as of the last sync."""
        return frozenset(self._seen(project, scope))

    def is_member(self, project: str, scope: str, mfid: str) -> bool:
        """Return whether a dataset is known to have the keyword `scope`."""
        sql = "SELECT 1 FROM member WHERE project = ? AND scope = ? AND mfid = ?"
        return self.row(sql, project, scope, mfid) is not None

    def note_slots(self, project: str, scopes: Iterable[str], mfid: str, slots: Mapping[str, SlotClaim]) -> None:
        """Record slots and keywords that this machine has written to a dataset."""

        def note(db: sqlite3.Connection) -> None:
            tables.fill(db, project, mfid, slots)
            for scope in scopes:
                tables.join(db, project, scope, {mfid: ""})

        self.transaction(note)

    def settle(self, project: str, scope: str, listed: Mapping[str, tuple[str, Mapping[str, SlotClaim]]]) -> None:
        """Record the modification times of this machine's own writes: {MFID: (when, its slots)}, as listed now.

        The next sync then need not read them back. It does where somebody else has changed the slots since, or where
        the run died or was offline before this call.
        """

        def note(db: sqlite3.Connection) -> None:
            noted: dict[str, dict[str, SlotClaim]] = {}
            own = "SELECT mfid, slot, filled FROM member JOIN slot USING (project, mfid)"
            where = "project = ? AND scope = ? AND seen = '' AND mfid IN (SELECT there FROM trusted)"
            for mfid, slot, text in db.execute(f"{own} WHERE {where}", (project, scope)):
                noted.setdefault(mfid, {})[slot] = SlotClaim.from_json(unsealed(text, slot, mfid) or {"since": ""})
            seen = [(listed[mfid][0], project, scope, mfid) for mfid, slots in noted.items()
                    if mfid in listed and listed[mfid][1] == slots]  # fmt: skip
            db.executemany("UPDATE member SET seen = ? WHERE project = ? AND scope = ? AND mfid = ?", seen)

        self.transaction(note)

    def read_among(self, project: str, mfids: Collection[str]) -> dict[str, StoredRecord]:
        """Read datasets of a project, as far as they exist: a few by id, many by a listing of the project."""
        listed = self.snapshot(project).records if len(mfids) > ONE_BY_ONE else {}
        found = {mfid: listed[mfid] for mfid in mfids if mfid in listed}
        return found | self.read([mfid for mfid in mfids if mfid not in found])

    def may_have(self, mfids: Collection[str]) -> Collection[str]:
        """Return the ids of datasets that may be at Crucible: all, where only a call can tell."""
        if self._embedded is None:
            return mfids
        present = present_datasets(self._embedded, mfids)
        return mfids if present is None else present

    def unread(self, project: str) -> int:
        """Count the datasets of a project that were never read, with one call; 0 if there is no such project."""
        try:
            total = self._client().datasets.count(**_within(project))
        except (NotFoundError, RefusedError):
            return 0
        row = self.row(f"SELECT count(*) FROM dataset WHERE {tables.of_project(project)}", project)  # noqa: S608
        return max(0, total - int(row[0]))

    def changes(self, project: str, since: str | None, scope: str) -> ProjectChanges | None:
        """Ask Crucible for the changes since then; None if the project does not exist."""
        if self._embedded is not None:  # reading the folder needs no server
            modified = project_changes(self._embedded, project, since, scope)
            revision = project_revision(self._embedded, project)
            statements = statements_token(self._embedded)
            return ProjectChanges(revision, modified, statements) if revision and modified is not None else None
        try:
            return self._client().datasets.changes(project, since, scope)
        except (NotFoundError, RefusedError):
            return None

    # Snapshots of a project

    def snapshot(self, project: str) -> Snapshot:
        """Return all datasets of a project, or EVERYTHING; only changes are read. InputError without such a project."""
        self.sync_statements()
        feed = self._feed(project, EVERYTHING, is_recent=True)
        filters = {**OLDEST_FIRST, **_within(project)}
        with self._of_project(project):
            if feed is None or not feed.latest:  # all are listed
                rows = list(self._listed(**filters))
                feed, listed = FeedState("", max((row.modified for row in rows), default="")), dict[str, str]()
                self.transaction(lambda db: tables.store_project(db, project, rows, feed))
            else:
                since = datetime.fromisoformat(feed.latest) - OVERLAP
                found = self._client().datasets.iter(modification_time_gte=since, **filters)
                listed = {dataset.unique_id: dataset.modification_time or "" for dataset in found}
        known, own = self.transaction(lambda db: (tables.modified_of(db, project), tables.unlisted_statements(db)))
        new, gone = self._compared(known, listed, own, **_within(project))
        after = FeedState("", max([feed.latest, *listed.values()]))
        if new or gone or after != feed:
            rows = self._read(new, listed, **filters)

            def store(db: sqlite3.Connection) -> None:
                tables.drop(db, gone)
                tables.write(db, rows)
                tables.set_feed(db, project, EVERYTHING, after, is_listed=False)

            self.transaction(store)
        return self._snapshot(project)

    @contextmanager
    def _of_project(self, project: str) -> Iterator[None]:
        """Raise InputError if there is no such project."""
        try:
            yield
        except (NotFoundError, RefusedError) as error:
            if isinstance(error, RefusedError) and self._client().projects.find(project) is not None:
                raise InputError(f"list the datasets of project {project!r}: {error}") from error
            raise no_project(self._client(), project, self._where) from error

    def _snapshot(self, project: str) -> Snapshot:
        """Return the snapshot, newest first as Crucible lists them; the same object while nothing has changed."""
        held = _held(self.path, project.casefold())
        row = self.row("SELECT token FROM feed WHERE project = ? AND scope = ''", project)
        if row is not None and (snapshot := held.get(row[0])) is not None:
            return snapshot
        token, found, damaged = self.transaction(lambda db: tables.snapshot_of(db, project))
        if damaged:
            self._read_again(project, damaged)
        if damaged or token is None:  # meanwhile the file was replaced by an empty one
            return self.snapshot(project)
        held.clear()
        held[token] = found
        return found


def _within(project: str) -> dict[str, Any]:
    return {} if project == EVERYTHING else {"project_id": project}


def _warn_of_loss(scope: str, missing: Collection[str]) -> None:
    log.warning(
        "%d datasets of %s that were at this Crucible are missing (%s): an older copy of it was restored; "
        "what is lost is made again",
        len(missing), scope, ", ".join(sorted(missing)[:3]),
    )  # fmt: skip


@lru_cache(MAX_SNAPSHOTS)
def _held(_path: Path, _project: str) -> dict[str, Snapshot]:
    """Return the last snapshot of a project that this process has read from the file, by its token."""
    return {}
