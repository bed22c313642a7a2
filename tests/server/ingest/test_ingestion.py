"""Ingestion reads files, fills gaps, and does not change what people wrote."""

from __future__ import annotations


def test_gaps_are_filled_and_what_the_user_gave_stays(client, dataset, ingested, tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"laser_nm": 632.8, "operator": "Ada", "table": {"rows": 2}}')
    mfid = dataset("mine", data_format=None)
    client.datasets.update_scientific_metadata(
        mfid, {"operator": "Marie", "crucible_lineage": {"step": "raw"}, "table": {"rows": 99}}
    )
    record, request = ingested(path, mfid)
    assert (record["dataset_name"], record["data_format"]) == ("mine", "json")
    document = record["scientific_metadata"]
    assert (document["operator"], document["laser_nm"], document["table"]["rows"]) == ("Marie", 632.8, 99)
    assert document["crucible_lineage"] == {"step": "raw"}
    assert request["ingestion_class"] == "JsonIngestor"


def test_parser_never_writes_the_provenance_record(ingested, tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"crucible_lineage": {"forged": true}, "temperature_K": 300}')
    record, _ = ingested(path)
    assert record["scientific_metadata"] == {"temperature_K": 300}


def test_not_requested_ingestion_is_left_alone(api, client, dataset, spectrum):
    file = client.datasets.add_file(dataset(), str(spectrum))["associated_file"]
    made = api.post(f"/files/{file['mfid']}/ingest", params={"status": "not_requested"}).json()
    later = api.post(f"/files/{file['mfid']}/ingest").json()
    client.ingestions.wait(later["id"], sleep_interval=0.05)
    assert client.ingestions.get(made["id"])["status"] == "not_requested"
