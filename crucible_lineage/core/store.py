"""The local store: file checksums, inspected steps, digests of descriptions, marks.

It is only a cache: Crucible has the truth, and deleting the store costs nothing but time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.errors import FileChangedError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.checksums import FileChecksums, scan_file, sealed, stamp, stamp_if_present, unsealed
from crucible_lineage.refs import utf8_name

SCHEMA = """
CREATE TABLE file_checksums (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    checksums TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE inspected (
    asked TEXT PRIMARY KEY, rules TEXT NOT NULL, files TEXT NOT NULL, found TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE mark (
    instance TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (instance, name)
) WITHOUT ROWID;
CREATE TABLE ingestion (
    instance TEXT NOT NULL, request INTEGER NOT NULL, mfid TEXT NOT NULL, dataset TEXT NOT NULL,
    file TEXT NOT NULL, status TEXT NOT NULL, ingestor TEXT, error TEXT, asked TEXT NOT NULL,
    PRIMARY KEY (instance, request)
) WITHOUT ROWID
"""

INGESTIONS = "SELECT request, mfid, dataset, file, status, ingestor, error, asked FROM ingestion"


@dataclass(frozen=True)
class Ingestion:
    """A file whose ingestion was requested: the request, the dataset, and the status."""

    request: int
    mfid: str
    dataset: str
    file: str
    status: str
    ingestor: str | None
    error: str | None
    asked: str


class Store(LocalDatabase):
    """The store in one file. `instance` names the Crucible of the datasets."""

    def __init__(self, path: Path, instance: str) -> None:
        super().__init__(path, SCHEMA)
        self.instance = instance

    def checksums(self, path: Path) -> FileChecksums:
        """Return a file's checksums: the stored ones while size, modification time and inode are unchanged."""
        key, now = utf8_name(str(path.absolute())), stamp(path)
        row = self.row("SELECT size, mtime_ns, inode, checksums FROM file_checksums WHERE path = ?", key)
        if row and row[:3] == now and (known := unsealed(row[3], key)):
            return FileChecksums.from_json(known)
        scanned = scan_file(path)
        if stamp(path) != now:
            raise FileChangedError(f"{path} changed while it was being read; try again when it no longer changes")
        self.write(
            "INSERT OR REPLACE INTO file_checksums VALUES (?, ?, ?, ?, ?)", key, *now, sealed(scanned.to_json(), key)
        )
        return scanned

    def mark(self, name: str) -> JsonObject:
        """Return the last value under this name for this Crucible; empty if there is none."""
        row = self.row("SELECT value FROM mark WHERE instance = ? AND name = ?", self.instance, name)
        return dict(unsealed(row[0], name) or {}) if row else {}

    def set_mark(self, name: str, value: JsonMapping) -> None:
        """Store a value under the name, in place of the last one."""
        row = (self.instance, name, sealed(value, name))
        self.write("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", *row)

    def note_ingestions(self, ingestions: Iterable[Ingestion]) -> None:
        """Record requested ingestions and their status."""
        rows = [(self.instance, *astuple(ingestion)) for ingestion in ingestions]
        self.write_many("INSERT OR REPLACE INTO ingestion VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def open_ingestions(self) -> list[Ingestion]:
        """Return the ingestions that have not ended as far as known, oldest first."""
        sql = f"{INGESTIONS} WHERE instance = ? AND status IN ('requested', 'started') ORDER BY request"
        return [Ingestion(*row) for row in self.rows(sql, self.instance)]

    def ended_ingestions(self, limit: int) -> list[Ingestion]:
        """Return the latest ingestions that ended without success, newest first."""
        sql = (
            f"{INGESTIONS} WHERE instance = ? AND status NOT IN ('requested', 'started', 'complete')"
            " ORDER BY request DESC LIMIT ?"
        )
        return [Ingestion(*row) for row in self.rows(sql, self.instance, limit)]

    def inspection(self, query: str, rules: str) -> Any:
        """Return the stored inspection of the code that `query` names; None if one of its files has changed."""
        row = self.row("SELECT files, found FROM inspected WHERE asked = ? AND rules = ?", query, rules)
        files = unsealed(row[0], query, rules) if row else None
        if files is None or any(_stamp(path) != previous for path, previous in files.items()):
            return None
        return unsealed(row[1], query, rules)

    def keep_inspections(self, rules: str, inspections: Iterable[tuple[str, Iterable[str], object]]) -> None:
        """Store inspections: query, files that the result depends on, and result of each; drop those of other rules."""
        stamps: JsonObject = {}

        def row(query: str, files: Iterable[str], result: Any) -> tuple[str, ...]:
            own = {path: stamps.setdefault(path, _stamp(path)) for path in files}
            return (query, rules, sealed(own, query, rules), sealed(result, query, rules))

        rows = [row(*each) for each in inspections]

        def keep(connection: Connection) -> None:
            connection.execute("DELETE FROM inspected WHERE rules <> ?", (rules,))
            connection.executemany("INSERT OR REPLACE INTO inspected VALUES (?, ?, ?, ?)", rows)

        self.transaction(keep)


def _stamp(path: str) -> list[int] | None:
    return list(found) if (found := stamp_if_present(Path(path))) else None
