"""Pieces of objects: a text of what an object does by itself, and references to all that it uses.

Objects are read as they are at run time: a global has its current value, a function its current code. The source is
used only if it gives exactly that code.
"""

from __future__ import annotations

import abc
import ast
import dataclasses
import enum
import functools
import hashlib
import logging
import operator
import re
import sys
import threading
import types
import typing
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from crucible_lineage.fingerprint.functions import (
    CodeScope,
    Context,
    ExternalName,
    ObjectDescription,
    Reference,
    cells_of,
    content_of,
    external_name,
    function_piece,
    home_of,
    unknowable_notes,
)
from crucible_lineage.fingerprint.source import (
    base_folder,
    changed_attributes,
    effective,
    read_chains,
    root_package,
    syntax_text,
)
from crucible_lineage.fingerprint.values import quantity_of
from crucible_lineage.json_types import JsonObject
from crucible_lineage.step import Step

_BUILTINS = (
    types.BuiltinFunctionType
    | types.MethodDescriptorType
    | types.WrapperDescriptorType
    | types.MethodWrapperType
    | types.ClassMethodDescriptorType
)
# Their values cannot enter a result, or they are only type hints.
_INERT = (
    logging.Logger
    | type(threading.Lock())
    | type(threading.RLock())
    | types.GenericAlias
    | types.UnionType
    | typing.TypeVar
    | typing.ParamSpec
    | typing.NewType
)

# Their repr is complete, and the same in every Python version.
_REPR_TYPES = (
    *(type(None), bool, str, bytes, float, complex, type(Ellipsis), type(NotImplemented), range, slice),
    *(date, datetime, time, timedelta, timezone, Decimal, Fraction, UUID),
    *(operator.itemgetter, operator.attrgetter, operator.methodcaller),
)
CONTAINERS = (list, tuple, dict, set, frozenset, deque, OrderedDict, Counter, types.MappingProxyType)


def piece_of(context: Context, reference: Reference, *, with_defaults: bool = True) -> ObjectDescription:
    """Return the piece of the referenced object, of a function if `with_defaults` with those of its parameters."""
    value = reference.value
    if isinstance(value, ExternalName):
        return _named(context, value.name)
    if isinstance(value, types.FunctionType):
        if context.is_first_party(home_of(value)):
            return function_piece(context, value, with_defaults=with_defaults)
        return _foreign_function(context, value)
    if isinstance(value, type):
        return class_piece(context, value)
    if isinstance(value, types.ModuleType):
        return _module(context, value)
    if isinstance(value, _INERT) or typing.get_origin(value) is not None:
        return ObjectDescription("inert")
    if (parts := _wrapped(value)) is not None:
        return ObjectDescription(
            f"wrapper {type(value).__name__}", [Reference(f".{name}", part) for name, part in parts.items()]
        )
    if isinstance(value, _BUILTINS):
        return _builtin(context, value)
    changes = {("cell", reference.cell), ("contents", id(value)), ("name", *(reference.key or ()))}
    if not changes.isdisjoint(context.state):  # the code rebinds the name, or changes the contents of the object
        return _state(context, reference)
    try:
        return _constant(reference)
    except (NotPlainError, RecursionError):
        return _object(context, reference)


def _named(context: Context, name: str) -> ObjectDescription:
    module = name.partition(":")[0]
    packages = {root_package(module)} if context.is_package(module) else set()
    notes = [] if name in sys.modules else unknowable_notes(name)  # each use of a module adds its own
    return ObjectDescription(f"external {name}", notes=notes, packages=packages)


def _foreign_function(context: Context, function: types.FunctionType) -> ObjectDescription:
    """Return the piece of a library's function, with the first-party code that it wraps or holds."""
    piece = _named(context, external_name(context, function))
    held = {name: content_of(cell) for name, cell in cells_of(function).items()}
    held |= {f".{name}": value for name, value in vars(function).items()}
    piece.references = [Reference(name, part) for name, part in sorted(held.items()) if _carries_code(context, part)]
    return piece


def _carries_code(context: Context, value: object) -> bool:
    """Return whether `value` is, wraps or holds first-party functions or classes."""
    if isinstance(value, types.FunctionType) and context.is_first_party(home_of(value)):
        return True
    if isinstance(value, type):
        return context.is_first_party(value.__module__)
    if isinstance(value, CONTAINERS):
        return any(_carries_code(context, part.value) for part in _items(value))
    return isinstance(value, Step) or any(_carries_code(context, part) for part in (_wrapped(value) or {}).values())


