"""Registration: every call repeatable, one recipe one dataset, complete or visibly unfinished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import RecipeConflictError, RefusedError
from crucible_lineage.ids import new_mfid
from crucible_lineage.provenance.record import KEY
from crucible_lineage.provenance.schema import new_record
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.read import read
from crucible_lineage.registration.register import register_output
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


def test_a_record_of_another_recipe_under_the_id_is_not_touched(
    session: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    register_output(session.client, new)
    document = new.record.document()
    other = new_record({**document, "recipe": {**document["recipe"], "params": {"width": 5}}})
    forged = NewDataset(new.mfid, new.fields, other, {"width": 5}, new.files)
    with pytest.raises(RecipeConflictError, match="nothing was written") as caught:
        register_output(session.client, forged)
    assert caught.value.mfid == new.mfid
    found = session.client.datasets.get(new.mfid, include_metadata=True).scientific_metadata or {}
    assert found["width"] == 3


def test_an_unfinished_attempt_with_other_bytes_is_replaced(
    session: Session, parent: str, smoothed: Path, dataset: Any, tmp_path: Path
) -> None:
    new = dataset(parent, smoothed)
    session.client.datasets.create({**new.fields, "unique_id": new.mfid})
    session.client.metadata.merge(new.mfid, {KEY: new.record.document()})
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "smooth.txt"
    other.write_text("0 0 0")
    session.client.files.upload(new.mfid, other)
    register_output(session.client, new, patience_s=0.05)
    (file,) = session.client.datasets.list_files(new.mfid)
    assert session.client.files.download_bytes(file) == b"1 2 3"


def test_a_service_that_gives_other_ids_is_refused(
    session: Session, parent: str, smoothed: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = dataset(parent, smoothed)
    create = session.client.datasets.create
    assigned = new_mfid()
    monkeypatch.setattr(
        session.client.datasets, "create", lambda fields, **more: create({**fields, "unique_id": assigned}, **more)
    )
    with pytest.raises(RefusedError, match=f"it gave the id {assigned} to a dataset that was to be {new.mfid}"):
        register_output(session.client, new)
    assert [dataset.unique_id for dataset in session.client.datasets.list(project_id="lab")] == [parent]


def test_a_record_too_long_for_metadata_is_completed_from_an_attached_file(
    session: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    many = {f"frame-{number:05}.tif": f"{number:064x}" for number in range(4000)}
    recipe = {**new.record.recipe, "inputs": {"spectrum": [{"origin": parent, "files": many}]}}
    long = dataset(parent, smoothed, recipe)
    made = register_output(session.client, long)
    stored = session.client.datasets.get(made.mfid, include_metadata=True).scientific_metadata or {}
    assert len(str(stored[KEY])) < 256 << 10
    found = read(session.client, made.mfid)
    assert found.ref == made
    assert found.record.recipe == recipe
    assert register_output(session.client, long) == made


def test_a_new_dataset_takes_few_calls_and_an_existing_one_four(
    session: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    calls: list[str] = []
    session.client._api.event_hooks = {
        "request": [lambda request: calls.append(f"{request.method} {request.url.path}")]
    }
    register_output(session.client, new)
    polls = [call for call in calls if call.startswith("GET")]
    assert all("/ingestion_requests/" in call for call in polls), calls
    # create, record, keyword, link, complete; for the file begin, sign, end (beside the bytes themselves), ingest
    assert len(calls) - len(polls) == 5 + 4, calls
    calls.clear()
    assert read(session.client, new.mfid).ref is not None
    assert len(calls) == 1
    calls.clear()
    register_output(session.client, new)
    assert len(calls) == 4, calls  # create, read with its files, and what this machine has asked to be ingested


def test_a_small_result_takes_one_call_at_the_embedded_crucible(tmp_path: Path, smoothed: Path, dataset: Any) -> None:
    with Session(Settings(tmp_path / "data", source="given")) as session:
        session.ensure_project("lab")
        client, calls = session.client, list[str]()
        parent = client.datasets.create({"dataset_name": "spectrum", "project_id": "lab"}).dsid
        client._api.event_hooks = client._storage.event_hooks = {"request": [lambda sent: calls.append(sent.method)]}
        made = register_output(client, dataset(parent, smoothed))
        assert calls == ["POST"]
        assert read(client, made.mfid).ref == made
        assert [keyword.keyword for keyword in client.datasets.get_keywords(made.mfid)] == ["smooth"]
        assert [entry.unique_id for entry in client.datasets.list_parents(made.mfid)] == [parent]
        (file,) = client.files.list(made.mfid)
        assert client.files.download_bytes(file) == smoothed.read_bytes()
        (request,) = client.ingestions.list(dataset_mfid=made.mfid)
        assert request.file_mfid == file.mfid
        calls.clear()
        assert register_output(client, dataset(parent, smoothed)) == made
        assert "PATCH" not in calls
