"""Files that arrive in a folder from an instrument: registered once they have stopped growing, each exactly once.

The folder is looked at, not listened to, so that it may lie on a network share. A file that is registered keeps its
place among the marks; its id comes from its bytes and its modification time, so that two watchers, or one that forgot,
register the same dataset.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage import failed_runs
from crucible_lineage.checksums import FileStamp, stamp
from crucible_lineage.errors import InputError, LineageError, RecipeConflictError, RefusedError
from crucible_lineage.local.checksummed import sealed, unsealed
from crucible_lineage.pipeline.inputs.existing import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.inputs.revisions import find_measured
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.refs import DatasetRef, utf8_name
from crucible_lineage.session import Session

# What is wrong with the file, or with what is said about it, and no better by waiting. All else is tried again.
FAULTS = (InputError, RefusedError, RecipeConflictError)
UNCHANGED = "it is tried again when it has changed, or at the next start"


@dataclass(frozen=True)
class Arrival:
    """What became of a file that arrived: its dataset, or why there is none."""

    path: Path
    dataset: DatasetRef | None = None
    error: str = ""


class Folder:
    """A folder whose files become datasets of a project, described like `declared` (whose `file` does not count).

    A file counts as arrived when its size and modification time have stood still for `settle_s` seconds and nobody is
    seen writing to it. A file that changes afterwards is another dataset, since datasets are never overwritten.
    """

    def __init__(
        self,
        folder: Path,
        pattern: str,
        project: str,
        declared: FileInput,
        session: Session,
        *,
        settle_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder.absolute()
        self.pattern = pattern
        self.project = project
        self.declared = declared
        self.session = session
        self.settle_s = settle_s
        self.clock = clock
        self.marks = Marks(session)
        self._known: dict[Path, list[int]] = {}  # size and modification time of what is done
        self._seen: dict[Path, tuple[FileStamp, float]] = {}  # since when a file has looked like this

    @property
    def waiting(self) -> int:
        """Return how many files were seen and are not known to have stopped growing."""
        return len(self._seen)

    def look(self) -> Iterator[Arrival]:
        """Each file that has arrived since the last look, registered as it is given out."""
        there = {path: seen for path in sorted(self.folder.glob(self.pattern)) if (seen := _stamp(path))}
        for path in self._seen.keys() - there.keys():
            del self._seen[path]
        for path, seen in there.items():
            if self._is_known(path, seen):
                self._seen.pop(path, None)
            elif self._has_settled(path, seen):
                yield self._refused(path, seen) or self._arrived(path, seen)

    def _refused(self, path: Path, seen: FileStamp) -> Arrival | None:
        """Refuse an empty file, and a link out of the folder, which might publish anything; None for others."""
        if not path.resolve().is_relative_to(self.folder.resolve()):
            fault = f"it is a link that leads out of {self.folder}, and is not followed; copy the file"
        elif not seen[0]:
            fault = f"it is empty; {UNCHANGED}"
        else:
            return None
        self._known[path] = list(seen[:2])
        self._seen.pop(path, None)
        return Arrival(path, error=fault)

    def _has_settled(self, path: Path, seen: FileStamp) -> bool:
        before = self._seen.get(path)
        if before is None or before[0] != seen:
            self._seen[path] = seen, self.clock()
            return self.settle_s == 0 and not is_being_written(path)
        return self.clock() - before[1] >= self.settle_s and not is_being_written(path)

    def _arrived(self, path: Path, seen: FileStamp) -> Arrival:
        self.session.ensure_project(self.project)  # without one, no file is at fault
        try:
            dataset = self._register(path, seen)
        except FAULTS as error:
            self._known[path] = list(seen[:2])  # not among the marks: a new start may find it mended
            self._seen.pop(path, None)
            return Arrival(path, error=f"{error}; {UNCHANGED}")
        except (LineageError, OSError) as error:
            return Arrival(path, error=f"{error}; it is tried again")
        self._note(path, seen, dataset.mfid)
        self._seen.pop(path, None)
        return Arrival(path, dataset)

    def _register(self, path: Path, seen: FileStamp) -> DatasetRef:
        """The dataset of the file: one of the same bytes, or a new one that sorts by when the file was written."""
        written = datetime.fromtimestamp(seen[1] / 1e9, UTC)
        declared = self.declared.model_copy(update={"file": str(path), "known_since": written})
        if same := find_measured(hash_files(self.project, [path], None, self.session), self.session):
            return same
        raw = hash_files(self.project, [path], written, self.session)
        if (known := find_measured(raw, self.session)) is not None:
            return known
        return register_raw(raw, declared, path.name, self.session)

    def _is_known(self, path: Path, seen: FileStamp) -> bool:
        if self._known.get(path) != list(seen[:2]):
            self._known[path] = self.marks.get(self._name(path)).get("stamp", [])  # another watcher may have done it
        return self._known[path] == list(seen[:2])

    def _note(self, path: Path, seen: FileStamp, mfid: str) -> None:
        self._known[path] = list(seen[:2])
        self.marks.set(self._name(path), {"stamp": self._known[path], "mfid": mfid})

    def _name(self, path: Path) -> str:
        return f"arrived {self.project} {utf8_name(str(path))}"


def is_being_written(path: Path) -> bool:
    """True if a process of this machine has the file open for writing, as far as the system tells."""
    if sys.platform == "win32":
        try:
            path.rename(path)  # refused while somebody has the file open
        except PermissionError as error:
            return bool(error.winerror == 32)  # a sharing violation; a folder that is read-only tells nothing
        return False
    return _is_leased(path)


def _is_leased(path: Path) -> bool:
    """True if Linux refuses a read lease on the file, as it does while it is open for writing."""
    import fcntl  # not on Windows

    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # a file system or an owner that knows no leases
        return False
    finally:
        os.close(number)
    return False


def _stamp(path: Path) -> FileStamp | None:
    """Return the stamp of a file; None for what is no file, or has just gone."""
    try:
        return stamp(path) if path.is_file() else None
    except OSError:
        return None


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
