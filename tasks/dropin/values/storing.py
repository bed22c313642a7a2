"""A value as files: alone, or several in lists, tuples and dicts; paths as the files that they name."""

from __future__ import annotations

import filecmp
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from crucible_lineage.checksums import scan_file
from crucible_lineage.registration.new_dataset import LocalFile
from crucible_lineage.tasks.dropin.values.as_json import NotJsonError, load_class, read_spelled, spelled
from crucible_lineage.tasks.dropin.values.kinds import Kind, fields_of, kind_of

MOST_PARTS = 200  # of a list, tuple or dict: each is a file of its own

Document = dict[str, Any]


class NotStorableError(Exception):
    """The value is of no kind that can be stored; the message says which it is."""


@dataclass(frozen=True)
class Stored:
    """A value as files: what it takes to read it again, and of lists, tuples and dicts the parts in their order."""

    document: Document
    files: tuple[LocalFile, ...]
    parts: tuple[tuple[Any, tuple[str, ...]], ...] = ()  # a value in it, and the names of its files
    outside: tuple[Path, ...] = ()  # files that the value names by their paths
    exact: bool = False  # whether it has been seen to be read again as it was
    described: Mapping[str, str] = field(default_factory=dict)  # files that only describe a value, and why they do

    @property
    def digest(self) -> str:
        """SHA-256 over names and bytes."""
        return digest_of(self.files)


def digest_of(files: tuple[LocalFile, ...]) -> str:
    """SHA-256 over the bytes of the files, whatever they are called."""
    return digest_of_hashes(file.ref.sha256 for file in files)


