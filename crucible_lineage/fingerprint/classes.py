"""What a class is made of: its bases, decorators and fields, and each attribute as it is now."""

from __future__ import annotations

import abc
import ast
import dataclasses
import enum
import functools
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from crucible_lineage.fingerprint.constants import NotPlainError, constant_text
from crucible_lineage.fingerprint.functions import home_of
from crucible_lineage.fingerprint.imports import external_name
from crucible_lineage.fingerprint.model import Context, Piece, Reference
from crucible_lineage.fingerprint.scopes import CodeScope
from crucible_lineage.fingerprint.syntax import changed_attributes, class_text, read_chains, syntax_text

__all__ = ["class_piece", "is_changing_attribute"]

_PLAIN_METACLASSES = (type, abc.ABCMeta, enum.EnumMeta)
_METHODS = (types.FunctionType, staticmethod, classmethod, property, functools.cached_property, functools.partialmethod)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def class_piece(context: Context, cls: type, key: tuple[str, str] | None) -> Piece:
    """The piece of a class: what it inherits, declares, and holds."""
    if not context.is_first_party(cls.__module__):
        foreign = Piece(f"external {external_name(context, cls, key)}")
        foreign.packages = {cls.__module__.partition(".")[0]} if context.is_package(cls.__module__) else set()
        return foreign
    piece = Piece("class")
    node = _node(context, cls, piece)
    bases = [base for base in cls.__bases__ if base not in (object, typing.Generic)]
    piece.references += [Reference(f"base {index}", base) for index, base in enumerate(bases)]
    if type(cls) not in _PLAIN_METACLASSES:
        piece.references.append(Reference("metaclass", type(cls)))
    if node is not None:
        _declared(context, cls, node, piece)
    if dataclasses.is_dataclass(cls):
        _dataclass_fields(cls, piece)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        piece.text += f" fields {cls._fields!a}"
        defaults = getattr(cls, "_field_defaults", {})
        piece.references += [Reference(f".{name}", value) for name, value in sorted(defaults.items())]
    if issubclass(cls, enum.Enum):
        piece.references += [Reference(f".{name}", member._value_) for name, member in cls.__members__.items()]
    for name, value in _attributes(context, cls, node):
        if not is_changing_attribute(context, cls, cls, name):
            piece.references.append(Reference(f".{name}", value))
        elif node is not None:
            piece.notes.append(f"{cls.__qualname__}.{name} (changed by the code itself; its value is not covered)")
            piece.text += "".join(syntax_text(statement) for statement in _statements(node, name))
    return piece


def is_changing_attribute(context: Context, owner: object, cls: type, name: str) -> bool:
    """True if code sets this attribute of the object after it was built, or fills it on first use."""
    if ("attribute", id(owner), name) in context.state:
        return True
    for base in cls.__mro__:
        if isinstance(vars(base).get(name), functools.cached_property):
            return owner is not cls
        source = context.module_source(base.__module__) if context.is_first_party(base.__module__) else None
        node = source.class_node(base.__qualname__) if source else None
        if node is not None and name in changed_attributes(node):
            return True
    return False


def _node(context: Context, cls: type, piece: Piece) -> ast.ClassDef | None:
    source = context.module_source(cls.__module__)
    node = source.class_node(cls.__qualname__) if source else None
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if node is not None and file:
        piece.files.add(file)
    elif not (issubclass(cls, enum.Enum) or hasattr(cls, "_fields")):  # those are told by their members and fields
        piece.notes.append(f"{cls.__module__}:{cls.__qualname__} (no source text)")
    return node


def _declared(context: Context, cls: type, node: ast.ClassDef, piece: Piece) -> None:
    """Add what the text gives to the attributes: decorators, keywords, fields, and all of it if a library reads it."""
    module = sys.modules.get(cls.__module__)
    scope = CodeScope(context, cls.__module__, vars(module) if module else {})
    foreign = scope.decorate(node.decorator_list, piece)
    builders = [*cls.__bases__, type(cls)]
    if foreign or any(context.is_package(builder.__module__) for builder in builders):
        piece.text += class_text(node)
        scope.refer(
            (chain for part in node.body for chain in read_chains(part, hints=True) if chain[0] in scope.known), piece
        )
    fields = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
    piece.text += f" fields {[target.id for target in fields if isinstance(target, ast.Name)]!a}"
    for keyword in node.keywords:
        piece.text += f" {keyword.arg}={syntax_text(keyword.value)}"
        scope.refer(read_chains(keyword.value), piece, at_import=True)


def _dataclass_fields(cls: Any, piece: Piece) -> None:
    for field in dataclasses.fields(cls):
        piece.text += f" {field.name} {field.init} {field.compare} {field.repr} {field.hash} {field.kw_only}"
        for kind, value in (("default", field.default), ("factory", field.default_factory)):
            if value is not dataclasses.MISSING:
                piece.references.append(Reference(f".{field.name} {kind}", value))


def _attributes(context: Context, cls: type, node: ast.ClassDef | None) -> Iterator[tuple[str, object]]:
    """The attributes that were written, in the body or from outside; not those that Python or a library adds."""
    written = set(_bound(node)) if node is not None else {name for name in vars(cls) if not name.startswith("_")}
    declared = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    declared |= {*getattr(cls, "__members__", ()), *getattr(cls, "_fields", ())}
    built_by_library = any(context.is_package(builder.__module__) for builder in (*cls.__bases__, type(cls)))
    for name, value in sorted(vars(cls).items()):
        if name in declared or isinstance(value, _SLOTS):
            continue
        if isinstance(value, types.FunctionType):
            generated = value.__code__.co_filename.startswith("<string") or not context.is_first_party(home_of(value))
            if name in written or not generated:
                yield name, value
        elif isinstance(value, _METHODS):
            if name in written or not name.startswith("_"):
                yield name, value
        elif not built_by_library and (name in written or (not name.startswith("_") and _is_plain(value))):
            yield name, value


def _bound(node: ast.ClassDef) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield part.name
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id


def _statements(node: ast.ClassDef, name: str) -> list[ast.stmt]:
    return [part for part in node.body if name in {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}]


def _is_plain(value: object) -> bool:
    try:
        constant_text(value)
    except NotPlainError:
        return False
    return True
