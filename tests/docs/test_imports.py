"""Functions import only what is heavy or optional: everything else stands at the head of its module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "crucible_lineage"
FOLDERS = {PACKAGE: PACKAGE, "tasks": f"{PACKAGE}.tasks", "flows": f"{PACKAGE}.flows"}

# Libraries that cost over 5 % of the start of a command, and those of extras.
HEAVY = {"filelock", "google_crc32c", "httpx", "jinja2", "mcp", "networkx", "prefect", "pydantic", "resvg_py"}
HEAVY |= {"starlette", "uvicorn", "yaml"}
OPTIONAL = {"PIL", "h5py", "matplotlib", "numpy", "pandas", "pika", "prov", "pyarrow", "rocrate"}
# Modules of ours that cost as much: what registers, what starts processes, what reads the installed distributions.
ROOMS = {
    "pipeline.job.job",
    "pipeline.processes.supervised",
    "provenance.environment",
    "registration.deliver",
    "registration.register",
}
BOUNDARY = {
    "pipeline.processes.child": "which also makes results again, in environments that lack our packages",
    "cli": "the entry of all commands, of which --version imports none",
    "tasks.recording": "the hook, which records with it",
}

FILES = {
    ".".join((name, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__"): path
    for folder, name in FOLDERS.items()
    for path in (ROOT / folder).rglob("*.py")
    if "new" not in path.parts
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def imported(node: ast.AST) -> Iterator[str]:
    """Yield our module, or the library, that each name of an import statement comes from."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        yield next((part for part in (name, name.rpartition(".")[0]) if part in FILES), name.partition(".")[0])


def at_start(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that an import of the module executes."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from at_start(node.body)


@cache
def weight(module: str) -> frozenset[str]:
    """Return what is heavy among all that an import of the module imports."""
    seen: set[str] = set()
    left = [module]
    while left:
        if (name := left.pop()) in seen:
            continue
        seen.add(name)
        if name in TREES:
            left += [target for node in at_start(TREES[name].body) for target in imported(node)]
            left += [name.rpartition(".")[0]] if "." in name else []
    return frozenset(seen & (HEAVY | OPTIONAL | {f"{PACKAGE}.{room}" for room in ROOMS}))


def late() -> Iterator[tuple[str, int, str]]:
    """Yield module, line and target of each import in a function."""
    for module, tree in TREES.items():
        functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        for node in (inner for function in functions for inner in ast.walk(function)):
            yield from ((module, node.lineno, target) for target in imported(node))  # type: ignore[attr-defined]


def test_a_function_imports_a_module_of_ours_only_to_spare_a_heavy_library() -> None:
    exempt = {f"{PACKAGE}.{name}" for name in BOUNDARY}
    assert not {f"{FILES[module]}:{line} {target}" for module, line, target in late()
                if target in FILES and module not in exempt and not weight(target) - weight(module)}  # fmt: skip


def test_a_function_imports_a_library_only_if_it_is_heavy_or_optional() -> None:
    allowed = HEAVY | OPTIONAL | sys.stdlib_module_names
    assert not {f"{FILES[module]}:{line} {target}" for module, line, target in late()
                if target not in FILES and target not in allowed}  # fmt: skip


def test_a_worker_starts_without_pydantic() -> None:
    assert "pydantic" not in weight(f"{PACKAGE}.pipeline.plan.inspect")


def test_each_exemption_is_in_use() -> None:
    assert {module for module, _, target in late() if target in FILES} >= {f"{PACKAGE}.{name}" for name in BOUNDARY}
