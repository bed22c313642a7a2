"""Sizes: lines of modules and functions, and uses of `Any`."""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import grimp
from rooms import PACKAGE, read_house

__all__ = ["measured"]

Function = ast.FunctionDef | ast.AsyncFunctionDef
LARGEST = 14  # rooms whose lines are told one by one
OPEN = re.compile(r"\bAny\b")


def measured(tree: Path, graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """Return the measures with their values, in the order of the table."""
    files = {path: path.read_text(encoding="utf-8") for path in sources(tree / PACKAGE)}
    parsed = [ast.parse(text) for text in files.values()]
    module_lines = [text.count("\n") for text in files.values() if text.count("\n") > 1]
    function_lines = [lines for module in parsed for lines in _function_lines(module)]
    house, pipeline = read_house(graph), read_house(graph, f"{PACKAGE}.pipeline")
    by_room = Counter(dict.fromkeys(house.rooms, 0))
    for path, text in files.items():
        by_room[path.relative_to(tree / PACKAGE).parts[0].removesuffix(".py")] += text.count("\n")
    once = [name for name in graph.modules if len(graph.find_modules_that_directly_import(name)) == 1]
    return [
        ("rooms (folders and modules at the top)", str(len(house.rooms))),
        ("floors", str(house.floors)),
        ("arrows", str(len(house.arrows))),
        ("circles", _circles(house.circles)),
        ("rooms, arrows, circles within `pipeline`", _inner(pipeline.rooms, pipeline.arrows, pipeline.circles)),
        ("modules", str(len(files))),
        ("modules imported by exactly one other", str(len(once))),
        ("lines of a module, median / 90th percentile", _spread(module_lines)),
        ("lines of a function without its docstring, median / 90th percentile", _spread(function_lines)),
        ("`Any`, imports counted", str(sum(len(OPEN.findall(text)) for text in files.values()))),
        ("lines", f"{sum(by_room.values()):,}"),
        ("lines by room", _by_room(by_room.most_common())),
    ]


def sources(package: Path) -> list[Path]:
    """Return all modules in order, including those behind symbolic links."""
    found = []
    for path in sorted(package.iterdir()):
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.suffix == ".py" else []
    return found


def _function_lines(module: ast.Module) -> Iterator[int]:
    for node in ast.walk(module):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            said = body[0].lineno - node.body[0].lineno if body and body is not node.body else 0
            yield (node.end_lineno or node.lineno) - node.lineno + 1 - said if body else 1


def _by_room(ranked: Sequence[tuple[str, int]]) -> str:
    """Return the largest rooms one by one, and the others together."""
    named, rest = ranked[:LARGEST], ranked[LARGEST:]
    told = ", ".join(f"{room} {lines:,}" for room, lines in named)
    return f"{told}; {len(rest)} smaller ones {sum(lines for _, lines in rest):,}" if rest else told


def _spread(values: Sequence[int]) -> str:
    return f"{statistics.median(values):g} / {statistics.quantiles(values, n=10)[-1]:.0f}"


def _circles(circles: Sequence[Sequence[str]]) -> str:
    return "; ".join(" ⇄ ".join(circle) for circle in circles) or "none"


def _inner(rooms: Sequence[str], arrows: Iterable[object], circles: Sequence[Sequence[str]]) -> str:
    return f"{len(rooms)}, {len(list(arrows))}, {_circles(circles)}"
