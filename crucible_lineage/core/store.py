"""The local store: file hashes, inspected steps, how results are described, what was brought, marks.

It is a cache, never the truth: Crucible has the truth, and deleting the store costs only time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.checksums import FileChecksums, scan_file, stamp
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.errors import FileChangedError
from crucible_lineage.local.checksummed import sealed, unsealed
from crucible_lineage.refs import utf8_name

if TYPE_CHECKING:
    from sqlite3 import Connection

SCHEMA = """
CREATE TABLE file_checksums (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    checksums TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE remote_checksums (
    url TEXT NOT NULL, generation TEXT NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (url, generation)
) WITHOUT ROWID;
CREATE TABLE inspected (
    asked TEXT PRIMARY KEY, rules TEXT NOT NULL, files TEXT NOT NULL, found TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE described (
    instance TEXT NOT NULL, project TEXT NOT NULL, pipeline TEXT NOT NULL, step TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (instance, project, pipeline, step)
) WITHOUT ROWID;
CREATE TABLE mark (
    instance TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (instance, name)
) WITHOUT ROWID;
CREATE TABLE published (
    instance TEXT NOT NULL, mfid TEXT NOT NULL, place TEXT NOT NULL, PRIMARY KEY (instance, mfid, place)
) WITHOUT ROWID;
CREATE TABLE brought (
    instance TEXT NOT NULL, source TEXT NOT NULL, mfid TEXT NOT NULL, there TEXT NOT NULL, here TEXT NOT NULL,
    modified TEXT NOT NULL, PRIMARY KEY (instance, source, mfid)
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
    """A file that was asked to be ingested: by which request, of which dataset, and how that stands."""

    request: int
    mfid: str
    dataset: str
    file: str
    status: str
    ingestor: str | None
    error: str | None
    asked: str


@dataclass(frozen=True)
class CopiedDataset:
    """A dataset that is at two Crucibles, equal as far as the one is to have what the other has.

    `there` is its id at the one that it was brought to; `here` and `modified` are when it was last modified at either.
    """

    mfid: str
    there: str
    here: str
    modified: str


class Store:
    """One SQLite file, shared by threads and processes. `instance` names the Crucible that the datasets lie in."""

    def __init__(self, path: Path, instance: str) -> None:
        self.path = path
        self.instance = instance
        self.database = LocalDatabase(path, SCHEMA)

    def close(self) -> None:
        """Close the file. Later calls fail."""
        self.database.close()

    def checksums(self, path: Path) -> FileChecksums:
        """A file's checksums; the remembered ones while size, modification time and inode are unchanged."""
        key, now = utf8_name(str(path.absolute())), stamp(path)
        row = self.database.row("SELECT size, mtime_ns, inode, checksums FROM file_checksums WHERE path = ?", key)
        if row and row[:3] == now and (known := unsealed(row[3], key)):
            return FileChecksums.from_json(known)
        scanned = scan_file(path)
        if stamp(path) != now:
            raise FileChangedError(f"{path} changed while it was read; try again when it no longer changes")
        self.database.write(
            "INSERT OR REPLACE INTO file_checksums VALUES (?, ?, ?, ?, ?)", key, *now, sealed(scanned.to_json(), key)
        )
        return scanned

    def remote_checksums(self, url: str, generation: str) -> FileChecksums | None:
        """The checksums of a file elsewhere in that generation, if it was read before."""
        row = self.database.row(
            "SELECT checksums FROM remote_checksums WHERE url = ? AND generation = ?", url, generation
        )
        return FileChecksums.from_json(known) if row and (known := unsealed(row[0], url, generation)) else None

    def keep_remote_checksums(self, url: str, generation: str, checksums: FileChecksums) -> None:
        """A file elsewhere was read in that generation, and has these checksums."""
        kept = sealed(checksums.to_json(), url, generation)
        self.database.write("INSERT OR REPLACE INTO remote_checksums VALUES (?, ?, ?)", url, generation, kept)

    def is_published(self, mfid: str, place: str) -> bool:
        """True if the dataset's files are known to have been copied to that place."""
        sql = "SELECT mfid, place FROM published WHERE instance = ? AND mfid = ? AND place = ?"
        return bool(self.database.row(sql, self.instance, mfid, place) == (mfid, place))

    def note_published(self, mfid: str, place: str) -> None:
        """The dataset's files have been copied to that place."""
        self.database.write("INSERT OR REPLACE INTO published VALUES (?, ?, ?)", self.instance, mfid, place)

    def described(self, project: str, pipeline: str) -> dict[str, str]:
        """Return {declared step: digest of how its outputs were described}, as this data folder last saw to it."""
        sql = "SELECT step, digest FROM described WHERE instance = ? AND project = ? AND pipeline = ?"
        return dict(self.database.rows(sql, self.instance, project.casefold(), pipeline))

    def note_described(self, project: str, pipeline: str, digests: Mapping[str, str]) -> None:
        """Note that the results of these steps are described so."""
        rows = [(self.instance, project.casefold(), pipeline, step, digest) for step, digest in digests.items()]
        self.database.write_many("INSERT OR REPLACE INTO described VALUES (?, ?, ?, ?, ?)", rows)

    def brought(self, source: str) -> list[CopiedDataset]:
        """The datasets that were brought here from there, as they stood then."""
        sql = "SELECT mfid, there, here, modified FROM brought WHERE instance = ? AND source = ?"
        return [CopiedDataset(*row) for row in self.database.rows(sql, self.instance, source)]

    def note_brought(self, source: str, datasets: Iterable[CopiedDataset]) -> None:
        """Record that these datasets were copied here from there."""
        rows = [(self.instance, source, *astuple(one)) for one in datasets]
        self.database.write_many("INSERT OR REPLACE INTO brought VALUES (?, ?, ?, ?, ?, ?)", rows)

    def note_ingestions(self, ingestions: Iterable[Ingestion]) -> None:
        """Files that are to be ingested, and how that stands."""
        rows = [(self.instance, *astuple(one)) for one in ingestions]
        self.database.write_many("INSERT OR REPLACE INTO ingestion VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def open_ingestions(self) -> list[Ingestion]:
        """Return the ingestions that were requested and not seen to end, the oldest first."""
        sql = f"{INGESTIONS} WHERE instance = ? AND status IN ('requested', 'started') ORDER BY request"
        return [Ingestion(*row) for row in self.database.rows(sql, self.instance)]

    def ended_ingestions(self, limit: int) -> list[Ingestion]:
        """Return the last ingestions that ended without success, newest first."""
        sql = (
            f"{INGESTIONS} WHERE instance = ? AND status NOT IN ('requested', 'started', 'complete')"
            " ORDER BY request DESC LIMIT ?"
        )
        return [Ingestion(*row) for row in self.database.rows(sql, self.instance, limit)]

    def inspection(self, asked: str, rules: str) -> Any:
        """Return what is known of the code that `asked` names, by these rules; None if one of its files has changed."""
        row = self.database.row("SELECT files, found FROM inspected WHERE asked = ? AND rules = ?", asked, rules)
        files = unsealed(row[0], asked, rules) if row else None
        if files is None or any(_stamp(path) != seen for path, seen in files.items()):
            return None
        return unsealed(row[1], asked, rules)

    def keep_inspection(self, asked: str, rules: str, files: Iterable[str], found: Any) -> None:
        """Remember what was found out about some code, with the files it was read from. What other rules found goes."""
        self.keep_inspections(rules, [(asked, files, found)])

    def keep_inspections(self, rules: str, found: Iterable[tuple[str, Iterable[str], object]]) -> None:
        """The same of many: what was asked, the files that the answer rests on, and the answer."""
        stamps: dict[str, Any] = {}

        def row(asked: str, files: Iterable[str], answer: Any) -> tuple[str, ...]:
            seen = {path: stamps.setdefault(path, _stamp(path)) for path in files}
            return (asked, rules, sealed(seen, asked, rules), sealed(answer, asked, rules))

        rows = [row(*one) for one in found]

        def keep(connection: Connection) -> None:
            connection.execute("DELETE FROM inspected WHERE rules <> ?", (rules,))
            connection.executemany("INSERT OR REPLACE INTO inspected VALUES (?, ?, ?, ?)", rows)

        self.database.transaction(keep)


def _stamp(path: str) -> list[int] | None:
    try:
        return list(stamp(Path(path)))
    except OSError:
        return None
