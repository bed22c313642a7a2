"""What runs that nobody watches remember: marks up to which they have looked, and results that failed to be made.

It lies in the local store. When that is deleted, all is looked at once more, and what was parked is tried again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.core.store import Store
from crucible_lineage.local.sealed import sealed, unsealed
from crucible_lineage.session import Session

__all__ = ["Failure", "Logbook", "looks_of"]


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

    def __init__(self, store: Store) -> None:
        self.database = store.database
        self.instance = store.instance

    @classmethod
    def of(cls, session: Session) -> Logbook:
        """The logbook in the session's data folder."""
        return cls(session.store)

    def mark(self, name: str) -> dict[str, Any]:
        """Return what was last noted under this name; empty if nothing was."""
        row = self.database.row("SELECT value FROM mark WHERE instance = ? AND name = ?", self.instance, name)
        return dict(unsealed(row[0], name) or {}) if row else {}

    def set_mark(self, name: str, value: Mapping[str, object]) -> None:
        """Note a value under the name, in place of the last one."""
        self.database.write("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", self.instance, name, sealed(value, name))

    def note_failure(self, failure: Failure, most: int) -> Failure:
        """The failure with how often it has happened now; parked if that is `most` times or more.

        What the same step failed with under another id, when its recipe was another one, is forgotten.
        """

        def note(db: sqlite3.Connection) -> Failure:
            row = db.execute(
                "SELECT failures FROM failure WHERE instance = ? AND mfid = ?", (self.instance, failure.mfid)
            ).fetchone()
            times = (row[0] if row else 0) + 1
            now = datetime.now(UTC).isoformat()
            noted = Failure(**{**vars(failure), "failures": times, "parked": times >= most, "last": now})
            self._forget(db, failure.project, failure.pipeline, failure.step)
            db.execute("INSERT INTO failure VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._row(noted))
            return noted

        return self.database.transaction(note)

    def succeeded(self, project: str, pipeline: str, step: str) -> None:
        """The step was made; what it failed with before is forgotten."""
        self.database.transaction(lambda db: self._forget(db, project, pipeline, step))

    def clear(self, mfid: str) -> int:
        """Unpark the result of this id, and those about the dataset of this id. Returns how many.

        Their pipelines look at everything once more, since they had gone on beyond what was parked.
        """

        def clear(db: sqlite3.Connection) -> int:
            about = "EXISTS (SELECT 1 FROM json_each(subject) WHERE value = ?)"
            cleared = db.execute(
                f"DELETE FROM failure WHERE instance = ? AND (mfid = ? OR {about})"  # noqa: S608 (a constant)
                " RETURNING project, pipeline",
                (self.instance, mfid, mfid),
            ).fetchall()
            for project, pipeline in set(cleared):
                looks = looks_of(project, pipeline)
                db.execute("DELETE FROM mark WHERE instance = ? AND name = ?", (self.instance, looks))
            return len(cleared)

        return self.database.transaction(clear)

    def failures(self, project: str | None = None) -> dict[str, Failure]:
        """Return what failed and was not made since, by the id it would have had."""
        rows = self.database.rows(
            "SELECT mfid, project, pipeline, step, subject, error, failures, parked, last FROM failure"
            " WHERE instance = ? AND (? IS NULL OR project = ? COLLATE NOCASE) ORDER BY last",
            *(self.instance, project, project),
        )
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


def _failure(row: tuple[Any, ...]) -> Failure:
    mfid, project, pipeline, step, subject, error, failures, parked, last = row
    return Failure(mfid, project, pipeline, step, tuple(json.loads(subject)), error, failures, bool(parked), last)
