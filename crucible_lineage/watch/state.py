"""Marks of what runs that nobody watches: how far they have looked.

They lie in the local store. When that is deleted, all is looked at once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crucible_lineage import failed_runs
from crucible_lineage.local.sealed import sealed, unsealed
from crucible_lineage.session import Session

__all__ = ["Marks", "looks_of", "unpark", "watching"]


def looks_of(project: str, pipeline: str) -> str:
    """Return the name of the mark up to which a pipeline has looked at what is new in a project."""
    return f"process-new {project} {pipeline}"


def watching(project: str) -> str:
    """Return the name of the mark that says when `watch` last looked, at a project or at all."""
    return f"watching {project}"


def unpark(session: Session, mfid: str) -> bool:
    """Try what failed under this id, or about the dataset of this id, again. Return False if nothing has.

    Pipelines that ran here look at everything once more, since they had gone on beyond what was parked; those of other
    machines do at their next sweep.
    """
    found = failed_runs.unpark(session, mfid)
    for project, pipeline in found:
        Marks(session).remove(looks_of(project, pipeline))
    return bool(found)


class Marks:
    """The marks of a data folder, as far as they concern one Crucible. Threads and processes may share it."""

    def __init__(self, session: Session) -> None:
        self._database = session.store.database
        self._instance = session.store.instance

    def get(self, name: str) -> dict[str, Any]:
        """Return what was last noted under this name; empty if nothing was."""
        row = self._database.row("SELECT value FROM mark WHERE instance = ? AND name = ?", self._instance, name)
        return dict(unsealed(row[0], name) or {}) if row else {}

    def set(self, name: str, value: Mapping[str, object]) -> None:
        """Note a value under the name, in place of the last one."""
        row = (self._instance, name, sealed(value, name))
        self._database.write("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", *row)

    def remove(self, name: str) -> None:
        """Forget what was noted under the name."""
        self._database.write("DELETE FROM mark WHERE instance = ? AND name = ?", self._instance, name)
