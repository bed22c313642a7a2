"""Words, filters, facets, orders and pages of a project's datasets, compared with a plain search of all.

Sixty random searches; 240 with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.errors import InputError
from crucible_lineage.queries.catalogue.columns import COLUMNS, facets
from crucible_lineage.queries.catalogue.listing import PER_PAGE, DatasetSearch, browse, page_of
from crucible_lineage.queries.catalogue.view import show_dataset
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import NIGHTLY

SEARCHES = 240 if NIGHTLY else 30
NAMES = ("gold", "Silver", "ünïcode", "film", "wafer", "<b>", "50 % off")


@pytest.fixture(scope="module")
def filled(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the data folder of the project, and add 130 datasets with random fields and some of other projects."""
    folder = tmp_path_factory.mktemp("browse") / "data"
    shutil.copytree(project.data, folder)
    chance = random.Random(8)
    with Session(Settings(folder)) as session:
        for number in range(130):
            fields = {
                "dataset_name": f"{chance.choice(NAMES)} {chance.choice(NAMES)} {number % 40}",
                "measurement": chance.choice(["XRD", "SEM", None]),
                "data_format": chance.choice(["h5", "tif", None]),
                "session_name": chance.choice(["monday", "tuesday"]),
                "timestamp": f"2026-03-{chance.randint(1, 28):02}T09:00:00Z",
                "project_id": "spectra",
            }
            created = session.client.datasets.create({k: v for k, v in fields.items() if v is not None})
            if number % 7 == 0:
                session.client.datasets.add_keyword(created.dsid, "rare")
        lead = session.client.account.whoami().user_unique_id
        session.client.projects.create(project_id="other", organization="test", project_lead=lead)
        for number in range(20):
            fields = {"dataset_name": f"gold {number}", "measurement": "SEM", "timestamp": "2026-04-01T09:00:00Z"}
            fields |= {"project_id": "other"} if number % 2 else {}
            session.client.datasets.create(fields, scientific_metadata={"anneal": "hydrogen"} if number == 3 else None)
    return folder


@pytest.fixture(scope="module")
def session(filled: Path) -> Iterator[Session]:
    with Session(Settings(filled)) as opened:
        yield opened


@pytest.fixture(scope="module")
def everything(session: Session) -> list[dict[str, Any]]:
    """Return the datasets of all projects, with the values of `show` and of the service's own list."""
    found = []
    for one in session.client.datasets.iter():
        shown = show_dataset(session, one.unique_id).to_json()
        numbers = {name: value for name, value in shown["results"].items() if type(value) in (int, float)}
        found.append(
            {
                "mfid": one.unique_id, "name": one.dataset_name or "", "measurement": one.measurement or "",
                "format": one.data_format or "", "session": one.session_name or "", "step": shown["step"] or "",
                "pipeline": shown["pipeline"] or "", "state": shown["state"], "instrument": one.instrument_name or "",
                "kind": one.data_type or one.data_format or "", "taken": one.timestamp or "", "size": one.size,
                "project": one.project_id or "", "created": one.creation_time or "",
                "numbers": numbers if shown["step"] else {},
            }
        )  # fmt: skip
    return found


def fits(one: dict[str, Any], wanted: DatasetSearch) -> bool:
    fields = ("name", "step", "pipeline", "measurement", "instrument")
    text = " ".join([*(one[field] for field in fields), one["kind"] if one["kind"] != one["format"] else ""]).lower()
    return all(word in text or one["mfid"].startswith(word) for word in wanted.words.lower().split()) and all(
        one[name] == value for name, value in wanted.facets.items()
    )


