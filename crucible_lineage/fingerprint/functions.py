"""What a function is made of: its tree, the globals and closure it reads, its defaults and decorators."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping

from crucible_lineage.fingerprint.imports import external_name, unknowable_notes
from crucible_lineage.fingerprint.model import Context, Piece, Reference
from crucible_lineage.fingerprint.scopes import CodeScope
from crucible_lineage.fingerprint.source import Definition, bytecode_text, is_plainly_loaded, loaded_globals
from crucible_lineage.fingerprint.syntax import FunctionNode, changed_objects, function_text, read_chains
from crucible_lineage.step import Step

__all__ = ["carries_code", "definition_of", "function_piece", "home_of"]


def function_piece(
    context: Context, function: types.FunctionType, key: tuple[str, str] | None, *, with_defaults: bool
) -> Piece:
    """The piece of a function. Without `with_defaults` the defaults of its parameters do not count."""
    if not context.is_first_party(home_of(function)):
        return _foreign(context, function, key)
    piece = Piece()
    code = function.__code__
    scope = CodeScope(context, home_of(function), function.__globals__, _cells(function))
    definition, source = definition_of(context, function), context.source(code.co_filename)
    if definition is None:
        reason = "no source text" if source is None else "its file was changed after it was imported"
        piece.notes.append(f"{home_of(function)}:{function.__qualname__} ({reason})")
        piece.text = bytecode_text(code)
        scope.refer([(name,) for name in sorted(loaded_globals(code) | scope.cells.keys())], piece)
    else:
        if source is not None:
            piece.files.add(code.co_filename)
        _read(scope, function, definition.node, piece, with_defaults)
    if with_defaults:
        defaults = [*enumerate(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
        piece.references += [Reference(f"default {place}", value) for place, value in defaults]
    for name, value in sorted(vars(function).items()):
        if not name.startswith("__") and ("attribute", id(function), name) not in context.state:
            piece.references.append(Reference(f".{name}", value))
    return piece


def definition_of(context: Context, function: types.FunctionType) -> Definition | None:
    """The text that a function was compiled from; None if it is not there any more."""
    source = context.source(function.__code__.co_filename)
    if source is None:
        return None
    found = source.definition(function.__code__)
    if found is None and not is_plainly_loaded(function.__globals__):  # such as pytest, which rewrites assertions
        return source.definition_there(function.__code__)
    return found


def home_of(function: types.FunctionType) -> str:
    """The module that a function was defined in, also if `functools.wraps` says another one."""
    return str(function.__globals__.get("__name__") or function.__module__)


def carries_code(context: Context, value: object) -> bool:
    """True if `value` is, wraps or holds functions or classes of ours."""
    if isinstance(value, types.FunctionType):
        return context.is_first_party(home_of(value)) or carries_code(context, getattr(value, "__wrapped__", None))
    if isinstance(value, type):
        return context.is_first_party(value.__module__)
    if isinstance(value, functools.partial):
        return any(carries_code(context, part) for part in (value.func, *value.args, *value.keywords.values()))
    if isinstance(value, (types.MethodType, classmethod, staticmethod)):
        return carries_code(context, value.__func__)
    if isinstance(value, Mapping):
        return any(carries_code(context, item) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(carries_code(context, item) for item in value)
    return isinstance(value, Step)


def _read(
    scope: CodeScope, function: types.FunctionType, node: FunctionNode, piece: Piece, with_defaults: bool
) -> None:
    decorators = getattr(node, "decorator_list", [])
    hints = scope.decorate(decorators, piece)
    piece.text = f"{function_text(node, with_defaults=with_defaults, hints=hints)}{piece.text}"
    for part in node.body if isinstance(node.body, list) else [node.body]:
        scope.add_imports(part, piece)
    seen = loaded_globals(function.__code__) | scope.imported.keys() | scope.cells.keys()
    if hints:  # a library's decorator may read them
        seen |= scope.known.keys()
    scope.refer((chain for chain in read_chains(node, hints=hints) if chain[0] in seen), piece)
    scope.refer([(name,) for name in sorted(scope.cells)], piece)  # what only super() reads
    _note_changes(scope, function, node, piece)


def _note_changes(scope: CodeScope, function: types.FunctionType, node: FunctionNode, piece: Piece) -> None:
    cells = scope.cells
    seen = loaded_globals(function.__code__) | scope.imported.keys() | scope.cells.keys()
    for change in changed_objects(node):
        if not change.chain:
            name = str(change.attribute)
            piece.changes.add(("cell", id(cells[name])) if name in cells else ("name", scope.module, name))
        elif change.chain[0] in seen and (target := scope.target(change.chain)) is not None:
            piece.changes.add(_change(target, change.chain, change.attribute))


def _change(target: Reference, chain: tuple[str, ...], attribute: str | None) -> tuple[object, ...]:
    """Identify a change: `cache[key] = 1` and `cache.add(1)` change contents, `model.x = 1` an attribute."""
    inner = chain[len(target.label.split(".")) :]
    name = inner[0] if inner else attribute
    if name is None:
        return "contents", id(target.value)
    if isinstance(target.value, types.ModuleType):
        return "name", target.value.__name__, name
    return "attribute", id(target.value), name


def _cells(function: types.FunctionType) -> dict[str, types.CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _foreign(context: Context, function: types.FunctionType, key: tuple[str, str] | None) -> Piece:
    """A library's function, with the code of ours that it wraps or was given."""
    name = external_name(context, function, key)
    piece = Piece(f"external {name}", notes=unknowable_notes(name))
    scope = CodeScope(context, home_of(function), {}, _cells(function))
    scope.refer([(name,) for name in sorted(scope.cells)], piece)
    piece.references += [Reference(f".{name}", value) for name, value in sorted(vars(function).items())]
    piece.references = [part for part in piece.references if carries_code(context, part.value)]
    if context.is_package(home_of(function)):
        piece.packages.add(home_of(function).partition(".")[0])
    return piece
