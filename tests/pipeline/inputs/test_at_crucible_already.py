"""Measured files that are registered already are found by their bytes, or by the id that they contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import IdTakenError, InputError
from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import find_raw, hash_files, raw_files, register_raw
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import read
from crucible_lineage.session import Session
from tests.runs import forget

ONE = """
pipeline: counting
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}}
"""


def uploaded(session: Session, path: Path, **fields: Any) -> str:
    """Upload a file as an instrument's own program would; return the MFID of its dataset."""
    session.ensure_project("lab")
    mfid = session.client.datasets.create({"project_id": "lab", "dataset_name": "by the instrument", **fields}).dsid
    session.client.files.upload(mfid, path)
    return mfid


def register(session: Session, path: Path, **how: Any) -> DatasetRef:
    session.ensure_project("lab")
    declared = FileInput(file=(str(path),), timestamp=how.pop("timestamp", None))
    raw = raw_files("lab", hash_files([path], session), declared.timestamp, **how)
    return find_raw(raw, session) or register_raw(raw, declared, path.name, session)


def test_bytes_that_an_instrument_has_uploaded_are_found_even_with_a_declared_time(
    lab: Any, session: Session, run: Callable[..., Any]
) -> None:
    theirs = uploaded(session, lab.folder / "first.txt")
    pipeline = lab.declare(ONE, "one.yaml")
    ran = run(pipeline)
    assert ran.ok, ran.errors
    assert ran.inputs["first"] == (theirs,)
    assert len(session.client.datasets.list(project_id="lab")) == 2
    assert run(pipeline).executed == []
    forget(session.mirror)
    again = run(pipeline)
    assert (again.inputs["first"], again.executed) == ((theirs,), [])


def test_of_several_uploads_of_the_same_bytes_the_one_with_the_same_time_is_used(lab: Any, session: Session) -> None:
    path = lab.folder / "first.txt"
    uploaded(session, path, timestamp="2024-05-01T11:00:00+00:00")
    same_time = uploaded(session, path, timestamp="2024-05-01T14:00:00+02:00")
    assert register(session, path, timestamp="2024-05-01T12:00:00Z").mfid == same_time


def test_equal_bytes_of_two_times_are_two_datasets(lab: Any, session: Session) -> None:
    path = lab.folder / "first.txt"
    first = register(session, path, timestamp="2024-05-01T12:00:00Z")
    second = register(session, path, timestamp="2024-05-01T12:05:00Z")
    assert first.mfid != second.mfid
    assert register(session, path, timestamp="2024-05-01T12:00:00Z") == first


def test_files_registered_without_a_time_are_found_with_a_time_or_a_salt(lab: Any, session: Session) -> None:
    path = lab.folder / "first.txt"
    first = register(session, path)
    assert register(session, path, timestamp="2024-05-01T12:00:00Z") == first
    assert register(session, path, timestamp="2024-05-01T12:01:00Z", salt="x") == first
    assert register(session, path, salt="x") == first


def test_a_dataset_of_another_project_is_not_used(lab: Any, session: Session) -> None:
    session.ensure_project("elsewhere")
    theirs = uploaded(session, lab.folder / "first.txt", project_id="elsewhere")
    assert register(session, lab.folder / "first.txt", timestamp="2024-05-01T12:00:00Z").mfid != theirs


def test_a_given_id_is_used_and_found_again(lab: Any, session: Session) -> None:
    path, mfid = lab.folder / "first.txt", new_mfid()
    assert register(session, path, mfid=mfid).mfid == mfid
    assert register(session, path, mfid=mfid).mfid == mfid
    assert register(session, path).mfid == mfid
    assert read(session.client, mfid).ref is not None
    assert len(session.client.datasets.list(project_id="lab")) == 1


def test_a_reserved_dataset_gets_the_files(lab: Any, session: Session) -> None:
    session.ensure_project("lab")
    mfid = session.client.datasets.create({"project_id": "lab", "dataset_name": "reserved"}).dsid
    assert register(session, lab.folder / "first.txt", mfid=mfid).mfid == mfid
    assert [file.filename for file in session.client.files.list(mfid)] == ["first.txt"]


def test_an_id_that_is_in_use_is_refused_before_anything_is_changed(lab: Any, session: Session) -> None:
    path = lab.folder / "first.txt"
    other = uploaded(session, lab.folder / "second.txt")
    with pytest.raises(IdTakenError, match="has other files"):
        register(session, path, mfid=other)
    with pytest.raises(InputError, match="not an MFID"):
        register(session, path, mfid="nonsense")
    with pytest.raises(InputError, match="follows from a recipe"):
        register(session, path, mfid=derive_mfid({"kind": "something"}, new_mfid()))
    session.ensure_project("elsewhere")
    theirs = uploaded(session, path, project_id="elsewhere")
    with pytest.raises(IdTakenError, match="elsewhere"):
        register(session, path, mfid=theirs)
    assert len(session.client.datasets.list(project_id="lab")) == 1


def test_the_command_takes_an_id(lab: Any, cli: Callable[..., Any]) -> None:
    mfid = new_mfid()
    ran = cli("register", lab.folder / "first.txt", "--project", "lab", "--mfid", mfid)
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout.startswith(mfid)
    again = cli("register", lab.folder / "first.txt", "--project", "lab", "--timestamp", "2024-05-01T12:00:00Z")
    assert again.stdout.split()[0] == mfid
    assert "already registered" in again.stdout
