"""The text of a module, parsed once: which part of it a running function was compiled from, and what binds a name."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import linecache
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crucible_lineage.fingerprint.syntax import FunctionNode, Import, imports_of

_GLOBAL_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_CO_OPTIMIZED = 0x1  # set for functions, not for class bodies
_CO_HAS_DOCSTRING = 0x4000000  # Python 3.13 and later


@dataclass(frozen=True)
class Definition:
    """A function or lambda in a module's text, with the lines that it takes up, decorators included."""

    node: FunctionNode
    first_line: int
    last_line: int


class ModuleSource:
    """A module's text and its tree. SyntaxError if it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.imports: dict[str, list[Import]] = {}
        for found in imports_of(self.tree):
            self.imports.setdefault(found.bound, []).append(found)
        self.bindings = _bindings(self.tree.body)
        self._classes = dict(_classes(self.tree, ""))

    def definition(self, code: types.CodeType) -> Definition | None:
        """Return the definition that gave `code`; None if this text does not give it, as after an edit.

        Positions decide only between definitions that do exactly the same.
        """
        essence = _essence(code)
        same = [found for found, known in self._compiled.get(code.co_name, ()) if known == essence]
        return min(same, key=lambda found: abs(found.first_line - code.co_firstlineno), default=None)

    def definition_there(self, code: types.CodeType) -> Definition | None:
        """Return the definition in the place that `code` came from, if it is just one."""
        named = self._compiled.get(code.co_name, ())
        there = [found for found, _ in named if found.first_line == code.co_firstlineno]
        return there[0] if len(there) == 1 else None

    @functools.cached_property
    def _compiled(self) -> dict[str, list[tuple[Definition, object]]]:
        return _compiled(self.text)

    def class_node(self, qualname: str) -> ast.ClassDef | None:
        """The class of that name; the last one if there are several."""
        return self._classes.get(qualname)

    def lines(self, definition: Definition) -> str:
        """The text of a definition."""
        return "".join(self.text.splitlines(keepends=True)[definition.first_line - 1 : definition.last_line])


def module_source(filename: str) -> ModuleSource | None:
    """The text behind a code object's file name, as it is now; None if there is none or it is no Python."""
    linecache.checkcache(filename)
    lines = linecache.getlines(filename)
    return _parsed("".join(lines)) if lines else None


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> ModuleSource | None:
    try:
        return ModuleSource(text)
    except (SyntaxError, RecursionError):
        return None


def is_plainly_loaded(module_globals: dict[str, Any]) -> bool:
    """True if a module was compiled from its file as it stands, without an import hook that changes code."""
    return type(module_globals.get("__loader__")) is SourceFileLoader


