"""The mirror's statements, and its records of datasets by id."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core import tables
from crucible_lineage.core.datasets import ONE_BY_ONE, fetch_datasets
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.core.tables import EVERYTHING, SCHEMA, FeedState, Row, StoredRecord, Summary
from crucible_lineage.ids import is_mfid
from crucible_lineage.machine.checksums import unsealed
from crucible_lineage.refs import ProjectChanges
from crucible_lineage.server.database import statements_token
from crucible_lineage.statements.calibrations import Certificate, counting_certificates
from crucible_lineage.statements.statements import KEYWORD, ActiveStatements, Statement, in_force
from crucible_lineage.text.times import utc

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

MAX_AGE_S = 24 * 3600


class StatedMirror(LocalDatabase):
    """The part of the mirror that keeps statements, with what all its parts read by id."""

    def __init__(self, path: Path, client: Callable[[], CrucibleClient], embedded: Path | None) -> None:
        super().__init__(path, SCHEMA)
        self._active, self._token = in_force(()), None  # the statements in force, as of this state of the rows
        self._client = client
        self._embedded = embedded

    def sync_statements(self, token: str | None = None) -> None:
        """Update the statements that this key may see, and which of them are in force.

        `token` is the service's token for the statements, if the caller has it: while it is the same, nothing is read.
        Without it, one call. Where the service has no token, removed statements are noticed once a day.
        """
        before = self._feed(EVERYTHING, KEYWORD)
        if (found := self._stated_since(token, before)) is None:
            return
        token, listed = found
        known = self._seen(EVERYTHING, KEYWORD)
        own = {mfid for mfid, when in known.items() if not when}  # stated here; lists may be late
        is_recent = token is None and self._feed(EVERYTHING, KEYWORD, is_recent=True) is not None
        new, gone = set[str](), set[str]()
        if (token or "").startswith("0:"):
            gone = self._gone(known.keys(), own)
        elif not is_recent or not listed.items() <= known.items():
            new, gone = self._compared(known, listed, own, keyword=KEYWORD)
        rows = self._read(new, listed, is_stated=True, keyword=KEYWORD)
        after = FeedState(token or "", max([before.latest if before else "", *listed.values()]))

        def store(db: sqlite3.Connection) -> None:
            tables.drop(db, gone)
            tables.write(db, rows)
            tables.join(db, EVERYTHING, KEYWORD, {row.mfid: row.modified for row in rows})
            tables.set_feed(db, EVERYTHING, KEYWORD, after)

        if rows or gone or after != before or not is_recent:
            self.transaction(store)

    def _stated_since(self, token: str | None, before: FeedState | None) -> tuple[str | None, Mapping[str, str]] | None:
        """Return the present token, and when the statements changed since `before` were modified; None if none has."""
        changes: ProjectChanges | None = None
        since = (before and before.latest) or None
        if token is None and self._embedded is not None:
            token = statements_token(self._embedded) or "0:"  # without a database, there are no statements
        elif token is None:
            changes = self._client().datasets.changes(EVERYTHING, since, KEYWORD)
            token = changes.statements
        if before is not None and before.revision == token:
            return None
        if (token or "").startswith("0:"):
            return token, {}
        return token, (changes or self._client().datasets.changes(EVERYTHING, since, KEYWORD)).modified

    def _compared(
        self, known: Mapping[str, str], listed: Mapping[str, str], own: Collection[str], **filters: Any
    ) -> tuple[set[str], set[str]]:
        """Return the ids to read and those that are gone, by when datasets were modified as known and as just listed.

        Their number at Crucible tells whether some are gone or became visible; a list of all ids then tells which.
        """
        new = {mfid for mfid, when in listed.items() if known.get(mfid) != when}
        datasets = self._client().datasets
        if datasets.count(**filters) == len(known.keys() | new):
            return new, set()
        present = {dataset.unique_id for dataset in datasets.iter(**filters)}
        return (new & present) | (present - known.keys()), self._gone(known.keys() - present, own)

    def _gone(self, absent: Collection[str], own: Collection[str]) -> set[str]:
        """Return those of the absent datasets that are gone: own statements are read by id before lists have them."""
        late = set(own) & set(absent)
        return set(absent) - (fetch_datasets(self._client(), late).found.keys() if late else set())

    def note_statements(self, mfids: Collection[str]) -> None:
        """Read statements that this machine has made, or whose rows are damaged: they count however late lists are."""
        rows = self._read(list(filter(is_mfid, mfids)), is_stated=True)

        def store(db: sqlite3.Connection) -> None:
            tables.drop(db, mfids)
            tables.write(db, rows)
            tables.join(db, EVERYTHING, KEYWORD, {row.mfid: "" for row in rows})

        self.transaction(store)

    def statements_until(self) -> str:
        """Return the time up to which lists had all statements at the last sync; empty unless they lack own ones."""
        feed = self._feed(EVERYTHING, KEYWORD)
        own = "SELECT min(modified) FROM member JOIN dataset USING (mfid) WHERE scope = ? AND seen = ''"
        row = self.row(f"{own} AND modified > ?", KEYWORD, feed.latest if feed else "")
        return (row[0] or "") if row else ""

    def in_force(self) -> ActiveStatements:
        """Return the statements in force as of the last sync; the same object while nothing has changed."""

        def read(db: sqlite3.Connection) -> list[str]:
            sql = "SELECT token FROM feed WHERE project = ? AND scope = ?"
            token = db.execute(sql, (EVERYTHING, KEYWORD)).fetchone()
            if token is not None and token == self._token:
                return []
            lost = "SELECT mfid FROM member WHERE scope = ? AND mfid NOT IN (SELECT mfid FROM dataset)"
            damaged = [mfid for (mfid,) in db.execute(lost, (KEYWORD,))]
            self._active, self._token = in_force(tables.statements_of(db, damaged=damaged).values()), token
            return damaged

        while damaged := self.transaction(read):
            self.note_statements(damaged)
        return self._active

    def certificates(self, project: str, kind: str | None = None, until: datetime | None = None) -> list[Certificate]:
        """Return the certificates that count in a project, of one kind or all, by statements made before `until`."""
        active = self.in_force()
        if until is not None:
            active = in_force(stated for stated in self.statements().values() if utc(stated.when) < until)
        return counting_certificates(active, project, kind)

    def statements(self, mfids: Collection[str] | None = None) -> dict[str, Statement]:
        """Return these statements, or all, as of the last sync, including revoked ones and those that count nowhere."""
        return self.transaction(lambda db: tables.statements_of(db, mfids))

    # Records by id

    def records(self, mfids: Collection[str]) -> dict[str, StoredRecord]:
        """Return the records of these datasets as last read; those never read are left out."""
        rows = self.transaction(lambda db: list(tables.among(db, mfids)))
        return {row[0]: StoredRecord(row[-1]) for row in rows}

    def read(self, mfids: Collection[str]) -> dict[str, StoredRecord]:
        """Read datasets at Crucible by id, as far as they exist, and store their records."""
        if rows := self._read(mfids):
            self.transaction(lambda db: tables.write(db, rows))
        return {row.mfid: StoredRecord(row.record) for row in rows}

    def summaries(self, mfids: Collection[str], *, ask: bool = True) -> dict[str, Summary]:
        """Return their summaries; with `ask`, read those never read (absent and hidden ones once a day)."""
        rows_known = self.transaction(lambda db: list(tables.among(db, mfids)))
        found = {row[0]: Summary.from_columns(row) for row in rows_known}
        missing = [mfid for mfid in mfids if mfid not in found]
        if not missing or not ask:
            return found
        sql = "SELECT mfid FROM absent WHERE asked > ? AND mfid IN (SELECT value FROM json_each(?))"
        earliest = time.time() - MAX_AGE_S
        absent = {mfid for (mfid,) in self.rows(sql, earliest, json.dumps(missing))}
        if to_read := [mfid for mfid in missing if mfid not in absent]:
            rows = self._read(to_read)
            absent = set(to_read) - {row.mfid for row in rows}

            def store(db: sqlite3.Connection) -> None:
                tables.write(db, rows)
                db.executemany("INSERT OR REPLACE INTO absent VALUES (?, ?)", [(mfid, time.time()) for mfid in absent])

            self.transaction(store)
            found |= {row.mfid: row.summary for row in rows}
        return found

    def _read(
        self,
        mfids: Collection[str],
        listed: Mapping[str, str] | None = None,
        *,
        is_stated: bool = False,
        **filters: Any,
    ) -> list[Row]:
        """Read datasets, as far as they exist: by id, or many by a listing with these filters, if any.

        `listed` is when they were modified as far as a list has just shown it; `is_stated` says that they are listed
        among statements.
        """
        if filters and len(mfids) > ONE_BY_ONE:
            if since := min((listed or {}).get(mfid, "") for mfid in mfids):
                filters["modification_time_gte"] = since
            return [row for row in self._listed(is_stated=is_stated, **filters) if row.mfid in mfids]
        records = fetch_datasets(self._client(), mfids, include_links=True).found if mfids else {}
        return [Row.of(record, is_stated=is_stated) for record in records.values()]

    def _listed(self, *, is_stated: bool = False, **filters: Any) -> Iterator[Row]:
        """List datasets with all that is stored of them."""
        for dataset in self._client().datasets.iter(include_metadata=True, include_links=True, **filters):
            yield Row.of(dataset.model_dump(), is_stated=is_stated)

    def _seen(self, project: str, scope: str) -> dict[str, str]:
        """Return the datasets with a keyword, each with when it was modified as last listed; own ones may be unseen."""
        return dict(self.rows("SELECT mfid, seen FROM member WHERE project = ? AND scope = ?", project, scope))

    def _feed(self, project: str, scope: str, *, is_recent: bool = False) -> FeedState | None:
        """Return the state of Crucible at the last sync; None if there was none, or no listing of the last day."""
        row = self.row("SELECT state, listed FROM feed WHERE project = ? AND scope = ?", project, scope)
        if row is None or (is_recent and not 0 <= time.time() - row[1] < MAX_AGE_S):
            return None
        state = unsealed(row[0], project.casefold(), scope)
        return FeedState(*state) if state else None
