"""Where a value came from, as far as it can be known: by its task run, its identity, its path, its content."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Container
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.refs import DatasetRef

__all__ = ["LEAST_BYTES", "Made", "Notes", "Origin", "Origins", "settled"]

LEAST_BYTES = 256  # a value whose files are smaller may equal another one by chance (a parquet file never is)
SINGLETONS = (type(None), bool, int, float, complex, str, bytes)  # equal ones may be one object

Made = Future[DatasetRef]
"""A dataset that is being registered."""


@dataclass(frozen=True)
class Origin:
    """The dataset that a value is, or is in; the names of its files in it, the digest of their content, and the data
    that it is about (nothing if it is no result of this run). `described` says that its files do not hold it.
    """

    made: Made
    files: tuple[str, ...]
    digest: str = ""
    about: tuple[str, ...] = ()
    described: bool = False


def settled(dataset: DatasetRef) -> Made:
    """A dataset that is registered."""
    made: Made = Future()
    made.set_result(dataset)
    return made


class Notes:
    """What is known to all processes of a flow run that share the data folder: small files, written whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, origin: Origin) -> None:
        """Other processes find what is registered under this name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = {"files": list(origin.files), "digest": origin.digest, "about": list(origin.about)}
        text = json.dumps({"dataset": origin.made.result().to_json(), **told, "described": origin.described})
        part = self.folder / f".{name}-{threading.get_ident()}"
        part.write_text(text, encoding="utf-8")
        part.replace(self.folder / name)

    def read(self, name: str) -> Origin | None:
        """What was written under this name."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        made = settled(DatasetRef.from_json(found["dataset"]))
        return Origin(made, tuple(found["files"]), found["digest"], tuple(found["about"]), found["described"])

    def names(self) -> list[str]:
        """What task runs have noted."""
        return sorted(path.name for path in self.folder.glob("run-*"))

    def datasets(self, but: Container[str] = ()) -> list[DatasetRef]:
        """All that task runs have noted, but those of these names."""
        found = (self.read(name) for name in self.names() if name not in but)
        return [origin.made.result() for origin in found if origin is not None]


class Origins:
    """The values of one flow run that are known. Threads may share it."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self._lock = threading.Lock()
        self._objects: dict[int, tuple[Any, Origin]] = {}
        self._runs: dict[str, Origin] = {}
        self._paths: dict[str, tuple[str, Origin]] = {}
        self._contents: dict[str, Origin] = {}
        self._keys: dict[str, Origin] = {}

    def note_object(self, value: object, origin: Origin) -> None:
        """This object is that dataset. It is kept alive only where it cannot be watched: lists, dicts, tuples."""
        if isinstance(value, SINGLETONS) or not isinstance(value, object):
            return
        key = id(value)
        try:
            held: Any = weakref.ref(value, lambda _: self._objects.pop(key, None))
        except TypeError:
            held = _Strong(value)
        with self._lock:
            self._objects[key] = (held, origin)

    def note_run(self, task_run_id: str, origin: Origin) -> None:
        """This is what a task run gave."""
        self._runs[task_run_id] = origin

    def note_path(self, path: Path, sha256: str, origin: Origin) -> None:
        """The file at this path is a file of that dataset."""
        self._paths[str(path.absolute())] = (sha256, origin)

    def note_content(self, digest: str, size: int, origin: Origin) -> None:
        """Values with these bytes are that dataset, unless they are so small that others may have them too."""
        if size >= LEAST_BYTES:
            self._contents.setdefault(digest, origin)

    def note_key(self, key: str, origin: Origin) -> None:
        """Prefect's cache has that dataset under this key."""
        self._keys[key] = origin

    def of_key(self, key: str, digest: str) -> Origin | None:
        """The dataset that Prefect's cache has under this key, if it has this content."""
        found = self._keys.get(key)
        return found if found is not None and found.digest == digest else None

    def share(self) -> None:
        """Other processes find what is known of contents and task runs, as far as it is registered."""
        named = {f"run-{run}": origin for run, origin in self._runs.items()}
        named |= {f"content-{digest}": origin for digest, origin in self._contents.items()}
        for name, origin in named.items():
            if origin.made.done() and origin.made.exception() is None:
                self.notes.write(name, origin)

    def of_object(self, value: object) -> Origin | None:
        """The dataset that this very object is."""
        if isinstance(value, SINGLETONS):
            return None
        held, origin = self._objects.get(id(value), (None, None))
        return origin if held is not None and held() is value else None

    def of_run(self, task_run_id: str) -> Origin | None:
        """What a task run gave, in this process or in another one."""
        return self._runs.get(task_run_id) or self.notes.read(f"run-{task_run_id}")

    def of_path(self, path: Path, sha256: str | None = None) -> Origin | None:
        """The dataset of the file at this path; with `sha256`, only if it has these bytes."""
        known, origin = self._paths.get(str(path.absolute()), (None, None))
        return origin if sha256 in (None, known) else None

    def of_content(self, digest: str) -> Origin | None:
        """The dataset with these bytes."""
        return self._contents.get(digest) or self.notes.read(f"content-{digest}")


class _Strong:
    """What a weak reference is called like, for values that have none."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value
