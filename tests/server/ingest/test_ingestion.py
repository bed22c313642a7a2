"""Ingestion reads files, fills gaps, and does not change what people wrote."""

from __future__ import annotations

from contextlib import closing

import pytest
from crucible import CrucibleClient
from crucible.models import Dataset
from PIL import Image

from crucible_lineage.server import start_server
from crucible_lineage.server.database import connect
from crucible_lineage.server.ingest.ingestors import ingest


def test_table_is_described_by_its_header_and_columns(spectrum):
    name, found = ingest(spectrum, spectrum.name, None)
    assert name == "DelimitedTextIngestor"
    assert found.metadata == {
        "laser_nm": 632.8,
        "operator": "Ada",
        "table": {
            "rows": 2,
            "delimiter": "comma",
            "columns": [
                {"name": "shift", "min": 620.9, "max": 1001.4},
                {"name": "counts", "min": 120.0, "max": 980.0},
            ],
        },
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prose.txt", b"It was a dark\nand stormy night; the rain fell, in torrents\n"),
        ("binary.csv", b"\x00\x01\x02"),
        ("empty.csv", b""),
        ("broken.json", b"{"),
        ("nan.json", b'{"a": NaN}'),
        ("deep.json", b"[" * 100_000),
        ("broken.png", b"\x89PNG\r\n\x1a\n"),
        ("broken.h5", b"\x89HDF\r\n\x1a\n"),
        ("unknown.xyz", b"abc"),
    ],
)
def test_file_that_says_nothing_is_no_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    _, found = ingest(path, name, None)
    assert found.metadata == ({"a": None} if name == "nan.json" else {})


def test_unsupported_file_is_complete_without_metadata(ingested, tmp_path):
    path = tmp_path / "raw.sif"
    path.write_bytes(b"Andor Technology")
    record, request = ingested(path)
    assert request["status"] == "complete"
    assert record["scientific_metadata"] is None


def test_gaps_are_filled_and_what_the_user_gave_stays(client, dataset, ingested, spectrum):
    mfid = dataset("mine", data_format=None)
    client.datasets.update_scientific_metadata(
        mfid, {"operator": "Marie", "crucible_lineage": {"step": "raw"}, "table": {"rows": 99}}
    )
    record, request = ingested(spectrum, mfid)
    assert (record["dataset_name"], record["data_format"]) == ("mine", "txt")
    document = record["scientific_metadata"]
    assert (document["operator"], document["laser_nm"], document["table"]["rows"]) == ("Marie", 632.8, 99)
    assert document["crucible_lineage"] == {"step": "raw"}
    assert request["ingestion_class"] == "DelimitedTextIngestor"


@pytest.mark.parametrize("unset", ["0001-01-01T00:00:00Z", "9999-12-31 23:59:59"])
def test_a_time_that_was_not_set_is_no_time(ingested, tmp_path, unset):
    path = tmp_path / "run.json"
    path.write_text(f'{{"start_time": "{unset}", "temperature_K": 300}}')
    record, request = ingested(path)
    assert (request["status"], record["scientific_metadata"]["temperature_K"]) == ("complete", 300)
    assert record["timestamp"][:16] == record["creation_time"][:16]


def test_parser_never_writes_the_provenance_record(ingested, tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"crucible_lineage": {"forged": true}, "temperature_K": 300}')
    record, _ = ingested(path)
    assert record["scientific_metadata"] == {"temperature_K": 300}


def test_image_gets_a_thumbnail_and_its_dimensions(client, ingested, tmp_path):
    path = tmp_path / "sem.tif"
    Image.new("I;16", (300, 100), 500).save(path)
    record, _ = ingested(path)
    assert record["scientific_metadata"]["image"]["width_px"] == 300
    assert [thumbnail["mime_type"] for thumbnail in client.datasets.get_thumbnails(record["unique_id"])] == [
        "image/png"
    ]


def test_request_of_a_killed_worker_is_processed_again(tmp_path, spectrum):
    with start_server(tmp_path / "data") as server:
        client = CrucibleClient(server.url, server.api_key)
        mfid = client.datasets.create(Dataset(dataset_name="x"))["dsid"]
        number = client.datasets.add_file(mfid, str(spectrum))["ingestion_request"]["id"]
        client.ingestions.wait(number, sleep_interval=0.05)
    with closing(connect(tmp_path / "data" / "crucible.db")) as db, db:
        db.execute("UPDATE ingestion_request SET status = 'started', worker = 'dead', ingestion_class = NULL")
    with start_server(tmp_path / "data") as server:
        request = CrucibleClient(server.url, server.api_key).ingestions.wait(number, sleep_interval=0.05)
        assert (request["status"], request["ingestion_class"]) == ("complete", "DelimitedTextIngestor")


def test_not_requested_ingestion_is_left_alone(api, client, dataset, spectrum):
    file = client.datasets.add_file(dataset(), str(spectrum))["associated_file"]
    made = api.post(f"/files/{file['mfid']}/ingest", params={"status": "not_requested"}).json()
    later = api.post(f"/files/{file['mfid']}/ingest").json()
    client.ingestions.wait(later["id"], sleep_interval=0.05)
    assert client.ingestions.get(made["id"])["status"] == "not_requested"
