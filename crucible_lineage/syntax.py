"""Source code as a tree in one spelling, and the names it refers to: the ground that fingerprints stand on."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import linecache
import sys
import sysconfig
import types
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

__all__ = [
    "bytecode_text",
    "class_tree",
    "code_tree",
    "global_names",
    "imported_names",
    "is_first_party",
    "method_names",
    "module_chains",
    "read_names",
    "root_package",
    "syntax_text",
]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
# Fields that do not change what code does, or that only some Python versions have.
_BLIND = frozenset({"annotation", "returns", "type_comment", "kind", "ctx", "type_params", "type_ignores"})


def root_package(module: str) -> str:
    """The first part of a module's name."""
    return module.partition(".")[0]


@functools.cache
def is_first_party(module: str, root: str) -> bool:
    """True for code of the step's own package, and for modules that lie outside every installation folder."""
    package = root_package(module)
    if package == root:
        return True
    if package in sys.stdlib_module_names or package == "crucible_lineage":
        return False
    loaded = sys.modules.get(package)
    origin = getattr(loaded, "__file__", None) or (getattr(loaded, "__path__", None) or [None])[0]
    if origin is None:
        return False
    folders = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return not any(Path(origin).is_relative_to(folder) for folder in folders)


def code_tree(code: types.CodeType) -> FunctionNode | None:
    """The tree of the function or lambda that `code` was compiled from; None if its source is not to be had."""
    module = _module_tree(code.co_filename)
    if module is None:
        return None
    for node in ast.walk(module):
        if isinstance(node, ast.Lambda):
            if code.co_name == "<lambda>" and node.lineno == code.co_firstlineno:
                return node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    return None


def class_tree(cls: type) -> ast.ClassDef | None:
    """The tree of a class; None if its source is not to be had."""
    filename = getattr(sys.modules.get(cls.__module__), "__file__", None)
    module = _module_tree(filename) if filename else None
    node: ast.AST | None = module
    for part in cls.__qualname__.split("."):
        if part == "<locals>" or node is None:
            return None
        node = next((child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part), None)
    return node if isinstance(node, ast.ClassDef) else None


def syntax_text(node: ast.AST, *, with_defaults: bool = True) -> str:
    """A tree in one spelling, the same for all Python versions, blind to what does not change behaviour.

    The outermost name is left out; so are the outermost defaults unless `with_defaults`.
    """
    blind = {"name"} if with_defaults else {"name", "defaults", "kw_defaults"}
    return "".join(_spell(node, frozenset(blind)))


def global_names(tree: FunctionNode, code: types.CodeType) -> list[str]:
    """The global and closure names that the code reads, and what it imports from first-party modules, in text order."""
    wanted = set(_loaded_globals(code))
    names = [node.id for node in _seeing(tree) if isinstance(node, ast.Name) and node.id in wanted]
    return list(dict.fromkeys(names))


def module_chains(tree: ast.AST) -> list[tuple[str, str]]:
    """Each `name.attribute` in the tree, in text order."""
    chains = [
        (node.value.id, node.attr)
        for node in _seeing(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    return list(dict.fromkeys(chains))


def method_names(tree: ast.ClassDef) -> list[str]:
    """The names of the functions defined in a class's body."""
    return [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def read_names(tree: ast.AST) -> list[str]:
    """Every name in the tree, in text order."""
    return list(dict.fromkeys(node.id for node in _seeing(tree) if isinstance(node, ast.Name)))


def imported_names(tree: ast.AST, package: str) -> list[tuple[str, str | None]]:
    """What code imports when it runs: (module, name or None); `package` is where relative imports start."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            name = resolve_name(module, package) if node.level else module
            found += [(name, alias.name) for alias in node.names]
    return found


def bytecode_text(code: types.CodeType) -> str:
    """What stands for code without source: its bytecode, which other Python versions spell otherwise."""
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, [c for c in code.co_consts if not isinstance(c, types.CodeType)])).encode())
    for inner in (c for c in code.co_consts if isinstance(c, types.CodeType)):
        digest.update(bytecode_text(inner).encode())
    return f"bytecode {digest.hexdigest()}"


def _seeing(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that can change behaviour, depth first, in text order; type hints are passed over."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in _BLIND:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _seeing(child)


def _loaded_globals(code: types.CodeType) -> Iterator[str]:
    yield from code.co_freevars
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _loaded_globals(constant)


def _module_tree(filename: str) -> ast.Module | None:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename)
    return _parse("".join(lines)) if lines else None


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _spell(node: object, blind: frozenset[str] = frozenset()) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield f"{type(node.value).__name__}:{node.value!r}"
    elif isinstance(node, ast.AST):
        yield type(node).__name__ + "("
        for name in node._fields:
            value = getattr(node, name, None)
            if name in _BLIND or name in blind or value is None or value == []:
                continue
            if name == "body" and isinstance(value, list):
                value = _without_docstring(value)
            elif name == "decorator_list":
                value = [decorator for decorator in value if not _is_step_decorator(decorator)]
            yield name + "="
            yield from _spell(value, blind - {"name"} if name == "args" else frozenset())
            yield ","
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _spell(item)
            yield ","
        yield "]"
    else:
        yield repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def _is_step_decorator(node: ast.expr) -> bool:
    """True for `@step` and `@step(...)`: what they declare enters the identity by other ways, or not at all."""
    target = node.func if isinstance(node, ast.Call) else node
    return (target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)) == "step"
