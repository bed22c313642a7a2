"""The data folder of an embedded Crucible: its paths, its SQLite database, and what can be read without a server.

The database has pooled connections, many readers, and one writer at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.ids import EMBEDDED_USER, new_mfid
from crucible_lineage.server.schema import REMEDY, SCHEMA, checksum, create_tables, seal_rows

PREFIX = "/api/v3"
# A project's revision. The text left of the last colon changes when anything is lost (deleted, requested to be deleted,
# replaced, unlinked, moved away, no longer shared), or when the address gets another database. Right of it is the
# number of datasets and samples that ever entered the project, which decreases when a backup is restored.
REVISION = (
    """SELECT (SELECT value FROM setting WHERE name = 'instance_id') || ':' || token || ':' || made FROM revision"""
)
_PROJECT = "SELECT id FROM resource WHERE slug = ? AND type = 'project'"

# The datasets with a keyword that contains a text without upper-case letters.
WITH_KEYWORD = "SELECT dataset_id FROM keyword WHERE instr(folded, ?)"
# A text that changes when a dataset with the keyword of statements is added, removed or modified.
_STATEMENT_IDS = "SELECT dataset_id FROM keyword WHERE folded = 'statement'"
STATEMENTS = (
    "SELECT count(*) || ':' || coalesce(max(modified), '') || ':' || (SELECT count(*) || ':' || coalesce(max(id), 0)"  # noqa: S608  constant texts
    f" FROM deletion WHERE row_id IN ({_STATEMENT_IDS}))"
    f" FROM resource WHERE id IN ({_STATEMENT_IDS})"
)


class DataFolder:
    """The paths inside a data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "crucible.db"
        self.local_key = root / "api_key"  # of the local user, for that user only; the database has its hash
        self.lock = root / ".lock"
        self.notice = root / "serving.json"  # in which a running server states its process and port
        self.contents = root / "contents"
        self.uploads = root / "uploads"

    def content(self, sha256: str) -> Path:
        """Return the path for the bytes with this checksum, whether they exist or not."""
        return self.contents / sha256[:2] / sha256[2:]


def instance_id(data_dir: Path | str) -> str | None:
    """Return the random identity that the database of a data folder got when created; None if it is unreadable."""
    return _read(data_dir, "SELECT value FROM setting WHERE name = 'instance_id'")


def project_revision(data_dir: Path | str, project_id: str) -> str | None:
    """Read a project's `Crucible-Revision` without a server; None if there is no such project."""
    return _read(data_dir, f"{REVISION} WHERE project_id = ({_PROJECT})", project_id)


def project_changes(data_dir: Path | str, project_id: str, since: str | None, keyword: str) -> dict[str, str] | None:
    """Return {MFID: when modified} of a project's datasets with a keyword, modified since then; None as above."""
    query = (
        "SELECT json_group_object(mfid, modified) FROM resource"  # noqa: S608  constant texts
        " WHERE type = 'dataset' AND NOT hidden AND modified >= ?"
        f" AND project_id = ({_PROJECT}) AND id IN ({WITH_KEYWORD})"
    )
    modified = _read(data_dir, query, since or "", project_id, keyword.casefold())
    return None if modified is None else dict(json.loads(modified))


def statements_token(data_dir: Path | str) -> str | None:
    """Read the local user's `Crucible-Statements` without a server; None if there is no database."""
    return _read(data_dir, STATEMENTS)


def present_datasets(data_dir: Path | str, mfids: Iterable[str]) -> frozenset[str] | None:
    """Return those of the MFIDs that are datasets of any project; None if no database can be read."""
    query = (
        "SELECT json_group_array(mfid) FROM resource WHERE type = 'dataset'"
        " AND mfid IN (SELECT value FROM json_each(?))"
    )
    present = _read(data_dir, query, json.dumps(list(mfids)))
    return None if present is None else frozenset(json.loads(present))


