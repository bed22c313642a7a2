"""Datasets: what each call sends and returns."""

from __future__ import annotations

import base64
import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import DatasetCreate
from crucible_lineage.errors import ConflictError, InputError, NotFoundError
from crucible_lineage.ids import new_mfid


def test_a_dataset_is_made_with_everything_in_it_in_order(client: CrucibleClient, stub: Any, spectrum: Path) -> None:
    stub.ingestion_states = ["started", "complete"]
    created = client.datasets.create(
        DatasetCreate(dataset_name="Si, raw", measurement="Raman Spectroscopy", timestamp=datetime(2026, 3, 1, 9)),
        scientific_metadata={"laser_nm": 632.8},
        keywords=["silicon", "calibration"],
        files=[spectrum],
        ingestor="H5Ingestor",
        wait=True,
    )
    assert created.record.timestamp == "2026-03-01T09:00:00+00:00"
    assert created.scientific_metadata == {"laser_nm": 632.8}
    assert created.files[0].ingestion is not None
    assert created.files[0].ingestion.status == "complete"
    assert stub.seen() == [
        "POST /datasets",
        "PATCH /resources/ID/metadata",
        "POST /datasets/ID/keywords",
        "POST /datasets/ID/keywords",
        "POST /datasets/ID/upload/multipart/initiate",
        "POST /datasets/ID/upload/multipart/upload-1/parts",
        "POST /datasets/ID/upload/multipart/complete",
        "POST /files/ID/ingest",
        "GET /ingestion_requests/1",
        "GET /ingestion_requests/1",
    ]
    assert stub.calls[0].json == {
        "unique_id": created.dsid,
        "dataset_name": "Si, raw",
        "measurement": "Raman Spectroscopy",
        "timestamp": "2026-03-01T09:00:00+00:00",
        "public": False,
    }
    assert stub.calls[7].query == {"status": ["requested"], "ingestion_class": ["H5Ingestor"]}


def test_a_misspelt_field_is_refused_before_any_call(client: CrucibleClient, stub: Any) -> None:
    with pytest.raises(InputError, match="nothing was sent\nmesurement: Extra inputs"):
        client.datasets.create({"mesurement": "SEM"})
    assert stub.calls == []


def test_a_given_id_that_exists_is_a_conflict(client: CrucibleClient, dsid: str) -> None:
    with pytest.raises(ConflictError) as caught:
        client.datasets.create({"unique_id": dsid})
    assert caught.value.mfid == dsid


def test_a_lost_answer_to_create_is_no_conflict_if_the_id_is_our_own(client: CrucibleClient, stub: Any) -> None:
    stub.fault("POST", "^/datasets$", "lost")
    created = client.datasets.create({"dataset_name": "drift-corrected"})
    assert created.record.dataset_name == "drift-corrected"
    assert len(stub.datasets) == 1


@pytest.mark.parametrize("wrong", ["ds-abc123", "", "../datasets", "0TK5K2NDM5ZVD000NR21QAKEH4"])
def test_only_mfids_get_into_paths(client: CrucibleClient, stub: Any, wrong: str) -> None:
    with pytest.raises(InputError, match="not the MFID of a dataset"):
        client.datasets.get(wrong)
    assert stub.calls == []


def test_fields_that_are_new_to_us_are_kept(client: CrucibleClient, stub: Any, dsid: str) -> None:
    stub.datasets[dsid]["beam_energy"] = 12.3
    assert client.datasets.get(dsid).model_extra == {"beam_energy": 12.3}


@pytest.fixture
def many(client: CrucibleClient, stub: Any) -> list[str]:
    """2500 datasets, newest first."""
    for _ in range(2500):
        mfid = new_mfid()
        stub.datasets[mfid] = {"unique_id": mfid, "public": False}
    return sorted(stub.datasets, reverse=True)


def test_a_list_without_limit_follows_all_pages(client: CrucibleClient, stub: Any, many: list[str]) -> None:
    assert [record.unique_id for record in client.datasets.list()] == many
    assert [call.query for call in stub.calls] == [
        {"limit": ["1000"]},
        {"limit": ["1000"], "cursor": ["1000"]},
        {"limit": ["1000"], "cursor": ["2000"]},
    ]


def test_pages_are_read_on_demand(client: CrucibleClient, stub: Any, many: list[str]) -> None:
    datasets = client.datasets.iter()
    assert stub.calls == []
    assert next(datasets).unique_id == many[0]
    assert len(stub.calls) == 1


def test_filters_go_out_under_their_names_on_the_wire(client: CrucibleClient, stub: Any, missing: str) -> None:
    client.datasets.list(
        keywords=["gold", "nano rods & more"],
        sample_id=missing,
        instrument_id="Raman-1",
        public=False,
        creation_time_gte=date(2026, 3, 1),
        creation_time_lte=date(2026, 3, 1),
        modification_time_gte=datetime(2026, 3, 1, 12),
        sort="created",
        direction="asc",
        limit=5,
    )
    assert stub.calls[-1].query == {
        "keyword": ["gold", "nano rods & more"],
        "sample_mfid": [missing],
        "instrument_mfid": [stub.instrument_mfid],
        "public": ["false"],
        "creation_time_gte": ["2026-03-01T00:00:00+00:00"],
        "creation_time_lte": ["2026-03-01T23:59:59.999999+00:00"],
        "modification_time_gte": ["2026-03-01T12:00:00+00:00"],
        "sort": ["created"],
        "direction": ["asc"],
        "limit": ["5"],
    }


