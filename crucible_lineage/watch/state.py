"""What runs that nobody watches remember: marks up to which they have looked, and results that failed to be made.

One small SQLite file in the data folder. It may be deleted: then all is looked at once more, and what was parked is
tried again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.session import Session

__all__ = ["Failure", "Logbook", "looks_of"]

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS mark (
        instance TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (instance, name)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS failure (
        instance TEXT NOT NULL, mfid TEXT NOT NULL, project TEXT NOT NULL, pipeline TEXT NOT NULL, step TEXT NOT NULL,
        subject TEXT NOT NULL, failures INTEGER NOT NULL, parked INTEGER NOT NULL, error TEXT NOT NULL,
        last TEXT NOT NULL, PRIMARY KEY (instance, mfid)
    ) WITHOUT ROWID;
"""


def looks_of(project: str, pipeline: str) -> str:
    """The name of the mark up to which a pipeline has looked at what is new in a project."""
    return f"process-new {project} {pipeline}"


@dataclass(frozen=True)
class Failure:
    """A result that could not be made, under the id that it would have had: other code or parameters, another id.

    `step` is the instance of the step, `subject` the datasets that it is about, `last` when it failed last.
    """

    mfid: str
    project: str
    pipeline: str
    step: str
    subject: tuple[str, ...]
    error: str
    failures: int = 1
    parked: bool = False
    last: str = ""

    def to_json(self) -> dict[str, Any]:
        """The entry in `status --json`."""
        return {**vars(self), "subject": list(self.subject)}


class Logbook:
    """The logbook of a data folder, as far as it concerns one Crucible. Threads and processes may share it."""

    def __init__(self, path: Path, instance: str) -> None:
        self.path = path
        self.instance = instance
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    @classmethod
    def of(cls, session: Session) -> Logbook:
        """The logbook in the session's data folder."""
        return cls(session.settings.data / "logbook.sqlite", session.store.instance)

    def mark(self, name: str) -> dict[str, Any]:
        """What was last noted under this name; empty if nothing was."""
        with self._open() as db:
            row = db.execute("SELECT value FROM mark WHERE instance = ? AND name = ?", (self.instance, name)).fetchone()
        return dict(json.loads(row[0])) if row else {}

    def set_mark(self, name: str, value: Mapping[str, Any]) -> None:
        """This is noted under the name, instead of what was."""
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", (self.instance, name, json.dumps(value)))

    def note_failure(self, failure: Failure, most: int) -> Failure:
        """The failure with how often it has happened now; parked if that is `most` times or more.

        What the same step failed with under another id, when its recipe was another one, is forgotten.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute(
                "SELECT failures FROM failure WHERE instance = ? AND mfid = ?", (self.instance, failure.mfid)
            ).fetchone()
            times = (row[0] if row else 0) + 1
            noted = Failure(
                **{**vars(failure), "failures": times, "parked": times >= most, "last": datetime.now(UTC).isoformat()}
            )
            self._forget(db, failure.project, failure.pipeline, failure.step)
            db.execute("INSERT INTO failure VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._row(noted))
            db.execute("COMMIT")
        return noted

    def succeeded(self, project: str, pipeline: str, step: str) -> None:
        """The step was made; what it failed with before is forgotten."""
        with self._open() as db:
            self._forget(db, project, pipeline, step)

    def clear(self, mfid: str) -> int:
        """How many results were unparked: the one of this id, and those about the dataset of this id.

        Their pipelines look at everything once more, since they had gone on beyond what was parked.
        """
        with self._open() as db:
            about = "EXISTS (SELECT 1 FROM json_each(subject) WHERE value = ?)"
            cleared = db.execute(
                f"DELETE FROM failure WHERE instance = ? AND (mfid = ? OR {about})"  # noqa: S608 (a constant)
                " RETURNING project, pipeline",
                (self.instance, mfid, mfid),
            ).fetchall()
            for project, pipeline in set(cleared):
                db.execute(
                    "DELETE FROM mark WHERE instance = ? AND name = ?", (self.instance, looks_of(project, pipeline))
                )
            return len(cleared)

    def failures(self, project: str | None = None) -> dict[str, Failure]:
        """What failed and was not made since, by the id it would have had."""
        with self._open() as db:
            rows = db.execute(
                "SELECT mfid, project, pipeline, step, subject, error, failures, parked, last FROM failure"
                " WHERE instance = ? AND (? IS NULL OR project = ? COLLATE NOCASE) ORDER BY last",
                (self.instance, project, project),
            ).fetchall()
        return {row[0]: _failure(row) for row in rows}

    def _forget(self, db: sqlite3.Connection, project: str, pipeline: str, step: str) -> None:
        db.execute(
            "DELETE FROM failure WHERE instance = ? AND project = ? AND pipeline = ? AND step = ?",
            (self.instance, project, pipeline, step),
        )

    def _row(self, failure: Failure) -> tuple[Any, ...]:
        return (
            self.instance,
            failure.mfid,
            failure.project,
            failure.pipeline,
            failure.step,
            json.dumps(failure.subject),
            failure.failures,
            failure.parked,
            failure.error,
            failure.last,
        )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as db:
            yield db


def _failure(row: tuple[Any, ...]) -> Failure:
    mfid, project, pipeline, step, subject, error, failures, parked, last = row
    return Failure(mfid, project, pipeline, step, tuple(json.loads(subject)), error, failures, bool(parked), last)
