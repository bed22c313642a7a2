"""Origins of values, as far as they can be known: by task run, object identity, path or content."""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from pydantic import TypeAdapter

from crucible_lineage.machine.disk import replacing
from crucible_lineage.refs import DatasetRef
from crucible_lineage.tasks.values import plain_digest

LEAST_BYTES = 256  # a value whose files are smaller may equal another one by chance (a parquet file never is)
MOST_ITEMS = 10_000  # items of one value that are known individually
NEVER = (type(None), bool, type, Enum, FunctionType, BuiltinFunctionType, ModuleType)  # their values are shared objects

CONSTANT = (str, bytes, int, float, complex)
COPIED = (list, dict, str, float, int)  # types that Prefect copies when it validates a subflow's parameters


@dataclass(frozen=True)
class Origin:
    """The dataset with a value; the names of the value's files, the digest of their content, and the data that it is
    about (empty if it is not a result of this run). What is only described has no digest. A `part` is an item of
    a value that is stored whole in these files.
    """

    dataset: DatasetRef
    files: tuple[str, ...]
    digest: str = ""
    about: tuple[str, ...] = ()
    part: bool = False


_AS_JSON = TypeAdapter(Origin)


class _ByIdentity:
    """What is known of objects. They are kept alive only if they allow no weak reference: lists, dicts, numbers."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[], Any], Any]] = {}

    def __setitem__(self, value: object, known: Any) -> None:
        key, reference = id(value), lambda: value
        if not isinstance(value, CONSTANT):
            with suppress(TypeError):
                reference = weakref.ref(value, lambda _: self._known.pop(key, None))
        self._known[key] = (reference, known)

    def get(self, value: object, default: Any = None) -> Any:
        reference, known = self._known.get(id(value), (None, None))
        return known if reference is not None and reference() is value else default


class Origins:
    """Known values of one flow run and their origins. Thread-safe.

    Processes of the run with the same data folder share them by notes: small files in `folder`, replaced atomically.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_shared = False  # with other processes
        self._lock = threading.Lock()
        self._objects, self._memory = _ByIdentity(), _ByIdentity()
        self.runs: dict[str, Origin] = {}  # the results of task runs
        self._paths: dict[str, tuple[str, Origin]] = {}
        self._contents: dict[str, list[Origin]] = {}
        self.keywords: dict[str, Origin] = {}  # by that of a key in Prefect's cache, or of an address written to

    # ------------------------------------------------------------ noting

    def note_object(self, value: object, origin: Origin, *, owns: bool = True) -> None:
        """Note the dataset of an object, and of the memory that it `owns`.

        A number or text that two calls returned as the same object is a constant in their code and belongs to neither.
        """
        if _is_shared_object(value):
            return
        with self._lock:
            known = self._objects.get(value, origin) if isinstance(value, CONSTANT) else origin
            self._objects[value] = origin if known is not None and known.dataset.mfid == origin.dataset.mfid else None
            for owner in _owners(value) if owns else ():
                first = self._memory.get(owner, origin)
                self._memory[owner] = first if first and first.dataset.mfid == origin.dataset.mfid else None

    def note_copy(self, value: object, copied: object) -> None:
        """Note the origins of a value and of its items for an equal copy of it."""
        for original, copy in zip((value, *items_of(value)), (copied, *items_of(copied)), strict=False):
            origin = self.of_object(original) if original is not copy and isinstance(original, COPIED) else None
            if origin is not None and _content(original) == _content(copy):
                self.note_object(copy, origin)

    def note_run(self, task_run_id: str, origin: Origin) -> None:
        """Note the dataset of a task run's result."""
        self.runs[task_run_id] = origin
        if self.is_shared and task_run_id:
            self._write(f"run-{task_run_id}", origin)

    def note_path(self, path: Path, sha256: str, origin: Origin) -> None:
        """Note the dataset of the file at a path."""
        self._paths[str(path.absolute())] = (sha256, origin)

    def note_content(self, digest: str, size: int, origin: Origin) -> None:
        """Note the dataset of these bytes, unless so few that other values may have them too."""
        with self._lock:
            known = self._contents.setdefault(digest, [])
            if size < LEAST_BYTES or any(other.dataset.mfid == origin.dataset.mfid for other in known):
                return
            known.append(origin)
        if self.is_shared:
            self._write(f"content-{digest}", origin)

    def share(self) -> None:
        """Share the origins of contents and task runs, and those to come, with other processes."""
        if self.is_shared:
            return
        self.is_shared = True
        named = {f"run-{run}": origin for run, origin in self.runs.items() if run}
        named |= {f"content-{digest}": known[0] for digest, known in self._contents.items() if len(known) == 1}
        for name, origin in named.items():
            self._write(name, origin)

    def _write(self, name: str, origin: Origin) -> None:
        with suppress(FileNotFoundError), replacing(self.folder / name) as draft:  # else the flow run has ended
            draft.write_bytes(_AS_JSON.dump_json(origin))

    # ------------------------------------------------------------ looking up

    def _read(self, name: str) -> Origin | None:
        try:
            return _AS_JSON.validate_json((self.folder / name).read_bytes())
        except FileNotFoundError:
            return None

    def noted_runs(self) -> set[str]:
        """Return the task runs whose results are in the notes."""
        return {path.name.removeprefix("run-") for path in self.folder.glob("run-*")}

    def of_object(self, value: object) -> Origin | None:
        """Return the origin of this very object."""
        known: Origin | None = None if _is_shared_object(value) else self._objects.get(value)
        return known

    def of_view(self, value: object) -> Origin | None:
        """Return the origin of the array or table whose memory this one shares; None if those are several."""
        found = [self._memory.get(owner) for owner in _owners(value)]
        mfids = {origin.dataset.mfid if origin else "" for origin in found}
        return found[0] if len(mfids) == 1 else None

    def parents_of(self, value: object) -> list[Origin]:
        """Return the origins of a value of the flow's code, or of the items in it, each once."""
        known = self.of_object(value) or (self.of_path(value) if isinstance(value, Path) else self.of_view(value))
        found = [known] if known else filter(None, map(self.of_object, items_of(value)))
        return list({parent.dataset.mfid: parent for parent in found}.values())

    def of_run(self, task_run_id: str) -> Origin | None:
        """Return the origin of a task run's result, in this process or another."""
        return self.runs.get(task_run_id) or self._read(f"run-{task_run_id}")

    def of_path(self, path: Path, sha256: str | None = None) -> Origin | None:
        """Return the origin of the file at a path; with `sha256`, only if it has these bytes."""
        known, origin = self._paths.get(str(path.absolute()), (None, None))
        return origin if sha256 in (None, known) else None

    def of_content(self, digest: str) -> Origin | None:
        """Return the origin of these bytes; None also if several calls returned them."""
        known = self._contents.get(digest, [])
        if len(known) > 1:
            return None
        return known[0] if known else self._read(f"content-{digest}")


