"""The local store: file hashes, datasets known to be complete, inspected steps, and what runs did. SQLite, WAL.

It is a cache, never the truth: Crucible has the truth, and deleting the store costs only time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileChecksums, scan_file
from crucible_lineage.errors import FileChangedError
from crucible_lineage.hashing import stamp
from crucible_lineage.refs import DatasetRef

__all__ = ["Store"]

# Applied in order, each once, in one transaction with the note that it was applied (PRAGMA user_version).
MIGRATIONS = (
    """
    CREATE TABLE file_checksums (
        path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        checksums TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE complete (
        instance TEXT NOT NULL, mfid TEXT NOT NULL, dataset TEXT NOT NULL, PRIMARY KEY (instance, mfid)
    ) WITHOUT ROWID;
    CREATE TABLE inspected (
        uses TEXT PRIMARY KEY, files TEXT NOT NULL, inspection TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE run (
        run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, project TEXT NOT NULL, started TEXT NOT NULL, ended TEXT,
        outcome TEXT
    ) WITHOUT ROWID;
    CREATE TABLE run_step (
        run_id TEXT NOT NULL REFERENCES run ON DELETE CASCADE, step TEXT NOT NULL, outcome TEXT NOT NULL,
        datasets TEXT NOT NULL, seconds REAL, error TEXT, PRIMARY KEY (run_id, step)
    ) WITHOUT ROWID;
    CREATE TABLE attempt (
        instance TEXT NOT NULL, first_mfid TEXT NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (instance, first_mfid)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE run ADD COLUMN declaration TEXT;
    ALTER TABLE run_step ADD COLUMN bytes INTEGER;
    CREATE INDEX run_by_pipeline ON run (pipeline, started)
    """,
    """
    CREATE TABLE remote_checksums (
        url TEXT NOT NULL, generation TEXT NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (url, generation)
    ) WITHOUT ROWID;
    CREATE TABLE published (
        instance TEXT NOT NULL, mfid TEXT NOT NULL, place TEXT NOT NULL, PRIMARY KEY (instance, mfid, place)
    ) WITHOUT ROWID
    """,
)


class Store:
    """One SQLite file, shared by threads and processes. `instance` names the Crucible that the datasets lie in."""

    def __init__(self, path: Path, instance: str) -> None:
        self.path = path
        self.instance = instance
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._migrate()

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        with self._lock:
            self._connection.close()

    def checksums(self, path: Path) -> FileChecksums:
        """A file's checksums; the remembered ones while size, modification time and inode are unchanged."""
        key, now = str(path.absolute()), stamp(path)
        row = self._one("SELECT size, mtime_ns, inode, checksums FROM file_checksums WHERE path = ?", key)
        if row and row[:3] == now:
            return FileChecksums.from_json(json.loads(row[3]))
        scanned = scan_file(path)
        if stamp(path) != now:
            raise FileChangedError(f"{path} changed while it was being read; try again when it has stopped growing")
        self._write(
            "INSERT OR REPLACE INTO file_checksums VALUES (?, ?, ?, ?, ?)", (key, *now, json.dumps(scanned.to_json()))
        )
        return scanned

    def remote_checksums(self, url: str, generation: str) -> FileChecksums | None:
        """The checksums of a file elsewhere in that generation, if it was read before."""
        row = self._one("SELECT checksums FROM remote_checksums WHERE url = ? AND generation = ?", url, generation)
        return FileChecksums.from_json(json.loads(row[0])) if row else None

    def keep_remote_checksums(self, url: str, generation: str, checksums: FileChecksums) -> None:
        """A file elsewhere was read in that generation, and has these checksums."""
        self._write(
            "INSERT OR REPLACE INTO remote_checksums VALUES (?, ?, ?)",
            (url, generation, json.dumps(checksums.to_json())),
        )

    def is_published(self, mfid: str, place: str) -> bool:
        """True if the dataset's files are known to have been copied to that place."""
        sql = "SELECT 1 FROM published WHERE instance = ? AND mfid = ? AND place = ?"
        return self._one(sql, self.instance, mfid, place) is not None

    def note_published(self, mfid: str, place: str) -> None:
        """The dataset's files have been copied to that place."""
        self._write("INSERT OR REPLACE INTO published VALUES (?, ?, ?)", (self.instance, mfid, place))

    def known(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is known to be complete."""
        row = self._one("SELECT dataset FROM complete WHERE instance = ? AND mfid = ?", self.instance, mfid)
        return DatasetRef.from_json(json.loads(row[0])) if row else None

    def remember(self, datasets: Iterable[DatasetRef]) -> None:
        """These datasets are known to be complete from now on."""
        self.remember_as({dataset.mfid: dataset for dataset in datasets})

    def remember_as(self, datasets: Mapping[str, DatasetRef]) -> None:
        """These datasets are known to be complete, under the ids that their recipes give.

        Those are their own ids, except at a service that assigns ids itself.
        """
        rows = [(self.instance, mfid, json.dumps(dataset.to_json())) for mfid, dataset in datasets.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO complete VALUES (?, ?, ?)", rows)

    def assigns_ids(self) -> bool:
        """True if the service was seen to give a dataset another id than the one it was asked for."""
        rows = self._one("SELECT 1 FROM complete WHERE instance = ? AND mfid <> dataset ->> 'mfid'", self.instance)
        return rows is not None

    def forget(self, mfids: Iterable[str] | None = None) -> None:
        """These datasets, or all, have to be asked for again."""
        if mfids is None:
            self._write("DELETE FROM complete WHERE instance = ?", (self.instance,))
            return
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM complete WHERE instance = ? AND mfid = ?", [(self.instance, mfid) for mfid in mfids]
            )

    def attempt(self, first_mfid: str) -> int:
        """The latest attempt known of the recipe whose first attempt has this id; 0 is the first."""
        row = self._one("SELECT attempt FROM attempt WHERE instance = ? AND first_mfid = ?", self.instance, first_mfid)
        return int(row[0]) if row else 0

    def note_attempt(self, first_mfid: str, attempt: int) -> None:
        """The recipe was made again, as this attempt; what was known of a later one stands."""
        self._write(
            "INSERT INTO attempt VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET attempt = max(attempt, excluded.attempt)",
            (self.instance, first_mfid, attempt),
        )

    def inspection(self, uses: str) -> Mapping[str, Any] | None:
        """What was found out about a step's function, if none of the files it was read from has changed since."""
        row = self._one("SELECT files, inspection FROM inspected WHERE uses = ?", uses)
        if row is None:
            return None
        try:
            unchanged = all(list(stamp(Path(path))) == seen for path, seen in json.loads(row[0]).items())
        except OSError:
            return None
        return json.loads(row[1]) if unchanged else None

    def keep_inspection(self, uses: str, files: Iterable[str], inspection: Mapping[str, Any]) -> None:
        """Remember what was found out about a step's function, with the files it was read from."""
        stamps = {path: stamp(Path(path)) for path in files}
        self._write(
            "INSERT OR REPLACE INTO inspected VALUES (?, ?, ?)", (uses, json.dumps(stamps), json.dumps(inspection))
        )

    def begin_run(self, run_id: str, pipeline: str, project: str, declaration: Path) -> None:
        """A run of the pipeline that this file declares has begun."""
        now = datetime.now(UTC).isoformat()
        self._write(
            "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, NULL, NULL, ?)",
            (run_id, pipeline, project, now, str(declaration)),
        )

    def record_step(
        self,
        run_id: str,
        step: str,
        outcome: str,
        datasets: Mapping[str, str],
        seconds: float | None = None,
        error: str | None = None,
        size: int | None = None,
    ) -> None:
        """A step of a run has ended: executed, reused, failed or skipped; `size` is how many bytes it made."""
        self._write(
            "INSERT OR REPLACE INTO run_step VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run_id, step, outcome, json.dumps(datasets), seconds, error, size),
        )

    def record_reused(self, run_id: str, datasets: Mapping[str, Mapping[str, str]]) -> None:
        """These steps of a run were there already, with these datasets."""
        rows = [(run_id, step, "reused", json.dumps(outputs)) for step, outputs in datasets.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO run_step VALUES (?, ?, ?, ?, NULL, NULL, NULL)", rows)

    def took(self, pipeline: str) -> dict[str, tuple[float, int]]:
        """What a declared step took when it was executed: mean seconds and bytes of an instance, over the last runs."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT CASE instr(step, '[') WHEN 0 THEN step ELSE substr(step, 1, instr(step, '[') - 1) END AS name,"
                " avg(seconds), avg(bytes) FROM run_step JOIN"
                " (SELECT run_id FROM run WHERE pipeline = ? ORDER BY started DESC LIMIT 20) USING (run_id)"
                " WHERE run_step.outcome = 'executed' GROUP BY name",
                (pipeline,),
            ).fetchall()
        return {name: (seconds, int(size or 0)) for name, seconds, size in rows}

    def declaration(self, pipeline: str) -> Path | None:
        """The file that declared the pipeline when it last ran here."""
        row = self._one(
            "SELECT declaration FROM run WHERE pipeline = ? AND declaration IS NOT NULL ORDER BY started DESC LIMIT 1",
            pipeline,
        )
        return Path(row[0]) if row else None

    def end_run(self, run_id: str, outcome: str) -> None:
        """A run has ended."""
        self._write(
            "UPDATE run SET ended = ?, outcome = ? WHERE run_id = ?", (datetime.now(UTC).isoformat(), outcome, run_id)
        )

    def recent_runs(self, project: str | None, limit: int) -> list[dict[str, Any]]:
        """The last runs, newest first: what ran when, with what outcome, and how many steps ended how."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT run_id, pipeline, project, declaration, started, ended, run.outcome, (SELECT json_group_object("
                "outcome, number) FROM (SELECT outcome, count(*) AS number FROM run_step WHERE run_step.run_id ="
                " run.run_id GROUP BY outcome)) FROM run WHERE ? IS NULL OR project = ? COLLATE NOCASE"
                " ORDER BY started DESC LIMIT ?",
                (project, project, limit),
            ).fetchall()
        names = ("run_id", "pipeline", "project", "declaration", "started", "ended", "outcome", "steps")
        return [dict(zip(names, (*row[:-1], json.loads(row[-1])), strict=True)) for row in rows]

    def pipelines(self, project: str | None = None) -> list[dict[str, Any]]:
        """The pipelines that ran here, each with its project and the file that declared it last."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT pipeline, project, declaration, max(started) FROM run WHERE ? IS NULL OR project = ?"
                " COLLATE NOCASE GROUP BY pipeline, project ORDER BY pipeline, project",
                (project, project),
            ).fetchall()
        return [dict(zip(("pipeline", "project", "declaration", "last_run"), row, strict=True)) for row in rows]

    def run_steps(self, run_id: str) -> list[tuple[str, str, dict[str, str]]]:
        """Step, outcome and datasets of each step of a run."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT step, outcome, datasets FROM run_step WHERE run_id = ? ORDER BY step", (run_id,)
            ).fetchall()
        return [(step, outcome, json.loads(datasets)) for step, outcome, datasets in rows]

    def made(self, project: str) -> list[DatasetRef]:
        """The complete datasets of a project that runs from this data folder made or used, as far as known."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT datasets FROM run_step JOIN run USING (run_id) WHERE project = ? COLLATE NOCASE", (project,)
            ).fetchall()
        mfids = sorted({mfid for (datasets,) in rows for mfid in json.loads(datasets).values()})
        return [known for mfid in mfids if (known := self.known(mfid))]

    def _one(self, sql: str, *values: Any) -> Any:
        with self._lock:
            return self._connection.execute(sql, values).fetchone()

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        with self._transaction() as connection:
            connection.execute(sql, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _migrate(self) -> None:
        (done,) = self._connection.execute("PRAGMA user_version").fetchone()
        if done == len(MIGRATIONS):
            return
        with self._transaction() as connection:
            (done,) = connection.execute("PRAGMA user_version").fetchone()
            for sql in MIGRATIONS[done:]:
                for statement in sql.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
