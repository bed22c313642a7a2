"""Origins of values, as far as they can be known: by task run, object identity, path or content."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum
from itertools import islice
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from crucible_lineage.disk import replacing
from crucible_lineage.refs import DatasetRef
from crucible_lineage.tasks.dropin.values.storing import plain_digest

CALL = "call.json"  # file that identifies the call of a result without inputs
LEAST_BYTES = 256  # a value whose files are smaller may equal another one by chance (a parquet file never is)
MOST_ITEMS = 10_000  # items of one value that are known individually
MOST_CANDIDATES = 5  # results named in the warning about an unknown parent
NEVER = (
    type(None),
    bool,
    type,
    Enum,
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
)  # types whose values are shared objects

CONSTANT = (str, bytes, int, float, complex)
COPIED = (list, dict, str, float, int)  # types that Prefect copies when it validates a subflow's parameters

DatasetFuture = Future[DatasetRef]
"""A dataset whose registration may still be running."""


@dataclass(frozen=True)
class Origin:
    """The dataset with a value; the names of the value's files, the digest of their content, and the data that it is
    about (empty if it is not a result of this run). `described` means that the files only describe the value, `label`
    names it before the dataset has a name. A `part` is an item of a value that is stored whole in these files.
    """

    future: DatasetFuture
    files: tuple[str, ...]
    digest: str = ""
    about: tuple[str, ...] = ()
    described: bool = False
    label: str = ""
    part: bool = False


def settled(dataset: DatasetRef) -> DatasetFuture:
    """Return a completed future with a registered dataset."""
    future: DatasetFuture = Future()
    future.set_result(dataset)
    return future


class Notes:
    """Origins shared by all processes of a flow run with the same data folder: small files, replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, origin: Origin) -> None:
        """Write an origin under a name for other processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fields = {"files": list(origin.files), "digest": origin.digest, "about": list(origin.about)}
        more = {"described": origin.described, "label": origin.label}
        text = json.dumps({"dataset": origin.future.result().to_json(), **fields, **more})
        with replacing(self.folder / name) as draft:
            draft.write_text(text, encoding="utf-8")

    def read(self, name: str) -> Origin | None:
        """Read the origin under a name; None if there is none."""
        try:
            note = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        future = settled(DatasetRef.from_json(note["dataset"]))
        about, label = tuple(note["about"]), note["label"]
        return Origin(future, tuple(note["files"]), note["digest"], about, note["described"], label)

    def names(self) -> list[str]:
        """Return the names of the notes of task runs."""
        return sorted(path.name for path in self.folder.glob("run-*"))

    def datasets(self, but: Container[str] = ()) -> list[DatasetRef]:
        """Return the datasets in the notes of task runs, except those named `but`."""
        origins = (self.read(name) for name in self.names() if name not in but)
        return [origin.future.result() for origin in origins if origin is not None]


class Origins:
    """Known values of one flow run and their origins. Thread-safe."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self._lock = threading.Lock()
        self._objects: dict[int, tuple[Any, Origin | None]] = {}
        self._derived: dict[int, tuple[Any, tuple[Origin, ...]]] = {}
        self._runs: dict[str, Origin] = {}
        self._paths: dict[str, tuple[str, Origin]] = {}
        self._contents: dict[str, list[Origin]] = {}
        self._keys: dict[str, Origin] = {}
        self._words: dict[str, frozenset[str]] = {}
        self._copied: set[str] = set()

    # ------------------------------------------------------------ noting

    def note_object(self, value: object, origin: Origin) -> None:
        """Note the dataset of an object.

        The object is kept alive only if it allows no weak reference: lists, dicts, numbers.
        A number or text that two calls returned as the same object is a constant in their code and belongs to neither.
        """
        if _is_shared_object(value):
            return
        key = id(value)
        reference = _reference(value, lambda: self._objects.pop(key, None))
        with self._lock:
            previous = self._objects.get(key)
            if (
                isinstance(value, CONSTANT)
                and previous is not None
                and previous[1] is not None
                and previous[0]() is value
            ):
                known: Origin | None = origin if previous[1].future is origin.future else None
            else:
                known = origin
            self._objects[key] = (reference, known)

    def note_items(self, value: object, origin: Origin, but: Container[int] = ()) -> None:
        """Note the dataset of the items of a list, tuple, set or dict.

        `but` are the object ids of items from elsewhere.
        """
        part = replace(origin, digest="", described=False, part=True)
        for item in items_of(value):
            if id(item) not in but:
                digest = plain_digest(item)
                self.note_object(item, replace(part, digest=digest) if digest else part)

    def note_words(self, task_run_id: str, value: object) -> None:
        """Note the strings in a list that a task run returned: equal short strings are the same object everywhere."""
        if isinstance(value, (list, tuple, set, frozenset)) and len(value) <= MOST_ITEMS:
            self._words[task_run_id] = frozenset(item for item in value if type(item) is str)

    def note_copies(self, flow_run_id: str, parameters: Iterable[object]) -> None:
        """Note the origins of a subflow's parameters, which Prefect copies: each that of the only known equal value."""
        with self._lock:
            if flow_run_id in self._copied:
                return
            self._copied.add(flow_run_id)
        copies = [item for value in parameters for item in (value, *items_of(value)) if self.of_object(item) is None]
        copies = [item for item in copies if isinstance(item, COPIED) and not _is_shared_object(item)]
        if not copies:
            return
        known: dict[object, list[Origin]] = {}
        for value, origin in self.objects(COPIED):
            known.setdefault(_content(value), []).append(origin)
        for copy in copies:
            equal = known.get(_content(copy), [])
            if len({id(origin.future) for origin in equal}) == 1:
                self.note_object(copy, equal[0])

    def note_derived(self, value: object, parents: Iterable[Origin]) -> None:
        """Note that the flow's own code derived an object from these parents, each once."""
        distinct = tuple({id(parent.future): parent for parent in parents}.values())
        key = id(value)
        reference = _reference(value, lambda: self._derived.pop(key, None))
        with self._lock:
            self._derived[key] = (reference, distinct)

    def note_run(self, task_run_id: str, origin: Origin) -> None:
        """Note the dataset of a task run's result."""
        self._runs[task_run_id] = origin

    def note_path(self, path: Path, sha256: str, origin: Origin) -> None:
        """Note the dataset of the file at a path."""
        self._paths[str(path.absolute())] = (sha256, origin)

    def note_content(self, digest: str, size: int, origin: Origin) -> None:
        """Note the dataset of these bytes, unless so few that other values may have them too."""
        with self._lock:
            known = self._contents.setdefault(digest, [])
            if size >= LEAST_BYTES and all(one.future is not origin.future for one in known):
                known.append(origin)

    def note_key(self, key: str, origin: Origin) -> None:
        """Note the dataset that Prefect's cache has under a key."""
        self._keys[key] = origin

    def share(self) -> None:
        """Write the origins of contents and task runs for other processes, if they are registered."""
        named = {f"run-{run}": origin for run, origin in self._runs.items()}
        named |= {f"content-{digest}": known[0] for digest, known in self._contents.items() if len(known) == 1}
        for name, origin in named.items():
            if origin.future.done() and origin.future.exception() is None:
                self.notes.write(name, origin)

    # ------------------------------------------------------------ looking up

    def of_object(self, value: object) -> Origin | None:
        """Return the origin of this very object."""
        if _is_shared_object(value):
            return None
        reference, origin = self._objects.get(id(value), (None, None))
        return origin if reference is not None and reference() is value else None

    def of_derived(self, value: object) -> tuple[Origin, ...]:
        """Return the parents from which the flow's own code declared to have derived this object."""
        reference, parents = self._derived.get(id(value), (None, ()))
        return parents if reference is not None and reference() is value else ()

    def parents_of(self, value: object, depth: int = 3) -> list[Origin]:
        """Return the origins of a value of the flow's code, or of the items in it."""
        known = self.of_object(value)
        parents = [known] if known is not None else list(self.of_derived(value))
        if not parents and isinstance(value, Path):
            at_path = self.of_path(value)
            parents = [at_path] if at_path is not None else []
        if not parents and depth and isinstance(value, (list, tuple, dict)):
            inside = list(value.values()) if isinstance(value, dict) else value[:MOST_ITEMS]
            parents = [parent for item in inside for parent in self.parents_of(item, depth - 1)]
        return parents

    def of_run(self, task_run_id: str) -> Origin | None:
        """Return the origin of a task run's result, in this process or another."""
        return self._runs.get(task_run_id) or self.notes.read(f"run-{task_run_id}")

    def is_word_of(self, task_run_id: str, value: object) -> bool:
        """Return whether a string is in the list that a task run returned."""
        return type(value) is str and value in self._words.get(task_run_id, ())

    def of_path(self, path: Path, sha256: str | None = None) -> Origin | None:
        """Return the origin of the file at a path; with `sha256`, only if it has these bytes."""
        known, origin = self._paths.get(str(path.absolute()), (None, None))
        return origin if sha256 in (None, known) else None

    def of_content(self, digest: str) -> Origin | None:
        """Return the origin of these bytes; None also if several calls returned them."""
        known = self._contents.get(digest, [])
        if len(known) > 1:
            return None
        return known[0] if known else self.notes.read(f"content-{digest}")

    def of_key(self, key: str, digest: str) -> Origin | None:
        """Return the origin of the result that Prefect's cache has under a key, if it has this content."""
        origin = self._keys.get(key)
        return origin if origin is not None and origin.digest == digest else None

    def objects(self, kind: type | tuple[type, ...]) -> Iterator[tuple[Any, Origin]]:
        """Yield the known objects of a class, newest first."""
        for reference, origin in reversed(list(self._objects.values())):
            value = reference()
            if origin is not None and isinstance(value, kind):
                yield value, origin

    def in_hand(self) -> list[str]:
        """Return the labels of results that the flow's own code has received, newest first."""
        labels = dict.fromkeys(origin.label for origin in reversed(list(self._runs.values())) if origin.label)
        return list(labels)[:MOST_CANDIDATES]


def _is_shared_object(value: object) -> bool:
    """Return whether Python shares equal values as one object, so that identity says nothing."""
    if isinstance(value, NEVER) or not isinstance(value, object):
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


def items_of(value: object) -> Iterator[Any]:
    """Yield the items of a list, tuple, set, dict, dataclass or model, recursively; at most `MOST_ITEMS`."""
    return islice(_inside(value, 4), MOST_ITEMS)


def _inside(value: object, depth: int) -> Iterator[Any]:
    items: Iterable[object] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = value
    elif is_dataclass(value) or hasattr(type(value), "model_fields"):
        items = vars(value).values() if hasattr(value, "__dict__") else ()
    for item in items:
        yield item
        if depth and not isinstance(item, CONSTANT):
            yield from _inside(item, depth - 1)


def _content(value: object) -> tuple[type, object]:
    """Return a key that equal values share."""
    return type(value), plain_digest(value) or (id(value) if isinstance(value, (list, dict)) else value)


def _reference(value: object, on_delete: Any) -> Any:
    """Return a weak reference, or a function that returns the value if it allows none."""
    if not isinstance(value, CONSTANT):
        with suppress(TypeError):
            return weakref.ref(value, lambda _: on_delete())
    return lambda: value
