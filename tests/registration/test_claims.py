"""Who may finish an unfinished registration, and when; equal contents of earlier attempts stay."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.client.models import Dataset, FileRecord
from crucible_lineage.core.folders import machine_id
from crucible_lineage.core.slots import SlotClaim, slots_of, slots_stated
from crucible_lineage.errors import UnreachableError
from crucible_lineage.marks import begin_mark, completion_mark, registrations
from crucible_lineage.registration import claim as claims
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.read import read
from crucible_lineage.registration.register import register_output
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

FOREVER_S = 600.0  # whoever waits so long hangs


@pytest.fixture
def new(parent: str, smoothed: Path, dataset: Any) -> NewDataset:
    made: NewDataset = dataset(parent, smoothed)
    return made


def interrupted(session: Session, new: NewDataset, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register everything except the completion."""
    merge = session.client.metadata.merge

    def dying(mfid: str, metadata: Any) -> Any:
        if any(key.startswith("crucible_lineage_complete_") for key in metadata):
            raise UnreachableError("killed")
        return merge(mfid, metadata)

    with monkeypatch.context() as broken:
        broken.setattr(session.client.metadata, "merge", dying)
        with pytest.raises(UnreachableError):
            register_output(session.client, new, machine)
    assert read(session.client, new.mfid).ref is None


def test_a_data_folder_has_one_name_and_no_other_has_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: machine_id(tmp_path / "one"), range(64)))
    assert len(names) == 1
    assert machine_id(tmp_path / "other") not in names
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["registrar"]


def test_an_unfinished_registration_of_the_same_machine_is_finished_at_once_without_repeating_work(
    session: Session, new: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(session, new, "here", monkeypatch)
    (before,) = session.client.files.list(new.mfid)
    register_output(session.client, new, "here", patience_s=FOREVER_S)
    (after,) = session.client.files.list(new.mfid)
    assert after.mfid == before.mfid
    assert len(session.client.ingestions.list(dataset_mfid=new.mfid)) == 1


def test_a_registration_by_another_machine_is_awaited_and_adopted(
    session: Session, new: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = session.client.files.upload
    begun, go = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return upload(*arguments, **options)

    monkeypatch.setattr(session.client.files, "upload", slow)
    second = replace(new, metadata={"width": 3, "whose": "the second"})
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(register_output, session.client, new, "elsewhere")
        assert begun.wait(60)
        adopted = pool.submit(register_output, session.client, second, "here", patience_s=FOREVER_S)
        go.set()
        assert adopted.result(60) == first.result(60)
    assert "whose" not in (session.client.metadata.get(new.mfid) or {})


def test_a_contested_dataset_is_not_still_while_its_files_change(
    new: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at a service where they do not change the time of modification."""
    known = registrations({**begin_mark("a", 1, {}, {}), **completion_mark("a", ""), **begin_mark("b", 2, {}, {})})
    dataset = Dataset(unique_id=new.mfid, modification_time="2026-01-01T00:00:00+00:00")
    moments = itertools.count(0.0, 3.0)  # what the clock shows, one look after the other
    monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: next(moments), time=time.time))
    watch, own, still = claims._Watch(False, 5.0), claims.Claim(new.mfid, new.record, {}, "here", 5.0), []
    for names in ("x", "x", "xy", "xy"):
        files = [FileRecord(mfid=name, filename=name, dataset_mfid=new.mfid) for name in names]
        watch.list_files(SimpleNamespace(files=SimpleNamespace(list=lambda _, files=files: files)), dataset, known)
        still.append(watch.evidence(known, dataset, own).is_still)
    assert still == [False, True, False, True]


def test_metadata_by_people_stay_if_only_the_record_was_lost(session: Session, new: NewDataset) -> None:
    register_output(session.client, new, "here")
    session.client.metadata.replace(new.mfid, {"remark": "mine"})
    register_output(session.client, new, "here", patience_s=0.05)
    metadata = session.client.metadata.get(new.mfid) or {}
    assert (metadata["remark"], metadata["width"]) == ("mine", 3)
    assert read(session.client, new.mfid).ref is not None


def test_metadata_of_an_unfinished_attempt_are_replaced(
    session: Session, new: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replace(new, metadata={"seed": 1, "only_first": {"deep": 1}})
    interrupted(session, first, "here", monkeypatch)
    register_output(session.client, replace(new, metadata={"seed": 2}), "here")
    metadata = dict(session.client.metadata.get(new.mfid) or {})
    assert metadata["seed"] == 2
    assert "only_first" not in metadata


def test_an_equal_file_of_another_attempt_is_sent_again(
    session: Session, new: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That attempt may be about to remove it."""
    interrupted(session, replace(new, metadata={"seed": 1}), "here", monkeypatch)
    (before,) = session.client.files.list(new.mfid)
    register_output(session.client, replace(new, metadata={"seed": 2}), "here")
    (after,) = session.client.files.list(new.mfid)
    assert (after.mfid == before.mfid, after.sha256_hash) == (False, before.sha256_hash)


@pytest.mark.parametrize("whole", [False, True])
def test_merging_back_older_metadata_changes_nothing(
    session: Session, new: NewDataset, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Also where the service merges only the outermost level, and the copy is of an attempt that was taken over."""
    interrupted(session, replace(new, metadata={"seed": 1}), "elsewhere", monkeypatch)
    older = dict(session.client.metadata.get(new.mfid) or {})
    register_output(session.client, replace(new, metadata={"seed": 2}), "here", patience_s=0.05)
    session.client.metadata.merge(new.mfid, slots_stated({"a/b/c/d": SlotClaim("2026-01-02T00:00:00+00:00", "run")}))
    before = read(session.client, new.mfid)
    newer = dict(session.client.metadata.get(new.mfid) or {})
    if whole:
        session.client.metadata.replace(new.mfid, {**newer, **older})
    else:
        session.client.metadata.merge(new.mfid, older)
    after = read(session.client, new.mfid)
    was, now = before.dataset.scientific_metadata, after.dataset.scientific_metadata
    assert (after.ref, after.record, slots_of(now)) == (before.ref, before.record, slots_of(was))
    assert after.dataset.scientific_metadata["seed"] == 2


@pytest.mark.parametrize("examples", sorted(Path(__file__).parent.glob("*.txt")), ids=lambda path: path.stem)
def test_the_examples_hold(examples: Path) -> None:
    run_examples(examples)
