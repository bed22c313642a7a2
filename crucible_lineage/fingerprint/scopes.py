"""What the names in a piece of code stand for."""

from __future__ import annotations

import ast
import builtins
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from crucible_lineage.fingerprint.imports import external_name, imported_value, unknowable_notes
from crucible_lineage.fingerprint.model import Context, External, Piece, Reference
from crucible_lineage.fingerprint.source import root_package
from crucible_lineage.fingerprint.syntax import Chain, imports_of, read_chains, syntax_text
from crucible_lineage.step import step

__all__ = ["CodeScope"]

_MISSING = object()
_TELLTALES = {
    "eval": "code that is known only when it runs",
    "exec": "code that is known only when it runs",
    "compile": "code that is known only when it runs",
    "__import__": "code that is known only when it runs",
    "__file__": "the place of the code, which is no part of the identity",
    "__doc__": "docstrings, which are no part of the identity",
    "__annotations__": "type hints, which are no part of the identity",
}
_OWN_NAMES = frozenset({"__name__", "__package__", "__spec__", "__loader__", "__path__", "__cached__"})


class CodeScope:
    """The names that code of a module sees: globals, those of its closure, and those that its own imports bind."""

    def __init__(
        self,
        context: Context,
        module: str,
        known: Mapping[str, Any],
        cells: Mapping[str, types.CellType] = types.MappingProxyType({}),
    ) -> None:
        self.context = context
        self.module = module
        self.known = known
        self.cells = cells
        self.imported: dict[str, Any] = {}

    def add_imports(self, node: ast.AST, piece: Piece) -> None:
        """The names that imports in the code bind are known; those that fail are noted."""
        package = self.known.get("__package__") or ""
        for found in imports_of(node):
            try:
                value = imported_value(self.context, found, package)
            except Exception as error:  # whatever the imported module raises
                piece.notes.append(f"import {found.module or found.attribute} ({type(error).__name__} when imported)")
                continue
            self.imported[found.bound] = value
            if isinstance(value, External):
                piece.references.append(Reference(found.bound, value))

    def refer(self, chains: Iterable[Chain], piece: Piece, *, label: str = "", at_import: bool = False) -> None:
        """The piece refers to what these names stand for, each once."""
        labels = {reference.label for reference in piece.references}
        for chain in chains:
            for found in self._resolved(chain, piece):
                if label + found.label not in labels:
                    labels.add(label + found.label)
                    piece.references.append(replace(found, label=label + found.label, at_import=at_import))

    def decorate(self, decorators: Iterable[ast.expr], piece: Piece) -> bool:
        """The piece tells of its decorators, `@step` aside. True if one of them is a library's."""
        foreign = False
        for decorator in decorators:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            chains = read_chains(target)
            value = self._value(chains[0]) if chains else None
            if value is step:
                continue
            piece.text += f"@{syntax_text(decorator)}"
            self.refer(read_chains(decorator), piece, label="@", at_import=True)
            module = value.name if isinstance(value, External) else getattr(value, "__module__", None)
            foreign = foreign or (module is not None and self.context.is_package(str(module).partition(":")[0]))
        return foreign

    def target(self, chain: Chain) -> Reference | None:
        """Resolve a chain of names, as far as it leads through our own modules."""
        return next((found for found in self._resolved(chain, Piece()) if found.value is not _MISSING), None)

    def _value(self, chain: Chain) -> Any:
        """Resolve a chain of names to its last attribute; None if that is not known."""
        value = self._root(chain[0])
        for attribute in chain[1:]:
            if isinstance(value, External):
                return value
            value = vars(value).get(attribute) if isinstance(value, types.ModuleType) else None
        return None if value is _MISSING else value

    def _root(self, name: str) -> Any:
        if name in self.imported:
            return self.imported[name]
        if name in self.cells:
            return _content(self.cells[name])
        return self.known.get(name, _MISSING)

    def _resolved(self, chain: Chain, piece: Piece) -> list[Reference]:
        name, *rest = chain
        if name in _TELLTALES and (name.startswith("__") or self._root(name) is _MISSING):
            piece.notes.append(f"{name} ({_TELLTALES[name]})")
            return []
        value = self._root(name)
        if name in _OWN_NAMES:
            return []
        if name == "globals" and value is _MISSING:
            return [Reference(self.module, sys.modules.get(self.module))]
        if value is _MISSING:
            return [] if hasattr(builtins, name) else [Reference(name, External(""))]
        key = (self.module, name) if name not in self.imported and name not in self.cells else None
        label = name
        while rest and isinstance(value, types.ModuleType) and self.context.is_first_party(value.__name__):
            key = value.__name__, rest[0]
            label = f"{label}.{rest[0]}"
            value = getattr(value, rest.pop(0), External(""))
        found = [Reference(label, value, key, cell=id(self.cells.get(name)) if name in self.cells else None)]
        if rest and isinstance(value, (types.ModuleType, External)):
            found += self._foreign(found[0], rest, piece)
        for attribute in rest:
            if attribute in ("__doc__", "__annotations__"):
                piece.notes.append(f"{'.'.join(chain)} ({_TELLTALES[attribute]})")
        return found

    def _foreign(self, module: Reference, rest: list[str], piece: Piece) -> list[Reference]:
        """Resolve a chain through a foreign module that leads to code of ours; notes what is unknowable."""
        dotted = f"{external_name(self.context, module.value, module.key)}.{'.'.join(rest)}"
        if isinstance(module.value, External):
            dotted = f"{module.value.name}.{'.'.join(rest)}"
        piece.notes += unknowable_notes(dotted)
        value: Any = module.value
        for attribute in rest:
            value = vars(value).get(attribute) if isinstance(value, types.ModuleType) else None
        if isinstance(value, types.FunctionType):
            home = value.__globals__.get("__name__", "")
            if self.context.is_first_party(home) and root_package(home) != root_package(dotted):
                return [Reference(".".join([module.label, *rest]), value)]
        return []


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING
