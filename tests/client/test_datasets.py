"""Datasets: what each call sends and returns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.ids import new_mfid


def test_a_lost_answer_to_create_is_no_conflict_if_the_id_is_our_own(client: CrucibleClient, stub: Any) -> None:
    stub.fault("POST", "^/datasets$", "lost")
    created = client.datasets.create({"dataset_name": "drift-corrected"})
    assert created.record.dataset_name == "drift-corrected"
    assert len(stub.datasets) == 1


@pytest.mark.parametrize("wrong", ["", "../datasets"])
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


def test_two_names_of_one_filter_are_refused(client: CrucibleClient, stub: Any) -> None:
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
