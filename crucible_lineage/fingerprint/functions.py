"""Parts of a function: its syntax tree, the objects behind its names, defaults, decorators, and imports."""

from __future__ import annotations

import ast
import builtins
import os
import signal
import sys
import threading
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import resolve_name
from types import FrameType
from typing import Any, NoReturn

from crucible_lineage.fingerprint.source import (
    Chain,
    FunctionNode,
    Import,
    ModuleSource,
    bytecode_text,
    changed_objects,
    imports_of,
    is_first_party,
    loaded_globals,
    module_source,
    read_chains,
    root_package,
    syntax_text,
)
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.step import step

_one_at_a_time = threading.RLock()  # the changes affect the whole process


class EndedError(Exception):
    """The code tried to end the process; the message is the call."""


@contextmanager
def contained() -> Iterator[None]:
    """Raise EndedError for code that would end the process, save a real Ctrl-C; send its output to standard error."""
    with _one_at_a_time, redirect_stdout(sys.stderr), _exit_refused(), _interrupts() as interrupted:
        try:
            yield
        except SystemExit as error:
            raise EndedError(f"sys.exit({'' if error.code is None else repr(error.code)})") from error
        except KeyboardInterrupt as error:
            if interrupted:
                raise
            raise EndedError("raise KeyboardInterrupt") from error