def digest_of_hashes(hashes: Iterable[str]) -> str:
    """The same, of the files' SHA-256."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def store_value(value: object, folder: Path, prefix: str = "", given: Collection[Path] = ()) -> Stored:
    """Write the value as files into the folder, each led by `prefix`. Raises UnstorableError if it is of no kind.

    Texts that name files stand for these; in lists and dicts those of `given` stay texts.
    """
    if isinstance(value, Path):
        return _path(value, folder, prefix)
    if type(value) is str and _names_file(value) and not (prefix and Path(value) in given):
        return _path(Path(value), folder, prefix, kind="path text")
    if holds_path_text(value, given):
        return _container(value, folder, prefix, given)
    kind = kind_of(value)
    is_record = kind is not None and kind.name in ("model", "dataclass")
    if kind is not None:
        try:
            return _of_kind(kind, value, folder, prefix)
        except NotStorableError:
            if not is_record:
                raise
    with suppress(NotJsonError):
        return _spelled(value, folder, prefix)
    if is_record:
        return _fields(value, folder, prefix)
    if isinstance(value, (list, tuple, Mapping)):
        return _container(value, folder, prefix, given)
    raise NotStorableError(_named(value))


def returned_paths(value: object, depth: int = 4) -> set[Path]:
    """The files that a value names by their paths."""
    if isinstance(value, (str, Path)):
        if isinstance(value, str) and not _names_file(value):
            return set()
        path = Path(value)
        return {path, *(one for one in path.rglob("*") if one.is_file())} if path.exists() else set()
    items: Iterable[object] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (list, tuple)) and len(value) <= MOST_PARTS:
        items = value
    return {path for item in items for path in returned_paths(item, depth - 1)} if depth else set()


def described_only(value: object, folder: Path, why: str, prefix: str = "") -> Stored:
    """A file that says of which class a value is that is not stored; values in it are known as part of it."""
    path = folder / f"{prefix}value.txt"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    path.write_text(f"a value of class {name}, which was not stored\n", encoding="utf-8")
    files = (LocalFile.of(path, scan_file(path)),)
    document = {"kind": "description", "class": name, "files": [path.name]}
    return Stored(document, files, tuple((one, (path.name,)) for one in _inside(value)), described={path.name: why})


def _inside(value: object, depth: int = 4) -> Iterator[object]:
    """The value, and those in it."""
    yield value
    items: Iterable[object] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (list, tuple)):
        items = value
    elif (kind := kind_of(value)) is not None and kind.name in ("model", "dataclass"):
        items = getattr(value, "__dict__", {}).values()
    for item in items if depth else ():
        yield from _inside(item, depth - 1)


def _named(value: object) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}"


def loaded(document: Document, folder: Path) -> Any:
    """The value that such files in the folder hold. Raises what the library raises if they do not."""
    name, prefix = document["kind"], document.get("prefix", "")
    if name == "spelled":
        return read_spelled(json.loads((folder / document["files"][0]).read_bytes()), document["classes"])
    if name == "fields":
        raise NotStorableError(f"a {document['class']} by its fields, which cannot be read again")
    if name in ("list", "tuple of parts", "dict"):
        parts = [loaded(part, folder) for part in document["parts"]]
        if name == "dict":
            return dict(zip(document["keys"], parts, strict=True))
        return parts if name == "list" else tuple(parts)
    if name.endswith(("path", "path text")):
        return _restored(document, folder)
    with tempfile.TemporaryDirectory() as place:
        for file in document["files"]:
            (Path(place) / file.removeprefix(prefix)).write_bytes((folder / file).read_bytes())
        return _loader(document)(Path(place))


def parts_of(document: Document, value: Any) -> list[tuple[Any, tuple[str, ...]]]:
    """The values in a value that was read, each with the names of its files."""
    if "parts" not in document:
        return [(value, tuple(document.get("files", ())))]
    items = value.values() if isinstance(value, dict) else value
    inside = [parts_of(part, item) for part, item in zip(document["parts"], items, strict=True)]
    return [(value, ()), *(found for part in inside for found in part)]


def equal(left: Any, right: Any) -> bool:
    """Whether a value that was read again is the one that was stored."""
    if type(left) is not type(right):
        return False
    if hasattr(left, "equals"):  # of tables and arrays with names
        return bool(left.equals(right)) and _names(left) == _names(right)
    if hasattr(left, "dtype") and hasattr(left, "tobytes"):
        return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


def _names(value: object) -> Any:
    return getattr(value, "name", None), [getattr(axis, "names", None) for axis in getattr(value, "axes", ())]


def _of_kind(kind: Kind, value: object, folder: Path, prefix: str) -> Stored:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        try:
            kind.dump(value, place)
        except Exception as error:  # whatever the library raises, or the user's own kind
            raise NotStorableError(f"{_named(value)} ({type(error).__name__} when written as {kind.name})") from error
        names = []
        for written in sorted(place.iterdir()):
            target = folder / f"{prefix}{written.name}"
            written.replace(target)
            names.append(target)
    shown = kind.preview
    files = tuple(
        LocalFile.of(path, scan_file(path), preview=path.name == f"{prefix}{shown}" if shown and not prefix else False)
        for path in names
    )
    document: Document = {"kind": kind.name, "files": [path.name for path in names], **kind.describe(value)}
    if prefix:
        document["prefix"] = prefix
    return Stored(document, files, ((value, tuple(document["files"])),))


def _spelled(value: object, folder: Path, prefix: str) -> Stored:
    """Store as one file of JSON. Raises UnspelledError if JSON cannot hold the value."""
    plain, classes = spelled(value)
    path = folder / f"{prefix}value.json"
    path.write_text(_text(plain), encoding="utf-8")
    document: Document = {"kind": "spelled", "files": [path.name], "classes": classes}
    if prefix:
        document["prefix"] = prefix
    return Stored(document, (LocalFile.of(path, scan_file(path)),), ((value, (path.name,)),))


def _fields(value: object, folder: Path, prefix: str) -> Stored:
    """Store the fields of a model or dataclass that JSON cannot hold, each as files."""
    stored = _container(fields_of(value), folder, prefix)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    document = {**stored.document, "kind": "fields", "class": name}
    return replace(stored, document=document, parts=((value, ()), *stored.parts[1:]))


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
    name = "dict" if isinstance(value, Mapping) else "list" if type(value) is list else "tuple of parts"
    document: Document = {"kind": name, "parts": [part.document for part in parts]}
    if name == "dict":
        document["keys"] = [key for key, _ in items]
    return Stored(
        document,
        tuple(file for part in parts for file in part.files),
        ((value, ()), *(found for part in parts for found in part.parts)),
        tuple(path for part in parts for path in part.outside),
        described={name: why for part in parts for name, why in part.described.items()},
    )


def _part(value: object, folder: Path, prefix: str, given: Collection[Path]) -> Stored:
    """A value in another one; if it cannot be stored, the others are all the same."""
    try:
        return store_value(value, folder, prefix, given)
    except NotStorableError as error:
        return described_only(value, folder, str(error), prefix)


def _prefixes(keys: list[Any]) -> list[str]:
    """Return the prefix of each value's files: its key, and a number where keys alone might give one name."""
    found = [f"{_stem(key)}-" for key in keys]
    ordered = sorted(found)
    if any(later.startswith(one) for one, later in pairwise(ordered)):
        width = len(str(len(keys) - 1))
        return [f"{index:0{width}}-{stem}" for index, stem in enumerate(found)]
    return found


