"""YAML as plain data with the position of each value. Safe: no tags, no aliases, no duplicate keys, a size limit.

Words have the meaning of YAML 1.2: `no` and `on` are text, only `true` and `false` are booleans.
"""

from __future__ import annotations

import math
import re
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
        for event in yaml.parse(text, Loader=_Loader):
            reader.refuse(event)
        if reader.faults:  # before building: an expanded alias may exceed the memory
            raise InputError("", reader.faults)
        roots = [root for root in yaml.compose_all(text, Loader=_Loader) if root is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line, mark.column) if mark else (0, 0)
        raise InputError("", [Fault(f"this is not valid YAML: {problem}", name, line + 1, column + 1)]) from error
    if not roots:
        raise InputError("", [Fault("the file is empty", name, 1)])
    data = reader.build(roots[0], ())
    if len(roots) > 1:
        reader.report(roots[1], "a second document begins here; there can be only one")
        raise InputError("", reader.faults)
    return Document(name, data, reader.marks, faults=reader.faults)


class _Reader:
    """Builds plain data from YAML nodes and records their positions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.marks: dict[Location, tuple[int, int]] = {}
        self.faults: list[Fault] = []

    def refuse(self, event: Any) -> None:
        """Report aliases and tags, before anything is built from them."""
        if isinstance(event, yaml.AliasEvent):
            self.report(event, f"aliases (*{event.anchor}) are not possible here; write the value out")
        if getattr(event, "tag", None) is not None:
            self.report(event, f"tags ({event.tag}) are not possible here; write plain values")

    def build(self, node: Any, location: Location) -> Any:
        if len(location) > DEPTH_LIMIT:
            self.report(node, f"nested more than {DEPTH_LIMIT} deep")
            return None
        self.marks.setdefault(location, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.ScalarNode):
            if not node.style and len(node.value) > DIGITS_LIMIT and _INTEGER.fullmatch(node.value):
                self.report(node, f"a number of over {DIGITS_LIMIT} digits is too long; quote it if it is text")
                return node.value
            value = node.value if node.style else _plain(node.value)
            if isinstance(value, float) and not math.isfinite(value):
                message = "JSON has no such number; give a finite one, or null for none"
                self.faults.append(Fault(message, self.name, *self.marks[location]))
                return None
            return value
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, location)

    def _mapping(self, node: Any, location: Location) -> JsonObject:
        result: JsonObject = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.report(key_node, "a key must be a single word or text")
                continue
            key = str(key_node.value)
            if key in result:
                self.report(key_node, f"{key!r} is given twice; the first is in line {self.marks[*location, key][0]}")
                continue
            self.marks[*location, key] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.build(value_node, (*location, key))
        return result

    def report(self, node: Any, message: str) -> None:
        """Record a fault at the beginning of a node."""
        mark = node.start_mark
        self.faults.append(Fault(message, self.name, mark.line + 1, mark.column + 1))


def _plain(text: str) -> object:
    """Return the value of an unquoted word in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _NUMBER.fullmatch(text) or _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", "") if _NO_NUMBER.fullmatch(text) else text)
    return text
