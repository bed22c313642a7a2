"""The parsed text of a module: the definitions of its functions, and the statements that bind its names."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import linecache
import re
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Chain = tuple[str, ...]  # `np.linalg.norm` as ("np", "linalg", "norm")
Mutation = tuple[Chain, str | None]  # the names that lead to an object, and its attribute that is set (None: contents)

_cached_by_node = functools.lru_cache(maxsize=4096)  # trees do not change, and each step needs them again

_HINTS = frozenset({"annotation", "returns", "type_comment", "type_params"})
# Fields that follow from the rest of the tree, or exist only in some Python versions.
_SILENT = frozenset({"kind", "ctx", "type_ignores", "simple"})
_CHANGING_METHODS = re.compile(
    "add|append(left)?|clear|discard|extend(left)?|insert|pop(item|left)?|remove|reverse|rotate|setdefault|sort|update"
)
_BLOCKS = ast.stmt | ast.excepthandler | ast.match_case
_BUILDING_METHODS = frozenset({"__init__", "__new__", "__post_init__", "__set_name__", "__init_subclass__"})


@dataclass(frozen=True)
class Import:
    """An import of the name `bound`. `attribute` is None for a module; `level` counts leading dots."""

    bound: str
    module: str
    attribute: str | None
    level: int


@_cached_by_node
def syntax_text(node: ast.AST, *, hints: bool = False, skipped: frozenset[str] = frozenset()) -> str:
    """Return a tree as text, equal in all Python versions, without comments, docstrings, layout and (mostly) hints.

    `skipped` are fields of the node itself, or of its arguments.
    """
    spelled: list[str] = []
    _spell(node, spelled, frozenset() if hints else _HINTS, skipped)
    return "".join(spelled)


@_cached_by_node
def read_chains(node: ast.AST, *, hints: bool = False) -> tuple[Chain, ...]:
    """Return every name that is read, with the attributes that follow it, in text order."""
    chains: dict[Chain, None] = {}
    _read(node, chains, frozenset() if hints else _HINTS)
    return tuple(chains)


@_cached_by_node
def imports_of(node: ast.AST) -> tuple[Import, ...]:
    """Return all imports in a tree."""
    imports: list[Import] = []
    for child in ast.walk(node):
        if isinstance(child, ast.ImportFrom):
            imports += [
                Import(alias.asname or alias.name, child.module or "", alias.name, child.level) for alias in child.names
            ]
        elif isinstance(child, ast.Import):
            for alias in child.names:  # `import a.b` binds a, `import a.b as c` binds a.b
                imports.append(Import(alias.asname or alias.name.partition(".")[0], alias.name, None, 0))
    return tuple(imports)


@_cached_by_node
def changed_objects(node: ast.AST) -> tuple[Mutation, ...]:
    """Return the outer objects that code changes when it runs: `cache[key] = 1`, `global n; n += 1`."""
    declared = {
        name for child in ast.walk(node) if isinstance(child, ast.Global | ast.Nonlocal) for name in child.names
    }
    changes = (change for child in ast.walk(node) for change in _changes(child))
    return tuple((chain, attribute) for chain, attribute in changes if chain or attribute in declared)


@_cached_by_node
def changed_attributes(node: ast.ClassDef) -> frozenset[str]:
    """Return the attributes that a class's methods change after an instance has been built."""
    changed: set[str] = set()
    for method in node.body:
        if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) or method.name in _BUILDING_METHODS:
            continue
        arguments = [*method.args.posonlyargs, *method.args.args]
        receivers = {node.name, *(argument.arg for argument in arguments[:1])}
        for child in ast.walk(method):
            for chain, attribute in _changes(child):
                path = [*chain, *([attribute] if attribute else [])]
                if len(path) > 1 and path[0] in receivers:
                    changed.add(path[1])
    return frozenset(changed)


def _changes(node: ast.AST) -> Iterator[Mutation]:
    attribute: str | None = None
    target: ast.expr | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        target = node.func.value if _CHANGING_METHODS.fullmatch(node.func.attr) else None
    elif isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
        if isinstance(node, ast.Name):
            yield (), node.id
        if isinstance(node, ast.Attribute | ast.Subscript):
            attribute, target = getattr(node, "attr", None), node.value
    while isinstance(target, ast.Subscript):
        target, attribute = target.value, None
    if target is not None and (chain := _chain(target)):
        yield chain, attribute