@pytest.fixture(scope="module")
def ours(everything: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the datasets of one project."""
    return [one for one in everything if one["project"] == "spectra"]


@pytest.mark.parametrize("within", ["spectra", EVERYTHING])
def test_random_searches_match_brute_force(session: Session, everything: list[dict[str, Any]], within: str) -> None:
    everything = [one for one in everything if within in (EVERYTHING, one["project"])]
    chance = random.Random(15)
    sortable = [column.name for column in COLUMNS if column.name in everything[0]]
    with_matches = 0
    for _ in range(SEARCHES):
        words = " ".join(
            chance.sample(["gold", "SILVER", "film", "ünï", "fit", "1", "0t", "<b"], chance.choice([0, 0, 1, 2]))
        )
        chosen = {
            name: value
            for name in chance.sample(list(facets()), chance.choice([0, 1, 2]))
            if (value := chance.choice(everything)[name])
        }
        column = chance.choice(["", *sortable, "results.peak_nm"])
        backwards = bool(column) and chance.random() < 0.5
        wanted = DatasetSearch(words, chosen, sort=("-" if backwards else "") + column)
        found = browse(session, within, wanted)
        expected = [one for one in everything if fits(one, wanted)]
        with_matches += bool(expected)
        assert {entry.mfid for entry in found.entries} == {one["mfid"] for one in expected}, wanted
        assert_sorted([entry.mfid for entry in found.entries], everything, column, backwards)
        for name in facets():
            others = DatasetSearch(words, {other: value for other, value in chosen.items() if other != name})
            counts = Counter(one[name] for one in everything if fits(one, others) and one[name])
            assert dict(found.facets[name]) == counts, (name, wanted)
    assert with_matches > SEARCHES / 3


def assert_sorted(mfids: list[str], everything: list[dict[str, Any]], column: str, backwards: bool) -> None:
    by_id = {one["mfid"]: one for one in everything}

    def value(mfid: str) -> Any:
        one = by_id[mfid]
        if column.startswith("results."):
            return one["numbers"].get(column.removeprefix("results."))
        return one[column].casefold() if isinstance(one[column], str) else one[column]

    if not column:
        assert mfids == sorted(mfids, reverse=True)
        return
    present = [value(mfid) for mfid in mfids if value(mfid) not in ("", None)]
    assert present == sorted(present, reverse=backwards)
    assert all(value(mfid) in ("", None) for mfid in mfids[len(present) :])


def test_filters_of_the_service_apply_too(session: Session) -> None:
    found = browse(session, "spectra", DatasetSearch(service={"keyword": ["rare"]}))
    assert len(found.entries) == 19
    assert browse(session, "spectra", DatasetSearch("gold", service={"keyword": ["rare"]})).entries


def test_pages_contain_each_dataset_once(session: Session) -> None:
    found = browse(session, "spectra", DatasetSearch(sort="name"))
    pages = [page_of(found.entries, number)[0] for number in range(1, page_of(found.entries, 1)[1] + 1)]
    assert [entry for page in pages for entry in page] == list(found.entries)
    assert all(len(page) == PER_PAGE for page in pages[:-1])
    with pytest.raises(InputError, match="there is no page 99"):
        page_of(found.entries, 99)
    with pytest.raises(InputError, match="did you mean 'name'"):
        browse(session, "spectra", DatasetSearch(sort="nmae"))


def test_the_page_shows_the_datasets_and_offers_csv_and_json(
    filled: Path, ours: list[dict[str, Any]], everything: list[dict[str, Any]], tmp_path: Path, begin: Any
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(filled, copy)
    with pages(begin, copy) as browser:

        def names(page: str) -> list[str]:
            return re.findall(r'class="name"><a href="/datasets/([0-9a-z]{26})"', page)

        first = browser.get("/projects/spectra?sort=name").text
        old = sum(one["state"] == "superseded" for one in ours)
        assert f"{len(ours) - old} datasets, and {old} superseded ones below, page 1 of" in first
        second = browser.get("/projects/spectra?sort=name&page=2").text
        assert 'rel="prev" href="?sort=name"' in second
        assert not set(names(first)) & set(names(second))
        found = browser.get("/projects/spectra?q=gold+film&measurement=XRD").text
        wanted = DatasetSearch("gold film", {"measurement": "XRD"})
        assert set(names(found)) == {one["mfid"] for one in ours if fits(one, wanted)}
        step = browser.get("/projects/spectra?step=fitted&state=current&sort=-results.peak_nm").text
        assert "peak_nm ↓" in step
        assert step.index("11.75") < step.index("10.25") < step.index(">2.5")
        assert "<b>" not in found.replace("<b></b>", "")
        rows = browser.get("/projects/spectra/datasets.json?step=fitted").json()["datasets"]
        assert len(rows) == 8
        assert {row["results"]["peak_nm"] for row in rows} == {1.5, 2.5, 10.25, 11.75}
        table = list(csv.DictReader(io.StringIO(browser.get("/projects/spectra/datasets.csv?q=gold").text)))
        assert {row["mfid"] for row in table} == {one["mfid"] for one in ours if fits(one, DatasetSearch("gold"))}
        wanted = DatasetSearch("gold", {"measurement": "SEM"})
        everywhere = browser.get("/datasets?q=gold&measurement=SEM&sort=project").text
        expected = [one for one in everything if fits(one, wanted)]
        old = sum(one["state"] == "superseded" for one in expected)
        assert f"{len(expected) - old} datasets" in everywhere
        rows = browser.get("/datasets.json?q=gold&measurement=SEM").json()["datasets"]
        assert {row["mfid"] for row in rows} == {one["mfid"] for one in expected}
        count_by_project = Counter(one["project"] for one in expected)
        assert f"other ({count_by_project['other']})" in everywhere
        assert {row["project"] for row in rows} == {"spectra", "other", None}
        table = list(csv.DictReader(io.StringIO(browser.get("/datasets.csv?project=other").text)))
        assert len(table) == 10
        found_by_metadata = browser.get("/datasets?q=hydrogen&in=metadata").text
        assert len(names(found_by_metadata)) == 1
        assert "1 dataset among the 50 best matches" in found_by_metadata
        for query in ("page=0", "page=x", "page=99", "sort=colour", "since=yesterday"):
            assert browser.get(f"/projects/spectra?{query}").status_code == 400


@contextmanager
def pages(begin: Any, folder: Path) -> Iterator[httpx.Client]:
    """Sign in to the pages of `serve`."""
    process = begin("serve", "--data", folder, "--json")
    try:
        site = json.loads(process.stdout.readline())["pages"].rstrip("/")
        with httpx.Client(base_url=site, timeout=60, verify=False) as browser:
            key = (folder / "crucible" / "api_key").read_text().strip()
            assert browser.post("/sign-in", data={"key": key}, headers={"Origin": site}).status_code == 303
            for path in ("/projects/spectra", "/datasets"):
                while "refresh" in browser.get(path).headers:
                    pass
            yield browser
    finally:
        process.terminate()
        process.communicate(timeout=20)
