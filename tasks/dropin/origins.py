"""Where a value came from, as far as it can be known: by its task run, its identity, its path, its content."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from crucible_lineage.refs import DatasetRef
from crucible_lineage.tasks.dropin.values.storing import plain_digest

CALL = "call.json"  # a file that tells the call of a result without an input
LEAST_BYTES = 256  # a value whose files are smaller may equal another one by chance (a parquet file never is)
MOST_ITEMS = 10_000  # of one value that are known one by one
MOST_CANDIDATES = 5  # results that are named where no parent is known
NEVER = (type(None), bool, type, Enum, FunctionType, BuiltinFunctionType, ModuleType)  # one object for all who use it

CONSTANT = (str, bytes, int, float, complex)
COPIED = (list, dict, str, float, int)  # what Prefect copies where it checks the parameters of a subflow

Made = Future[DatasetRef]
"""A dataset that is being registered."""


@dataclass(frozen=True)
class Origin:
    """The dataset that a value is, or is in; the names of its files in it, the digest of their content, and the data
    that it is about (nothing if it is no result of this run). `described` says that its files do not hold it, `label`
    is what it is called before it has a name. A `part` is an item of a value that lies in these files as a whole.
    """

    made: Made
    files: tuple[str, ...]
    digest: str = ""
    about: tuple[str, ...] = ()
    described: bool = False
    label: str = ""
    part: bool = False


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
        more = {"described": origin.described, "label": origin.label}
        text = json.dumps({"dataset": origin.made.result().to_json(), **told, **more})
        part = self.folder / f".{name}-{threading.get_ident()}"
        part.write_text(text, encoding="utf-8")
        part.replace(self.folder / name)

    def read(self, name: str) -> Origin | None:
        """Read what was written under this name."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        made = settled(DatasetRef.from_json(found["dataset"]))
        about, label = tuple(found["about"]), found["label"]
        return Origin(made, tuple(found["files"]), found["digest"], about, found["described"], label)

    def names(self) -> list[str]:
        """Return what task runs have noted."""
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
        self._objects: dict[int, tuple[Any, Origin | None]] = {}
        self._derived: dict[int, tuple[Any, tuple[Origin, ...]]] = {}
        self._runs: dict[str, Origin] = {}
        self._paths: dict[str, tuple[str, Origin]] = {}
        self._contents: dict[str, list[Origin]] = {}
        self._keys: dict[str, Origin] = {}
        self._words: dict[str, frozenset[str]] = {}
        self._copied: set[str] = set()

    # ------------------------------------------------------------ what is noted

    def note_object(self, value: object, origin: Origin) -> None:
        """Note that this object is that dataset.

        It is kept alive only where it cannot be watched: lists, dicts, numbers.
        A number or text that two calls gave as one object is a constant of their code, and of neither for certain.
        """
        if _is_one_object(value):
            return
        key = id(value)
        held = _held(value, lambda: self._objects.pop(key, None))
        with self._lock:
            was = self._objects.get(key)
            if isinstance(value, CONSTANT) and was is not None and was[1] is not None and was[0]() is value:
                known: Origin | None = origin if was[1].made is origin.made else None
            else:
                known = origin
            self._objects[key] = (held, known)

    def note_items(self, value: object, origin: Origin, but: Container[int] = ()) -> None:
        """Note that the items of a list, tuple, set or dict are part of that dataset.

        `but` are the ids of what came from elsewhere.
        """
        part = replace(origin, digest="", described=False, part=True)
        for item in items_of(value):
            if id(item) not in but:
                digest = plain_digest(item)
                self.note_object(item, replace(part, digest=digest) if digest else part)

    def note_words(self, task_run_id: str, value: object) -> None:
        """Note the texts of a list that a task run gave: a word is one object for all who use it."""
        if isinstance(value, (list, tuple, set, frozenset)) and len(value) <= MOST_ITEMS:
            self._words[task_run_id] = frozenset(item for item in value if type(item) is str)

    def note_copies(self, flow_run_id: str, parameters: Iterable[object]) -> None:
        """Note parameters of a subflow, which Prefect copies: each is the one known value that equals it."""
        with self._lock:
            if flow_run_id in self._copied:
                return
            self._copied.add(flow_run_id)
        copies = [one for given in parameters for one in (given, *items_of(given)) if self.of_object(one) is None]
        copies = [one for one in copies if isinstance(one, COPIED) and not _is_one_object(one)]
        if not copies:
            return
        known: dict[object, list[Origin]] = {}
        for value, origin in self.objects(COPIED):
            known.setdefault(_content(value), []).append(origin)
        for copy in copies:
            found = known.get(_content(copy), [])
            if len({id(one.made) for one in found}) == 1:
                self.note_object(copy, found[0])

    def note_derived(self, value: object, parents: tuple[Origin, ...]) -> None:
        """The flow's own code has made this object of those."""
        key = id(value)
        held = _held(value, lambda: self._derived.pop(key, None))
        with self._lock:
            self._derived[key] = (held, parents)

    def note_run(self, task_run_id: str, origin: Origin) -> None:
        """Note what a task run gave."""
        self._runs[task_run_id] = origin

    def note_path(self, path: Path, sha256: str, origin: Origin) -> None:
        """The file at this path is a file of that dataset."""
        self._paths[str(path.absolute())] = (sha256, origin)

    def note_content(self, digest: str, size: int, origin: Origin) -> None:
        """Values with these bytes are that dataset, unless they are so small that others may have them too."""
        with self._lock:
            known = self._contents.setdefault(digest, [])
            if size >= LEAST_BYTES and all(one.made is not origin.made for one in known):
                known.append(origin)

    def note_key(self, key: str, origin: Origin) -> None:
        """Prefect's cache has that dataset under this key."""
        self._keys[key] = origin

    def share(self) -> None:
        """Other processes find what is known of contents and task runs, as far as it is registered."""
        named = {f"run-{run}": origin for run, origin in self._runs.items()}
        named |= {f"content-{digest}": found[0] for digest, found in self._contents.items() if len(found) == 1}
        for name, origin in named.items():
            if origin.made.done() and origin.made.exception() is None:
                self.notes.write(name, origin)

    # ------------------------------------------------------------ what is known

    def of_object(self, value: object) -> Origin | None:
        """The dataset that this very object is."""
        if _is_one_object(value):
            return None
        held, origin = self._objects.get(id(value), (None, None))
        return origin if held is not None and held() is value else None

    def of_derived(self, value: object) -> tuple[Origin, ...]:
        """Return what the flow's own code made this object of, by its own declaration."""
        held, parents = self._derived.get(id(value), (None, ()))
        return parents if held is not None and held() is value else ()

    def parents_of(self, value: object, depth: int = 3) -> list[Origin]:
        """Return what is known of a value of the flow's code, or of what is in it."""
        known = self.of_object(value)
        found = [known] if known is not None else list(self.of_derived(value))
        if not found and isinstance(value, Path):
            at_path = self.of_path(value)
            found = [at_path] if at_path is not None else []
        if not found and depth and isinstance(value, (list, tuple, dict)):
            inside = list(value.values()) if isinstance(value, dict) else value[:MOST_ITEMS]
            found = [parent for item in inside for parent in self.parents_of(item, depth - 1)]
        return found

    def of_run(self, task_run_id: str) -> Origin | None:
        """Return what a task run gave, in this process or in another one."""
        return self._runs.get(task_run_id) or self.notes.read(f"run-{task_run_id}")

    def is_word_of(self, task_run_id: str, value: object) -> bool:
        """Return whether a text is in the list that a task run gave."""
        return type(value) is str and value in self._words.get(task_run_id, ())

    def of_path(self, path: Path, sha256: str | None = None) -> Origin | None:
        """The dataset of the file at this path; with `sha256`, only if it has these bytes."""
        known, origin = self._paths.get(str(path.absolute()), (None, None))
        return origin if sha256 in (None, known) else None

    def of_content(self, digest: str) -> Origin | None:
        """The dataset with these bytes; None too if several calls gave them."""
        found = self._contents.get(digest, [])
        if len(found) > 1:
            return None
        return found[0] if found else self.notes.read(f"content-{digest}")

    def of_key(self, key: str, digest: str) -> Origin | None:
        """The dataset that Prefect's cache has under this key, if it has this content."""
        found = self._keys.get(key)
        return found if found is not None and found.digest == digest else None

    def objects(self, kind: type | tuple[type, ...]) -> Iterator[tuple[Any, Origin]]:
        """The known objects of a class, newest first."""
        for held, origin in reversed(list(self._objects.values())):
            value = held()
            if origin is not None and isinstance(value, kind):
                yield value, origin

    def in_hand(self) -> list[str]:
        """The results that the flow's own code has been given, newest first, as far as they are named."""
        labels = dict.fromkeys(origin.label for origin in reversed(list(self._runs.values())) if origin.label)
        return list(labels)[:MOST_CANDIDATES]


def _is_one_object(value: object) -> bool:
    """True of a value that everybody has as the same object, so that its identity says nothing."""
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


def items_of(value: object, depth: int = 4) -> Iterator[Any]:
    """Yield what is in a list, tuple, set, dict, dataclass or model, and in those in it; of large ones the first."""
    for index, item in enumerate(_inside(value, depth)):
        if index >= MOST_ITEMS:
            return
        yield item


def _inside(value: object, depth: int) -> Iterator[Any]:
    inside: Iterable[object] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside = value
    elif is_dataclass(value) or hasattr(type(value), "model_fields"):
        inside = vars(value).values() if hasattr(value, "__dict__") else ()
    for item in inside:
        yield item
        if depth and not isinstance(item, CONSTANT):
            yield from _inside(item, depth - 1)


def _content(value: object) -> tuple[type, object]:
    """Return a key that equal values share."""
    return type(value), plain_digest(value) or (id(value) if isinstance(value, (list, dict)) else value)


def _held(value: object, gone: Any) -> Any:
    if isinstance(value, CONSTANT):
        return _Strong(value)
    try:
        return weakref.ref(value, lambda _: gone())
    except TypeError:
        return _Strong(value)


class _Strong:
    """What a weak reference is called like, for values that have none."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value
