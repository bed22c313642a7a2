"""The pages over HTTP: access rights, escaping and security headers."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import httpx
import pytest

from crucible_lineage.web.app import with_pages
from tests.page import page_data

NOBODYS = "0tr5k2ndm5zvd000nr21qakeh4"  # the id of no dataset
EVIL = "<script>alert(1)</script>"
PATHS = (
    "/",
    "/datasets",
    "/datasets?q=raw",
    "/projects/open-lab",
    "/projects/open-lab/runs",
    "/projects/open-lab/findings",
    "/pipelines",
    "/ask",
    "/ask/list?project=open-lab&all=1",
    "/ask/table",
    "/ask/show?dataset={child}",
    "/ask/why?dataset={child}",
    "/ask/lineage?dataset={child}",
    "/ask/impact?dataset={raw}",
    "/ask/statements",
    "/ask/status",
    "/ask/runs?project=open-lab",
    "/ask/verify?project=open-lab",
    "/datasets/{child}",
    "/datasets/{child}/lineage",
    "/datasets/{child}/lineage.html",
    "/datasets/{child}/lineage.svg",
    "/datasets/{child}/lineage.svg?near",
    "/datasets/{child}/metadata.json",
    "/datasets/{child}/thumbnail",
)


class Elements(HTMLParser):
    """The names of all elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("path", PATHS)
def test_every_page_needs_a_sign_in(site, owner, path):
    path = path.format(**site.mfids)

    assert owner.get(path).status_code == 200
    refused = httpx.get(site.url + path)
    assert refused.status_code == 303
    assert refused.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("/ask/") and path != "/ask/table"])
def test_every_answer_can_be_had_as_json(site, owner, path):
    path = path.format(**site.mfids)

    answer = owner.get(path + ("&" if "?" in path else "?") + "as=json")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text


@pytest.mark.parametrize("path", [*PATHS, "/sign-in", "/static/style.css", "/nowhere"])
def test_every_answer_has_security_headers(site, owner, path):
    headers = owner.get(path.format(**site.mfids)).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "frame-ancestors" in policy or "sandbox" in policy
    assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
    assert "script-src" not in policy
    assert headers["cache-control"]


def test_no_page_contains_a_script_or_the_key(site, owner):
    for path in PATHS:
        page = owner.get(path.format(**site.mfids))
        assert site.key not in page.text
        if not path.endswith(".html"):
            assert "<script" not in page.text


def test_markup_in_names_metadata_keywords_and_files_is_text(site, owner):
    pages = (f"/datasets/{site.mfids['evil']}", "/projects/open-lab", f"/datasets/{site.mfids['evil']}/lineage")
    for path in pages:
        page = Elements(owner.get(path).text)
        assert EVIL in page.text
        assert "script" not in page.names
    page = owner.get(pages[0]).text
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.txt" in page
    assert f"?keyword={EVIL}" not in page


def test_markup_in_a_search_is_text(owner):
    for query in (f"?q={EVIL}", f'?keyword=" autofocus onfocus=alert(1) x="{EVIL}', f"?q={EVIL}&sort={EVIL}"):
        assert "<script" not in owner.get(f"/datasets{query}").text


def test_a_guest_sees_only_public_datasets(site, guest):
    secret = site.mfids["secret"]

    assert guest.get(f"/datasets/{secret}").status_code == 404
    for kind in ("lineage", "lineage.html", "lineage.svg", "metadata.json", "thumbnail"):
        assert guest.get(f"/datasets/{secret}/{kind}").status_code in (403, 404)
    assert "secret raw" not in guest.get("/datasets").text
    assert "secret raw" not in guest.get("/datasets?q=ecret raw").text
    assert "secret raw" not in guest.get("/projects/closed-lab").text
    assert "plain raw" in guest.get("/datasets").text


def test_a_hidden_parent_has_no_name(site, guest, owner):
    child, secret = site.mfids["child"], site.mfids["secret"]
    paths = [
        f"/datasets/{child}",
        *(f"/datasets/{child}/{kind}" for kind in ("lineage", "lineage.html", "lineage.svg", "metadata.json")),
        "/projects/open-lab/findings",
        *(f"/ask/{kind}?dataset={child}" for kind in ("show", "why", "lineage", "verify")),
        "/ask/list?project=open-lab&all=1&as=json",
        *(f"/ask/{kind}?dataset={child}&as=json" for kind in ("why", "show", "lineage")),
    ]

    for path in paths:
        page = guest.get(path).text
        if path.endswith("lineage.html"):
            page += json.dumps(page_data(page))
            assert child in page
        page += "".join(b64decode(code).decode() for code in re.findall(r"svg\+xml;base64,([\w+/=]+)", page))
        assert secret not in page, path
        assert "secret raw" not in page
    page = guest.get(f"/datasets/{child}").text
    assert '<td>parts</td><td class="name"><em>not visible to you</em></td>' in page
    assert "lab:add" in page
    assert "not visible to you" in guest.get(f"/datasets/{child}/lineage.svg").text
    assert "secret raw" in owner.get(f"/datasets/{child}").text


def test_a_parent_is_listed_once_with_its_role(site, guest):
    shown = guest.get(f"/datasets/{site.mfids['child']}").text
    about = shown.partition('<h2 id="lineage">')[2]
    assert about.count(f'href="/datasets/{site.mfids["raw"]}"') == 1
    assert "<td>parts</td>" in about
    assert f"of-{site.mfids['raw']}.txt" in about
    assert "not linked" not in about


