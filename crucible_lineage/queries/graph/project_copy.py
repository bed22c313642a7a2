"""Local copies of whole projects, datasets with metadata and links, so that a second question asks only for changes.

Crucible has the truth. A question costs two calls while little has changed: what was modified since the last one, and
how many datasets there are, which shows that some are gone. Seen is all that moves a dataset's `modification_time` or
that number. A change that moves neither is seen when the copy is a day old, or with `refresh`: one dataset gone and an
older one become visible in between, or a link at a service that does not date its links.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.errors import InputError, NotFoundError, RefusedError, StorageError
from crucible_lineage.lineage.graph import collector_paused
from crucible_lineage.queries.graph.datasets import ONE_BY_ONE, fetch_datasets
from crucible_lineage.queries.graph.summary import Summary, summary_of
from crucible_lineage.session import Session

__all__ = ["EVERYTHING", "ProjectCopy", "project_copy"]

Record = Mapping[str, Any]

MAX_AGE_S = 24 * 3600
OVERLAP = timedelta(seconds=10)  # a change may be dated before one that could be read earlier: transactions take time
HOW_TO_RENEW = "delete the folder `projects` in the data folder, and ask again"
EVERYTHING = ""  # in the stead of a project: all that the key sees
RENEWED = "UPDATE project SET token = hex(randomblob(8)) WHERE project = ?"
MOST_HELD = 4  # copies that a process keeps in memory, beside their files
READY = 256  # records that stay unpacked: more than those that all checks look at in one turn

SCHEMA = """
CREATE TABLE project (
    project TEXT PRIMARY KEY, since TEXT, listed REAL NOT NULL, token TEXT NOT NULL DEFAULT ''
);
CREATE TABLE dataset (
    project TEXT NOT NULL, mfid TEXT NOT NULL, modified TEXT NOT NULL, record BLOB NOT NULL, summary TEXT NOT NULL,
    PRIMARY KEY (project, mfid)
)
"""


class StoredRecord(Mapping[str, Any]):
    """A record as the copy has it, deflated JSON, unpacked when it is looked at.

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
class ProjectCopy:
    """A project's datasets by id, as they are now; `downloaded` of them were not known in this state before.

    Nobody may change it: in one process, who asks again while nothing has changed is given the same one.
    """

    records: dict[str, Record]
    downloaded: int
    summaries: dict[str, Summary]


class _Row(NamedTuple):
    """A dataset as the copy keeps it: its record deflated, and what lists show of it."""

    mfid: str
    modified: str
    packed: bytes
    summary: str


def project_copy(session: Session, project: str, *, refresh: bool = False) -> ProjectCopy:
    """All datasets of a project with metadata and links, of which only what changed is downloaded.

    InputError if there is no such project. `refresh` downloads everything. Of EVERYTHING, all that this key sees,
    whatever project it is in.
    """
    key = project.casefold()
    path = _path(session)
    with closing(LocalDatabase(path, SCHEMA)) as database:
        since = None if refresh else _since(database, key)
        changed = _changed_since(session, database, project, since) if since else _modified_since(session, project)
        total = session.client.datasets.count(**_within(project))
        downloaded, present = database.transaction(
            lambda db: (_store(db, key, changed, everything=since is None), _ids(db, key))
        )
        if len(present) != total:
            downloaded += _reconcile(session, database, project, present)
        return _copy(path, database, key, downloaded)


def _within(project: str) -> dict[str, Any]:
    return {} if project == EVERYTHING else {"project_id": project}


def _changed_since(session: Session, database: LocalDatabase, project: str, since: str) -> list[_Row]:
    """What was modified since then and is not known in this state; what is known is listed without its metadata."""
    known = dict(database.rows("SELECT mfid, modified FROM dataset WHERE project = ?", project.casefold()))
    earliest = datetime.fromisoformat(since) - OVERLAP
    listed = session.client.datasets.iter(
        sort="updated", direction="asc", modification_time_gte=earliest, **_within(project)
    )
    try:
        new = [one.modification_time for one in listed if known.get(one.unique_id) != (one.modification_time or "")]
    except (NotFoundError, RefusedError) as error:
        raise _no_project(session, project, error) from error
    times = [datetime.fromisoformat(one) for one in new if one]
    return _modified_since(session, project, min(times)) if times else []


def _modified_since(session: Session, project: str, earliest: datetime | None = None) -> list[_Row]:
    """All datasets of a project, or those modified since then; in that order, a change while listing is listed too."""
    filters = {**_within(project), **({"modification_time_gte": earliest} if earliest else {})}
    found = session.client.datasets.iter(
        include_metadata=True, include_links=True, sort="updated", direction="asc", **filters
    )
    try:
        return [_row(dataset.model_dump()) for dataset in found]
    except (NotFoundError, RefusedError) as error:
        raise _no_project(session, project, error) from error


def _no_project(session: Session, project: str, error: Exception) -> InputError:
    state = f"there is none here that this key may see ({session.settings.describe()})"
    return InputError(f"list the datasets of project {project!r}: {state}; Crucible says: {error}")