def _is_shared_object(value: object) -> bool:
    """Return whether Python shares equal values as one object, so that identity says nothing."""
    if isinstance(value, NEVER):
        return True
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return True
    if isinstance(value, int):
        return -5 <= value <= 256
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, str):
        return len(value) < 4 or value.replace("-", "_").isidentifier()
    return isinstance(value, (bytes, tuple, frozenset)) and len(value) < 2


def _owners(value: Any) -> Iterator[Any]:
    """Yield the arrays that own the memory of an array of NumPy or a table of pandas."""
    numpy, kept = sys.modules.get("numpy"), getattr(value, "_mgr", None)
    for array in [value] if numpy and type(value) is numpy.ndarray else getattr(kept, "arrays", ()):
        while (base := getattr(array, "base", None)) is not None:
            array = base
        if numpy and type(array) is numpy.ndarray:
            yield array


def items_of(value: object, depth: int = 4) -> Iterator[Any]:
    """Yield the items of a list, tuple, set, dict, dataclass or model, and theirs; at most `MOST_ITEMS`."""
    return islice(_inside(value, depth), MOST_ITEMS)


def _inside(value: Any, depth: int) -> Iterator[Any]:
    if is_dataclass(value) or hasattr(type(value), "model_fields"):
        value = getattr(value, "__dict__", {})
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(value, (dict, list, tuple, set, frozenset)) else ():
        yield item
        if depth and not isinstance(item, CONSTANT):
            yield from _inside(item, depth - 1)


def _content(value: object) -> tuple[type, object]:
    """Return a key that equal values share."""
    return type(value), plain_digest(value) or (id(value) if isinstance(value, (list, dict)) else value)
