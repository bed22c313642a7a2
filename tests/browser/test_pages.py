"""The pages of `serve` in a browser: navigation, accessibility and keyboard, with no data run as script."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient

pytestmark = pytest.mark.browser
EVIL = '<script>alert(1)</script><img src=x onerror="alert(1)">'
AXIS = "Wavenumber axis from neon and silicon"
CALIBRATED = "Polystyrene, 633 nm (calibrated)"

# What a screen reader needs, computed in the page: the elements that break a rule.
ACCESSIBLE = """() => {
  const faults = [];
  const all = selector => [...document.querySelectorAll(selector)];
  const name = e => (e.getAttribute("aria-label") || e.textContent || "").trim();
  const say = (rule, e) => faults.push(rule + ": " + e.outerHTML.slice(0, 120));
  if (!document.documentElement.lang) faults.push("no language");
  if (!document.title) faults.push("no title");
  if (all("h1").length !== 1) faults.push(all("h1").length + " h1");
  for (const landmark of ["header", "main", "footer"])
    if (all("body > " + landmark).length !== 1) faults.push("not one " + landmark);
  for (const nav of all("nav, [role=region], section"))
    if (!nav.getAttribute("aria-label") && !nav.getAttribute("aria-labelledby")) say("unnamed", nav);
  for (const e of all("[aria-labelledby], [aria-describedby]"))
    for (const id of (e.getAttribute("aria-labelledby") || e.getAttribute("aria-describedby")).split(" "))
      if (!document.getElementById(id)) say("dangling reference", e);
  for (const e of all("input:not([type=hidden]):not([hidden]), select, textarea"))
    if (!e.labels.length || !name(e.labels[0])) say("no label", e);
  for (const e of all("img")) if (!e.hasAttribute("alt")) say("no alt", e);
  for (const e of all("a img")) if (!e.alt && !name(e.closest("a"))) say("link without name", e);
  for (const e of all("a[href], button")) if (!name(e) && !e.querySelector("img[alt]")) say("no name", e);
  for (const e of all("iframe")) if (!e.title) say("no title", e);
  for (const e of all("table")) if (!e.caption || !e.tHead) say("table without caption or head", e);
  for (const e of all("[tabindex]")) if (e.tabIndex > 0) say("tab order", e);
  const ids = all("[id]").map(e => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push("twice: " + id);
  const levels = all("h1, h2, h3, h4").map(e => +e.tagName[1]);
  levels.forEach((level, at) => { if (at && level > levels[at - 1] + 1) faults.push("heading skipped at " + at); });
  return faults;
}"""

# WCAG 2.2, 1.4.3: the contrast of each piece of text with what lies behind it, where that is below 4.5.
FAINT = """() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.getClientRects().length) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(ratio.toFixed(2) + " " + walker.currentNode.textContent.trim().slice(0, 40));
  }
  return faint;
}"""
REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0'], iframe")]
  .filter(e => e.type !== "hidden" && e.getClientRects().length && (e.closest("details:not([open])") === null
    || e.tagName === "SUMMARY")).length"""


FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return [null, false];
  const style = getComputedStyle(e);
  const seen = style.outlineStyle !== "none" || e.tagName === "IFRAME" || e.matches("input[type=date]");
  return [[...document.querySelectorAll("*")].indexOf(e), seen];
}"""


def _complaint(text: str) -> list[str]:
    """Return a message of the console as a list; typing before the page is drawn is not a fault of the page."""
    return [] if text.startswith("Autofocus processing was blocked") else [text]


def _failure(request: Any) -> list[str]:
    """Return why a request failed, as a list. Requests aborted because the reader went on are no failures.

    Requests forbidden by a policy differ: they are BLOCKED_BY_CSP, and appear in the console too.
    """
    return [] if "ERR_ABORTED" in str(request.failure) else [f"{request.url} {request.failure}"]


@pytest.fixture(scope="module")
def served(demo_origin, tmp_path_factory, begin):
    """Serve the demo's data with an added dataset whose texts are all markup; yield the address and the key."""
    folder = tmp_path_factory.mktemp("pages") / "data"
    shutil.copytree(demo_origin[0], folder)
    process = begin("serve", "--data", folder, "--json")
    try:
        printed = json.loads(process.stdout.readline())
        key = (folder / "crucible" / "api_key").read_text().strip()
        with CrucibleClient(printed["url"], key) as client:
            evil(client, folder)
        yield printed["pages"].rstrip("/"), key
    finally:
        process.terminate()
        process.communicate(timeout=20)