def _module(context: Context, module: types.ModuleType) -> ObjectDescription:
    """Return the piece of a module used as a value: all definitions of a first-party one, since any may be used."""
    if not context.is_first_party(module.__name__):
        return _named(context, module.__name__)
    named = [(name, value) for name, value in sorted(vars(module).items()) if not name.startswith("__")]
    parts = [(name, value) for name, value in named if not isinstance(value, types.ModuleType)]
    return ObjectDescription(
        "module", [context.reference(f".{name}", value, (module.__name__, name)) for name, value in parts]
    )


_PARTS: Mapping[Any, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    functools.singledispatchmethod: ("dispatcher", "func"),
}


def _wrapped(value: Any) -> JsonObject | None:
    """Return the parts of an object that only forwards calls; None for other objects."""
    if isinstance(value, Step):
        return {"version": value.version} if value.version is not None else {"function": value.function}
    if isinstance(value, (functools.partial, functools.partialmethod)):
        positional = {str(index): argument for index, argument in enumerate(value.args)}
        return {"func": value.func, **positional, **dict(sorted(value.keywords.items()))}
    for kind, names in _PARTS.items():
        if isinstance(value, kind):
            return {name: getattr(value, name) for name in names}
    if callable(value) and isinstance(_attribute(value, "__wrapped__"), Callable):  # type: ignore[arg-type]
        return {"wrapped": value.__wrapped__}  # such as functools.lru_cache
    return None


