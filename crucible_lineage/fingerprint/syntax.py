"""Canonical text of syntax trees, and the names that they read, import and change. Pure: trees in, values out."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Chain = tuple[str, ...]  # `np.linalg.norm` as ("np", "linalg", "norm")

_cached_by_node = functools.lru_cache(maxsize=4096)  # trees do not change, and each step needs them again

_HINTS = frozenset({"annotation", "returns", "type_comment", "type_params"})
# Fields that follow from the rest of the tree, or exist only in some Python versions.
_SILENT = frozenset({"kind", "ctx", "type_ignores", "simple"})
_CHANGING_METHODS = re.compile(
    "add|append(left)?|clear|discard|extend(left)?|insert|pop(item|left)?|remove|reverse|rotate|setdefault|sort|update"
)
_BUILDING_METHODS = frozenset({"__init__", "__new__", "__post_init__", "__set_name__", "__init_subclass__"})


@dataclass(frozen=True)
class Import:
    """An import of the name `bound`. `attribute` is None for a module; `level` counts leading dots."""

    bound: str
    module: str
    attribute: str | None
    level: int


@dataclass(frozen=True)
class Mutation:
    """A change of an object: the names that lead to it, and the attribute that is set (None: its contents)."""

    chain: Chain
    attribute: str | None


def syntax_text(node: ast.AST) -> str:
    """Return a tree as text, equal in all Python versions, without comments, docstrings, layout and (mostly) hints."""
    spelled: list[str] = []
    _spell(node, spelled, _HINTS)
    return "".join(spelled)


@_cached_by_node
def function_text(node: FunctionNode, *, with_defaults: bool = True, hints: bool = False) -> str:
    """Return the arguments and the body of a function as text, without name and decorators."""
    blind = frozenset() if hints else _HINTS
    kind = "async" if isinstance(node, ast.AsyncFunctionDef) else "def"
    body = node.body if isinstance(node.body, list) else [ast.Return(node.body)]
    spelled = [kind]
    _spell(node.args, spelled, blind if with_defaults else blind | {"defaults", "kw_defaults"})
    if hints and not isinstance(node, ast.Lambda):
        _spell(node.returns, spelled, blind)
    _spell(_effective(body), spelled, blind)
    return "".join(spelled)


def class_text(node: ast.ClassDef) -> str:
    """Return a class's body with type hints as text, for classes that a library builds from these."""
    spelled: list[str] = []
    _spell(_effective(node.body, fields=True), spelled, frozenset())
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
    return tuple(change for change in changes if change.chain or change.attribute in declared)


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
            for change in _changes(child):
                path = [*change.chain, *([change.attribute] if change.attribute else [])]
                if len(path) > 1 and path[0] in receivers:
                    changed.add(path[1])
    return frozenset(changed)


def _changes(node: ast.AST) -> Iterator[Mutation]:
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _CHANGING_METHODS.fullmatch(node.func.attr)
    ):
        yield from _change_of(node.func.value, None)
    elif isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
        if isinstance(node, ast.Attribute):
            yield from _change_of(node.value, node.attr)
        elif isinstance(node, ast.Subscript):
            yield from _change_of(node.value, None)
        elif isinstance(node, ast.Name):
            yield Mutation((), node.id)


def _change_of(target: ast.expr, attribute: str | None) -> Iterator[Mutation]:
    while isinstance(target, ast.Subscript):
        target, attribute = target.value, None
    chain = _chain(target)
    if chain:
        yield Mutation(chain, attribute)


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


def _spell(node: object, spelled: list[str], blind: frozenset[str]) -> None:
    if isinstance(node, ast.Constant):
        spelled.append(_literal(node.value))
    elif isinstance(node, ast.ImportFrom):  # the object behind the name counts, not the name of its module
        spelled.append(f"ImportFrom({[(alias.name, alias.asname or alias.name) for alias in node.names]!a})")
    elif isinstance(node, ast.AST):
        spelled.append(type(node).__name__ + "(")
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = _effective(value, fields=isinstance(node, ast.ClassDef))
            if name in blind or name in _SILENT or value is None or value == []:
                continue
            spelled.append(name + "=")
            _spell(value, spelled, blind if isinstance(node, ast.arguments) else blind - {"defaults", "kw_defaults"})
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


def _effective(nodes: Sequence[ast.AST], *, fields: bool = False) -> list[ast.AST]:
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


def _literal(value: object) -> str:
    text = format(value, "x") if isinstance(value, int) and not isinstance(value, bool) else ascii(value)
    return f"{type(value).__name__}:{text}"
