"""Draws lineages of 3 to 10,000 datasets as SVG, PNG and page, to be looked at; the same data, the same pictures.

    python docs/lineages.py FOLDER

`beamtime-N` is a laboratory: samples, scans, what each scan goes through, and summaries over samples. `tangle-N` is the
worst there is: each dataset has two or three parents drawn at random and a step of its own, so that nothing folds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.svg import render_png, render_svg

SIZES = (3, 30, 300, 3_000, 10_000)
STEPS = (  # what a scan goes through: step, what it makes, and whether only some scans get as far
    ("flat_field", "tomography", "corrected projections"),
    ("reconstruct", "tomography", "volume"),
    ("segment", "segmentation", "label map"),
    ("measure_pores", "pore statistics", "table"),
)
STATES = ("complete", "complete", "complete", "complete", "complete", "complete", "complete", "incomplete")


def beamtime(size: int) -> LineageGraph:
    """Create scans of some samples with their darks, processed as far as `size` datasets and samples allow."""
    return LineageGraph(*_limited(_beamtime(random.Random(size)), size))


def tangle(size: int) -> LineageGraph:
    """Create datasets that each descend from two or three of the thirty before."""
    chance = random.Random(size)
    nodes, edges = [], []
    for n in range(size):
        nodes.append(Node(_id(n), "dataset", f"result {n}", f"kind {n % 7}", state="complete", step=f"step {n}"))
        parents = sorted({chance.randrange(max(0, n - 30), n) for _ in range(3)}) if n else []
        edges += [Edge(_id(parent), _id(n)) for parent in parents]
    return LineageGraph(nodes, edges)


def _beamtime(chance: random.Random) -> Iterator[tuple[Node, list[tuple[str, str]]]]:
    """Yield nodes with their links to parents, (id, relationship), one sample after the other."""
    number = 0

    def node(kind: str, name: str, measurement: str, data_type: str, step: str = "") -> Node:
        nonlocal number
        number += 1
        state = chance.choice(STATES) if step else ""
        return Node(_id(number), kind, name, measurement, data_type, "beamtime", state, step)  # type: ignore[arg-type]

    sample_number = 0
    while True:
        sample_number += 1
        sample = node("sample", f"sandstone core {sample_number}", "", "rock core")
        yield sample, []
        dark = node("dataset", f"dark field {sample_number}", "dark field", "frames")
        yield dark, []
        tables = []
        for scan_number in range(1, chance.choice((2, 3, 6, 12)) + 1):
            name = f"core {sample_number}, scan {scan_number}"
            scan = node("dataset", name, "tomography", "projections")
            yield scan, [(sample.id, "measured-from")]
            before = scan
            for at, (step, measurement, data_type) in enumerate(STEPS):
                made = node("dataset", f"{name} ({data_type})", measurement, data_type, step)
                darks = [(dark.id, "is_derived_from")] if at == 0 else []
                yield made, [(before.id, "is_derived_from"), *darks]
                before = made
            tables.append(before.id)
        summary = node("dataset", f"pores of core {sample_number}", "pore statistics", "summary", "summarize")
        yield summary, [(table, "is_derived_from") for table in tables]


def _limited(parts: Iterator[tuple[Node, list[tuple[str, str]]]], size: int) -> tuple[list[Node], list[Edge]]:
    nodes: list[Node] = []
    edges: list[Edge] = []
    for node, parents in parts:
        if len(nodes) == size:
            break
        nodes.append(node)
        edges += [Edge(parent, node.id, relationship) for parent, relationship in parents]
    return nodes, edges


def _id(number: int) -> str:
    return f"0td40y800{number:017d}"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in (("beamtime", beamtime), ("tangle", tangle)):
        for size in SIZES:
            graph = made(size)
            focus = list(graph.nodes)[size // 2]
            for part, shown in (("whole", None), ("one", focus)):
                stem = folder / f"{name}-{size}-{part}"
                stem.with_suffix(".svg").write_text(render_svg(graph, shown), encoding="utf-8")
                stem.with_suffix(".html").write_text(render_html(graph, shown), encoding="utf-8")
                if size <= 300:
                    stem.with_suffix(".png").write_bytes(render_png(graph, shown))
            print(name, size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