def _attribute(value: object, name: str, default: Any = None) -> Any:
    """Return an attribute, or the default also if a foreign class raises an error of its own."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def _builtin(context: Context, value: Any) -> ObjectDescription:
    module = getattr(value, "__module__", None) or getattr(getattr(value, "__objclass__", None), "__module__", None)
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return ObjectDescription(f"builtin {value.__qualname__}", [Reference(".self", owner)])
    piece = _named(context, external_name(context, value))
    if module and context.is_first_party(module):
        piece.notes.append(f"{module}:{value.__qualname__} (compiled code)")
    return piece


def _constant(reference: Reference) -> ObjectDescription:
    files: set[str] = set()
    folder = base_folder(root_package(reference.key[0])) if reference.key else None
    text = constant_text(reference.value, folder, lambda path: files.add(str(path)))
    piece = ObjectDescription(f"constant {text}", files=files)
    if folder and isinstance(reference.value, Path) and reference.value.is_relative_to(folder) and not files:
        piece.notes.append(f"{reference.label} (a path beside the code; what lies there is not covered)")
    return piece


def _state(context: Context, reference: Reference) -> ObjectDescription:
    """Return the piece of an object that the code itself changes: its initial binding, and the code that it holds."""
    piece = ObjectDescription("state")
    piece.notes.append(f"{reference.label} (changed by the code itself; its value is not covered)")
    _add_binding(context, reference, piece)
    if isinstance(reference.value, CONTAINERS):
        piece.references += [part for part in _items(reference.value) if _carries_code(context, part.value)]
    elif context.is_first_party(type(reference.value).__module__):
        piece.references.append(Reference(" class", type(reference.value)))
    return piece


def _object(context: Context, reference: Reference) -> ObjectDescription:
    """Return the piece of an instance, or of a container with more than plain values."""
    value, cls = reference.value, type(reference.value)
    if cls in CONTAINERS:
        return ObjectDescription(f"container {cls.__name__} {len(value)}", _items(value))
    if isinstance(value, enum.Enum):
        return ObjectDescription(f"member {value.name}", [Reference(" class", cls)])
    if context.is_first_party(cls.__module__):
        return _instance(context, reference)
    piece = ObjectDescription(f"object {external_name(context, cls)} {_attribute(value, '__name__', '')}")
    piece.notes.append(f"{reference.label} (a {cls.__module__}.{cls.__qualname__}, whose state is not covered)")
    if context.is_package(cls.__module__):
        piece.packages.add(cls.__module__.partition(".")[0])
    _add_binding(context, reference, piece)
    inner = [Reference(f".{name}", part) for name, part in sorted(_attribute(value, "__dict__", {}).items())]
    piece.references += [part for part in inner if _carries_code(context, part.value)]
    return piece


def _instance(context: Context, reference: Reference) -> ObjectDescription:
    """Return the piece of a first-party instance: class, attributes, and contents of a list or similar."""
    value, cls = reference.value, type(reference.value)
    piece = ObjectDescription("instance", [Reference(" class", cls)])
    state = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)  # the second is that of slots
    attributes = {name: part for named in parts for name, part in (named or {}).items()}
    changing = {name for name in attributes if is_changing_attribute(context, value, cls, name)}
    constant = [(name, part) for name, part in sorted(attributes.items()) if name not in changing]
    piece.references += [Reference(f".{name}", part) for name, part in constant]
    if changing:
        names = ", ".join(f"{reference.label}.{name}" for name in sorted(changing))
        piece.notes.append(f"{names} (changed by the code itself; its value is not covered)")
        _add_binding(context, reference, piece)
    kinds: tuple[Any, ...] = (list, tuple, dict, set, frozenset, str, bytes, int, float)
    piece.references += [Reference(" contents", kind(value)) for kind in kinds if isinstance(value, kind)]
    return piece


def _items(value: Any) -> list[Reference]:
    if isinstance(value, Mapping):
        items = list(value.items())
        keys = [] if all(isinstance(key, str) for key, _ in items) else [key for key, _ in items]
        spelled = [f"[{key!r}]" if isinstance(key, str) else f"[#{index}]" for index, (key, _) in enumerate(items)]
        return [
            *(Reference(f" key {index}", key) for index, key in enumerate(keys)),
            *(Reference(label, item) for label, (_, item) in zip(spelled, items, strict=True)),
        ]
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=lambda item: str(getattr(item, "__qualname__", item)))
    return [Reference(f"[{index}]", item) for index, item in enumerate(value)]


def _add_binding(context: Context, reference: Reference, piece: ObjectDescription) -> None:
    """Add the statements with which the module binds the object."""
    if reference.key is None:
        return
    module, name = reference.key
    source, loaded = context.module_source(module), sys.modules.get(module)
    scope = CodeScope(context, module, vars(loaded) if loaded else {})
    for statement in source.bindings.get(name, ()) if source else ():
        piece.text += f" {syntax_text(statement)}"
        scope.refer((chain for chain in read_chains(statement) if chain[0] != name), piece, at_import=True)


_PLAIN_METACLASSES = (type, abc.ABCMeta, enum.EnumMeta)
_METHODS = (types.FunctionType, staticmethod, classmethod, property, functools.cached_property, functools.partialmethod)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def class_piece(context: Context, cls: type) -> ObjectDescription:
    """Return the piece of a class: its bases, attributes, and what else its body says."""
    if not context.is_first_party(cls.__module__):
        return _named(context, external_name(context, cls))
    piece = ObjectDescription("class")
    bases = [base for base in cls.__bases__ if base not in (object, typing.Generic)]
    piece.references += [Reference(f"base {index}", base) for index, base in enumerate(bases)]
    if type(cls) not in _PLAIN_METACLASSES:
        piece.references.append(Reference("metaclass", type(cls)))
    by_library = any(context.is_package(builder.__module__) for builder in (*cls.__bases__, type(cls)))
    source = context.module_source(cls.__module__)
    node = source.classes.get(cls.__qualname__) if source else None
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        piece.text += f" fields {cls._fields!a}"
    declared = _declared_values(cls)
    if declared is None and node is None:
        piece.notes.append(f"{cls.__module__}:{cls.__qualname__} (no source text)")
    piece.references += [Reference(f".{name}", value) for name, value in (declared or {}).items()]
    if node is not None:
        piece.files.add(str(sys.modules[cls.__module__].__file__))
        _read_body(context, cls, node, piece, by_library)
    for name, value in _attributes(context, cls, node, by_library):
        if not is_changing_attribute(context, cls, cls, name):
            piece.references.append(Reference(f".{name}", value))
        elif node is not None:
            piece.notes.append(f"{cls.__qualname__}.{name} (changed by the code itself; its value is not covered)")
    return piece


def _declared_values(cls: type) -> JsonObject | None:
    """Return the values that a named tuple, an enumeration or a dataclass declares; None for other classes."""
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return dict(getattr(cls, "_field_defaults", {}))
    if issubclass(cls, enum.Enum):
        return {name: member._value_ for name, member in cls.__members__.items()}
    if not dataclasses.is_dataclass(cls):
        return None
    made = [(field.name, (field.default, field.default_factory)) for field in dataclasses.fields(cls)]
    return {name: part for name, parts in made for part in parts if part is not dataclasses.MISSING}


def _read_body(context: Context, cls: type, node: ast.ClassDef, piece: ObjectDescription, by_library: bool) -> None:
    """Add the body of a class, all of it if a library may read it, else without what is read by value."""
    scope = CodeScope(context, cls.__module__, vars(sys.modules[cls.__module__]))
    hints = scope.decorate(node.decorator_list, piece) or by_library
    for part in [*node.keywords, *effective(node.body, fields=True)]:
        if hints or not _is_read_by_value(context, part, cls):
            piece.text += syntax_text(part, hints=hints)
            visible = (chain for chain in read_chains(part, hints=hints) if chain[0] in scope.names)
            scope.refer(visible, piece, at_import=not hints)


def _is_read_by_value(context: Context, part: ast.AST, cls: type) -> bool:
    if isinstance(part, ast.Assign):
        names = [getattr(target, "id", "") for target in part.targets]
        constant = [name for name in names if not is_changing_attribute(context, cls, cls, name)]
        return names == constant and all(name in vars(cls) and _is_plain(vars(cls)[name]) for name in names)
    return isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))


def is_changing_attribute(context: Context, owner: object, cls: type, name: str) -> bool:
    """Return whether code sets this attribute after the object was built, or computes it on first use."""
    if ("attribute", id(owner), name) in context.state:
        return True
    for base in cls.__mro__:
        if isinstance(vars(base).get(name), functools.cached_property):
            return owner is not cls
        source = context.module_source(base.__module__) if context.is_first_party(base.__module__) else None
        node = source.classes.get(base.__qualname__) if source else None
        if node is not None and name in changed_attributes(node):
            return True
    return False


def _attributes(
    context: Context, cls: type, node: ast.ClassDef | None, by_library: bool
) -> Iterator[tuple[str, object]]:
    """Yield the attributes set in the body or from outside, without those that Python or a library adds."""
    written = _bound(node) if node is not None else {name for name in vars(cls) if not name.startswith("_")}
    declared = {*getattr(cls, "__members__", ()), *getattr(cls, "_fields", ())}
    for name, value in sorted(vars(cls).items()):
        if name in declared or isinstance(value, _SLOTS) or name == "__annotate_func__":  # hints, from 3.14 on
            continue
        if isinstance(value, types.FunctionType):
            generated = value.__code__.co_filename.startswith("<string") or not context.is_first_party(home_of(value))
            is_own = not generated
        elif isinstance(value, _METHODS):
            is_own = not name.startswith("_")
        elif by_library:
            continue
        else:
            is_own = not name.startswith("_") and _is_plain(value)
        if name in written or is_own:
            yield name, value


@functools.lru_cache(maxsize=1024)
def _bound(node: ast.ClassDef) -> frozenset[str]:
    parts = list(ast.walk(node))
    names = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return frozenset(names | {part.name for part in parts if isinstance(part, _DEFINITIONS)})


def _is_plain(value: object) -> bool:
    try:
        constant_text(value)
    except NotPlainError:
        return False
    return True


class NotPlainError(Exception):
    """The value is not a plain value."""


def constant_text(value: Any, folder: Path | None = None, opened: Callable[[Path], None] | None = None) -> str:
    """Return the value in one spelling, the same on every machine. Raises NotPlainError unless all parts are plain.

    Paths below `folder`, the one of the code, are relative to it. A file is represented by its bytes, and passed to
    `opened`.
    """
    kind = type(value)
    if kind is str and folder and value.startswith(str(folder)) and (location := _located(Path(value), folder, opened)):
        return f"str:{location}"
    if kind in _REPR_TYPES:
        return f"{kind.__name__}:{value!a}"
    if kind is int:
        return f"int:{value:x}"
    if isinstance(value, PurePath):
        return f"path:{_located(value, folder, opened) or ascii(value.as_posix())}"
    if isinstance(value, re.Pattern):
        return f"pattern:{value.pattern!a} {value.flags}"
    if kind in CONTAINERS:
        if isinstance(value, (dict, types.MappingProxyType)):
            spelled = [f"{constant_text(key)}={constant_text(item, folder, opened)}" for key, item in value.items()]
        else:
            spelled = [constant_text(item, folder, opened) for item in value]
        return f"{kind.__name__}[{','.join(sorted(spelled) if kind in (set, frozenset) else spelled)}]"
    return _foreign_text(value)


def _foreign_text(value: Any) -> str:
    """Return a quantity or an array of a library in one spelling. Raises NotPlainError for other objects."""
    kind = type(value)
    if isinstance(value, type):
        raise NotPlainError("class")
    if (quantity := quantity_of(value)) is not None:
        parts = (quantity.get(name) for name in ("value", "unit", "uncertainty"))
        return f"quantity:{','.join(map(constant_text, parts))}"
    try:
        if hasattr(value, "dtype") and hasattr(value, "tobytes") and not value.dtype.hasobject:
            dtype = value.dtype.descr if value.dtype.names else value.dtype.newbyteorder("<").str
            content = value.astype(value.dtype.newbyteorder("<")).tobytes()
            return f"array:{dtype!a} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
    except Exception as error:  # a foreign class may raise any error for an attribute
        raise NotPlainError(kind.__name__) from error
    raise NotPlainError(kind.__name__)


def _located(path: PurePath, folder: Path | None, opened: Callable[[Path], None] | None) -> str:
    """Return a path below the folder of the code with the hash of its file; empty for other paths."""
    if folder is None or not path.is_relative_to(folder):
        return ""
    file = Path(path)
    content = ""
    if file.is_file():
        with file.open("rb") as stream:
            content = " " + hashlib.file_digest(stream, "sha256").hexdigest()
        if opened:
            opened(file)
    return ascii(path.relative_to(folder).as_posix()) + content