def _read(data_dir: Path | str, query: str, *values: str) -> str | None:
    """Return the text that a query selects; None if there is no readable database (starting a server says why)."""
    path = DataFolder(Path(data_dir).expanduser().resolve()).database
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute(query, values).fetchone()
            return None if row is None else str(row[0])
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def open_folder(data_dir: Path | str) -> DataFolder:
    """Open a data folder, creating what it lacks. Safe when several processes do it at once."""
    folder = DataFolder(Path(data_dir).expanduser().resolve())
    from filelock import FileLock  # imported late: reading alone does not need it

    folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder.lock, mode=0o600):
        for path in (folder.contents, folder.uploads):
            path.mkdir(mode=0o700, exist_ok=True)
        if not folder.local_key.exists():
            draft = folder.root / "api_key.new"
            draft.unlink(missing_ok=True)
            with open(draft, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(f"local-{secrets.token_urlsafe(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(folder.local_key)
    return folder


JsonObject = dict[str, Any]  # a record that is sent, metadata that is received
EARLIEST_YEAR, LATEST_YEAR = 1000, 9000  # chosen: far from the ends of Python's calendar, where time zones overflow
BUSY_TIMEOUT_S = 30.0  # chosen: other processes write to this folder, for milliseconds each


class Database:
    """Connections to one database file, each lent for one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: deque[Transaction] = deque()
        self._writing = threading.Lock()  # SQLite's own wait between writers sleeps up to 100 ms and is not fair
        self._closed = False

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a read transaction: all its queries see the same state."""
        with self._lent() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open a write transaction: commit at the end, roll back on an exception."""
        with self._lent() as connection, self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _lent(self) -> Iterator[Transaction]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect(self.path)
        try:
            yield connection
        finally:
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)


def open_database(path: Path) -> Database:
    """Open the database at `path`; a new one gets its tables, its local user and its secret."""
    database = Database(path)
    try:
        _create(path)
        with database.read() as db:
            if setting(db, "schema") != str(checksum(SCHEMA)):
                raise sqlite3.DatabaseError("another version of crucible-lineage made it; use that version")
            if setting(db, "schema_seal") != _schema_seal(db):
                raise sqlite3.DatabaseError("its schema is not what was written")
    except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError) as error:
        database.close()
        raise RuntimeError(
            f"{path} cannot be used: {error}; it was not changed. If it is damaged, {REMEDY}; if it cannot be written, "
            "free disk space or change its permissions; or name another data folder (CRUCIBLE_LINEAGE_DATA)"
        ) from error
    return database


def register_key(db: Transaction, key: str, user_id: int) -> None:
    """Register `key` as a key of the user, unless it is one."""
    db.execute("INSERT OR IGNORE INTO api_key VALUES (?, ?, ?)", (hash_key(key), user_id, now()))


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def setting(db: Transaction, name: str) -> str | None:
    row = db.first("SELECT value FROM setting WHERE name = ?", name)
    return None if row is None else str(row[0])


def now() -> str:
    """Return the current time in the stored form: UTC, microseconds, explicit offset; text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def stored_time(text: str) -> str:
    """Convert ISO 8601 text, in UTC without a zone, to the stored form. ValueError for a year out of range."""
    parsed = datetime.fromisoformat(text)
    try:
        utc = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        utc = None
    if utc is None or not EARLIEST_YEAR <= utc.year <= LATEST_YEAR:
        raise ValueError(f"must lie between the years {EARLIEST_YEAR} and {LATEST_YEAR}")
    return utc.isoformat(timespec="microseconds")


class Transaction(sqlite3.Connection):
    """A connection to a database of this server, lent for a transaction; it compares the seals of rows."""

    def first(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Return the first row of a select; None if it has none."""
        row: sqlite3.Row | None = self.execute(sql, values).fetchone()
        return row

    def add(self, table: str, **values: object) -> int:
        """Insert a row and return its number; names of tables and columns are from the code, never from a request."""
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        return int(self.execute(sql, (*values.values(),)).lastrowid or 0)


def connect(path: Path, wait_s: float = BUSY_TIMEOUT_S) -> Transaction:
    """Connect to a database of this server, with the SQL function that its triggers need."""
    # A connection is used by one thread at a time, but not always by the same one.
    connection = sqlite3.connect(
        path, timeout=wait_s, isolation_level=None, check_same_thread=False, cached_statements=512, factory=Transaction
    )
    try:
        seal_rows(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:  # such as a file that is no database
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Create the tables, the local user and the secret, unless they exist; the file is for its owner only."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        if db.execute("SELECT 1 FROM sqlite_schema").fetchone() is None:
            create_tables(db)
            settings = {
                "schema": str(checksum(SCHEMA)),
                "schema_seal": _schema_seal(db),
                "instance_id": secrets.token_hex(16),
                "link_secret": secrets.token_hex(32),
            }
            db.executemany("INSERT INTO setting VALUES (?, ?)", settings.items())
            # Another machine's local user is somebody else.
            local = {"username": EMBEDDED_USER, "first_name": "Local", "last_name": "User", "platform_role": "admin"}
            db.add("user", id=1, unique_id=new_mfid(), **local)
            db.execute("COMMIT")


def _schema_seal(db: Transaction) -> str:
    return str(checksum(*(sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema ORDER BY name"))))