def evil(client, folder):
    parent = client.datasets.list(dataset_name=AXIS)[0].unique_id
    dataset = client.datasets.create(
        {"dataset_name": EVIL, "project_id": "demo-raman", "measurement": EVIL, "session_name": EVIL},
        scientific_metadata={EVIL: EVIL, "deep": {EVIL: [EVIL]}},
    )
    client.datasets.add_keyword(dataset.dsid, EVIL)
    client.datasets.link_parent_child(parent, dataset.dsid)
    picture = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
    client.datasets.add_thumbnail(dataset.dsid, picture, EVIL)
    file = folder / "counts.txt"
    file.write_text("1 2 3\n")
    client.files.upload(dataset.dsid, file, filename=EVIL.replace("/", ""))


@pytest.fixture
def opened(chromium, served):
    """Return a function that opens a browser; any error in it or request elsewhere fails the test."""
    complaints, contexts = [], []

    def open_browser(*, signed_in=True, scheme="light", width=1280):
        contexts.append(chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 860}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.extend(_complaint(message.text)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("requestfailed", lambda request: complaints.extend(_failure(request)))
        page.on(
            "request", lambda request: request.url.startswith((served[0], "data:")) or complaints.append(request.url)
        )
        page.goto(served[0] + "/")
        if signed_in:
            page.get_by_label("API key").fill(served[1])
            page.keyboard.press("Enter")
            page.wait_for_url(served[0] + "/")
        return page

    open_browser.complaints = complaints
    yield open_browser
    for context in contexts:
        context.close()
    assert complaints == []


def heading(page):
    return page.locator("h1").inner_text()


def test_signing_in_needs_the_right_key_and_signing_out_works(opened, served):
    page = opened(signed_in=False)
    assert heading(page) == "Sign in"

    page.get_by_label("API key").fill("wrong")
    follow(page, page.get_by_role("button", name="Sign in"))
    assert "not known" in page.get_by_role("alert").inner_text()
    assert any("403" in text for text in opened.complaints)
    opened.complaints.clear()  # the browser logs each answer of 403

    page.get_by_label("API key").fill(served[1])
    follow(page, page.get_by_role("button", name="Sign in"))
    assert heading(page) == "Projects"
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert served[1] not in json.dumps(cookie)

    follow(page, page.get_by_role("button", name="Sign out"))
    page.goto(served[0] + "/projects/demo-raman")
    assert heading(page) == "Sign in"


def test_navigation_from_the_projects_to_a_dataset_its_lineage_its_run_and_the_findings(opened):
    page = opened()
    follow(page, page.get_by_role("link", name="demo-raman"))
    assert heading(page) == "demo-raman"

    follow(page, page.get_by_role("link", name=CALIBRATED))
    assert CALIBRATED in heading(page)
    main = page.locator("main").inner_text()
    for text in ("calibrate", "calibrated.csv", "Raman Spectroscopy", "Python 3", AXIS, "axis"):
        assert text in main
    for picture in (page.locator("figure img").first, page.locator(".drawing img")):
        shown = picture.evaluate("image => image.decode().then(() => image.naturalWidth)")  # waits for its bytes
        assert shown > 100

    follow(page, page.locator(".drawing"))
    assert heading(page) == f"Lineage of {CALIBRATED}"
    frame = page.frame_locator("iframe")
    frame.locator(".item", has_text="Neon lamp").click()
    assert "Neon lamp" in frame.locator("#panel h2").inner_text()
    with page.expect_navigation():
        frame.get_by_text("All about this dataset").click()
    assert heading(page).startswith("Neon lamp")

    follow(page, page.get_by_role("link", name="demo-raman"))
    follow(page, page.get_by_role("link", name="Runs"))
    follow(page, page.locator("tbody a").first)
    assert " datasets of run " in page.locator("main").inner_text()

    follow(page, page.get_by_role("link", name="Findings"))
    assert page.get_by_text("Checked ").count() == 1


def test_a_file_is_downloaded_when_its_name_is_clicked(opened):
    page = opened()
    follow(page, page.get_by_role("link", name="Datasets"))
    follow(page, page.get_by_role("link", name=AXIS))

    with page.expect_download() as download:
        page.get_by_role("link", name="axis.json").click()

    assert json.loads(download.value.path().read_text())


def test_searching_and_filtering_select_datasets(opened):
    page = opened()
    page.goto(page.url + "projects/demo-raman")

    def names():
        return page.locator("tbody td.name a").all_inner_texts()

    page.get_by_label("Words or MFID").fill("neon lamp")
    page.keyboard.press("Enter")
    page.wait_for_url("**?q=neon+lamp**")
    assert names() == ["Neon lamp, 633 nm"]

    follow(page, page.get_by_role("link", name="Clear"))
    page.get_by_label("Condition").fill("step == 'axis'")
    follow(page, page.get_by_role("button", name="Search"))
    assert names() == [AXIS]
    assert page.get_by_label("Condition").input_value() == "step == 'axis'"

    follow(page, page.get_by_role("link", name="Clear"))
    follow(page, page.get_by_role("link", name="Name", exact=True))
    ordered = names()
    assert ordered == sorted(ordered, key=str.casefold)
    follow(page, page.get_by_role("link", name="Name ↑"))
    assert names() == ordered[::-1]


def test_markup_in_data_is_shown_as_text(opened, served):
    page = opened()
    page.goto(served[0] + "/projects/demo-raman")
    follow(page, page.get_by_role("link", name=EVIL))

    assert EVIL in heading(page)
    text = page.locator("main").inner_text()
    assert text.count(EVIL) >= 5
    assert page.locator("main script").count() == 0
    picture = page.locator("figure img").get_attribute("src")
    follow(page, page.locator(".drawing"))
    page.frame_locator("iframe").locator(".item.focus").click()
    assert EVIL in page.frame_locator("iframe").locator("#panel").inner_text()
    page.goto(served[0] + picture)  # an SVG with a script, opened by itself
    assert any("script" in text.lower() for text in opened.complaints), "the browser reports what it blocked"
    assert not any(text == "1" for text in opened.complaints)
    opened.complaints.clear()


def pages(page, base):
    """Open each kind of page in turn; yield its name."""
    project = "/projects/demo-raman"
    for path in ("/", "/datasets", project, "/pipelines", f"{project}/runs", f"{project}/findings"):
        page.goto(base + path)
        yield path
    page.goto(f"{base}{project}/runs")
    follow(page, page.locator("tbody a").first)
    yield "run"
    follow(page, page.locator("tbody td.name a").first)
    yield "dataset"
    follow(page, page.get_by_role("link", name="Compare with another"))
    page.get_by_label("Old").fill(AXIS)
    follow(page, page.get_by_role("button", name="Compare"))
    yield "comparison"
    page.go_back()
    page.go_back()
    follow(page, page.locator(".drawing"))
    page.frame_locator("iframe").locator(".item").first.wait_for()
    yield "lineage"
    follow(page, page.get_by_role("button", name="Sign out"))
    yield "sign in"


def follow(page, link):
    """Click a link or button and wait for the page."""
    with page.expect_navigation():
        link.click()


LOOKS = [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]


def assert_readable(page, name, scheme, width):
    """Check that the present page is readable in these colours and at this width."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 860})
    assert page.evaluate(ACCESSIBLE) == [], (name, scheme, width)
    assert page.evaluate(FAINT) == [], (name, scheme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} scrolls sideways"


def test_every_page_is_accessible_and_the_keyboard_reaches_everything_in_order(opened, served):
    page = opened()

    for name in pages(page, served[0]):
        for scheme, width in reversed(LOOKS):
            assert_readable(page, name, scheme, width)
        page.locator(".skip").focus()  # the first; on the page to sign in, the key's field has the focus at the start
        reached = focus_order(page)

        assert len(reached) == page.evaluate(REACHABLE), name
        assert all(one < other for one, other in pairwise(reached)), name


def focus_order(page):
    """Return the indices of the elements that Tab reaches, until it starts over; parts of a date count once."""
    found = []
    while True:
        index, shown = page.evaluate(FOCUSED)
        if index is None or index in found[:-1]:
            return found
        assert shown, f"the focus is not visible on element {index}"
        if found[-1:] != [index]:
            found.append(index)
        page.keyboard.press("Tab")
