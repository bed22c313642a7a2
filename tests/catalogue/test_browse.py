"""Words, conditions, orders and pages of a project's datasets, compared with a plain search of all.

Fifteen random searches; 240 with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.ask.listing import COLUMNS, list_datasets
from crucible_lineage.ask.view import show_dataset
from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import NIGHTLY

SEARCHES = 240 if NIGHTLY else 15
NAMES = ("gold", "Silver", "ünïcode", "film", "wafer", "<b>", "50 % off")
CONDITIONS = ("measurement", "format", "session", "state", "step", "instrument")


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
            session.client.datasets.create({k: v for k, v in fields.items() if v is not None})
        lead = session.client.account.whoami().user_unique_id
        session.client.projects.create(project_id="other", organization="test", project_lead=lead)
        for number in range(20):
            fields = {"dataset_name": f"gold {number}", "measurement": "SEM", "timestamp": "2026-04-01T09:00:00Z"}
            session.client.datasets.create(fields | ({"project_id": "other"} if number % 2 else {}))
    return folder


@pytest.fixture(scope="module")
def session(filled: Path) -> Iterator[Session]:
    with Session(Settings(filled)) as opened:
        yield opened


@pytest.fixture(scope="module")
def everything(session: Session) -> list[dict[str, Any]]:
    """Return the datasets of all projects, with the values of `show` and of the service's own list."""
    found = []
    for dataset in session.client.datasets.iter():
        shown = show_dataset(session, dataset.unique_id).to_json()
        numbers = {name: value for name, value in shown["results"].items() if type(value) in (int, float)}
        found.append(
            {
                "mfid": dataset.unique_id, "name": dataset.dataset_name or "", "measurement": dataset.measurement or "",
                "format": dataset.data_format or "", "session": dataset.session_name or "", "step": shown["step"] or "",
                "pipeline": shown["pipeline"] or "", "state": shown["state"], "size": dataset.size,
                "kind": dataset.data_type or dataset.data_format or "", "instrument": dataset.instrument_name or "",
                "project": dataset.project_id or "", "created": dataset.creation_time or "",
                "taken": dataset.timestamp or "", "numbers": numbers if shown["step"] else {},
            }
        )  # fmt: skip
    return found


def fits(dataset: dict[str, Any], words: str, chosen: dict[str, str]) -> bool:
    fields = ("name", "step", "pipeline", "measurement", "instrument")
    text = " ".join(
        [*(dataset[field] for field in fields), dataset["kind"] if dataset["kind"] != dataset["format"] else ""]
    ).lower()
    return all(word in text or dataset["mfid"].startswith(word) for word in words.lower().split()) and all(
        dataset[name] == value for name, value in chosen.items()
    )


@pytest.mark.parametrize("within", ["spectra", EVERYTHING])
def test_random_searches_match_brute_force(session: Session, everything: list[dict[str, Any]], within: str) -> None:
    everything = [dataset for dataset in everything if within in (EVERYTHING, dataset["project"])]
    chance = random.Random(15)
    sortable = [column.name for column in COLUMNS if column.name in everything[0]]
    with_matches = 0
    for _ in range(SEARCHES):
        words = " ".join(
            chance.sample(["gold", "SILVER", "film", "ünï", "fit", "1", "0t", "<b"], chance.choice([0, 0, 1, 2]))
        )
        chosen = {
            name: value
            for name in chance.sample(CONDITIONS, chance.choice([0, 1, 2]))
            if (value := chance.choice(everything)[name])
        }
        column = chance.choice([*sortable, "results.peak_nm"])
        backwards = chance.random() < 0.5
        where = " and ".join(f"{name} == {value!r}" for name, value in chosen.items()) or None
        sort = f"{'-' if backwards else ''}{column}"
        found = list_datasets(session, within, words=words, where=where, sort=sort, every=True)
        expected = [dataset for dataset in everything if fits(dataset, words, chosen)]
        with_matches += bool(expected)
        assert {entry.mfid for entry in found.entries} == {dataset["mfid"] for dataset in expected}, (words, where)
        assert_sorted([entry.mfid for entry in found.entries], everything, column, backwards)
    assert with_matches > SEARCHES / 3


def assert_sorted(mfids: list[str], everything: list[dict[str, Any]], column: str, backwards: bool) -> None:
    by_id = {dataset["mfid"]: dataset for dataset in everything}

    def value(mfid: str) -> Any:
        dataset = by_id[mfid]
        if column.startswith("results."):
            return dataset["numbers"].get(column.removeprefix("results."))
        return dataset[column].casefold() if isinstance(dataset[column], str) else dataset[column]

    present = [value(mfid) for mfid in mfids if value(mfid) not in ("", None)]
    assert present == sorted(present, reverse=backwards)
    assert all(value(mfid) in ("", None) for mfid in mfids[len(present) :])


def test_the_page_shows_the_datasets_and_offers_csv(
    filled: Path, everything: list[dict[str, Any]], tmp_path: Path, begin: Any
) -> None:
    ours = [dataset for dataset in everything if dataset["project"] == "spectra"]
    copy = tmp_path / "data"
    shutil.copytree(filled, copy)
    with pages(begin, copy) as browser:

        def names(page: str) -> list[str]:
            return re.findall(r'class="name"><a href="/datasets/([0-9a-z]{26})"', page)

        shown = [browser.get(f"/projects/spectra?sort=name&all=1&page={number}").text for number in (1, 2, 3)]
        assert f"{len(ours)} datasets, page 1 of 3" in shown[0]
        assert 'rel="prev" href="?sort=name&amp;all=1"' in shown[1]
        assert sorted(mfid for page in shown for mfid in names(page)) == sorted(dataset["mfid"] for dataset in ours)
        found = browser.get("/projects/spectra", params={"q": "gold film", "where": "measurement == 'XRD'"}).text
        assert set(names(found)) == {
            dataset["mfid"] for dataset in ours if fits(dataset, "gold film", {"measurement": "XRD"})
        }
        step = browser.get("/projects/spectra?step=fitted&sort=-results.peak_nm").text
        assert step.index("11.75") < step.index("10.25") < step.index("2.5")
        assert "<b>" not in found.replace("<b></b>", "")
        table = list(csv.DictReader(io.StringIO(browser.get("/projects/spectra/datasets.csv?q=gold&all=1").text)))
        assert {row["mfid"] for row in table} == {dataset["mfid"] for dataset in ours if fits(dataset, "gold", {})}
        query = {"q": "gold", "where": "measurement == 'SEM'", "all": "1"}
        rows = list(csv.DictReader(io.StringIO(browser.get("/datasets.csv", params=query).text)))
        expected = [dataset for dataset in everything if fits(dataset, "gold", {"measurement": "SEM"})]
        assert {row["mfid"] for row in rows} == {one["mfid"] for one in expected}
        assert {row["project"] for row in rows} == {"spectra", "other", ""}
        for query in ("page=0", "page=x", "page=99", "sort=colour", "where=1+%3D%3D"):
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
            yield browser
    finally:
        process.terminate()
        process.communicate(timeout=20)
