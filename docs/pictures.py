"""Lineage pictures of the docs that need no external data: `python docs/pictures.py`, or `make pictures`.

`tests/docs/test_pictures.py` compares them with the stored ones. Those of the examples are drawn with the examples.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import crucible_lineage as cl
from crucible_lineage.lineage.draw.svg import render_svg

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PIPELINE = ROOT / "deployments" / "pipelines" / "raman.yaml"
PROJECT = "demo-raman"
SIZES = (3, 30, 300, 3_000, 10_000)


def of_the_demo(data: Path) -> dict[str, str]:
    """Return {file name: SVG} of the demo in a data folder, alone, and with a second axis of degree 2."""
    with cl.connect(data, project=PROJECT) as lab:
        lab.run(PIPELINE, jobs=1)
        drawn = {"raman-lineage.svg": lab.lineage("Polystyrene bands against ASTM E1840").svg}
        lab.run(PIPELINE, params={"axis.degree": 2}, jobs=1)
        return {**drawn, "raman-two-degrees.svg": _down(lab, superseded=True)}


def of_a_sweep(data: Path) -> dict[str, str]:
    """Return the same of a sweep over six degrees of the axis."""
    text = PIPELINE.read_text(encoding="utf-8")
    swept = data.parent / "sweep.yaml"
    swept.write_text(text.replace("params: {degree: 3}", "matrix: {degree: [1, 2, 3, 4, 5, 6]}"), encoding="utf-8")
    with cl.connect(data, project=PROJECT) as lab:
        lab.run(swept, jobs=1)  # the order in which they are registered is that of the picture
        return {"raman-sweep.svg": _down(lab, superseded=False)}


def of_made_up_data() -> dict[str, str]:
    """Return those of one dataset of a made-up beamtime, of 3 to 10,000 datasets, and of a tangle."""
    sys.path.insert(0, str(ROOT / "tests" / "lineage"))
    import pictures

    graphs = {f"size-{size}.svg": pictures.beamtime(size) for size in SIZES} | {"tangle-30.svg": pictures.tangle(30)}
    return {name: render_svg(graph, list(graph.nodes)[len(graph) // 2]) for name, graph in graphs.items()}


def _down(lab: cl.Catalogue, *, superseded: bool) -> str:
    found = lab.lineage("Neon lamp, 633 nm")
    return render_svg(found.graph.around(found.mfid, None, "descendants"), found.mfid, superseded=superseded)


def main() -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = of_made_up_data() | of_the_demo(Path(folder, "demo")) | of_a_sweep(Path(folder, "sweep"))
    for name, svg in drawn.items():
        (IMAGES / name).write_text(svg, encoding="utf-8")
        print(IMAGES / name)


if __name__ == "__main__":
    main()
