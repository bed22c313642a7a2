"""The parts that a fingerprint is made of, and what is known while they are gathered."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.fingerprint.source import ModuleSource, base_folder, is_first_party, module_source, root_package


@dataclass(frozen=True)
class ExternalName:
    """Something that an import names and that is not ours: `numpy.linalg:norm`, or a module."""

    name: str


@dataclass(frozen=True)
class Reference:
    """A use of `value`. `at_import` says that the code uses it only when it is imported.

    `key` is (module, name) if it is a global, `cell` the id of the closure's cell if it lies in one.
    """

    label: str
    value: Any
    key: tuple[str, str] | None = None
    at_import: bool = False
    cell: int | None = None


@dataclass
class ObjectDescription:
    """What one object does by itself, what it uses, and what there is to say about it.

    `changes` holds what its code changes when it runs: ("name", module, name), ("contents", id) of an object,
    ("attribute", id, name), ("cell", id).
    """

    text: str = ""
    references: list[Reference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    changes: set[tuple[Any, ...]] = field(default_factory=set)


class Context:
    """What is first-party, where sources are, and which objects the code changes itself (`state`)."""

    def __init__(self, root: str, state: frozenset[tuple[object, ...]] = frozenset()) -> None:
        self.root = root
        self.state = state
        self._sources: dict[str, ModuleSource | None] = {}

    def is_changed(self, reference: Reference) -> bool:
        """True if the code itself gives the name another value, or the object other contents, when it runs."""
        names = {("cell", reference.cell), ("contents", id(reference.value)), ("name", *(reference.key or ()))}
        return not names.isdisjoint(self.state)

    def is_first_party(self, module: str | None) -> bool:
        """True for code that the fingerprint follows."""
        return bool(module) and is_first_party(str(module), self.root)

    def is_package(self, module: str) -> bool:
        """True for third-party modules, whose distribution is recorded."""
        package = root_package(module)
        return bool(package) and package not in sys.stdlib_module_names and not self.is_first_party(module)

    def source(self, filename: str) -> ModuleSource | None:
        """The text behind a code object's file name."""
        if filename not in self._sources:
            self._sources[filename] = module_source(filename)
        return self._sources[filename]

    def module_source(self, module: str) -> ModuleSource | None:
        """The text of a module that is imported."""
        file = getattr(sys.modules.get(module), "__file__", None)
        return self.source(file) if file else None

    def folder(self, module: str) -> Path | None:
        """The folder that a module's top-level package lies in, where data beside the code are told from."""
        return base_folder(root_package(module))
