"""All pictures of README and docs: `python docs/pictures.py`, or `make pictures`.

The data of the examples is downloaded, unless CRUCIBLE_LINEAGE_EXAMPLES names its folder; the page needs Chromium.
Tests compare the pictures with the stored ones: SVGs in full; PNGs, whose pixels differ from machine to machine, by a
text in them. It is the MFID of the dataset with the figure, which depends on data, parameters and code, or what the
page shows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

import crucible_lineage as cl
from crucible_lineage.ask.bundle import to_share
from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.prov import shareable
from crucible_lineage.lineage.svg import render_svg

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PIPELINE = ROOT / "deployments" / "pipelines" / "raman.yaml"
PROJECT = "demo-raman"
MEASURED = "CRUCIBLE_LINEAGE_EXAMPLES"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZES = (3, 30, 300, 3_000, 10_000)
TABLE = "Raman instruments against ASTM E1840"


@dataclass(frozen=True)
class Example:
    """A pipeline of the examples, the name of its data, and its pictures with the datasets that they show.

    `figures` are the PNGs that its steps make.
    """

    pipeline: str
    data: str
    lineages: Mapping[str, str]
    figures: Mapping[str, str]


EXAMPLES = (
    Example(
        "raman-instruments",
        "raman",
        {
            "example-raman-lineage.svg": TABLE,
            "gallery-raman-one.svg": "Polystyrene, Horiba 633 optics 010 (TOP) (calibrated), bands",
        },
        {
            "example-raman-instruments.png": TABLE,
            "example-raman-optics-02.png": "Polystyrene, Horiba 785 optics 02 (FNMT) (calibrated)",
        },
    ),
    Example(
        "ebsd",
        "ebsd",
        {"gallery-ebsd.svg": "Orientations of nickel beside those stored"},
        {
            "example-ebsd-corrected.png": "Nickel, 3 x 3 backscatter patterns, background removed",
            "example-ebsd-map.png": "Orientations of nickel beside those stored",
        },
    ),
    Example(
        "lab6",
        "lab6",
        {"gallery-lab6.svg": "Lattice parameter of LaB6"},
        {"example-lab6-cell.png": "Lattice parameter of LaB6"},
    ),
)
MAP = "architecture.svg"
DEMO = ("raman-lineage.svg", "raman-two-degrees.svg")
SWEEP = "raman-sweep.svg"
MADE_UP = (*(f"size-{size}.svg" for size in SIZES), "tangle-30.svg")
PAGE = "gallery-page.png"
ALL = {MAP, *DEMO, SWEEP, *MADE_UP, PAGE, *(name for one in EXAMPLES for name in (*one.lineages, *one.figures))}


def of_the_package(folder: Path) -> dict[str, bytes]:
    """Return {file name: content} of the map."""
    drawn = folder / MAP
    subprocess.run([sys.executable, ROOT / "docs" / "map", "--draw", drawn], check=True, stdout=subprocess.DEVNULL)
    return {MAP: drawn.read_bytes()}


def of_the_demo(data: Path) -> dict[str, bytes]:
    """Return the pictures of the demo in a data folder, alone, and with a second axis of degree 2."""
    with cl.connect(data, project=PROJECT) as lab:
        lab.run(PIPELINE, jobs=1)
        alone = lab.lineage("Polystyrene bands against ASTM E1840").picture
        lab.run(PIPELINE, params={"axis.degree": 2}, jobs=1)
        both = _down(lab, superseded=True)
    return dict(zip(DEMO, (alone.encode(), both.encode()), strict=True))


def of_a_sweep(data: Path) -> dict[str, bytes]:
    """Return that of a sweep over six degrees of the axis."""
    text = PIPELINE.read_text(encoding="utf-8")
    swept = data.parent / "sweep.yaml"
    swept.write_text(text.replace("params: {degree: 3}", "matrix: {degree: [1, 2, 3, 4, 5, 6]}"), encoding="utf-8")
    with cl.connect(data, project=PROJECT) as lab:
        lab.run(swept, jobs=1)  # the order in which they are registered is that of the picture
        return {SWEEP: _down(lab, superseded=False).encode()}


def of_made_up_data() -> dict[str, bytes]:
    """Return those of one dataset of a made-up beamtime, of 3 to 10,000 datasets, and of a tangle."""
    sys.path.insert(0, str(ROOT / "docs"))
    import lineages

    graphs = [*map(lineages.beamtime, SIZES), lineages.tangle(30)]
    svgs = [render_svg(graph, list(graph.nodes)[len(graph) // 2]).encode() for graph in graphs]
    return dict(zip(MADE_UP, svgs, strict=True))


def of_an_example(pipeline: str, data: Path) -> dict[str, bytes]:
    """Return those of an example that has run in a data folder, with one job at a time."""
    (example,) = (one for one in EXAMPLES if one.pipeline == pipeline)
    with cl.connect(data, project=f"example-{pipeline}") as lab:
        drawn = {name: lab.lineage(dataset).picture.encode() for name, dataset in example.lineages.items()}
        return drawn | {name: _figure(lab.dataset(dataset)) for name, dataset in example.figures.items()}


def of_the_page(data: Path) -> dict[str, bytes]:
    """Return that of the page of the table of ten instruments, which have run in a data folder.

    Above, the table is selected; below, a stack is unfolded, and with it the one that was made from it.
    """
    from playwright.sync_api import sync_playwright

    with cl.connect(data, project="example-raman-instruments") as lab:
        mfid = lab.dataset(TABLE).mfid
        graph = shareable(to_share(lab.session, fetch_lineage(lab.session, mfid, thumbnails=True)))
    file = data / "page.html"
    file.write_text(render_html(graph, mfid), encoding="utf-8")
    with sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        size = {"width": 1300, "height": 520}
        above, below = pages = [browser.new_page(viewport=size, color_scheme=scheme) for scheme in ("light", "dark")]
        for page in pages:
            page.goto(file.as_uri())
        above.locator(f'[data-id="{mfid}"]').click()
        below.locator(".item", has_text="10 × calibrate").click()
        below.get_by_role("button", name="one by one").click()
        below.keyboard.press("Escape")
        return {PAGE: _photograph(pages)}


def compared(name: str, content: bytes) -> str:
    """Return what tests compare of a picture: an SVG, or the texts in a PNG."""
    if name.endswith(".svg"):
        return content.decode()
    return "\n".join(f"{key}: {text}" for key, text in sorted(PngImageFile(BytesIO(content)).text.items()))


def _down(lab: cl.Catalogue, *, superseded: bool) -> str:
    found = lab.lineage("Neon lamp, 633 nm")
    return render_svg(found.graph.around(found.focus, None, "descendants"), found.focus, superseded=superseded)


def _figure(dataset: cl.Dataset) -> bytes:
    (file,) = (file for file in dataset.files if file.name.endswith(".png"))
    return _png(Image.open(dataset.path(file.name)), "made as", f"{file.name} of {dataset.mfid}")


def _photograph(pages: Sequence[Page]) -> bytes:
    """Return a PNG of the pages, one below the other."""
    shots = [Image.open(BytesIO(page.screenshot())).convert("RGB") for page in pages]
    whole = Image.new("RGB", (shots[0].width, sum(shot.height for shot in shots)))
    for place, shot in enumerate(shots):
        whole.paste(shot, (0, place * shot.height))
    return _png(whole, "shows", "\n\n".join(map(_shown, pages)))


def _shown(page: Page) -> str:
    """Return what a page shows, whatever the fonts: its buttons, its boxes, the head of its panel and its last line."""
    lines = page.locator("h1, header button:visible").all_inner_texts()
    for box in page.locator(".item").all():
        lines.append(f"{box.get_attribute('data-id')} {box.get_attribute('aria-label')}")
    if page.locator("#panel").is_visible():
        lines += page.locator("#panel > :is(h2, h3, p)").all_inner_texts()
    return "\n".join([*lines, page.locator("footer").inner_text()])


def _png(image: Image.Image, key: str, text: str) -> bytes:
    info, content = PngInfo(), BytesIO()
    info.add_itxt(key, text)
    image.save(content, "PNG", optimize=True, pnginfo=info)
    return content.getvalue()


def _run(example: Example, data: Path, measured: Path) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    from fetch_data import fetch_data

    fetch_data(measured, [example.data])
    os.environ[MEASURED] = str(measured)
    with cl.connect(data, project=f"example-{example.pipeline}") as lab:
        lab.run(ROOT / "examples" / f"{example.pipeline}.yaml", jobs=1)


def _drawn(folder: Path) -> Iterator[dict[str, bytes]]:
    yield of_the_package(folder)
    yield of_made_up_data()
    yield of_the_demo(folder / "demo")
    yield of_a_sweep(folder / "sweep")
    for example in EXAMPLES:
        _run(example, folder / example.pipeline, Path(os.environ.get(MEASURED) or folder / "measured"))
        yield of_an_example(example.pipeline, folder / example.pipeline)
    yield of_the_page(folder / "raman-instruments")


def main() -> None:
    """Draw all of them, each part as soon as it can be."""
    with tempfile.TemporaryDirectory() as folder:
        for pictures in _drawn(Path(folder)):
            for name, content in pictures.items():
                (IMAGES / name).write_bytes(content)
                print(IMAGES / name)


if __name__ == "__main__":
    main()
