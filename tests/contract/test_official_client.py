"""The official client, unmodified, reads what the demo registered: datasets, files, parents and children."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible import CrucibleClient as OfficialClient

from crucible_lineage import demo
from tests.serving import start_server


@pytest.fixture
def official(demo_data: Path) -> Iterator[OfficialClient]:
    with start_server(demo_data / "crucible") as server:
        client = OfficialClient(api_url=server.url, api_key=server.api_key)
        yield client
        client.close() if hasattr(client, "close") else client._session.close()


@pytest.fixture
def ids(demo_origin: Any) -> dict[str, str]:
    found: dict[str, str] = json.loads(demo_origin[1])["datasets"]
    return found


def test_it_reads_the_datasets_with_their_provenance(official: OfficialClient, ids: dict[str, str]) -> None:
    axis = official.datasets.get(ids["axis"], include_metadata=True)
    assert axis["dataset_name"] == "Wavenumber axis from neon and silicon"
    record = axis["scientific_metadata"]["crucible_lineage"]
    assert record["status"] == "complete"
    assert {part["mfid"] for part in record["used"]} == {ids["neon"], ids["silicon"]}
    listed = official.datasets.list(project_id="demo-raman", limit=None)
    assert {dataset["unique_id"] for dataset in listed} == set(ids.values())


def test_it_reads_the_links_both_ways(official: OfficialClient, ids: dict[str, str]) -> None:
    parents = {dataset["unique_id"] for dataset in official.datasets.list_parents(ids["calibrated"])}
    children = {dataset["unique_id"] for dataset in official.datasets.list_children(ids["calibrated"])}
    assert parents == {ids["polystyrene"], ids["axis"]}
    assert children == {ids["bands"]}


def test_it_downloads_the_very_bytes(official: OfficialClient, ids: dict[str, str], tmp_path: Path) -> None:
    official.datasets.download(ids["neon"], output_dir=str(tmp_path))
    original = Path(demo.__file__).parent / "data" / "neon_new2_Z010.txt"
    (arrived,) = tmp_path.rglob("neon_new2_Z010.txt")
    assert arrived.read_bytes() == original.read_bytes()
    official.datasets.download(ids["bands"], output_dir=str(tmp_path))
    (table,) = tmp_path.rglob("bands.csv")
    stored = {file["filename"]: file for file in map(dict, official.datasets.list_files(ids["bands"]))}
    assert stored["bands.csv"]["sha256_hash"] == hashlib.sha256(table.read_bytes()).hexdigest()


def test_it_shows_the_thumbnail(official: OfficialClient, ids: dict[str, str]) -> None:
    shown = [dict(thumbnail) for thumbnail in official.datasets.get_thumbnails(ids["calibrated"])]
    (picture,) = [thumbnail for thumbnail in shown if thumbnail["thumbnail_name"] == "calibrated.png"]
    assert picture["mime_type"] == "image/png"
