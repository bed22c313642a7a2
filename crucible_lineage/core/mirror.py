"""The mirror: what this machine knows of a Crucible, as one account of it sees it.

A cache, in one SQLite file for each Crucible and account: what one account may see, another one may not. A project is
kept up by `snapshot`, which costs two calls while little has changed: what was modified since the last one, and how
many datasets there are, which shows that some are gone. Seen is all that moves a dataset's `modification_time` or that
number. A change that moves neither is seen when the listing is a day old, or with `refresh`: one dataset gone and an
older one become visible in between, or a link at a service that does not date its links. Where a service does not date
metadata at all, as completed registrations show, the whole project is listed each time.

Each row carries a checksum. A damaged one is read again and never shown.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crucible_lineage.core.datasets import ONE_BY_ONE, fetch_datasets
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.core.summary import COLUMNS, Summary, summary_of
from crucible_lineage.errors import InputError, NotFoundError, RefusedError
from crucible_lineage.lineage.graph import collector_paused

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["EVERYTHING", "Mirror", "Snapshot"]

Record = Mapping[str, Any]

MAX_AGE_S = 24 * 3600
OVERLAP = timedelta(seconds=10)  # a change may be dated before one that could be read earlier: transactions take time
EVERYTHING = ""  # in the stead of a project: all that the key sees
MOST_HELD = 4  # snapshots that a process keeps in memory, beside the file
READY = 256  # records that stay unpacked: more than those that all checks look at in one turn

SCHEMA = f"""
CREATE TABLE feed (
    project TEXT PRIMARY KEY COLLATE NOCASE, latest TEXT NOT NULL, listed REAL NOT NULL, token TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE dataset (
    mfid TEXT PRIMARY KEY, project TEXT NOT NULL COLLATE NOCASE,
    {", ".join(f"{name} NOT NULL" for name in COLUMNS[2:] if name != "size")}, size,
    modified TEXT NOT NULL, record BLOB NOT NULL, seal INTEGER NOT NULL
);
CREATE INDEX dataset_of_project ON dataset (project, mfid)
"""
_READ = (*COLUMNS, "modified", "record", "seal")
_SET = ", ".join(f"{name} = excluded.{name}" for name in _READ[1:])
_WRITE = (
    f"INSERT INTO dataset ({', '.join(_READ)}) VALUES ({', '.join('?' * len(_READ))})"  # noqa: S608  texts of ours
    f" ON CONFLICT DO UPDATE SET {_SET} WHERE excluded.modified >= modified AND excluded.record <> record"
)
# What a registration completes, it changes after it was created: equal times show that the service dates nothing.
_IS_UNDATED = "step <> '' AND complete AND modified = created"


class StoredRecord(Mapping[str, Any]):
    """A record as the mirror has it, deflated JSON, unpacked when it is looked at.

    As Python objects, records take ten times as much memory: a million links with theirs would not fit in 4 GB.
    """

    __slots__ = ("stored",)

    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def __getitem__(self, key: str) -> Any:
        return _unpacked(self.stored)[key]

    def get(self, key: str, default: Any = None) -> Any:
        return _unpacked(self.stored).get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(_unpacked(self.stored))

    def __len__(self) -> int:
        return len(_unpacked(self.stored))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A project's datasets by id, as they are now; `downloaded` of them were not known in this state before.

    Nobody may change it: in one process, who asks again while nothing has changed is given the same one.
    """

    records: dict[str, Record]
    downloaded: int
    summaries: dict[str, Summary]


class _Row(NamedTuple):
    """A dataset as the mirror keeps it: its summary in columns, when it was modified, its record deflated, a seal."""

    columns: tuple[object, ...]
    modified: str
    record: bytes

    @classmethod
    def of(cls, record: Record) -> _Row:
        return cls(summary_of(record).columns(), record["modification_time"] or "", packed(record))

    @property
    def mfid(self) -> str:
        return str(self.columns[0])

    @property
    def values(self) -> tuple[object, ...]:
        kept = (*self.columns, self.modified, self.record)
        return (*kept, _seal(kept))


class Mirror:
    """What is known of one Crucible. Thread-safe; `where` says which one it is, for messages."""

    def __init__(self, path: Path, client: Callable[[], CrucibleClient], where: str) -> None:
        self.database = LocalDatabase(path, SCHEMA)
        self._client = client
        self._where = where

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def snapshot(self, project: str, *, refresh: bool = False) -> Snapshot:
        """Return all datasets of a project with metadata and links; download what changed, with `refresh` everything.

        Of EVERYTHING, all that this key sees. Raises InputError if there is no such project.
        """
        latest = None if refresh else self._latest(project)
        changed = self._changed_since(project, latest) if latest else self._modified_since(project)
        total = self._client().datasets.count(**_within(project))
        downloaded, present = self.database.transaction(
            lambda db: (_store(db, project, changed, everything=latest is None), _ids(db, project))
        )
        if len(present) != total:
            downloaded += self._reconcile(project, present)
        return self._snapshot(project, downloaded)

    def _latest(self, project: str) -> str | None:
        """Return the latest modification that was seen; None if the project has to be listed."""
        row = self.database.row("SELECT latest, listed FROM feed WHERE project = ?", project)
        if row is None or not 0 <= time.time() - row[1] < MAX_AGE_S or self._is_undated(project):
            return None
        return str(row[0]) or None

    def _is_undated(self, project: str) -> bool:
        sql = f"SELECT 1 FROM dataset WHERE {_of(project)} AND {_IS_UNDATED} LIMIT 1"  # noqa: S608  texts of ours
        return self.database.row(sql, project) is not None

    def _changed_since(self, project: str, latest: str) -> list[_Row]:
        """Read what was modified since then and is not known in this state; list what is known without metadata."""
        sql = f"SELECT mfid, modified FROM dataset WHERE {_of(project)}"  # noqa: S608  a text of ours
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

    def _modified_since(self, project: str, earliest: datetime | None = None) -> list[_Row]:
        """Read what was modified since then, or all; in that order, a change while listing is listed too."""
        filters = {**_within(project), **({"modification_time_gte": earliest} if earliest else {})}
        found = self._client().datasets.iter(
            include_metadata=True, include_links=True, sort="updated", direction="asc", **filters
        )
        try:
            return [_Row.of(dataset.model_dump()) for dataset in found]
        except (NotFoundError, RefusedError) as error:
            raise self._no_project(project, error) from error

    def _no_project(self, project: str, error: Exception) -> InputError:
        state = f"there is none here that this key may see ({self._where})"
        return InputError(f"list the datasets of project {project!r}: {state}; Crucible says: {error}")

    def _reconcile(self, project: str, present: set[str]) -> int:
        """Drop what is gone, and read what came without having been modified. Return how many those are."""
        listed = {dataset.unique_id for dataset in self._client().datasets.iter(**_within(project))}
        new = listed - present
        rows = self._read(new) if len(new) <= ONE_BY_ONE else self._modified_since(project)

        def reconcile(db: sqlite3.Connection) -> int:
            _drop(db, (present - listed) | new)  # a new one may be a damaged row
            return _store(db, project, rows, everything=False)

        return self.database.transaction(reconcile)

    def _read(self, mfids: Collection[str]) -> list[_Row]:
        """Read datasets by their ids, as far as they are there."""
        return [_Row.of(one) for one in fetch_datasets(self._client(), mfids, include_links=True).found.values()]

    def _snapshot(self, project: str, downloaded: int) -> Snapshot:
        """Return the newest first, as Crucible lists them; the same object while nothing has changed."""
        key = (self.database.path, project.casefold())
        row = self.database.row("SELECT token FROM feed WHERE project = ?", project)
        with _held_lock:
            before, held = _held.get(key, ("", None))
            if held is not None and row is not None and row[0] == before:
                _held.move_to_end(key)
                return replace(held, downloaded=downloaded) if downloaded else held
        token, found, damaged = self.database.transaction(lambda db: _snapshot_of(db, project))
        if damaged:
            rows = self._modified_since(project)

            def replace_all(db: sqlite3.Connection) -> None:
                _drop(db, damaged)
                _store(db, project, rows, everything=True)

            self.database.transaction(replace_all)
        if damaged or token is None:  # the file was begun anew meanwhile
            return self.snapshot(project)
        with _held_lock:
            _held[key] = token, found
            _held.move_to_end(key)
            while len(_held) > MOST_HELD:
                _held.popitem(last=False)
        return replace(found, downloaded=downloaded) if downloaded else found


def _of(project: str) -> str:
    """Return the SQL condition for the rows of a project, which takes it as its value."""
    return "project = ?" if project != EVERYTHING else "? = ''"


def _within(project: str) -> dict[str, Any]:
    return {} if project == EVERYTHING else {"project_id": project}


def _store(db: sqlite3.Connection, project: str, found: Sequence[_Row], *, everything: bool) -> int:
    """Store these rows, with `everything` as all that there is; return how many are new or other than before.

    A record never replaces a later one: another process may have written since this one asked.
    """
    if everything:
        _drop(db, _ids(db, project) - {row.mfid for row in found})
        db.execute("INSERT OR REPLACE INTO feed VALUES (?, '', ?, hex(randomblob(8)))", (project, time.time()))
    changed = db.executemany(_WRITE, [row.values for row in found]).rowcount
    latest = max((row.modified for row in found), default="")
    db.execute("UPDATE feed SET latest = max(latest, ?) WHERE project = ?", (latest, project))
    if changed > 0:
        _renew(db)
    return max(changed, 0)


def _drop(db: sqlite3.Connection, mfids: Iterable[str]) -> None:
    gone = [(mfid,) for mfid in mfids]
    if gone:
        db.executemany("DELETE FROM dataset WHERE mfid = ?", gone)
        _renew(db)


def _renew(db: sqlite3.Connection) -> None:
    """Note that rows have changed: who holds a snapshot reads again."""
    db.execute("UPDATE feed SET token = hex(randomblob(8))")


def _ids(db: sqlite3.Connection, project: str) -> set[str]:
    sql = f"SELECT mfid FROM dataset WHERE {_of(project)}"  # noqa: S608  a text of ours
    return {mfid for (mfid,) in db.execute(sql, (project,))}


_held: OrderedDict[tuple[Path, str], tuple[str, Snapshot]] = OrderedDict()
_held_lock = threading.Lock()


def _snapshot_of(db: sqlite3.Connection, project: str) -> tuple[str | None, Snapshot, list[str]]:
    """Return the token (None if the project was never listed), what there is, and the ids of damaged rows."""
    row = db.execute("SELECT token FROM feed WHERE project = ?", (project,)).fetchone()
    sql = f"SELECT {', '.join(_READ)} FROM dataset WHERE {_of(project)} ORDER BY mfid DESC"  # noqa: S608  texts of ours
    rows = db.execute(sql, (project,))
    records: dict[str, Record] = {}
    summaries: dict[str, Summary] = {}
    damaged = []
    width = len(COLUMNS)
    with collector_paused():
        for *kept, seal in rows:
            if _seal(kept) != seal:
                damaged.append(kept[0])
                continue
            records[kept[0]] = StoredRecord(kept[-1])
            summaries[kept[0]] = Summary.from_columns(kept[:width])
    return row[0] if row else None, Snapshot(records, 0, summaries), damaged


def _seal(values: Sequence[object]) -> int:
    """Return a checksum over the columns of a row, of which the last one is the record."""
    start = zlib.crc32("\0".join(map(str, values[:-1])).encode("utf-8", "surrogatepass"))
    return zlib.crc32(values[-1], start)  # type: ignore[arg-type]


def packed(record: Record) -> bytes:
    """Return a record as the mirror keeps it."""
    return zlib.compress(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(), 1)


@lru_cache(READY)
def _unpacked(stored: bytes) -> dict[str, object]:
    """Return what was packed. Nobody may change it."""
    record: dict[str, Any] = json.loads(zlib.decompress(stored).decode())
    return record
