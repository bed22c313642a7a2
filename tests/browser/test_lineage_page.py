"""The lineage page in a browser: it opens quickly and folded, unfolds, searches, and runs only its own script."""

from __future__ import annotations

import importlib.util
import random
from importlib.resources import files
from pathlib import Path

import pytest

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.layout import layout
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.lineage.text import to_node_link
from crucible_lineage.lineage.view import view
from tests.page import page_data

pytestmark = pytest.mark.browser
PICTURES = Path(__file__).parents[2] / "docs" / "lineages.py"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def pictures():
    """Import the module that makes the graphs."""
    spec = importlib.util.spec_from_file_location("pictures", PICTURES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(mfid, name, step="", parents=(), **provenance):
    written = {"status": "complete", "step": step, "recipe": {"params": {"degree": 3}}, **provenance}
    return {
        "unique_id": mfid,
        "dataset_name": name,
        "measurement": "tomography",
        "scientific_metadata": {"note": EVIL} | ({"crucible_lineage": written} if step else {}),
        "files": [{"filename": "scan.h5", "size": 1234567, "sha256_hash": "ab" * 32}],
        "links": [
            {"unique_id": parent, "direction": "source", "name": "x", "relationship_type": "is_derived_from"}
            for parent in parents
        ],
    }


def scans(count):
    """Return a graph of scans with their reconstructions, a summary of all, and a dataset made from that."""
    records = [record(f"scan-{n:05d}", f"scan {n}") for n in range(count)]
    records += [record(f"volume-{n:05d}", f"volume {n}", "reconstruct", [f"scan-{n:05d}"]) for n in range(count)]
    volumes = [f"volume-{n:05d}" for n in range(count)]
    records.append(record("summary", "summary", "summarize", volumes, status="incomplete"))
    records.append(record("evil", EVIL, "publish", ["summary"]))
    return LineageGraph.from_records(records)


@pytest.fixture
def opened(chromium, tmp_path):
    """Return a function that opens a graph's page; any browser error or network request fails the test."""
    complaints = []
    contexts = []

    def open_page(graph, focus=None, scheme="light", size=(1400, 800), **review):
        file = Path(tmp_path, "lineage.html")
        file.write_text(render_html(graph, focus, **review), encoding="utf-8")
        contexts.append(chromium.new_context(color_scheme=scheme, viewport={"width": size[0], "height": size[1]}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector(".item")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def boxes(page):
    return page.locator(".item").count()


def sweep(axes, spectra):
    """Return a graph of axes of one lamp, spectra calibrated with each, and bands of these; no axis is like another."""
    records = [record("lamp", "lamp"), *(record(f"raw-{n}", f"raw {n}") for n in range(spectra))]
    for axis in range(axes):
        slots = {f"p/axis/out/degree={axis}": {}}
        records.append(record(f"axis-{axis}", f"axis {axis}", "axis", ["lamp"]))
        records[-1]["scientific_metadata"]["crucible_lineage_places"] = slots
        for n in range(spectra):
            made = f"{axis}-{n}"
            records.append(record(f"cal-{made}", f"calibrated {made}", f"calibrate {n}", [f"axis-{axis}", f"raw-{n}"]))
            records.append(record(f"bands-{made}", f"bands {made}", f"bands {n}", [f"cal-{made}"]))
    return LineageGraph.from_records(records)


@pytest.mark.parametrize(("axes", "spectra"), [(2, 3), (4, 10)])
def test_the_page_shows_the_boxes_of_the_picture_with_all_swept_axes(opened, axes, spectra):
    graph = sweep(axes, spectra)
    for focus in ("lamp", "axis-1", "raw-2", "cal-1-2", "bands-0-0"):
        page = opened(graph, focus)
        shown = {box.get_attribute("data-id") for box in page.locator(".item").all()}
        assert shown == {item.node.id for item in view(graph.around(focus), focus).items}, focus
        contained = page_data(render_html(graph, focus))["nodes"]["id"]
        assert contained == [node["id"] for node in to_node_link(graph.around(focus))["nodes"]]


def test_a_click_shows_a_dataset_and_highlights_the_path_to_its_roots(opened):
    page = opened(scans(3))

    page.locator('[data-id="volume-00001"]').click()

    panel = page.locator("#panel").inner_text()
    for text in ("volume 1", "volume-00001", "degree", "scan.h5", "1.23 MB", "ab" * 32, "reconstruct", EVIL):
        assert text in panel
    highlighted = page.locator(".item.on").evaluate_all("items => items.map(item => item.dataset.id)")
    assert sorted(highlighted) == ["scan-00001", "volume-00001"]
    assert page.locator(".edge.on").count() == 1


def test_a_group_unfolds_and_folds_again_and_search_finds_its_members(opened):
    graph = scans(60)
    page = opened(graph)
    assert boxes(page) == len(view(graph).items) == 4
    assert "122 of 122" in page.locator("#status").inner_text()

    page.locator(".item", has_text="60 × reconstruct").click()
    page.get_by_text("Draw 10 of them one by one").click()

    assert page.locator(".item", has_text="50 × reconstruct").count() == 1
    assert boxes(page) == 14
    page.locator("#reset").click()
    assert boxes(page) == 4
    page.keyboard.press("/")
    page.keyboard.type("volume 41")
    page.keyboard.press("Enter")

    assert page.locator("#panel h2").inner_text() == "volume 41"
    assert page.locator('[data-id="scan-00041"]').count() == 1


def test_keys_follow_links_and_close_the_panel_below_the_figure_of_a_review(opened):
    page = opened(scans(2), "summary", figure=PIXEL, reproduce="python reproduce.py")

    tops = [page.locator(part).bounding_box()["y"] for part in ("#result img", "#picture", "#verdicts pre")]
    assert tops == sorted(tops)
    page.locator('[data-id="summary"]').focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")

    assert page.locator("#panel h2").inner_text().startswith("volume")
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()


def test_a_hidden_parent_has_no_name(opened):
    graph = LineageGraph.from_api({"nodes": [{"id": "a", "name": "a"}], "edges": [{"source": "s3cret", "target": "a"}]})

    page = opened(graph)

    assert "not visible to you" in page.locator(".item.hidden").text_content()
    assert "s3cret" not in page.content()


def test_ten_thousand_datasets_open_folded(opened):
    page = opened(scans(5000), "volume-02500")

    assert boxes(page) <= 40
    assert page.locator(".item.focus").count() == 1


LABELS = """() => {
  const words = [...document.querySelectorAll("g")].flatMap((group) => {
    const frames = [...group.querySelectorAll(":scope > rect")].map((rect) => rect.getBoundingClientRect());
    const frame = frames.sort((a, b) => b.width * b.height - a.width * a.height)[0];
    return [...group.querySelectorAll(":scope > text")].map((text) =>
      ({ text: text.textContent, place: text.getBoundingClientRect(), frame })).filter(({ frame }) => frame);
  });
  const outside = words.filter(({ place, frame }) => place.left < frame.left || place.right > frame.right + 0.5
    || place.top < frame.top - 0.5 || place.bottom > frame.bottom + 0.5);
  const overlap = ({ place: a }, { place: b }) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3; // lines are higher than their letters
  const overlapping = words.filter((one, at) => words.slice(at + 1).some((other) => overlap(one, other)));
  const texts = (found) => found.map(({ text }) => text);
  return { words: words.length, outside: texts(outside), overlapping: texts(overlapping) };
}"""


@pytest.mark.parametrize("name", ["beamtime", "tangle", "wide names"])
def test_texts_stay_in_their_boxes_and_never_overlap(opened, tmp_path, pictures, name):
    graph = {"beamtime": pictures.beamtime(300), "tangle": pictures.tangle(60)}.get(name)
    if graph is None:
        names = ["WWWWWWWWWWWW" * 9, "iiiiiiiiii" * 9, "膜の測定" * 20, "a-b_c/d.e f" * 9, "ffi" * 30, "m" * 200]
        chain = [record(f"d{n}", name, name, [f"d{n - 1}"] if n else []) for n, name in enumerate(names)]
        graph = LineageGraph.from_records(chain)
    focus = list(graph.nodes)[len(graph) // 2]

    page = opened(graph, focus)
    on_page = page.evaluate(LABELS)
    Path(tmp_path, "it.svg").write_text(render_svg(graph, focus), encoding="utf-8")
    page.goto(Path(tmp_path, "it.svg").as_uri())
    in_svg = page.evaluate(LABELS)

    for found in (on_page, in_svg):
        assert found["words"] > 10
        assert found["outside"] == []
        assert found["overlapping"] == []


def test_superseded_datasets_appear_at_the_press_of_a_button(opened):
    nodes = [
        Node("raw", name="scan"),
        Node("old", name="old table", step="fit"),
        Node("new", name="new table", step="fit"),
    ]
    graph = LineageGraph(nodes, [Edge("raw", "old"), Edge("raw", "new")])
    graph = graph.with_fields(
        {
            "old": {"state": "superseded", "superseded_by": ("new",)},
            "new": {"state": "current"},
            "raw": {"state": "raw"},
        }
    )
    page = opened(graph, "raw")

    assert boxes(page) == 2
    page.get_by_role("button", name="Show 1 superseded").click()
    assert boxes(page) == 3
    assert "SUPERSEDED" in page.locator(".item.superseded").text_content()
    page.get_by_role("button", name="Hide superseded").click()
    assert boxes(page) == 2
    page.fill("#search", "old table")
    page.keyboard.press("Enter")
    assert boxes(page) == 3, "a search shows a superseded match"
    assert "Superseded by (1)" in page.locator("#panel").inner_text()


LETTERS = """() => [...document.querySelectorAll(".item .name")].map((e) => e.getBoundingClientRect().height)"""
TOPS = """() => Object.fromEntries([...document.querySelectorAll(".item")]
  .map((e) => [e.dataset.id, e.getBoundingClientRect()]).map(([id, box]) => [id, [box.top, box.left, box.right]]))"""


def test_on_a_phone_the_picture_runs_downwards_and_is_readable(opened):
    records = [record("raw", "Raw scan of the film"), record("dark", "Dark counts")]
    records += [
        record(f"step{n}", f"Result number {n}", "fit", [f"step{n - 1}"] if n else ["raw", "dark"]) for n in range(6)
    ]
    page = opened(LineageGraph.from_records(records), "step3", size=(400, 800))

    boxes_by_id = page.evaluate(TOPS)
    assert min(page.evaluate(LETTERS)) > 9
    assert boxes_by_id["raw"][0] < boxes_by_id["step0"][0] < boxes_by_id["step1"][0] < boxes_by_id["step5"][0]
    assert all(left >= 0 and right <= 400 for _, left, right in boxes_by_id.values())
    assert page.locator("#picture").get_attribute("aria-label") == "Lineage, raw data at the top"
    page.set_viewport_size({"width": 1200, "height": 700})
    page.wait_for_function("() => document.querySelector('#picture').getAttribute('aria-label').endsWith('left')")
    boxes_by_id = page.evaluate(TOPS)
    assert boxes_by_id["raw"][1] < boxes_by_id["step0"][1] < boxes_by_id["step5"][1]


@pytest.mark.parametrize(("count", "siblings"), [(8, 1), (60, 1), (300, 1), (54, 3), (64, 3), (74, 3)])
def test_names_of_any_number_of_boxes_are_readable_at_first(opened, count, siblings):
    """In one row, those of 60 are a pixel high."""
    parents = [[f"d{max(0, n - 1 - n % siblings)}"] if n else [] for n in range(count)]
    records = [record(f"d{n}", f"polystyrene, film {n}, 633 nm", f"step {n}", parents[n]) for n in range(count)]

    page = opened(LineageGraph.from_records(records), size=(1400, 900))

    assert boxes(page) == (40 if count == 300 else count)
    assert min(page.evaluate(LETTERS)) >= 9
    if count == 300:
        page.locator(".more").first.click()
        assert boxes(page) > 40


def test_boxes_and_lines_of_a_page_are_where_a_picture_has_them(chromium):
    script = files("crucible_lineage.lineage").joinpath("assets", "arrange.js").read_text()
    page = chromium.new_page()
    for seed in range(40):
        chance = random.Random(seed)
        count, reach = chance.choice([1, 8, 60, 74]), chance.choice([1, 3, 60])
        links = [(chance.randrange(max(0, n - reach), n), n) for n in range(1, count) for _ in range(1 + seed % 2)]
        sizes = [(chance.uniform(80, 203), chance.choice([28, 55])) for _ in range(count)]
        expected = layout(sizes, links)
        arranged = page.evaluate(f"(given) => {{ const FEW = 40; {script} return layout(...given); }}", [sizes, links])
        courses = [expected.courses[link] for link in links]
        assert arranged["centres"] == [pytest.approx(centre) for centre in expected.centres], seed
        assert arranged["courses"] == [[pytest.approx(point) for point in course] for course in courses], seed
        assert (arranged["width"], arranged["height"]) == pytest.approx((expected.width, expected.height)), seed
    page.close()