def _path(path: Path, folder: Path, prefix: str, kind: str = "path") -> Stored:
    """The files that a path names, copied: what the flow does with them afterwards does not matter."""
    if path.is_file():
        found, base = [path], path.parent
    elif path.is_dir():
        found, base, kind = sorted(one for one in path.rglob("*") if one.is_file()), path, f"folder {kind}"
    else:
        raise NotStorableError(f"the path of a file that is not there: {path.name}")
    if not found or len(found) > MOST_PARTS:
        raise NotStorableError(f"a folder of {len(found)} files, of which one to {MOST_PARTS} are stored")
    files = tuple(copied(one, folder, f"{prefix}{flat(one.relative_to(base))}") for one in found)
    document = {
        "kind": kind,
        "files": [file.ref.name for file in files],
        "places": [one.relative_to(base).as_posix() for one in found],
        "path": str(path),
    }
    return Stored(document, files, ((path, tuple(document["files"])),), tuple(found))


def _restored(document: Document, folder: Path) -> Any:
    """The path, with its files where they were: what is gone or changed since is put back."""
    path = Path(document["path"])
    base = path if document["kind"].startswith("folder") else path.parent
    for file, place in zip(document["files"], document["places"], strict=True):
        put_back(folder / file, base / place)
    return str(path) if document["kind"].endswith("text") else path


def put_back(source: Path, target: Path) -> None:
    """The file stands at the target with these bytes; one that has them already is not touched."""
    if target.is_file() and target.stat().st_size == source.stat().st_size and filecmp.cmp(source, target, False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copied(path: Path, folder: Path, name: str) -> LocalFile:
    """A copy of the file under this name."""
    target = folder / name
    shutil.copyfile(path, target)
    return LocalFile.of(target, scan_file(target))


def flat(path: PurePath) -> str:
    """A file's place below a folder as a plain name, which is all that Crucible has."""
    return "__".join(path.parts)


def _stem(key: object) -> str:
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in str(key))


def holds_path_text(value: object, given: Collection[Path] = (), depth: int = 4) -> bool:
    """Return whether texts in a list, tuple or dict name files other than those `given`."""
    if type(value) not in (list, tuple, dict) or len(value) > MOST_PARTS:  # type: ignore[arg-type]
        return False
    for item in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        if type(item) is str and _names_file(item) and Path(item) not in given:
            return True
        if depth and holds_path_text(item, given, depth - 1):
            return True
    return False


def plain_digest(value: object) -> str:
    """Return the digest that a list or dict has when stored alone as JSON; nothing if it is stored otherwise."""
    if not isinstance(value, (list, dict)) or holds_path_text(value):
        return ""
    try:
        plain, _ = spelled(value)
    except NotJsonError:
        return ""
    return digest_of_hashes([hashlib.sha256(_text(plain).encode()).hexdigest()])


def _text(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _names_file(text: str) -> bool:
    """True if the text is the path of a file that is there: it has to look like one, too."""
    if len(text) > 4096 or "\n" in text or "\0" in text or not ("/" in text or "\\" in text or "." in text):
        return False
    try:
        return Path(text).is_file()
    except OSError:
        return False


def _loader(document: Document) -> Any:
    """Return the loader of this kind; a class that it is made of is imported."""
    from crucible_lineage.tasks.dropin.values.kinds import KINDS

    if document["kind"] == "series":
        return _load_series
    if document["kind"] in ("model", "dataclass", "scalar"):
        return lambda folder: load_class(document["class"], (folder / "value.json").read_bytes())
    found = next((kind.load for kind in KINDS if kind.name == document["kind"]), None)
    if found is None:
        raise NotStorableError(f"a value of kind {document['kind']!r}, which cannot be read again")
    return found


def _load_series(folder: Path) -> Any:
    import pandas as pd

    table = pd.read_parquet(folder / "value.parquet")
    return table[table.columns[0]]