@contextmanager
def _exit_refused() -> Iterator[None]:
    """Make `os._exit` raise in this process; forked processes may still exit."""
    leave, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise EndedError(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yield the list of interrupts in this block; only the main thread receives any."""
    received: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> object:
        received.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class ExternalName:
    """A foreign object or module that an import names, such as `numpy.linalg:norm`."""

    name: str


@dataclass(frozen=True)
class Reference:
    """A use of `value`; `key` is (module, name) of a global, `cell` the id of a closure's cell."""

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

    def imported_from(self, module: str, name: str | None = None) -> Iterator[tuple[Import, str]]:
        """Yield the imports in a module, of this name or all, with the absolute name of the imported module."""
        source, loaded = self.module_source(module), sys.modules.get(module)
        if source is None or loaded is None:
            return
        package = getattr(loaded, "__package__", None) or getattr(loaded.__spec__, "parent", None) or ""
        found = source.imports.get(name, ()) if name else (item for items in source.imports.values() for item in items)
        for statement in found:
            with suppress(ImportError):
                yield statement, module_of(statement, package)

    def reference(self, label: str, value: Any, key: tuple[str, str], depth: int = 8) -> Reference:
        """Return the reference to a global, by the imports that gave it: a foreign name, or the key where it is set."""
        for statement, module in self.imported_from(*key):
            if statement.attribute is None:
                bound = module if statement.bound != root_package(module) else statement.bound
                if sys.modules.get(bound) is value and not self.is_first_party(bound):
                    return Reference(label, ExternalName(bound), key)
            elif getattr(sys.modules.get(module), statement.attribute, _MISSING) is value:
                if not self.is_first_party(module):
                    return Reference(label, ExternalName(f"{module}:{statement.attribute}"), key)
                if depth:
                    return self.reference(label, value, (module, statement.attribute), depth=depth - 1)
        return Reference(label, value, key)


_MISSING = object()
_LATE, _HINTED = "code that is known only when it runs", "type hints, which are no part of the identity"
_TELLTALES = {
    **dict.fromkeys(("eval", "exec", "compile", "__import__"), _LATE),
    "__file__": "the place of the code, which is no part of the identity",
    "__doc__": "docstrings, which are no part of the identity",
    "__annotations__": _HINTED,
}
_OWN_NAMES = frozenset({"__name__", "__package__", "__spec__", "__loader__", "__path__", "__cached__"})


_UNKNOWABLE = {
    **dict.fromkeys(("importlib", "runpy", "sys.modules"), _LATE),
    **dict.fromkeys(("pickle.load", "pickle.loads"), "code that lies in data"),
    **dict.fromkeys(("subprocess", "os.system", "os.popen"), "another program"),
    **dict.fromkeys(("os.environ", "os.getenv"), "the environment, which is no part of the identity"),
    **dict.fromkeys(("typing.get_type_hints", "inspect.get_annotations"), _HINTED),
    **{"ctypes": "compiled code", "inspect.getsource": "the text of code"},
}


_NAMED = frozenset({"name", "decorator_list"})  # no part of what a function does


def function_piece(context: Context, function: types.FunctionType, *, with_defaults: bool) -> ObjectDescription:
    """Return the piece of a first-party function, if `with_defaults` with the defaults of its parameters."""
    piece = ObjectDescription()
    code = function.__code__
    scope = CodeScope(context, home_of(function), function.__globals__, cells_of(function))
    node, source = definition_of(context, function), context.source(code.co_filename)
    if node is None:
        reason = "no source text" if source is None else "its file was changed after it was imported"
        piece.notes.append(f"{home_of(function)}:{function.__qualname__} ({reason})")
        piece.text = bytecode_text(code)
        scope.refer([(name,) for name in sorted(loaded_globals(code) | scope.cells.keys())], piece)
    else:
        piece.files.add(code.co_filename)
        _read(scope, function, node, piece, with_defaults)
    if with_defaults:
        defaults = [*enumerate(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
        piece.references += [Reference(f"default {parameter}", value) for parameter, value in defaults]
    for name, value in sorted(vars(function).items()):
        if not name.startswith("__") and ("attribute", id(function), name) not in context.state:
            piece.references.append(Reference(f".{name}", value))
    return piece


def definition_of(context: Context, function: types.FunctionType) -> FunctionNode | None:
    """Return the definition from which a function was compiled; None if the source has changed."""
    source = context.source(function.__code__.co_filename)
    # pytest, for one, rewrites assertions
    rewritten = type(function.__globals__.get("__loader__")) is not SourceFileLoader
    return source.definition(function.__code__, rewritten=rewritten) if source else None


def home_of(function: types.FunctionType) -> str:
    """Return the module that defines a function, even if `functools.wraps` has set another one."""
    return str(function.__globals__.get("__name__") or function.__module__)


def cells_of(function: types.FunctionType) -> dict[str, types.CellType]:
    """Return the cells of a function's closure by name."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _read(
    scope: CodeScope, function: types.FunctionType, node: FunctionNode, piece: ObjectDescription, with_defaults: bool
) -> None:
    hints = scope.decorate(getattr(node, "decorator_list", []), piece)
    skipped = _NAMED if with_defaults else _NAMED | {"defaults", "kw_defaults"}
    piece.text = f"{syntax_text(node, hints=hints, skipped=skipped)}{piece.text}"
    for part in node.body if isinstance(node.body, list) else [node.body]:
        scope.add_imports(part, piece)
    visible = loaded_globals(function.__code__) | scope.imported.keys() | scope.cells.keys()
    piece.changes |= set(_changes(scope, node, visible))
    if hints:  # a library's decorator may read annotations
        visible |= scope.names.keys()
    scope.refer((chain for chain in read_chains(node, hints=hints) if chain[0] in visible), piece)
    scope.refer([(name,) for name in sorted(scope.cells)], piece)  # only super() may read them


def _changes(scope: CodeScope, node: FunctionNode, visible: Collection[str]) -> Iterator[tuple[object, ...]]:
    """Yield the changes: `cache[key] = 1` and `cache.add(1)` change contents, `model.x = 1` an attribute."""
    for chain, attribute in changed_objects(node):
        name = attribute
        if not chain:
            yield ("cell", id(scope.cells[str(name)])) if name in scope.cells else ("name", scope.module, name)
        elif chain[0] in visible and (found := scope.resolved(chain, ObjectDescription())):
            inner = chain[len(found[0].label.split(".")) :]
            name, value = inner[0] if inner else attribute, found[0].value
            if name is None:
                yield "contents", id(value)
            elif isinstance(value, types.ModuleType):
                yield "name", value.__name__, name
            else:
                yield "attribute", id(value), name


class CodeScope:
    """Names visible to code of a module: globals, those of its closure, and those that its own imports bind."""

    def __init__(
        self,
        context: Context,
        module: str,
        names: JsonMapping,
        cells: Mapping[str, types.CellType] = types.MappingProxyType({}),
    ) -> None:
        self.context = context
        self.module = module
        self.names = names
        self.cells = cells
        self.imported: JsonObject = {}

    def add_imports(self, node: ast.AST, piece: ObjectDescription) -> None:
        """Add the names that imports in the code bind, and note failed imports."""
        package = self.names.get("__package__") or ""
        for statement in imports_of(node):
            try:
                value = self._imported_value(statement, module_of(statement, package))
            except Exception as error:  # whatever the imported module raises
                failed = f"import {statement.module or statement.attribute} ({type(error).__name__} when imported)"
                piece.notes.append(failed)
                continue
            self.imported[statement.bound] = value
            if isinstance(value, ExternalName):
                piece.references.append(Reference(statement.bound, value))

    def _imported_value(self, statement: Import, module: str) -> Any:
        """Return what an import binds: a first-party module or object, or the name of a foreign one."""
        attribute, root = statement.attribute, root_package(module)
        if not self.context.is_first_party(module):
            if attribute is not None:
                return ExternalName(f"{module}:{attribute}")
            return ExternalName(module if statement.bound != root else root)
        loaded = _imported(module)
        if attribute is None:
            return loaded if statement.bound != root else sys.modules[root]
        return getattr(loaded, attribute) if hasattr(loaded, attribute) else _imported(f"{module}.{attribute}")

    def refer(
        self, chains: Iterable[Chain], piece: ObjectDescription, *, label: str = "", at_import: bool = False
    ) -> None:
        """Add references to the objects behind these names, each once."""
        labels = {reference.label for reference in piece.references}
        for chain in chains:
            for reference in self.resolved(chain, piece):
                if label + reference.label not in labels:
                    labels.add(label + reference.label)
                    piece.references.append(replace(reference, label=label + reference.label, at_import=at_import))

    def decorate(self, decorators: Iterable[ast.expr], piece: ObjectDescription) -> bool:
        """Add decorators to the piece, except `@step`. Return whether one of them comes from a library."""
        foreign = False
        for decorator in decorators:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            chains = read_chains(target)
            value = self._value(chains[0]) if chains else None
            if value is step:
                continue
            piece.text += f"@{syntax_text(decorator)}"
            self.refer(read_chains(decorator), piece, label="@", at_import=True)
            module = value.name if isinstance(value, ExternalName) else getattr(value, "__module__", None)
            foreign = foreign or (module is not None and self.context.is_package(str(module).partition(":")[0]))
        return foreign

    def _value(self, chain: Chain) -> Any:
        """Resolve a chain of names to its last attribute; None if that is unknown."""
        value = self._root(chain[0])
        for attribute in chain[1:]:
            if isinstance(value, ExternalName):
                return value
            value = vars(value).get(attribute) if isinstance(value, types.ModuleType) else None
        return None if value is _MISSING else value

    def _root(self, name: str) -> Any:
        if name in self.imported:
            return self.imported[name]
        if name in self.cells:
            return content_of(self.cells[name])
        return self.names.get(name, _MISSING)

    def resolved(self, chain: Chain, piece: ObjectDescription) -> list[Reference]:
        """Return references to what a chain of names leads to, through first-party modules; note what is unknowable."""
        name, *rest = chain
        value = self._root(name)
        if name in _TELLTALES and (name.startswith("__") or value is _MISSING):
            piece.notes.append(f"{name} ({_TELLTALES[name]})")
            return []
        piece.notes += [
            f"{'.'.join(chain)} ({_TELLTALES[part]})" for part in rest if part in ("__doc__", "__annotations__")
        ]
        if name in _OWN_NAMES:
            return []
        if value is _MISSING:
            if name == "globals":
                return [Reference(self.module, sys.modules.get(self.module))]
            return [] if hasattr(builtins, name) else [Reference(name, ExternalName(""))]
        key = (self.module, name) if name not in self.imported and name not in self.cells else None
        label = name
        while rest and isinstance(value, types.ModuleType) and self.context.is_first_party(value.__name__):
            key = value.__name__, rest[0]
            label = f"{label}.{rest[0]}"
            value = getattr(value, rest.pop(0), ExternalName(""))
        cell = id(self.cells[name]) if name in self.cells else None
        found = self.context.reference(label, value, key) if key else Reference(label, value, cell=cell)
        if not rest or not isinstance(value, (types.ModuleType, ExternalName)):
            return [found]
        home = found.value.name if isinstance(found.value, ExternalName) else str(vars(value)["__name__"])
        return [found, *self._within(value, rest, home, label, piece)]

    def _within(
        self, module: Any, rest: list[str], home: str, label: str, piece: ObjectDescription
    ) -> Iterator[Reference]:
        """Yield first-party code that stands in for a function of a foreign module; note what is unknowable."""
        piece.notes += unknowable_notes(".".join([home, *rest]))
        for attribute in rest:
            module = vars(module).get(attribute) if isinstance(module, types.ModuleType) else None
        own = home_of(module) if isinstance(module, types.FunctionType) else ""
        if self.context.is_first_party(own) and root_package(own) != root_package(home):
            yield Reference(".".join([label, *rest]), module)


def content_of(cell: types.CellType) -> Any:
    """Return what a closure's variable holds; a mark of its own if it is not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def unknowable_notes(name: str) -> list[str]:
    """Return notes on why the object behind `name` cannot be followed; empty if it can."""
    dotted = name.replace(":", ".")
    parts = dotted.split(".")
    names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return [f"{dotted} ({_UNKNOWABLE[prefix]})" for prefix in names if prefix in _UNKNOWABLE]


def external_name(context: Context, value: object) -> str:
    """Return the name of a foreign object that no import names."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.FunctionType):  # functools.wraps sets the name of the wrapped function
        return f"{root_package(home_of(value))}:{value.__code__.co_qualname}"
    named = value if hasattr(value, "__qualname__") else type(value)
    package = root_package(getattr(named, "__module__", None) or "builtins")
    return f"{'' if context.is_first_party(package) else package}:{named.__qualname__}"


def module_of(statement: Import, package: str) -> str:
    """Return the absolute name of an imported module. Raises ImportError if there is none."""
    return resolve_name("." * statement.level + statement.module, package) if statement.level else statement.module


def _imported(module: str) -> types.ModuleType:
    with contained():
        return import_module(module)
