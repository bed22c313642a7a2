"""What a function is made of: its tree, what its names stand for, defaults, decorators, and what imports bring in."""

from __future__ import annotations

import ast
import builtins
import functools
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import resolve_name
from typing import Any

from crucible_lineage.fingerprint.contained import contained
from crucible_lineage.fingerprint.model import Context, ExternalName, ObjectDescription, Reference
from crucible_lineage.fingerprint.source import (
    Definition,
    bytecode_text,
    is_plainly_loaded,
    loaded_globals,
    root_package,
)
from crucible_lineage.fingerprint.syntax import (
    Chain,
    FunctionNode,
    Import,
    changed_objects,
    function_text,
    imports_of,
    read_chains,
    syntax_text,
)
from crucible_lineage.step import Step, step

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


_UNKNOWABLE = {
    "importlib": "code that is known only when it runs",
    "runpy": "code that is known only when it runs",
    "sys.modules": "code that is known only when it runs",
    "pickle.load": "code that lies in data",
    "pickle.loads": "code that lies in data",
    "ctypes": "compiled code",
    "subprocess": "another program",
    "os.system": "another program",
    "os.popen": "another program",
    "os.environ": "the environment, which is no part of the identity",
    "os.getenv": "the environment, which is no part of the identity",
    "inspect.getsource": "the text of code",
    "typing.get_type_hints": "type hints, which are no part of the identity",
    "inspect.get_annotations": "type hints, which are no part of the identity",
}


def function_piece(
    context: Context, function: types.FunctionType, key: tuple[str, str] | None, *, with_defaults: bool
) -> ObjectDescription:
    """The piece of a function. Without `with_defaults` the defaults of its parameters do not count."""
    if not context.is_first_party(home_of(function)):
        return _foreign(context, function, key)
    piece = ObjectDescription()
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
    scope: CodeScope, function: types.FunctionType, node: FunctionNode, piece: ObjectDescription, with_defaults: bool
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


def _note_changes(scope: CodeScope, function: types.FunctionType, node: FunctionNode, piece: ObjectDescription) -> None:
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


def _foreign(context: Context, function: types.FunctionType, key: tuple[str, str] | None) -> ObjectDescription:
    """A library's function, with the code of ours that it wraps or was given."""
    name = external_name(context, function, key)
    piece = ObjectDescription(f"external {name}", notes=unknowable_notes(name))
    scope = CodeScope(context, home_of(function), {}, _cells(function))
    scope.refer([(name,) for name in sorted(scope.cells)], piece)
    piece.references += [Reference(f".{name}", value) for name, value in sorted(vars(function).items())]
    piece.references = [part for part in piece.references if carries_code(context, part.value)]
    if context.is_package(home_of(function)):
        piece.packages.add(home_of(function).partition(".")[0])
    return piece


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

    def add_imports(self, node: ast.AST, piece: ObjectDescription) -> None:
        """The names that imports in the code bind are known; those that fail are noted."""
        package = self.known.get("__package__") or ""
        for found in imports_of(node):
            try:
                value = imported_value(self.context, found, package)
            except Exception as error:  # whatever the imported module raises
                piece.notes.append(f"import {found.module or found.attribute} ({type(error).__name__} when imported)")
                continue
            self.imported[found.bound] = value
            if isinstance(value, ExternalName):
                piece.references.append(Reference(found.bound, value))

    def refer(
        self, chains: Iterable[Chain], piece: ObjectDescription, *, label: str = "", at_import: bool = False
    ) -> None:
        """The piece refers to what these names stand for, each once."""
        labels = {reference.label for reference in piece.references}
        for chain in chains:
            for found in self._resolved(chain, piece):
                if label + found.label not in labels:
                    labels.add(label + found.label)
                    piece.references.append(replace(found, label=label + found.label, at_import=at_import))

    def decorate(self, decorators: Iterable[ast.expr], piece: ObjectDescription) -> bool:
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
            module = value.name if isinstance(value, ExternalName) else getattr(value, "__module__", None)
            foreign = foreign or (module is not None and self.context.is_package(str(module).partition(":")[0]))
        return foreign

    def target(self, chain: Chain) -> Reference | None:
        """Resolve a chain of names, as far as it leads through our own modules."""
        return next(
            (found for found in self._resolved(chain, ObjectDescription()) if found.value is not _MISSING), None
        )

    def _value(self, chain: Chain) -> Any:
        """Resolve a chain of names to its last attribute; None if that is not known."""
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
            return _content(self.cells[name])
        return self.known.get(name, _MISSING)

    def _resolved(self, chain: Chain, piece: ObjectDescription) -> list[Reference]:
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
            return [] if hasattr(builtins, name) else [Reference(name, ExternalName(""))]
        key = (self.module, name) if name not in self.imported and name not in self.cells else None
        label = name
        while rest and isinstance(value, types.ModuleType) and self.context.is_first_party(value.__name__):
            key = value.__name__, rest[0]
            label = f"{label}.{rest[0]}"
            value = getattr(value, rest.pop(0), ExternalName(""))
        found = [Reference(label, value, key, cell=id(self.cells.get(name)) if name in self.cells else None)]
        if rest and isinstance(value, (types.ModuleType, ExternalName)):
            found += self._foreign(found[0], rest, piece)
        for attribute in rest:
            if attribute in ("__doc__", "__annotations__"):
                piece.notes.append(f"{'.'.join(chain)} ({_TELLTALES[attribute]})")
        return found

    def _foreign(self, module: Reference, rest: list[str], piece: ObjectDescription) -> list[Reference]:
        """Resolve a chain through a foreign module that leads to code of ours; notes what is unknowable."""
        dotted = f"{external_name(self.context, module.value, module.key)}.{'.'.join(rest)}"
        if isinstance(module.value, ExternalName):
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


