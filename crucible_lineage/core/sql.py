"""SQLite in the data folder: one way to open a file, to bring it to its newest tables, and to begin it anew if damaged.

Everything that is kept in this way can be asked for again. So a file that is damaged, of another program or of a newer
version is set aside, which is said in one line, and an empty one takes its place.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from crucible_lineage.disk import private_file, private_folder
from crucible_lineage.errors import StorageError

__all__ = ["LocalDatabase"]

T = TypeVar("T")

BUSY_S = 30.0  # chosen: other processes write too, each for a few milliseconds
_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)  # also what SQLite says of a damaged table may be no text
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_TEXT = "Could not decode to UTF-8"
_REFUSED = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, then run the same again",
    sqlite3.SQLITE_READONLY: "it cannot be written; have that allowed, or name another data folder with --data",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; have that allowed, or name another data folder with --data",
    sqlite3.SQLITE_PERM: "it cannot be opened; have that allowed, or name another data folder with --data",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write it; see that there is room, and that the disk is well",
    sqlite3.SQLITE_BUSY: f"other processes kept it for more than {BUSY_S:g} s; run the same again",
}


class _UnusableError(Exception):
    """The file is no database of ours, or of tables that this version does not know."""


class LocalDatabase:
    """One SQLite file, shared by threads and processes.

    `migrations` are scripts of statements, each applied once and in order, together with the note that it was. What
    callers read is repeated after a repair, so that they see an empty file, never a damaged one. StorageError if the
    disk refuses.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path = path
        self.migrations = migrations
        self._lock = threading.RLock()
        self._inode = 0
        self._connection = self._opened()

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        with self._lock:
            self._connection.close()

    def row(self, sql: str, *values: object) -> Any:
        """The first row that the query finds, None if there is none."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchone()
            except _ERRORS:  # seldom, and this is asked for each step
                return self._done(lambda connection: connection.execute(sql, values).fetchone())

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows that the query finds."""
        return self._done(lambda connection: connection.execute(sql, values).fetchall())

    def write(self, sql: str, *values: object) -> None:
        """The statement has been carried out, and is kept."""
        self.transaction(lambda connection: connection.execute(sql, values))

    def write_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """The statement has been carried out for each of the rows, all together or not at all."""
        listed = list(rows)
        self.transaction(lambda connection: connection.executemany(sql, listed))

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` gives for the connection, whose changes are kept all together; none if it raises."""

        def within(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                return work(connection)

        return self._done(within)

    def _done(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._connection)
            except _ERRORS as error:
                self._tell(error)
                if not _is_damage(error) and self._is_ours():
                    raise
                self._connection.close()
                self._connection = self._repaired(_reason(error))
            return work(self._connection)

    def _is_ours(self) -> bool:
        """False if what stands in the file by now are no tables of ours."""
        try:
            self._version(self._connection)
        except (_UnusableError, *_ERRORS):
            return False
        return True

    def _tell(self, error: Exception) -> None:
        """StorageError, in one line, if the disk refused."""
        if said := _REFUSED.get(getattr(error, "sqlite_errorcode", 0) & 0xFF):
            raise StorageError(f"{self.path}: {said} ({error})") from error

    def _opened(self) -> sqlite3.Connection:
        private_folder(self.path.parent)
        try:
            return self._connected()
        except _UnusableError as found:
            return self._repaired(str(found))
        except _ERRORS as error:
            self._tell(error)
            return self._repaired(_reason(error))

    def _connected(self) -> sqlite3.Connection:
        """A connection to a file whose tables are the newest. _UnusableError, or what SQLite says, if it is damaged."""
        self._inode = private_file(self.path).stat().st_ino  # SQLite would make it as open as the umask lets it
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            if self._version(connection) < len(self.migrations):
                with _transaction(connection):
                    self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        """How many of the migrations were applied. _UnusableError if the tables are not those that this gives."""
        (done,) = connection.execute("PRAGMA user_version").fetchone()
        if done > len(self.migrations):
            raise _UnusableError("it was written by a newer crucible-lineage")
        if _tables(connection) != _expected(tuple(self.migrations[:done])):
            raise _UnusableError("its tables are not ours")
        return int(done)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        done = self._version(connection)  # another process may have been faster
        for script in self.migrations[done:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(self.migrations)}")

    def _repaired(self, reason: str) -> sqlite3.Connection:
        """A connection to a new file; the old one is set aside, unless another process did that meanwhile."""
        damaged = self._inode
        # Only a repair pays for these imports.
        import logging

        from filelock import FileLock

        with FileLock(self.path.with_name(f"{self.path.name}.lock"), mode=0o600):
            if self.path.exists() and self.path.stat().st_ino != damaged:
                with suppress(_UnusableError, *_ERRORS):
                    return self._connected()
            # The log of changes first: it would be played into whatever stands under the name of its file. Who has the
            # old ones open goes on with them: SQLite sees that they were moved, and takes nothing away.
            aside = self.path.with_name(f"{self.path.name}.aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            for ending in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + ending).replace(aside.with_name(aside.name + ending))
            connection = self._connected()
        logging.getLogger(__name__).warning(
            "%s could not be used (%s); it was set aside as %s and begun anew: what it remembered is asked for again",
            self.path,
            reason,
            aside.name,
        )
        return connection


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
    """What is wrong, in a line, without what was in the file."""
    if isinstance(error, UnicodeDecodeError) or _NO_TEXT in str(error):
        return "it holds text that nobody can have written"
    return " ".join(str(error).split())[:100]


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(name, sql) for name, sql in found]


_known: dict[tuple[str, ...], list[tuple[str, str]]] = {}


def _expected(migrations: tuple[str, ...]) -> list[tuple[str, str]]:
    """The tables that these migrations give: SQLite is asked, since it rewrites what is altered."""
    if migrations not in _known:
        connection = sqlite3.connect(":memory:")
        for script in migrations:
            connection.executescript(script)
        _known[migrations] = _tables(connection)
        connection.close()
    return _known[migrations]