def _reconcile(session: Session, database: LocalDatabase, project: str, present: set[str]) -> int:
    """What is deleted leaves the copy, and what came without having been modified comes into it; how many those are."""
    listed = {dataset.unique_id for dataset in session.client.datasets.iter(**_within(project))}
    new = listed - present
    if len(new) <= ONE_BY_ONE:
        rows = list(map(_row, fetch_datasets(session, new, include_links=True).found.values()))
    else:
        rows = _modified_since(session, project)
    key = project.casefold()
    deleted = [(key, mfid) for mfid in present - listed]

    def reconcile(db: sqlite3.Connection) -> int:
        db.executemany("DELETE FROM dataset WHERE project = ? AND mfid = ?", deleted)
        db.execute(RENEWED, (key,))
        return _store(db, key, rows, everything=False)

    return database.transaction(reconcile)


def _path(session: Session) -> Path:
    """The file for this Crucible and this account: what one may see, another one may not."""
    who = f"{session.store.instance}\n{session.settings.api_key or ''}"
    return session.settings.data / "projects" / f"{hashlib.sha256(who.encode()).hexdigest()[:16]}.sqlite"


def _since(database: LocalDatabase, key: str) -> str | None:
    """The latest modification that the copy has; None if there is no copy, or it is too old to be trusted."""
    row = database.row("SELECT since, listed FROM project WHERE project = ?", key)
    if row is None or not 0 <= time.time() - row[1] < MAX_AGE_S:
        return None
    return str(row[0]) if row[0] else None


def _store(db: sqlite3.Connection, key: str, found: Sequence[_Row], *, everything: bool) -> int:
    """The copy has these rows, and with `everything` no others; how many of them are new or other than before.

    A record never replaces a later one: another process may have written since this one asked.
    """
    if everything:
        db.execute("DELETE FROM dataset WHERE project = ?", (key,))
        db.execute("INSERT OR REPLACE INTO project (project, since, listed) VALUES (?, '', ?)", (key, time.time()))
    changed = db.executemany(
        "INSERT INTO dataset VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE"
        " SET modified = excluded.modified, record = excluded.record, summary = excluded.summary"
        " WHERE excluded.modified >= modified AND excluded.record <> record",
        [(key, *row) for row in found],
    ).rowcount
    latest = max((row.modified for row in found), default="")
    db.execute("UPDATE project SET since = max(since, ?) WHERE project = ?", (latest, key))
    if everything or changed:
        db.execute(RENEWED, (key,))
    return max(changed, 0)


def _ids(db: sqlite3.Connection, key: str) -> set[str]:
    return {mfid for (mfid,) in db.execute("SELECT mfid FROM dataset WHERE project = ?", (key,))}


_held: OrderedDict[tuple[Path, str], tuple[str, ProjectCopy]] = OrderedDict()
_held_lock = threading.Lock()


def _copy(path: Path, database: LocalDatabase, key: str, downloaded: int) -> ProjectCopy:
    """The newest first, as Crucible lists them; the one that this process has read before, if it is still the same."""
    row = database.row("SELECT token FROM project WHERE project = ?", key)
    with _held_lock:
        token, held = _held.get((path, key), ("", None))
        if held is not None and row is not None and row[0] == token:
            _held.move_to_end((path, key))
            return replace(held, downloaded=downloaded) if downloaded else held
    token, copy = database.transaction(lambda db: _read(db, key))
    with _held_lock:
        _held[path, key] = token, copy
        _held.move_to_end((path, key))
        while len(_held) > MOST_HELD:
            _held.popitem(last=False)
    return replace(copy, downloaded=downloaded) if downloaded else copy


def _read(db: sqlite3.Connection, key: str) -> tuple[str, ProjectCopy]:
    row = db.execute("SELECT token FROM project WHERE project = ?", (key,)).fetchone()
    rows = db.execute("SELECT mfid, record, summary FROM dataset WHERE project = ? ORDER BY mfid DESC", (key,))
    records: dict[str, Record] = {}
    summaries: dict[str, Summary] = {}
    with collector_paused():
        for mfid, record, summary in rows:
            records[mfid] = StoredRecord(record)
            summaries[mfid] = Summary.unpacked(summary)
    return row[0] if row else "", ProjectCopy(records, 0, summaries)


def _row(record: Record) -> _Row:
    return _Row(record["unique_id"], record["modification_time"] or "", _packed(record), summary_of(record).packed())


def _packed(record: Record) -> bytes:
    return zlib.compress(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(), 1)


@lru_cache(READY)
def _unpacked(stored: bytes) -> dict[str, object]:
    """What was packed. Nobody may change it."""
    try:
        record: dict[str, Any] = json.loads(zlib.decompress(stored).decode())
    except zlib.error as error:  # the list that it is in was read long ago
        raise StorageError(f"a local copy of a project is damaged ({error}); {HOW_TO_RENEW}") from error
    return record