def unknowable_notes(name: str) -> list[str]:
    """A note that says why what `name` stands for cannot be followed; none if nothing speaks against it."""
    dotted = name.replace(":", ".")
    parts = dotted.split(".")
    names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return [f"{dotted} ({_UNKNOWABLE[found]})" for found in names if found in _UNKNOWABLE]


def written_name(context: Context, value: object, key: tuple[str, str] | None) -> str | None:
    """The name under which something that is not ours is imported; None if no import gave it.

    That name is the same on every platform and for every version of a library; the place of definition is not.
    """
    for _ in range(8):  # through first-party modules that pass it on
        found = _written_import(context, value, key) if key else None
        if found is None or found.attribute is None or not context.is_first_party(found.module):
            break
        key = found.module, found.attribute
    if found is None or context.is_first_party(found.module):
        return None
    return found.module if found.attribute is None else f"{found.module}:{found.attribute}"


def external_name(context: Context, value: object, key: tuple[str, str] | None) -> str:
    """The name of something that is not ours, if possible as the importing module writes it."""
    if written := written_name(context, value, key):
        return written
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.FunctionType):  # functools.wraps gives it the name of what it wraps
        return f"{root_package(value.__globals__.get('__name__', ''))}:{value.__code__.co_qualname}"
    named = value if hasattr(value, "__qualname__") else type(value)
    package = root_package(getattr(named, "__module__", None) or "builtins")
    return f"{'' if context.is_first_party(package) else package}:{named.__qualname__}"


def module_of(found: Import, package: str) -> str:
    """The absolute name of the module that an import names. ImportError if there is none."""
    return resolve_name("." * found.level + found.module, package) if found.level else found.module


def imported_value(context: Context, found: Import, package: str) -> Any:
    """Return what an import inside a function binds: our own module or object, or the name of a foreign one."""
    module = module_of(found, package)
    if not context.is_first_party(module):
        if found.attribute is not None:
            return ExternalName(f"{module}:{found.attribute}")
        return ExternalName(module if found.bound != root_package(module) else root_package(module))
    loaded = _imported(module)
    if found.attribute is None:
        return loaded if found.bound != root_package(module) else sys.modules[root_package(module)]
    if hasattr(loaded, found.attribute):
        return getattr(loaded, found.attribute)
    return _imported(f"{module}.{found.attribute}")


def _imported(module: str) -> types.ModuleType:
    with contained():
        return import_module(module)


def imported_files(context: Context, modules: Iterable[str]) -> set[str]:
    """The files of these modules and of all first-party modules that they import, directly or not."""
    waiting, seen, files = list(modules), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or not context.is_first_party(name):
            continue
        seen.add(name)
        if name.rpartition(".")[0]:
            waiting.append(name.rpartition(".")[0])
        if file := getattr(module, "__file__", None):
            files.add(file)
        source = context.module_source(name)
        for found in (item for items in source.imports.values() for item in items) if source else ():
            try:
                absolute = module_of(found, _package(module))
            except ImportError:
                continue
            waiting += [absolute, f"{absolute}.{found.attribute}"]
    return files


def _written_import(context: Context, value: object, key: tuple[str, str]) -> Import | None:
    """The import statement that gave a module's global this value; None if none did, or it was replaced since."""
    module = sys.modules.get(key[0])
    source = context.module_source(key[0])
    for found in source.imports.get(key[1], ()) if source and module else ():
        try:
            absolute = module_of(found, _package(module))
        except ImportError:
            continue
        loaded = sys.modules.get(absolute)
        if found.attribute is None:
            bound = absolute if found.bound != root_package(absolute) else root_package(absolute)
            if sys.modules.get(bound) is value:
                return Import(found.bound, bound, None, 0)
        elif getattr(loaded, found.attribute, _MISSING) is value:
            return Import(found.bound, absolute, found.attribute, 0)
    return None


def _package(module: object) -> str:
    spec = getattr(module, "__spec__", None)
    return getattr(module, "__package__", None) or getattr(spec, "parent", None) or ""
