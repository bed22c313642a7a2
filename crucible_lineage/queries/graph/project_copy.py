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
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from crucible_lineage.client.models import Dataset
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, RefusedError
from crucible_lineage.lineage.graph import collector_paused
from crucible_lineage.session import Session

__all__ = ["ProjectCopy", "project_copy"]

Record = Mapping[str, Any]

MAX_AGE_S = 24 * 3600
OVERLAP = timedelta(seconds=10)  # a change may be dated before one that could be read earlier: transactions take time
FEW = 20  # up to here, datasets are asked for one by one, and not with the whole project
READY = 256  # records that stay unpacked: more than those that all checks look at in one turn
VERSION = 1  # of the tables; copies of another version are thrown away

TABLES = """
CREATE TABLE project (project TEXT PRIMARY KEY, since TEXT, listed REAL NOT NULL);
CREATE TABLE dataset (
    project TEXT NOT NULL, mfid TEXT NOT NULL, modified TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (project, mfid)
);
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


@dataclass(frozen=True)
class ProjectCopy:
    """A project's datasets by id, as they are now; `downloaded` of them were not known in this state before."""

    records: dict[str, Record]
    downloaded: int


def project_copy(session: Session, project: str, *, refresh: bool = False) -> ProjectCopy:
    """All datasets of a project with metadata and links, of which only what changed is downloaded.

    InputError if there is no such project. `refresh` downloads everything.
    """
    key = project.casefold()
    with closing(_opened(_path(session))) as database:
        since = None if refresh else _since(database, key)
        changed = _listed(session, project, since)
        total = session.client.datasets.count(project_id=project)
        with _transaction(database):
            downloaded = _store(database, key, changed, everything=since is None)
            present = _ids(database, key)
        if len(present) != total:
            downloaded += _reconcile(session, database, project, present)
        return ProjectCopy(_records(database, key), downloaded)


def _listed(session: Session, project: str, since: str | None) -> list[Record]:
    """All datasets of a project, or those modified since then; in that order, a change while listing is listed too."""
    filters: dict[str, Any] = {"modification_time_gte": datetime.fromisoformat(since) - OVERLAP} if since else {}
    found = session.client.datasets.iter(
        project_id=project, include_metadata=True, include_links=True, sort="updated", direction="asc", **filters
    )
    try:
        return [StoredRecord(_packed(dataset.model_dump())) for dataset in found]
    except (NotFoundError, RefusedError) as error:
        where = session.settings.describe()
        state = f"there is none here that this key may see ({where})"
        raise InputError(f"list the datasets of project {project!r}: {state}; Crucible says: {error}") from error


def _reconcile(session: Session, database: sqlite3.Connection, project: str, present: set[str]) -> int:
    """What is gone leaves the copy, and what came without having been modified comes into it; how many those are."""
    listed = {dataset.unique_id for dataset in session.client.datasets.iter(project_id=project)}
    new = listed - present
    records = _asked(session, new) if len(new) <= FEW else _listed(session, project, None)
    key = project.casefold()
    with _transaction(database):
        gone = [(key, mfid) for mfid in present - listed]
        database.executemany("DELETE FROM dataset WHERE project = ? AND mfid = ?", gone)
        return _store(database, key, records, everything=False)


def _asked(session: Session, mfids: Iterable[str]) -> list[Record]:
    """Those datasets that are there, one call each."""
    found: list[Dataset] = []
    for mfid in sorted(mfids):
        try:
            found.append(session.client.datasets.get(mfid, include_metadata=True, include_links=True))
        except (ForbiddenError, NotFoundError):  # gone again
            continue
    return [dataset.model_dump() for dataset in found]


def _path(session: Session) -> Path:
    """The file for this Crucible and this account: what one may see, another one may not."""
    who = f"{session.store.instance}\n{session.settings.api_key or ''}"
    return session.settings.data / "projects" / f"{hashlib.sha256(who.encode()).hexdigest()[:16]}.sqlite"


def _opened(path: Path) -> sqlite3.Connection:
    """The copies in that file; a file that is damaged or of another version is begun anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    try:
        return _connected(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:  # not a database, or a damaged one: nothing in it that cannot be asked for again
        path.unlink(missing_ok=True)
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        if _version(database) != VERSION:
            with _transaction(database):
                if _version(database) != VERSION:  # another process may have been faster
                    _begin_anew(database)
    except BaseException:
        database.close()
        raise
    return database


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _begin_anew(database: sqlite3.Connection) -> None:
    for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        database.execute(f"DROP TABLE {name}")
    for statement in filter(str.strip, TABLES.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")


def _since(database: sqlite3.Connection, key: str) -> str | None:
    """The latest modification that the copy has; None if there is no copy, or it is too old to be trusted."""
    row = database.execute("SELECT since, listed FROM project WHERE project = ?", (key,)).fetchone()
    if row is None or not 0 <= time.time() - row[1] < MAX_AGE_S:
        return None
    return str(row[0]) if row[0] else None


def _store(database: sqlite3.Connection, key: str, records: Iterable[Record], *, everything: bool) -> int:
    """The copy has these records, and with `everything` no others; how many of them are new or other than before.

    A record never replaces a later one: another process may have written since this one asked.
    """
    rows = [(key, record["unique_id"], record["modification_time"] or "", _packed(record)) for record in records]
    if everything:
        database.execute("DELETE FROM dataset WHERE project = ?", (key,))
        database.execute("INSERT OR REPLACE INTO project VALUES (?, '', ?)", (key, time.time()))
    changed = database.executemany(
        "INSERT INTO dataset VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET modified = excluded.modified, record = excluded.record"
        " WHERE excluded.modified >= modified AND excluded.record <> record",
        rows,
    ).rowcount
    latest = max((modified for _, _, modified, _ in rows), default="")
    database.execute("UPDATE project SET since = max(since, ?) WHERE project = ?", (latest, key))
    return max(changed, 0)


def _ids(database: sqlite3.Connection, key: str) -> set[str]:
    return {mfid for (mfid,) in database.execute("SELECT mfid FROM dataset WHERE project = ?", (key,))}


def _records(database: sqlite3.Connection, key: str) -> dict[str, Record]:
    """The newest first, as Crucible lists them."""
    rows = database.execute("SELECT mfid, record FROM dataset WHERE project = ? ORDER BY mfid DESC", (key,))
    with collector_paused():
        return {mfid: StoredRecord(record) for mfid, record in rows}


def _packed(record: Record) -> bytes:
    if isinstance(record, StoredRecord):
        return record.stored
    return zlib.compress(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(), 1)


@lru_cache(READY)
def _unpacked(stored: bytes) -> dict[str, Any]:
    """What was packed. Nobody may change it."""
    record: dict[str, Any] = json.loads(zlib.decompress(stored))
    return record


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
