"""Register files that arrive in a folder from an instrument, each exactly once, when they have stopped growing.

The folder is polled, so that it may be on a network share. A registered file keeps a mark. Its id comes from its bytes
and its modification time, so that two watchers, or one without its marks, register the same dataset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crucible_lineage.checksums import FileStamp, stamp
from crucible_lineage.disk import is_being_written
from crucible_lineage.errors import InputError, LineageError, RecipeConflictError, RefusedError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.local.checksummed import sealed, unsealed
from crucible_lineage.pipeline.inputs.existing import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.inputs.revisions import find_measured
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.refs import DatasetRef, utf8_name
from crucible_lineage.session import Session

# Faults of the file or its declaration, which waiting does not resolve. Everything else is tried again.
FAULTS = (InputError, RefusedError, RecipeConflictError)
OVERLAP = timedelta(minutes=2)  # a record with an earlier time may become visible after one with a later time
UNCHANGED = "it will be tried again when it has changed, or at the next start"


@dataclass(frozen=True)
class Arrival:
    """A file that arrived, with its dataset or an error."""

    path: Path
    dataset: DatasetRef | None = None
    error: str = ""


class Folder:
    """A folder whose files become datasets of a project, described as in `declared` (whose `file` is ignored).

    A file has arrived when its size and modification time have not changed for `settle_s` seconds and no process is
    known to write to it. A file that changes afterwards is another dataset: datasets are never overwritten.
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
        self._done: dict[Path, list[int]] = {}  # size and modification time of finished files
        self._seen: dict[Path, tuple[FileStamp, float]] = {}  # the last stamp of a file, and when it was first seen

    @property
    def waiting(self) -> int:
        """The number of files that may still be growing."""
        return len(self._seen)

    def look(self) -> Iterator[Arrival]:
        """Register and yield each file that has arrived since the last look."""
        present = {path: current for path in sorted(self.folder.glob(self.pattern)) if (current := _stamp(path))}
        for path in self._seen.keys() - present.keys():
            del self._seen[path]
        for path, current in present.items():
            if self._is_done(path, current):
                self._seen.pop(path, None)
            elif self._has_settled(path, current):
                yield self._refused(path, current) or self._arrived(path, current)

    def _refused(self, path: Path, current: FileStamp) -> Arrival | None:
        """Return an error for an empty file, or a link out of the folder, which might publish anything; else None."""
        if not path.resolve().is_relative_to(self.folder.resolve()):
            fault = f"it is a link out of {self.folder}, which is not followed; copy the file"
        elif not current[0]:
            fault = f"it is empty; {UNCHANGED}"
        else:
            return None
        self._done[path] = list(current[:2])
        self._seen.pop(path, None)
        return Arrival(path, error=fault)

    def _has_settled(self, path: Path, current: FileStamp) -> bool:
        before = self._seen.get(path)
        if before is None or before[0] != current:
            self._seen[path] = current, self.clock()
            return self.settle_s == 0 and not is_being_written(path)
        return self.clock() - before[1] >= self.settle_s and not is_being_written(path)

    def _arrived(self, path: Path, current: FileStamp) -> Arrival:
        self.session.ensure_project(self.project)  # a missing project is not the file's fault
        try:
            dataset = self._register(path, current)
        except FAULTS as error:
            self._done[path] = list(current[:2])  # without a mark, so that the next start tries it again
            self._seen.pop(path, None)
            return Arrival(path, error=f"{error}; {UNCHANGED}")
        except (LineageError, OSError) as error:
            return Arrival(path, error=f"{error}; it will be tried again")
        self._note(path, current, dataset.mfid)
        self._seen.pop(path, None)
        return Arrival(path, dataset)

    def _register(self, path: Path, current: FileStamp) -> DatasetRef:
        """Return the dataset of the file: one with the same bytes, or a new one that sorts by the time of writing."""
        written = datetime.fromtimestamp(current[1] / 1e9, UTC)
        declared = self.declared.model_copy(update={"file": (str(path),), "known_since": written})
        if same := find_measured(hash_files(self.project, [path], None, self.session), self.session):
            return same
        raw = hash_files(self.project, [path], written, self.session)
        if (known := find_measured(raw, self.session)) is not None:
            return known
        return register_raw(raw, declared, path.name, self.session)

    def _is_done(self, path: Path, current: FileStamp) -> bool:
        if self._done.get(path) != list(current[:2]):  # another watcher may have registered it
            self._done[path] = self.marks.get(self._name(path)).get("stamp", [])
        return self._done[path] == list(current[:2])

    def _note(self, path: Path, current: FileStamp, mfid: str) -> None:
        self._done[path] = list(current[:2])
        self.marks.set(self._name(path), {"stamp": self._done[path], "mfid": mfid})

    def _name(self, path: Path) -> str:
        return f"arrived {self.project} {utf8_name(str(path))}"


def _stamp(path: Path) -> FileStamp | None:
    """Return the stamp of a file; None if it is not a file, or was just removed."""
    try:
        return stamp(path) if path.is_file() else None
    except OSError:
        return None


def watching(project: str) -> str:
    """Return the name of the mark of the time when `watch` last looked at a project, or at all."""
    return f"watching {project}"


class Marks:
    """The marks of a data folder for one Crucible. Threads and processes may share them."""

    def __init__(self, session: Session) -> None:
        self._database = session.store.database
        self._instance = session.store.instance

    def get(self, name: str) -> JsonObject:
        """Return the last value under this name; empty if there is none."""
        row = self._database.row("SELECT value FROM mark WHERE instance = ? AND name = ?", self._instance, name)
        return dict(unsealed(row[0], name) or {}) if row else {}

    def set(self, name: str, value: Mapping[str, object]) -> None:
        """Store a value under the name, in place of the last one."""
        row = (self._instance, name, sealed(value, name))
        self._database.write("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", *row)
