"""Pieces of a fingerprint, and the context in which they are collected."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.fingerprint.source import ModuleSource, base_folder, is_first_party, module_source, root_package


@dataclass(frozen=True)
class ExternalName:
    """A foreign object or module that an import names, such as `numpy.linalg:norm`."""

    name: str


@dataclass(frozen=True)
class Reference:
    """A use of `value`, with `at_import` only during import.

    `key` is (module, name) of a global, `cell` the id of a closure's cell.
    """

    label: str
    value: Any
    key: tuple[str, str] | None = None
    at_import: bool = False
    cell: int | None = None


@dataclass
class ObjectDescription:
    """The piece of one object: a text of its own behaviour, references to what it uses, and notes.

    `changes` are the changes that its code makes when it runs: ("name", module, name), ("contents", id) of an object,
    ("attribute", id, name), ("cell", id).
    """

    text: str = ""
    references: list[Reference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    changes: set[tuple[Any, ...]] = field(default_factory=set)


class Context:
    """First-party modules, sources, and the objects that the code itself changes (`state`)."""

    def __init__(self, root: str, state: frozenset[tuple[object, ...]] = frozenset()) -> None:
        self.root = root
        self.state = state
        self._sources: dict[str, ModuleSource | None] = {}

    def is_changed(self, reference: Reference) -> bool:
        """Return whether running the code rebinds the name, or changes the contents of the object."""
        names = {("cell", reference.cell), ("contents", id(reference.value)), ("name", *(reference.key or ()))}
        return not names.isdisjoint(self.state)

    def is_first_party(self, module: str | None) -> bool:
        """Return whether the fingerprint follows the code of a module."""
        return bool(module) and is_first_party(str(module), self.root)

    def is_package(self, module: str) -> bool:
        """Return whether a module is third-party, so that its distribution is recorded."""
        package = root_package(module)
        return bool(package) and package not in sys.stdlib_module_names and not self.is_first_party(module)

    def source(self, filename: str) -> ModuleSource | None:
        """Return the source of a code object's file name."""
        if filename not in self._sources:
            self._sources[filename] = module_source(filename)
        return self._sources[filename]

    def module_source(self, module: str) -> ModuleSource | None:
        """Return the source of an imported module."""
        file = getattr(sys.modules.get(module), "__file__", None)
        return self.source(file) if file else None

    def folder(self, module: str) -> Path | None:
        """Return the folder of a module's top-level package, to which paths of data are relative."""
        return base_folder(root_package(module))
