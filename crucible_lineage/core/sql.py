"""SQLite in the data folder: opening a file, and replacing one that cannot be used.

Everything stored here can be read again from its source. So there are no migrations: a file that is damaged, belongs
to another program or has another schema is set aside, with a line in the log, and replaced by an empty one.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from crucible_lineage.errors import StorageError
from crucible_lineage.machine.disk import private_file, private_folder

T = TypeVar("T")

BUSY_S = 30.0  # chosen: other processes write too, each for a few milliseconds
_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)  # a damaged table can yield invalid text, in messages too
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_TEXT = "Could not decode to UTF-8"
_REFUSED = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, then run the same command again",
    sqlite3.SQLITE_READONLY: "it cannot be written; have that allowed, or name another data folder with --data",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; have that allowed, or name another data folder with --data",
    sqlite3.SQLITE_PERM: "it cannot be opened; have that allowed, or name another data folder with --data",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write it; see that there is room, and that the disk is well",
    sqlite3.SQLITE_BUSY: f"other processes kept it for more than {BUSY_S:g} s; run the same command again",
}


# Several hosts may open a file there, and the shared memory of SQLite's write-ahead log reaches one host only.
_NETWORK = frozenset(
    (
        *("9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.davfs", "fuse.glusterfs"),
        *("fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"),
        *("orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
    )
)


class _UnusableError(Exception):
    """The file is not a database of this library, or has another schema."""


class LocalDatabase:
    """One SQLite file, shared by threads and processes.

    `schema` is a script of statements; a file with another schema is set aside. After a repair, the query is repeated,
    so that callers see an empty file, never a damaged one. Raises StorageError if the disk refuses.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self.schema = schema
        self._version = zlib.crc32(schema.encode()) & 0x7FFFFFFF
        self._lock = threading.RLock()
        self._inode = 0
        self._connection = self._open()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def row(self, sql: str, *values: object) -> Any:
        """Return the first row of a query, None if there is none."""
        return self._execute(lambda connection: connection.execute(sql, values).fetchone())

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Return all rows of a query."""
        return self._execute(lambda connection: connection.execute(sql, values).fetchall())

    def write(self, sql: str, *values: object) -> None:
        """Execute a statement in a transaction of its own."""
        self.transaction(lambda connection: connection.execute(sql, values))

    def write_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute a statement for each of the rows, in one transaction."""
        listed = list(rows)
        if not listed:
            return
        self.transaction(lambda connection: connection.executemany(sql, listed))

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`; keep all of its changes, or none if it raises."""

        def within(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                return work(connection)

        return self._execute(within)

    def _execute(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._connection)
            except _ERRORS as error:
                self._raise_if_refused(error)
                if not _is_damage(error) and self._is_ours():
                    raise
                self._connection.close()
                self._connection = self._repair(_reason(error))
            return work(self._connection)

    def _is_ours(self) -> bool:
        """Return whether the file still has our tables: another program may have written to it."""
        try:
            self._require_own(self._connection)
            return _tables(self._connection) == _expected(self.schema)
        except (_UnusableError, *_ERRORS):
            return False

    def _raise_if_refused(self, error: Exception) -> None:
        """Raise StorageError, with a one-line message, if the disk refused."""
        if reason := _REFUSED.get(getattr(error, "sqlite_errorcode", 0) & 0xFF):
            raise StorageError(f"{self.path}: {reason} ({error})") from error

    def _open(self) -> sqlite3.Connection:
        private_folder(self.path.parent)
        try:
            return self._connect()
        except _UnusableError as found:
            return self._repair(str(found))
        except _ERRORS as error:
            self._raise_if_refused(error)
            return self._repair(_reason(error))

    def _connect(self) -> sqlite3.Connection:
        """Connect to the file, and make the tables if it is new. Raises _UnusableError, or what SQLite raises."""
        self._inode = private_file(self.path).stat().st_ino  # SQLite would create it with the umask's permissions
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            on_network = lies_on_network(self.path.parent)
            _set_journal_mode(connection, "TRUNCATE" if on_network else "WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if on_network else 'NORMAL'}")
            connection.execute("PRAGMA foreign_keys=ON")
            if self._require_own(connection):
                with _transaction(connection):
                    if self._require_own(connection):  # another process may have been faster
                        for statement in self.schema.split(";"):
                            connection.execute(statement)
                        connection.execute(f"PRAGMA user_version = {self._version}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_own(self, connection: sqlite3.Connection) -> bool:
        """Return whether the file is new. Raises _UnusableError if its schema is not ours."""
        tables, version = _tables(connection), _version(connection)  # another process may make both meanwhile
        if version == self._version:
            return False
        if version or tables:
            raise _UnusableError("it belongs to another version or program")
        return True

    def _repair(self, reason: str) -> sqlite3.Connection:
        """Set the file aside, unless another process already did, and connect to a new one."""
        damaged = self._inode
        # Only a repair pays for these imports.
        import logging

        from filelock import FileLock

        with FileLock(self.path.with_name(f"{self.path.name}.lock"), mode=0o600):
            if self.path.exists() and self.path.stat().st_ino != damaged:
                with suppress(_UnusableError, *_ERRORS):
                    return self._connect()
            # The write-ahead log first: SQLite would replay it into any file of the same name. Processes that have
            # the old files open keep using them: SQLite notices the move and deletes nothing.
            aside = self.path.with_name(f"{self.path.name}.aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            for ending in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + ending).replace(aside.with_name(aside.name + ending))
            connection = self._connect()
        logging.getLogger(__name__).warning(
            "%s could not be used (%s); it was set aside as %s; a new one starts empty and is filled again",
            self.path,
            reason,
            aside.name,
        )
        return connection


def _set_journal_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Set the mode of a file. SQLite does not wait where another process sets that of the same new file."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in _DAMAGED or isinstance(error, UnicodeDecodeError) or _NO_TEXT in str(error)


def _reason(error: Exception) -> str:
    """Return the fault in one line, without content of the file."""
    if isinstance(error, UnicodeDecodeError) or _NO_TEXT in str(error):
        return "it contains invalid text"
    return " ".join(str(error).split())[:100]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(name, sql) for name, sql in rows]


@lru_cache
def _expected(schema: str) -> list[tuple[str, str]]:
    """Return the tables of this schema as SQLite stores their definitions."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(schema)
        return _tables(connection)
    finally:
        connection.close()


def lies_on_network(folder: Path, mounts: str | None = None) -> bool:
    """Return whether several hosts may share the folder's file system, by the text of /proc/mounts."""
    path = folder.absolute().resolve()
    if sys.platform == "win32":
        return path.drive.startswith("\\\\")
    depth, kind = -1, ""
    for line in (_mounts() if mounts is None else mounts).splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1]))  # a space is \040
        if len(point.parts) >= depth and path.is_relative_to(point):  # a later mount covers an earlier one
            depth, kind = len(point.parts), fields[2]
    return kind in _NETWORK


@lru_cache(1)
def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