@functools.lru_cache(maxsize=4096)
def loaded_globals(code: types.CodeType) -> frozenset[str]:
    """The global names that code reads, also in the functions nested in it."""
    read = {step.argval for step in dis.get_instructions(code) if step.opname in _GLOBAL_READS}
    inner = (loaded_globals(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(read.union(*inner))


def bytecode_text(code: types.CodeType) -> str:
    """Return what stands for code whose source is not available. Other Python versions have another one."""
    return f"bytecode {hashlib.sha256(_ordered(_essence(code)).encode()).hexdigest()}"


def root_package(module: str) -> str:
    """The first part of a module's name."""
    return module.partition(".")[0]


@functools.lru_cache(maxsize=4096)
def is_first_party(module: str, root: str) -> bool:
    """True for code of the step's own package, and for modules that lie outside every installation folder."""
    package = root_package(module)
    if package == root or package == "__main__":
        return True
    if not package or package in sys.stdlib_module_names or package == "crucible_lineage":
        return False
    place = base_folder(package)
    if place is None or {"site-packages", "dist-packages"} & set(place.parts) or _is_installed(package, place):
        return False
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return not any(place.is_relative_to(folder) for folder in [*folders, site.getusersitepackages()])


@lru_cache(maxsize=1024)
def _is_installed(package: str, place: Path) -> bool:
    """True if a distribution beside the package lists it among its files, as after `pip install --target`."""
    heads = (f"{package}/", f"{package}.py,")
    for record in place.glob("*.dist-info/RECORD"):
        with suppress(OSError), record.open(encoding="utf-8", errors="replace") as lines:
            if any(line.startswith(heads) for line in lines):
                return True
    return False


def base_folder(package: str) -> Path | None:
    """The folder that a top-level package or module lies in; None if it lies in none."""
    loaded = sys.modules.get(package)
    file = getattr(loaded, "__file__", None)
    portions = list(getattr(loaded, "__path__", ()))
    if loaded is None:
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec and spec.has_location else None
        portions = list(spec.submodule_search_locations or ()) if spec else []
    if portions:
        return Path(portions[0]).parent
    return Path(file).parent if file else None


def _bindings(statements: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """The assignments to each name of a module, also under `if`, `try` and `with`."""
    bindings: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
            targets = [statement.target]
        names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        for name in dict.fromkeys(names):
            bindings.setdefault(name, []).append(statement)
        if isinstance(statement, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            inner = [child for field in ("body", "orelse", "finalbody") for child in getattr(statement, field, [])]
            handled = [child for handler in getattr(statement, "handlers", []) for child in handler.body]
            for name, found in _bindings([*inner, *handled]).items():
                bindings.setdefault(name, []).extend(found)
    return bindings


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            yield from _classes(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _classes(child, f"{prefix}{child.name}.<locals>.")
        else:
            yield from _classes(child, prefix)


def _compiled(text: str) -> dict[str, list[tuple[Definition, object]]]:
    """Every function in a text with what it compiles to, by name.

    The text is compiled a second time with a line number of its own for each function, so that lambdas on one line can
    be told apart; only a second time, because lines also decide which instructions are merged.
    """
    tree = ast.parse(text)
    original = _nested(_compile(tree))
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    definitions = [_definition(node) for node in functions]
    for number, node in enumerate(functions):
        for part in (node, *getattr(node, "decorator_list", ())):
            part.lineno = part.end_lineno = number + 1
            part.col_offset = part.end_col_offset = 0
    by_name: dict[str, list[tuple[Definition, Any]]] = {}
    for code, numbered in zip(original, _nested(_compile(tree)), strict=False):
        found = definitions[min(numbered.co_firstlineno, len(definitions)) - 1]
        if code.co_name == numbered.co_name == getattr(found.node, "name", "<lambda>"):
            by_name.setdefault(code.co_name, []).append((found, _essence(code)))
    return by_name


def _definition(node: FunctionNode) -> Definition:
    first_line = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", ()))])
    return Definition(node, first_line, node.end_lineno or node.lineno)


def _compile(tree: ast.Module) -> types.CodeType:
    compiled = compile(tree, "<fingerprint>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(compiled, types.CodeType)
    return compiled


def _nested(code: types.CodeType) -> list[types.CodeType]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [found for constant in inner for found in (constant, *_nested(constant))]


def _essence(code: types.CodeType) -> object:
    """Return what code does in this interpreter, without its file, its lines and its docstring."""
    is_class = not code.co_flags & _CO_OPTIMIZED
    constants = list(code.co_consts)
    may_have_docstring = (
        code.co_flags & _CO_HAS_DOCSTRING if sys.version_info >= (3, 13) else not code.co_name.startswith("<")
    )
    if may_have_docstring and not is_class and constants and isinstance(constants[0], (str, type(None))):
        constants[0] = None
    if is_class:  # line numbers and the tuple of attribute names, which comes in any order
        constants = [item for item in constants if not isinstance(item, (int, tuple))]
    return (
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        code.co_flags & ~_CO_HAS_DOCSTRING,
        tuple(_constant(item) for item in constants),
    )


def _constant(value: object) -> object:
    if isinstance(value, types.CodeType):
        return _essence(value)
    if isinstance(value, tuple):
        return tuple(_constant(item) for item in value)
    if isinstance(value, frozenset):
        return frozenset(_constant(item) for item in value)
    return type(value), repr(value)


def _ordered(value: object) -> str:
    if isinstance(value, tuple):
        return f"({','.join(_ordered(item) for item in value)})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(_ordered(item) for item in value))}}}"
    return ascii(value)