def test_a_file_is_downloaded_as_an_attachment(site, owner, guest):
    page = owner.get(f"/datasets/{site.mfids['evil']}").text
    (path,) = re.findall(r'href="(/files/[0-9a-z]{26})"', page)

    content = owner.get(path, follow_redirects=True)
    assert content.text == "1 2 3\n"
    assert content.headers["content-disposition"].startswith("attachment")
    assert httpx.get(site.url + path).headers["location"].startswith("/sign-in")


def test_a_picture_that_browsers_do_not_show_is_not_served(site, owner):
    made = site.client.datasets.add_thumbnail(site.mfids["evil"], b"II*\0 of no browser", "scan.tif")

    answers = [owner.get(f"/datasets/{site.mfids['evil']}/thumbnail{end}") for end in ("", f"s/{made.id}")]
    assert [answer.headers["content-type"] for answer in answers] == ["image/svg+xml"] * 2
    assert "scan.tif" not in owner.get(f"/datasets/{site.mfids['evil']}").text


@pytest.mark.parametrize(
    "path",
    [
        "/datasets/nothing",
        f"/datasets/{NOBODYS}",
        f"/datasets/{NOBODYS}/lineage.svg",
        f"/files/{NOBODYS}",
        "/ask/nothing",
        "/static/..%2Fapp.py",
        "/datasets/{evil}/thumbnails/99",
    ],
)
def test_a_missing_address_has_an_error_page(site, owner, path):
    answer = owner.get(path.format(**site.mfids))

    assert answer.status_code == 404
    assert "<h1>" in answer.text


@pytest.mark.parametrize("query", ["sort=colour", "where=1 ==", "where=nowhere == 1", "page=9", "run=none"])
def test_an_invalid_query_has_an_error_page(owner, query):
    answer = owner.get(f"/projects/open-lab?{query}")

    assert answer.status_code == 400
    assert "<h1>" in answer.text


def test_the_api_works_beside_the_pages(site, owner):
    assert owner.get("/api/v3/datasets").status_code == 401, "the cookie is not a key of the API"
    assert owner.get("/api/v3/nowhere").status_code == 404


def test_words_and_conditions_find_matching_datasets(site, owner):
    def found(query):
        return set(re.findall(r'class="name"><a href="/datasets/([0-9a-z]{26})"', owner.get(f"/datasets{query}").text))

    mfids = site.mfids
    assert found("?q=plain raw") == {mfids["raw"]}
    assert found("?where=measurement == 'XRD'") == {mfids["raw"], mfids["child"]}
    assert found("?where=measurement == 'XRD' and format == 'h5'") == {mfids["raw"]}
    assert found("?q=plain raw&where=measurement == 'SEM'") == set()
    assert owner.get(f"/datasets?q={mfids['raw']}").headers["location"] == f"/datasets/{mfids['raw']}"
    assert found("?q=p raw") == {mfids["raw"]}, "one letter is enough where the pages search"
    assert found(f"?q={mfids['raw'][:20]}") == {mfids["raw"]}
    assert found(f"?q={mfids['raw'][1:20]}") == set(), "words do not match the middle of an MFID"


def test_a_run_is_found_by_its_outputs(site, owner):
    page = owner.get("/projects/open-lab/runs").text
    (link,) = re.findall(r'href="(/projects/open-lab\?run=run-1[^"]*)"', page)

    assert "counting" in page
    for address in (link.replace("&amp;", "&"), "/projects/open-lab?run=run-"):
        assert "child of both" in owner.get(address).text


def test_a_long_list_is_divided_into_pages(owner):
    first = owner.get("/projects/many-lab?sort=name").text
    (link,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = owner.get("/projects/many-lab" + link.replace("&amp;", "&")).text

    names = [set(re.findall(r"one of many \d\d", page)) for page in (first, second)]
    assert [len(found) for found in names] == [50, 10]
    assert not names[0] & names[1]
    assert "60 datasets" in first
    assert 'rel="next"' not in second


def test_readers_do_not_share_copies(site):
    """The lineage of many datasets is drawn from a copy of their project, which is kept for later requests."""
    summary = site.client.datasets.create({"dataset_name": "summary", "project_id": "many-lab", "public": True}).dsid
    for dataset in site.client.datasets.list(project_id="many-lab", limit=30):
        if dataset.unique_id != summary:
            site.client.datasets.link_parent_child(dataset.unique_id, summary)

    with site.browser() as owner, site.browser(site.guest_key) as guest:
        assert "one of many" in str(page_data(owner.get(f"/datasets/{summary}/lineage.html").text))
        assert "one of many" not in str(page_data(guest.get(f"/datasets/{summary}/lineage.html").text))
        assert "one of many" not in guest.get(f"/datasets/{summary}").text


def test_an_internal_error_is_logged_and_shown_without_details(caplog, tmp_path):
    async def broken(scope, receive, send):
        raise RuntimeError("the insides")

    async def post():
        transport = httpx.ASGITransport(with_pages(broken, tmp_path), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as browser:
            return await browser.post("/sign-in", data={"key": "k"}, headers={"Origin": "http://here"})

    answer = asyncio.run(post())

    assert answer.status_code == 500
    assert "the insides" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "/sign-in" in caplog.text
