"""Rooms and arrows: which parts of the package import which, read from its code."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import grimp
import networkx

__all__ = ["PACKAGE", "House", "installed_tree", "read_house", "room_of"]

PACKAGE = "crucible_lineage"
ROOT = Path(__file__).parents[2]
PARTS = ("crucible_lineage", "tasks", "flows")
SPANNING = ("standing", "statements")  # rooms whose modules lie on several floors; each module is shown where it stands


@dataclass(frozen=True)
class House:
    """The children of one package (modules and folders) as rooms, and which of them imports which.

    `arrows` are pairs (importer, imported), once each however many imports there are.
    """

    rooms: tuple[str, ...]
    arrows: frozenset[tuple[str, str]]

    @cached_property
    def graph(self) -> networkx.DiGraph[str]:
        """The arrows as a graph."""
        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_nodes_from(self.rooms)
        graph.add_edges_from(sorted(self.arrows))
        return graph

    @property
    def floors(self) -> int:
        """The number of rooms in the longest chain of imports, with a circle counted as one."""
        return int(networkx.dag_longest_path_length(networkx.condensation(self.graph))) + 1

    @property
    def circles(self) -> list[list[str]]:
        """Rooms that import each other in a circle."""
        return sorted(sorted(part) for part in networkx.strongly_connected_components(self.graph) if len(part) > 1)


@contextmanager
def installed_tree(revision: str | None = None) -> Iterator[Path]:
    """Yield a folder with the package as installed, with tasks and flows: the current one, or a git revision."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = ROOT
        if revision is not None:
            archive = subprocess.check_output(["git", "archive", "--format=tar", revision, *PARTS], cwd=ROOT)
            source = folder / "source"
            with tarfile.open(fileobj=BytesIO(archive)) as packed:
                packed.extractall(source, filter="data")
        package = folder / "tree" / PACKAGE
        package.mkdir(parents=True)
        inner = [path for path in (source / PACKAGE).iterdir() if path.name != "__pycache__"]
        for path in (*inner, source / "tasks", source / "flows"):
            (package / path.name).symlink_to(path)
        yield package.parent


def import_graph(tree: Path) -> grimp.ImportGraph:
    """Return all imports of the package in `tree`, which this process must not have imported before."""
    assert PACKAGE not in sys.modules, "the graph would be that of the imported package"
    sys.path.insert(0, str(tree))
    try:
        return grimp.build_graph(PACKAGE, cache_dir=None)
    finally:
        sys.path.remove(str(tree))


def room_of(module: str, container: str) -> str | None:
    """Return the child of `container` with the module; None for outside modules."""
    if not module.startswith(container + "."):
        return None
    names = module[len(container) + 1 :].split(".")
    return "/".join(names[:2] if names[0] in SPANNING else names[:1])


def read_house(graph: grimp.ImportGraph, container: str = PACKAGE) -> House:
    """Return the rooms of one package."""
    rooms = sorted({room for module in graph.modules if (room := room_of(module, container)) not in (None, *SPANNING)})
    arrows = set()
    for module in graph.modules:
        room = room_of(module, container)
        for imported in graph.find_modules_directly_imported_by(module) if room else ():
            other = room_of(imported, container)
            if room and other and other != room:
                arrows.add((room, other))
    return House(tuple(rooms), frozenset(arrows))
