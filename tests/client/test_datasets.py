"""Datasets: what each call sends and returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.ids import new_mfid
from crucible_lineage.session import Session

ID = new_mfid()


def test_a_lost_answer_to_create_is_no_conflict_if_the_id_is_our_own(client: CrucibleClient, stub: Any) -> None:
    stub.fault("POST", "^/datasets$", "lost")
    created = client.datasets.create({"dataset_name": "drift-corrected"})
    assert created.record.dataset_name == "drift-corrected"
    assert len(stub.datasets) == 1


REFUSED: dict[str, tuple[Callable[[CrucibleClient], Any], str]] = {
    "no id": (lambda client: client.datasets.get(""), "not the MFID of a dataset"),
    "a path": (lambda client: client.datasets.get("../datasets"), "not the MFID of a dataset"),
    "two filters": (lambda client: client.datasets.list(keyword="a", keywords="b"), "mean the same filter"),
    "a negative limit": (lambda client: client.datasets.list(limit=-1), "the limit is -1; give 0 or more"),
    "two names of a project": (lambda client: client.datasets.update(ID, project_id="a", project_mfid="b"), "one of"),
    "no number": (lambda client: client.metadata.merge(ID, {"a": {"b": [1, math.nan]}}), r"a\.b\[1\] is nan \(float\)"),
    "no JSON": (lambda client: client.metadata.merge(ID, {"when": datetime.now(UTC)}), "when is datetime"),
    "an unknown link": (lambda client: client.datasets.link_parent_child(ID, ID, "is_uncle_of"), "no relationship"),
    "no dataset": (lambda client: client.datasets.create(7), "cannot create a dataset from int"),
    "missing files": (lambda client: client.datasets.create({}, files=["no/where"]), "there is no file no/where"),
    "a missing file": (lambda client: client.files.upload(ID, "no/where"), "there is no file no/where"),
    "a name with folders": (lambda client: client.files.upload(ID, __file__, filename="a/b"), "not a file name: 'a/b'"),
    "no keyword": (lambda client: client.datasets.add_keyword(ID, ""), "the keyword is empty"),
    "no picture": (lambda client: client.datasets.add_thumbnail(ID, b""), "the picture is empty"),
    "a missing picture": (lambda client: client.datasets.add_thumbnail(ID, Path("no/where")), "there is no picture"),
    "a number for a picture": (lambda client: client.datasets.add_thumbnail(ID, 7), "not int"),
    "no time to wait": (lambda client: client.ingestions.wait(1, timeout_s=0), "must be positive, not 0 s"),
    "no lead": (
        lambda client: client.projects.create(project_id="abc", organization="x", project_lead=""),
        "project_lead is empty",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    client: CrucibleClient, stub: Any, call: Callable[[CrucibleClient], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(client)
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
