"""Ingestion's findings belong to their file: renewed with it, kept beside those of others, and yielding to people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def add(client, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Add a file with this text to the dataset, wait for its ingestion, and return the dataset's record."""

    def run(mfid: str, name: str, text: str, **options: Any) -> dict[str, Any]:
        path = tmp_path / name
        path.write_text(text)
        added = client.datasets.add_file(mfid, str(path), **options)
        client.ingestions.wait(added["ingestion_request"]["id"], sleep_interval=0.05)
        return client.datasets.get(mfid, include_metadata=True)

    return run


def test_a_replaced_file_is_read_again(client, dataset, add):
    mfid = dataset()
    add(mfid, "a.json", '{"gain": 2, "only": "before"}')
    document = add(mfid, "a.json", '{"gain": 3}', replace=True)["scientific_metadata"]
    assert document == {"gain": 3}


def test_thumbnail_is_renewed_with_its_file_and_yields_to_that_of_a_person(client, dataset, tmp_path):
    mfid = dataset()
    path = tmp_path / "sem.png"

    def picture(colour: str, **options: Any) -> list[dict[str, Any]]:
        Image.new("RGB", (20, 20), colour).save(path)
        added = client.datasets.add_file(mfid, str(path), **options)
        client.ingestions.wait(added["ingestion_request"]["id"], sleep_interval=0.05)
        return [dict(found) for found in client.datasets.get_thumbnails(mfid)]

    (red,) = picture("red")
    (blue,) = picture("blue", replace=True)
    assert red["thumbnail_b64str"] != blue["thumbnail_b64str"]
    client.datasets.delete_thumbnail(mfid, blue["id"])
    client.datasets.add_thumbnail(mfid, red["thumbnail_b64str"], thumbnail_name="sem.png")
    (kept,) = picture("green", replace=True)
    assert kept["thumbnail_b64str"] == red["thumbnail_b64str"]


def test_the_metadata_of_each_of_several_files_are_kept_until_it_is_deleted(api, client, dataset, add):
    mfid = dataset()
    assert "files" not in add(mfid, "a.json", '{"laser_nm": 633, "x": {"y": 1}}')["scientific_metadata"]
    document = add(mfid, "b.json", '{"laser_nm": 785, "x": {"z": 2}}')["scientific_metadata"]
    assert (document["laser_nm"], document["x"]) == (633, {"y": 1, "z": 2})
    assert {name: found["laser_nm"] for name, found in document["files"].items()} == {"a.json": 633, "b.json": 785}
    a, b = (file["mfid"] for file in api.get(f"/datasets/{mfid}/files").json())
    api.delete(f"/files/{a}").raise_for_status()
    document = client.datasets.get(mfid, include_metadata=True)["scientific_metadata"]
    assert document == {"laser_nm": 785, "x": {"z": 2}}
    api.delete(f"/files/{b}").raise_for_status()
    assert client.datasets.get_scientific_metadata(mfid) is None


def test_metadata_that_people_wrote_survive_every_renewal(client, dataset, add):
    mfid = dataset()
    client.datasets.update_scientific_metadata(mfid, {"gain": 7, "x": {"rows": 99}})
    add(mfid, "a.json", '{"gain": 2}')
    client.datasets.update_scientific_metadata(mfid, {"note": "good"})
    document = add(mfid, "a.json", '{"gain": 3, "x": {"rows": 1, "z": 2}}', replace=True)["scientific_metadata"]
    assert document == {"gain": 7, "note": "good", "x": {"rows": 99, "z": 2}}


def test_fields_from_a_file_are_renewed_with_it_unless_somebody_changed_them(client, dataset, add, tmp_path):
    mfid = dataset(dataset_name=None, data_format=None)
    record = add(mfid, "a.csv", "x,y\n1,2\n2,3\n")
    assert (record["dataset_name"], record["data_format"]) == ("a.csv", "csv")
    client.datasets.update(mfid, dataset_name="mine")
    record = add(mfid, "a.csv", "x,y\n1,2\n", replace=True)
    assert (record["dataset_name"], record["data_format"]) == ("mine", "csv")
