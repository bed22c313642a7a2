"""Registration: every call repeatable, one recipe one dataset, complete or visibly unfinished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.checksums import scan_file
from crucible_lineage.datasets import DatasetRef
from crucible_lineage.errors import RecipeConflictError, RefusedError, UnreachableError
from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.provenance import KEY, Activity, agent, read_record, step_record
from crucible_lineage.recipe import UsedDataset
from crucible_lineage.registry import LocalFile, NewDataset, look_up, register_output
from crucible_lineage.session import Session

CODE = "c0de" * 16


@pytest.fixture
def parent(session: Session) -> str:
    session.ensure_project("lab")
    return session.client.datasets.create({"dataset_name": "spectrum", "project_id": "lab"}).dsid


def dataset(parent: str, path: Path, recipe: Mapping[str, Any] | None = None) -> NewDataset:
    recipe = recipe or {
        "kind": "step", "project": "lab", "step": "smooth", "output": "out", "code": CODE, "params": {},
        "inputs": {"spectrum": [{"mfid": parent, "files": {}}]},
    }  # fmt: skip
    file = LocalFile.of(path, scan_file(path))
    spectrum = UsedDataset("spectrum", DatasetRef(parent, "spectrum", ()), ())
    now = "2026-01-01T00:00:00+00:00"
    record = step_record(
        recipe=recipe,
        pipeline=None,
        used=[spectrum],
        generated=[file.ref],
        activity=Activity("smooth", "lab:smooth", CODE, now, now),
        packages=(),
        who=agent({"unique_id": "0000-0000-0000-0001", "username": "local", "is_service_account": False}),
        supersedes=None,
    )
    return NewDataset(
        mfid=derive_mfid(recipe, parent),
        fields={"project_id": "lab", "dataset_name": "smoothed"},
        record=record,
        metadata={"width": 3},
        files=(file,),
        keywords=("smooth",),
        parents=(parent,),
    )


@pytest.fixture
def smoothed(tmp_path: Path) -> Path:
    path = tmp_path / "smooth.txt"
    path.write_text("1 2 3")
    return path


def test_registering_twice_is_registering_once(session: Session, parent: str, smoothed: Path) -> None:
    new = dataset(parent, smoothed)
    first = register_output(session.client, new)
    second = register_output(session.client, new)
    assert first == second
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 2
    assert len(session.client.datasets.list_files(new.mfid)) == 1
    assert len(session.client.ingestions.list(dataset_mfid=new.mfid)) == 1


def test_a_record_of_another_recipe_under_the_id_is_not_touched(session: Session, parent: str, smoothed: Path) -> None:
    new = dataset(parent, smoothed)
    register_output(session.client, new)
    other = {**new.record, "recipe": {**new.record["recipe"], "params": {"width": 5}}}
    forged = NewDataset(new.mfid, new.fields, other, {"width": 5}, new.files)
    with pytest.raises(RecipeConflictError, match="nothing was written") as caught:
        register_output(session.client, forged)
    assert caught.value.mfid == new.mfid
    found = session.client.datasets.get(new.mfid, include_metadata=True).scientific_metadata or {}
    assert found["width"] == 3


def test_a_refusal_for_another_reason_is_told_as_it_is(session: Session, parent: str, smoothed: Path) -> None:
    new = dataset(parent, smoothed)
    elsewhere = NewDataset(new.mfid, {**new.fields, "project_id": "nowhere"}, new.record, {}, new.files)
    with pytest.raises(RefusedError, match="nowhere"):
        register_output(session.client, elsewhere)


def test_an_unfinished_record_is_visible_as_that_and_finished_by_the_next(
    session: Session, parent: str, smoothed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = dataset(parent, smoothed)

    def lost(*args: Any, **kwargs: Any) -> None:
        raise UnreachableError("the line is down")

    with monkeypatch.context() as broken:
        broken.setattr(session.client.files, "upload", lost)
        with pytest.raises(UnreachableError):
            register_output(session.client, new)
    found, record = look_up(session.client, new.mfid)
    assert found is None
    assert record is not None
    assert record["status"] == "incomplete"
    assert register_output(session.client, new).mfid == new.mfid
    assert look_up(session.client, new.mfid)[0] is not None


def test_an_unfinished_attempt_with_other_bytes_is_replaced(
    session: Session, parent: str, smoothed: Path, tmp_path: Path
) -> None:
    new = dataset(parent, smoothed)
    session.client.datasets.create({**new.fields, "unique_id": new.mfid})
    session.client.metadata.merge(new.mfid, {KEY: dict(new.record)})
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "smooth.txt"
    other.write_text("0 0 0")
    session.client.files.upload(new.mfid, other)
    register_output(session.client, new)
    (file,) = session.client.datasets.list_files(new.mfid)
    assert session.client.files.download_bytes(file) == b"1 2 3"


def test_a_server_that_assigns_its_own_ids_is_followed(
    session: Session, parent: str, smoothed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = dataset(parent, smoothed)
    create = session.client.datasets.create
    assigned = new_mfid()
    monkeypatch.setattr(
        session.client.datasets, "create", lambda fields, **more: create({**fields, "unique_id": assigned}, **more)
    )
    made = register_output(session.client, new)
    assert made.mfid == assigned
    found = session.client.datasets.list(keyword=f"recipe:{new.mfid}", include_metadata=True, limit=None)
    assert [dataset.unique_id for dataset in found] == [assigned]
    record = read_record(found[0].scientific_metadata)
    assert record is not None
    assert record["status"] == "complete"


def test_a_record_that_is_too_long_for_metadata_is_kept_in_a_file_and_read_back_whole(
    session: Session, parent: str, smoothed: Path
) -> None:
    new = dataset(parent, smoothed)
    many = {f"frame-{number:05}.tif": f"{number:064x}" for number in range(4000)}
    recipe = {**new.record["recipe"], "inputs": {"spectrum": [{"mfid": parent, "files": many}]}}
    long = dataset(parent, smoothed, recipe)
    made = register_output(session.client, long)
    stored = session.client.datasets.get(made.mfid, include_metadata=True).scientific_metadata or {}
    assert len(str(stored[KEY])) < 256 << 10
    found, record = look_up(session.client, made.mfid)
    assert found == made
    assert record is not None
    assert record["recipe"] == recipe
    assert register_output(session.client, long) == made