def test_an_unknown_filter_names_the_nearest_one(client: CrucibleClient, stub: Any) -> None:
    with pytest.raises(InputError, match="there is no filter 'mesurement'; did you mean 'measurement'"):
        client.datasets.list(mesurement="SEM")
    with pytest.raises(InputError, match="mean the same filter"):
        client.datasets.list(keyword="a", keywords="b")
    assert stub.calls == []


def test_update_sends_each_field_by_the_route_made_for_it(client: CrucibleClient, stub: Any, dsid: str) -> None:
    stub.calls.clear()
    client.datasets.update(dsid, session_name=None, public=True, project_id="demo-raman", instrument_id="raman-1")
    assert stub.seen() == [
        "PATCH /datasets/ID",
        "POST /resources/ID/project",
        "PUT /datasets/ID/instrument",
        "PUT /resources/ID/access/public",
        "GET /datasets/ID",
    ]
    assert stub.calls[0].json == {"session_name": None}
    assert stub.calls[1].json == {"project_id": "demo-raman"}
    assert stub.calls[1].query == {"confirm": ["true"]}
    assert stub.calls[2].json == {"instrument_id": "raman-1"}


def test_metadata_that_json_cannot_hold_is_named(client: CrucibleClient, stub: Any, dsid: str) -> None:
    stub.calls.clear()
    with pytest.raises(InputError, match=r"fit\.peaks\[1\] is nan \(float\)\nnothing was sent"):
        client.metadata.merge(dsid, {"fit": {"peaks": [520.7, float("nan")]}})
    with pytest.raises(InputError, match=r"when is datetime"):
        client.metadata.merge(dsid, {"when": datetime.now(UTC)})
    assert stub.calls == []


def test_a_deletion_whose_answer_was_lost_counts_as_done(client: CrucibleClient, stub: Any, dsid: str) -> None:
    child = client.datasets.create({}).dsid
    client.datasets.link_parent_child(dsid, child)
    stub.fault("DELETE", "/children/", "lost")
    client.datasets.unlink(dsid, child)
    with pytest.raises(NotFoundError):
        client.datasets.unlink(dsid, child)


class Figure:
    def savefig(self, fname: io.BytesIO, **options: Any) -> None:
        fname.write(b"drawn as " + options["format"].encode())


def test_thumbnails_come_from_paths_bytes_and_figures(
    client: CrucibleClient, stub: Any, dsid: str, tmp_path: Path
) -> None:
    path = tmp_path / "preview.png"
    path.write_bytes(b"a picture")
    client.datasets.add_thumbnail(dsid, path)
    client.datasets.add_thumbnail(dsid, b"bytes", name="axis.png")
    client.datasets.add_thumbnail(dsid, Figure())
    pictures = client.datasets.get_thumbnails(dsid)
    assert [(p.thumbnail_name, base64.b64decode(p.thumbnail_b64str or "")) for p in pictures] == [
        ("preview.png", b"a picture"),
        ("axis.png", b"bytes"),
        (f"{dsid}_thumbnail.png", b"drawn as png"),
    ]
    with pytest.raises(InputError, match="there is no picture"):
        client.datasets.add_thumbnail(dsid, "absent.png")


def test_a_sample_without_own_id_is_not_made_twice(client: CrucibleClient, stub: Any) -> None:
    stub.fault("POST", "^/samples$", status=503)
    with pytest.raises(Exception, match="503"):
        client.samples.create({"sample_name": "wafer 7"})
    sample = client.samples.create(unique_id=new_mfid(), sample_name="wafer 7")
    assert client.samples.get(sample.unique_id).sample_name == "wafer 7"
    assert len(stub.samples) == 1


def test_waiting_for_ingestion_ends_with_its_status_or_with_the_time(
    client: CrucibleClient, stub: Any, dsid: str, spectrum: Path
) -> None:
    file = client.files.upload(dsid, spectrum).file
    request = client.ingestions.request(file.mfid)
    assert [entry.id for entry in client.ingestions.list(dataset_mfid=dsid)] == [request.id]
    stub.ingestion_states = ["requested", "started", "failed"]
    assert client.ingestions.wait(request.id).status == "failed"
    stub.ingestion_states = ["started"]
    with pytest.raises(Exception, match=r"still 'started' after 0\.05 s"):
        client.ingestions.wait(request.id, timeout_s=0.05)


def test_a_graph_has_edges_whatever_the_service_calls_them(client: CrucibleClient, stub: Any, dsid: str) -> None:
    assert client.graphs.get(dsid)["edges"] == []
    assert stub.calls[-1].query == {"recursive": ["true"]}