def _chain(node: ast.expr) -> Chain:
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else ()


def _read(node: ast.AST, chains: dict[Chain, None], blind: frozenset[str]) -> None:
    if isinstance(node, (ast.Name, ast.Attribute)) and (chain := _chain(node)):
        chains[chain] = None
        return
    for name, value in ast.iter_fields(node):
        if name in blind:
            continue
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, ast.AST):
                _read(child, chains, blind)


def _spell(node: object, spelled: list[str], blind: frozenset[str], skipped: frozenset[str] = frozenset()) -> None:
    if isinstance(node, ast.Constant):
        constant = node.value
        is_whole = isinstance(constant, int) and not isinstance(constant, bool)
        spelled.append(f"{type(constant).__name__}:{format(constant, 'x') if is_whole else ascii(constant)}")
    elif isinstance(node, ast.ImportFrom):  # the object behind the name counts, not the name of its module
        spelled.append(f"ImportFrom({[(alias.name, alias.asname or alias.name) for alias in node.names]!a})")
    elif isinstance(node, ast.AST):
        spelled.append(type(node).__name__ + "(")
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = effective(value, fields=isinstance(node, ast.ClassDef))
            if name in blind or name in _SILENT or name in skipped or value is None or value == []:
                continue
            spelled.append(name + "=")
            _spell(value, spelled, blind, skipped if isinstance(value, ast.arguments) else frozenset())
            spelled.append(",")
        spelled.append(")")
    elif isinstance(node, list):
        spelled.append("[")
        for item in node:
            _spell(item, spelled, blind)
            spelled.append(",")
        spelled.append("]")
    else:
        spelled.append(ascii(node))


def effective(nodes: Sequence[ast.AST], *, fields: bool = False) -> list[ast.AST]:
    """Return the nodes with an effect: no docstrings, `pass` or bare `x: int`; in a class `x: int = 1` is a field."""
    effective: list[ast.AST] = []
    for node in nodes:
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.AnnAssign) and not fields:
            if node.value is None:
                continue
            node = ast.Assign([node.target], node.value)
        effective.append(node)
    return effective


_GLOBAL_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_CO_OPTIMIZED = 0x1  # set for functions, not for class bodies
_CO_HAS_DOCSTRING = 0x4000000  # Python 3.13 and later


class ModuleSource:
    """Text and syntax tree of a module. Raises SyntaxError for other texts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.imports: dict[str, list[Import]] = {}
        for item in imports_of(self.tree):
            self.imports.setdefault(item.bound, []).append(item)
        self.bindings: dict[str, list[ast.stmt]] = {}
        for name, statement in _bindings(self.tree.body):
            self.bindings.setdefault(name, []).append(statement)
        self.classes = dict(_classes(self.tree, ""))

    def definition(self, code: types.CodeType, *, rewritten: bool) -> FunctionNode | None:
        """Return the definition that compiles to `code`, of several the nearest; None without one, as after an edit.

        Of code that was `rewritten` when it was imported, return the only definition in its place.
        """
        named, essence = self._compiled.get(code.co_name, ()), _essence(code)
        same = [node for node, other in named if other == essence]
        if not same and rewritten:
            there = [node for node, _ in named if _first_line(node) == code.co_firstlineno]
            same = there if len(there) == 1 else []
        return min(same, key=lambda node: abs(_first_line(node) - code.co_firstlineno), default=None)

    @functools.cached_property
    def _compiled(self) -> dict[str, list[tuple[FunctionNode, object]]]:
        """Every function with its compiled code, by name.

        The text is compiled again with one line number per function, to distinguish lambdas on one line. The codes are
        from the first time, because line numbers affect which instructions are merged.
        """
        copy = ast.parse(self.text)
        original = _nested(_compile(copy))
        functions, numbered = _functions(self.tree), _functions(copy)
        for number, node in enumerate(numbered):
            for part in (node, *getattr(node, "decorator_list", ())):
                part.lineno = part.end_lineno = number + 1
                part.col_offset = part.end_col_offset = 0
        by_name: dict[str, list[tuple[FunctionNode, object]]] = {}
        for code, other in zip(original, _nested(_compile(copy)), strict=False):
            node = functions[min(other.co_firstlineno, len(functions)) - 1]
            if code.co_name == other.co_name == getattr(node, "name", "<lambda>"):
                by_name.setdefault(code.co_name, []).append((node, _essence(code)))
        return by_name

    def lines(self, node: FunctionNode) -> str:
        """Return the text of a definition, decorators included."""
        return "".join(self.text.splitlines(keepends=True)[_first_line(node) - 1 : node.end_lineno])


def module_source(filename: str) -> ModuleSource | None:
    """Return the current source of a code object's file name; None if there is none, or it is not Python."""
    linecache.checkcache(filename)
    lines = linecache.getlines(filename)
    return _parsed("".join(lines)) if lines else None


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> ModuleSource | None:
    try:
        return ModuleSource(text)
    except (SyntaxError, RecursionError):
        return None


