"""Values as files: single ones, those in lists, tuples and dicts, and paths as the files that they name."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from crucible_lineage.checksums import scan_file
from crucible_lineage.json_types import JsonObject
from crucible_lineage.masking import is_key_file
from crucible_lineage.registration.payload import LocalFile
from crucible_lineage.tasks.effects import names_file
from crucible_lineage.tasks.kinds import Kind, NotJsonError, fields_of, json_text, kind_of, spelled

MOST_PARTS = 200  # of a list, tuple or dict; each is a file of its own


class NotStorableError(Exception):
    """Raised if the value is of no kind that can be stored; the message names its class."""


@dataclass(frozen=True)
class Stored:
    """A value as files, with the document that says which file holds what."""

    document: JsonObject
    files: tuple[LocalFile, ...]
    outside: tuple[Path, ...] = ()  # files that the value names by their paths
    described: Mapping[str, str] = field(default_factory=dict)  # files that only describe a value, and the reason

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of the files."""
        return digest_of(file.ref.sha256 for file in self.files)


def digest_of(hashes: Iterable[str]) -> str:
    """Return the SHA-256 over the files' SHA-256, whatever their names."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def store_value(value: object, folder: Path, prefix: str = "", given: Collection[Path] = ()) -> Stored:
    """Write the value as files into the folder, with names that begin with `prefix`. Raises NotStorableError.

    Strings that name files stand for these files; in lists and dicts, paths `given` to the call stay strings.
    """
    if isinstance(value, Path):
        return _path(value, folder, prefix)
    if type(value) is str and names_file(value) and not (prefix and Path(value) in given):
        return _path(Path(value), folder, prefix)
    if holds_path_text(value, given):
        return _container(value, folder, prefix, given)
    if (kind := kind_of(value)) is not None:
        return _of_kind(kind, value, folder, prefix)
    with suppress(NotJsonError):
        return _spelled(value, folder, prefix)
    if (fields := fields_of(value)) is not None:
        stored = _container(fields, folder, prefix)
        return replace(stored, document={**stored.document, "class": _class_name(value)})
    if isinstance(value, (list, tuple, Mapping)):
        return _container(value, folder, prefix, given)
    raise NotStorableError(f"a {_class_name(value)}")


def returned_paths(value: object, depth: int = 4) -> set[Path]:
    """Return the files that a value names by their paths."""
    if isinstance(value, (str, Path)):
        if isinstance(value, str) and not names_file(value):
            return set()
        path = Path(value)
        return {path, *(file for file in path.rglob("*") if file.is_file())} if path.exists() else set()
    items = _items(value) if depth and isinstance(value, (Mapping, list, tuple)) else ()
    return {path for item in items for path in returned_paths(item, depth - 1)}


def _items(value: object) -> Iterable[Any]:
    """Return the items of a list, tuple or mapping, or the fields of a model or dataclass."""
    if (fields := fields_of(value)) is not None:
        return fields.values()
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) and len(value) <= MOST_PARTS else ()


def described_only(value: object, folder: Path, reason: str, prefix: str = "") -> Stored:
    """Write a file with the class of a value that is not stored; the values in it become parts."""
    path = folder / f"{prefix}value.txt"
    name = _class_name(value)
    path.write_text(f"a value of class {name}, which was not stored\n", encoding="utf-8")
    document = {"kind": "description", "class": name, "files": [path.name]}
    return Stored(document, (_file(path),), described={path.name: reason})


def stored_or_described(value: object, folder: Path, given: Collection[Path] = ()) -> Stored:
    """Store a value, or else a description of it."""
    try:
        return store_value(value, folder, given=given)
    except NotStorableError as error:
        return described_only(value, folder, str(error))


def _inside(value: object, depth: int = 4) -> Iterator[object]:
    """Yield the value and those in it."""
    yield value
    for item in _items(value) if depth else ():
        yield from _inside(item, depth - 1)


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def parts_of(document: JsonObject, value: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield a stored value and those in it, each with the names of its files (none: all of the files)."""
    if "parts" in document:
        yield value, ()
        for part, item in zip(document["parts"], _items(value), strict=True):
            yield from parts_of(part, item)
    else:
        for one in _inside(value) if document.get("kind") == "description" else (value,):
            yield one, tuple(document.get("files", ()))


def _of_kind(kind: Kind, value: object, folder: Path, prefix: str) -> Stored:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        target_folder = Path(name)
        try:
            kind.dump(value, target_folder)
        except Exception as error:  # whatever the library or the user's own kind raises
            raise NotStorableError(
                f"a {_class_name(value)} ({type(error).__name__} when written as {kind.name})"
            ) from error
        names = []
        for written in sorted(target_folder.iterdir()):
            target = folder / f"{prefix}{written.name}"
            written.replace(target)
            names.append(target)
    files = tuple(_file(path, preview=not prefix and path.name == kind.preview) for path in names)
    return Stored({"kind": kind.name, "files": [path.name for path in names], **kind.describe(value)}, files)


