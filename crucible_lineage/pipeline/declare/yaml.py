"""YAML as plain data with the position of each value. Safe: no tags, no aliases, no duplicate keys, a size limit.

Words have the meaning of YAML 1.2: `no` and `on` are text, only `true` and `false` are booleans.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crucible_lineage.errors import Fault, InputError, nearest
from crucible_lineage.json_types import JsonObject

SIZE_LIMIT_BYTES = 4 << 20
DEPTH_LIMIT = 50
DIGITS_LIMIT = 300
Location = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is about 6 times faster
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"([-+]?)\.(inf|Inf|INF)|()\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """A YAML file's data, with positions; `faults` leave the rest readable, `options` are those that set a value."""

    name: str
    data: Any
    marks: dict[Location, tuple[int, int]]
    faults: list[Fault] = field(default_factory=list)
    options: dict[Location, str] = field(default_factory=dict)

    def fault(self, location: Location, message: str) -> Fault:
        """Return a fault at a location, or at the nearest enclosing one with a known position."""
        for length in range(len(location), 0, -1) if self.options else ():
            if location[:length] in self.options:
                return Fault(message, self.options[location[:length]])
        known = location
        while known not in self.marks and known:
            known = known[:-1]
        line, column = self.marks.get(known, (1, 1))
        return Fault(message, self.name, line, column)


def read_document(path: Path) -> Document:
    """Read the document in a file, with recoverable faults. Raises InputError if it is not plain YAML."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        beside = nearest(path.name, _yaml_files(path.parent), "pipeline files there")
        raise InputError(f"there is no file {name}; {beside}") from error
    except IsADirectoryError as error:
        files = ", ".join(_yaml_files(path)) or "none"
        raise InputError(f"{name} is a folder; name a pipeline file (in it there are: {files})") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    if len(raw) > SIZE_LIMIT_BYTES:
        raise InputError(f"{name} is larger than {SIZE_LIMIT_BYTES >> 20} MiB; too large for a declaration")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("", [Fault("this is not UTF-8 text; save the file as UTF-8", name, line)]) from error
    return _parse(text, name)


def _yaml_files(folder: Path) -> list[str]:
    """Return the names of the YAML files in a folder."""
    with suppress(OSError):
        return sorted(path.name for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    return []


def parse_document(text: str, name: str) -> Document:
    """Parse a text; errors refer to it as `name`. Raises InputError with every fault."""
    document = _parse(text, name)
    if document.faults:
        raise InputError("", document.faults)
    return document


def _parse(text: str, name: str) -> Document:
    reader = _Reader(name)
    try:
        data = reader.read(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line, mark.column) if mark else (0, 0)
        raise InputError("", [Fault(f"this is not valid YAML: {problem}", name, line + 1, column + 1)]) from error
    if reader.refused:
        raise InputError("", reader.refused)
    return Document(name, data, reader.marks, faults=reader.faults)


class _Reader:
    """Builds plain data from the events of a text, and records the positions of values.

    `refused` are the faults of what is no plain YAML.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.marks: dict[Location, tuple[int, int]] = {}
        self.faults: list[Fault] = []
        self.refused: list[Fault] = []

    def read(self, text: str) -> Any:
        """Return the data of the first document, and refuse what follows it. Raises YAMLError."""
        self._events = self._plain_events(text)
        roots: Iterator[Any] = (event for event in self._events if isinstance(event, yaml.NodeEvent))
        if (root := next(roots, None)) is None:
            self.refused.append(Fault("the file is empty", self.name, 1))
            return None
        data = self._build(root, ())
        if second := next(roots, None):
            self.refused += [*self.faults, self._fault(second, "a second document begins here; there can be only one")]
            for _ in self._events:
                pass  # to the last fault
        return data

    def _plain_events(self, text: str) -> Iterator[Any]:
        """Yield the events of a text; refuse aliases and tags."""
        for event in iter(_Loader(text).get_event, None):
            if isinstance(event, yaml.AliasEvent):
                message = f"aliases (*{event.anchor}) are not possible here; write the value out"
                self.refused.append(self._fault(event, message))
            elif getattr(event, "tag", None) is not None:
                message = f"tags ({event.tag}) are not possible here; write plain values"
                self.refused.append(self._fault(event, message))
            yield event

    def _build(self, event: Any, location: Location) -> Any:
        """Return the value that begins with this event."""
        if len(location) > DEPTH_LIMIT:
            self.faults.append(self._fault(event, f"nested more than {DEPTH_LIMIT} deep"))
            self._skip(event)
            return None
        self.marks.setdefault(location, _position(event))
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, location)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(location)
        items: list[Any] = []
        if isinstance(event, yaml.SequenceStartEvent):
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                items.append(self._build(item, (*location, len(items))))
        return items

    def _scalar(self, event: Any, location: Location) -> object:
        if event.style:
            return event.value
        if len(event.value) > DIGITS_LIMIT and _INTEGER.fullmatch(event.value):
            message = f"a number of over {DIGITS_LIMIT} digits is too long; quote it if it is text"
            self.faults.append(self._fault(event, message))
            return event.value
        value = _plain(event.value)
        if isinstance(value, float) and not math.isfinite(value):
            message = "JSON has no such number; give a finite one, or null for none"
            self.faults.append(Fault(message, self.name, *self.marks[location]))
            return None
        return value

    def _mapping(self, location: Location) -> JsonObject:
        result: JsonObject = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self.faults.append(self._fault(event, "a key must be a single word or text"))
                self._skip(event)
                self._skip(next(self._events))
            elif (key := event.value) in result:
                message = f"{key!r} is given twice; the first is in line {self.marks[*location, key][0]}"
                self.faults.append(self._fault(event, message))
                self._skip(next(self._events))
            else:
                self.marks[place := (*location, key)] = _position(event)
                result[key] = self._build(next(self._events), place)
        return result

    def _skip(self, event: Any) -> None:
        """Skip the value that begins with this event."""
        depth = int(isinstance(event, yaml.CollectionStartEvent))
        while depth:
            event = next(self._events)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)

    def _fault(self, event: Any, message: str) -> Fault:
        """Return a fault at the beginning of an event."""
        return Fault(message, self.name, *_position(event))


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _plain(text: str) -> object:
    """Return the value of an unquoted word in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _NUMBER.fullmatch(text) or _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", "") if _NO_NUMBER.fullmatch(text) else text)
    return text
