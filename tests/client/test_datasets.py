"""Datasets: what each call sends and returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import NotFoundError
from crucible_lineage.ids import new_mfid
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

ID = new_mfid()


def test_a_lost_answer_to_create_is_no_conflict_if_the_id_is_our_own(client: CrucibleClient, stub: Any) -> None:
    stub.fault("POST", "^/datasets$", "lost")
    created = client.datasets.create({"dataset_name": "drift-corrected"})
    assert created.record.dataset_name == "drift-corrected"
    assert len(stub.datasets) == 1


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


def test_a_name_selects_an_instrument_if_only_one_has_it(session: Session) -> None:
    client, found = session.client, {}
    for slug, name in (("one", "A"), ("two", "B"), ("three", "B")):
        client.instruments.create(instrument_id=slug, instrument_name=name, location="lab")
    for name in "ABC":
        dataset = client.datasets.update(client.datasets.create({"dataset_name": name}).dsid, instrument_name=name)
        found[name] = dataset.instrument_name, dataset.instrument_id
    assert found == {"A": ("A", "one"), "B": ("B", None), "C": ("C", None)}


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("calls.txt"))