def _spelled(value: object, folder: Path, prefix: str) -> Stored:
    """Store as one file of JSON. Raises NotJsonError if JSON cannot represent the value."""
    plain, path = json_text(spelled(value)), folder / f"{prefix}value.json"
    path.write_text(plain, encoding="utf-8")
    return Stored({"kind": "json", "files": [path.name], "class": _class_name(value)}, (_file(path),))


def _container(value: Any, folder: Path, prefix: str, given: Collection[Path] = ()) -> Stored:
    items = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    if len(items) > MOST_PARTS:
        raise NotStorableError(
            f"a {type(value).__name__} of {len(items)} values, of which at most {MOST_PARTS} are stored"
        )
    if not all(type(key) in (str, int) for key, _ in items):
        raise NotStorableError("a dict with keys that are neither text nor numbers")
    prefixes = _prefixes([key for key, _ in items])
    parts = [_part(item, folder, f"{prefix}{own}", given) for (_, item), own in zip(items, prefixes, strict=True)]
    document: JsonObject = {"kind": "list", "parts": [part.document for part in parts]}
    if isinstance(value, Mapping):
        document |= {"kind": "dict", "keys": [key for key, _ in items]}
    return Stored(
        document,
        tuple(file for part in parts for file in part.files),
        tuple(path for part in parts for path in part.outside),
        described={name: reason for part in parts for name, reason in part.described.items()},
    )


def _part(value: object, folder: Path, prefix: str, given: Collection[Path]) -> Stored:
    """Store a value inside another; if that fails, only describe it, so that the others are stored."""
    try:
        return store_value(value, folder, prefix, given)
    except NotStorableError as error:
        return described_only(value, folder, str(error), prefix)


def _prefixes(keys: list[Any]) -> list[str]:
    """Return the prefix of each value's files: its key, with a number if keys alone might be ambiguous."""
    prefixes = [f"{_stem(key)}-" for key in keys]
    ordered = sorted(prefixes)
    if any(later.startswith(earlier) for earlier, later in pairwise(ordered)):
        width = len(str(len(keys) - 1))
        return [f"{index:0{width}}-{stem}" for index, stem in enumerate(prefixes)]
    return prefixes


def _path(path: Path, folder: Path, prefix: str) -> Stored:
    """Copy the files that a path names, so that later changes by the flow do not matter."""
    if path.is_file():
        paths, base = [path], path.parent
        if is_key_file(path):
            raise NotStorableError(f"the path of a file of keys: {path.name}")
    elif path.is_dir():
        files_below = (file for file in path.rglob("*") if file.is_file() and not is_key_file(file))
        paths, base = sorted(files_below), path
    else:
        raise NotStorableError(f"the path of a file that is not there: {path.name}")
    if not paths or len(paths) > MOST_PARTS:
        raise NotStorableError(f"a folder of {len(paths)} files, of which one to {MOST_PARTS} are stored")
    files = tuple(copy_file(file, folder, f"{prefix}{flat(file.relative_to(base))}") for file in paths)
    document = {"kind": "path", "files": [file.ref.name for file in files]}
    return Stored(document, files, tuple(paths))


def copy_file(path: Path, folder: Path, name: str) -> LocalFile:
    """Copy a file into the folder under this name."""
    target = folder / name
    shutil.copyfile(path, target)
    return _file(target)


def _file(path: Path, *, preview: bool = False) -> LocalFile:
    return LocalFile.of(path, scan_file(path), preview=preview)


def flat(path: PurePath) -> str:
    """Return a relative path as a plain name, since Crucible has no folders."""
    return "__".join(path.parts)


def _stem(key: object) -> str:
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in str(key))


def holds_path_text(value: object, given: Collection[Path] = (), depth: int = 4) -> bool:
    """Return whether strings in a list, tuple or dict name files other than those given."""
    if type(value) not in (list, tuple, dict) or len(value) > MOST_PARTS:  # type: ignore[arg-type]
        return False
    for item in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        if type(item) is str and names_file(item) and Path(item) not in given:
            return True
        if depth and holds_path_text(item, given, depth - 1):
            return True
    return False


def plain_digest(value: object) -> str:
    """Return the digest of a list or dict stored alone as JSON; empty if it is stored otherwise."""
    if not isinstance(value, (list, dict)) or holds_path_text(value):
        return ""
    try:
        return digest_of([hashlib.sha256(json_text(spelled(value)).encode()).hexdigest()])
    except NotJsonError:
        return ""
