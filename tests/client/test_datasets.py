"""Datasets: what each call sends and returns."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.ids import new_mfid


def test_a_misspelt_field_is_refused_before_any_call(client: CrucibleClient, stub: Any) -> None:
    with pytest.raises(InputError, match="nothing was sent\nmesurement: Extra inputs"):
        client.datasets.create({"mesurement": "SEM"})
    assert stub.calls == []


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


def test_an_unknown_filter_names_the_nearest_one(client: CrucibleClient, stub: Any) -> None:
    with pytest.raises(InputError, match="there is no filter 'mesurement'; did you mean 'measurement'"):
        client.datasets.list(mesurement="SEM")
    with pytest.raises(InputError, match="mean the same filter"):
        client.datasets.list(keyword="a", keywords="b")
    assert stub.calls == []


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
