"""The pages of a comparison and of runs agree with `diff` and the lists."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


@pytest.fixture(scope="module")
def browser(
    project: Any, tmp_path_factory: pytest.TempPathFactory, unfinish: Any, begin: Any
) -> Iterator[httpx.Client]:
    """Sign in to the pages of the project, in which one result is incomplete."""
    folder: Path = tmp_path_factory.mktemp("compared") / "data"
    shutil.copytree(project.data, folder)
    with Session(Settings(folder)) as session:
        mfid = project.fitted("weak-2.txt")
        unfinish(session.client, mfid)
    process = begin("serve", "--data", folder, "--json")
    try:
        site = json.loads(process.stdout.readline())["pages"].rstrip("/")
        with httpx.Client(base_url=site, timeout=60) as opened:
            key = (folder / "crucible" / "api_key").read_text().strip()
            assert opened.post("/sign-in", data={"key": key}, headers={"Origin": site}).status_code == 303
            yield opened
    finally:
        process.terminate()
        process.communicate(timeout=20)


def read(browser: httpx.Client, path: str, status: int = 200) -> str:
    """Return the text of a page without its tags."""
    answer = browser.get(path)
    assert answer.status_code == status, answer.text
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", answer.text)))


def test_the_page_agrees_with_diff(browser: httpx.Client, project: Any) -> None:
    old, new = (project.fitted("weak-1.txt", run) for run in (0, 1))
    page = read(browser, f"/compare?old={old}&new={new}")
    difference = project.ask_json("diff", old, new)
    assert difference["results"]
    for change in difference["results"]:
        assert change["field"] in page
    assert "params.degree: 2 -> 3" in page
    assert "rms_cm1: 0.25 -> 0.16666666666666666 (-0.0833333)" in page
    assert "params.degree: 3 -> 2" in read(browser, f"/compare?old={new}&new={old}")


def test_a_superseded_dataset_links_to_the_comparison(browser: httpx.Client, project: Any) -> None:
    old, new = (project.fitted("weak-1.txt", run) for run in (0, 1))
    read(browser, f"/datasets/{old}")
    for mfid in (old, new):
        (path,) = re.findall(r'href="(/compare\?old=[^"]*)">What differs', browser.get(f"/datasets/{mfid}").text)
        assert path.replace("&amp;", "&") == f"/compare?old={old}&new={new}"


def test_the_page_of_runs_agrees_with_the_command(browser: httpx.Client, project: Any) -> None:
    page = read(browser, "/projects/spectra/runs")
    for run in project.ask_json("runs")["runs"]:
        assert ", ".join(f"{count} {outcome}" for outcome, count in run["steps"].items()) in page
        assert f"of run {run['run_id']}" in read(browser, f"/projects/spectra?run={run['run_id']}")
    assert len(re.findall(r" complete | 1 incomplete ", page)) == len(project.ask_json("runs")["runs"])