@functools.lru_cache(maxsize=4096)
def loaded_globals(code: types.CodeType) -> frozenset[str]:
    """Return the global names that code reads, including its nested functions."""
    read = {step.argval for step in dis.get_instructions(code) if step.opname in _GLOBAL_READS}
    inner = (loaded_globals(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(read.union(*inner))


def bytecode_text(code: types.CodeType) -> str:
    """Return the text for code without source. It differs between Python versions."""
    return f"bytecode {hashlib.sha256(ascii(_essence(code)).encode()).hexdigest()}"


def root_package(module: str) -> str:
    """Return the first part of a module's name."""
    return module.partition(".")[0]


@functools.lru_cache(maxsize=4096)
def is_first_party(module: str, root: str) -> bool:
    """Return whether a module belongs to the step's own package, or lies outside all installation folders."""
    package = root_package(module)
    if package == root or package == "__main__":
        return True
    if not package or package in sys.stdlib_module_names or package == "crucible_lineage":
        return False
    base = base_folder(package)
    if base is None or {"site-packages", "dist-packages"} & set(base.parts) or _is_installed(package, base):
        return False
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return not any(base.is_relative_to(folder) for folder in [*folders, site.getusersitepackages()])


@functools.lru_cache(maxsize=1024)
def _is_installed(package: str, base: Path) -> bool:
    """Return whether a distribution beside the package lists it, as after `pip install --target`."""
    heads = (f"{package}/", f"{package}.py,")
    for record in base.glob("*.dist-info/RECORD"):
        with suppress(OSError), record.open(encoding="utf-8", errors="replace") as lines:
            if any(line.startswith(heads) for line in lines):
                return True
    return False


def base_folder(package: str) -> Path | None:
    """Return the folder that contains a top-level package or module; None if there is none."""
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


def _bindings(statements: Iterable[ast.AST]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each name that a module assigns with the statement, also under `if`, `try` and `with`."""
    for statement in statements:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
            yield from ((name, statement) for name in dict.fromkeys(names))
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _bindings(node for node in ast.iter_child_nodes(statement) if isinstance(node, _BLOCKS))


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        within = prefix
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            within = f"{prefix}{child.name}."
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            within = f"{prefix}{child.name}.<locals>."
        yield from _classes(child, within)


def _functions(tree: ast.Module) -> list[FunctionNode]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]


def _first_line(node: FunctionNode) -> int:
    return min(int(part.lineno) for part in (node, *getattr(node, "decorator_list", ())))


def _compile(tree: ast.Module) -> types.CodeType:
    compiled = compile(tree, "<fingerprint>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(compiled, types.CodeType)
    return compiled


def _nested(code: types.CodeType) -> list[types.CodeType]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [code for constant in inner for code in (constant, *_nested(constant))]


def _essence(code: types.CodeType) -> object:
    """Return the behaviour of code in this interpreter, without file, lines and docstring."""
    is_class = not code.co_flags & _CO_OPTIMIZED
    constants = list(code.co_consts)
    may_have_docstring = (
        code.co_flags & _CO_HAS_DOCSTRING if sys.version_info >= (3, 13) else not code.co_name.startswith("<")
    )
    if may_have_docstring and not is_class and constants and isinstance(constants[0], (str, type(None))):
        constants[0] = None
    if is_class:  # line numbers and the tuple of attribute names, whose order varies
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
        return frozenset, *sorted(ascii(_constant(item)) for item in value)
    return type(value), repr(value)
