"""A service that assigns ids itself has one dataset per recipe after any crash, without leftovers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import UnreachableError
from crucible_lineage.ids import new_mfid
from crucible_lineage.provenance.record import KEY, read_record
from crucible_lineage.registration.register import register_output
from crucible_lineage.session import Session


@pytest.fixture
def assigning(session: Session, parent: str, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session at a service that ignores the requested id."""
    create = session.client.datasets.create

    def assign(fields: Any, **more: Any) -> Any:
        return create({**fields, "unique_id": new_mfid()}, **more)

    monkeypatch.setattr(session.client.datasets, "create", assign)
    return session


def found(session: Session) -> list[tuple[str, bool]]:
    """Id of each dataset of that name, and whether it is complete."""
    listed = session.client.datasets.list(dataset_name="smoothed", include_metadata=True)
    records = {dataset.unique_id: read_record(dataset.scientific_metadata) for dataset in listed}
    return [(mfid, record is not None and record.is_complete) for mfid, record in records.items()]


@pytest.mark.parametrize("missing", ["metadata", "keyword"])
def test_a_dataset_that_a_crash_left_without_record_or_keyword_is_found(
    assigning: Session, parent: str, smoothed: Path, dataset: Any, missing: str
) -> None:
    new = dataset(parent, smoothed)
    orphan = assigning.client.datasets.create(new.fields).dsid
    if missing == "keyword":
        assigning.client.metadata.merge(orphan, {KEY: {**new.record.document(), "registrar": "dead-1"}})
    assert register_output(assigning.client, new, patience_s=0.05).mfid == orphan
    assert found(assigning) == [(orphan, True)]
    listed = assigning.client.datasets.list(keyword=f"recipe:{new.mfid}")
    assert [dataset.unique_id for dataset in listed] == [orphan]


def test_a_dataset_is_found_if_its_time_is_given_without_zone(
    assigning: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    orphan = assigning.client.datasets.create({**new.fields, "timestamp": "2024-05-01T12:00:00Z"}).dsid
    same = replace(new, fields={**new.fields, "timestamp": "2024-05-01T12:00:00"})
    assert register_output(assigning.client, same, patience_s=0.05).mfid == orphan


def test_the_oldest_of_several_duplicates_is_used_and_the_others_are_deleted(
    assigning: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    oldest, *_ = [assigning.client.datasets.create(new.fields).dsid for _ in range(3)]
    register_output(assigning.client, new, patience_s=0.05)
    assert found(assigning) == [(oldest, True)]


def test_a_complete_dataset_of_the_recipe_is_adopted(
    assigning: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    first = register_output(assigning.client, new)
    second = register_output(assigning.client, new)
    assert first == second
    assert found(assigning) == [(first.mfid, True)]


def test_datasets_of_the_same_name_with_other_contents_are_left_alone(
    assigning: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    new = dataset(parent, smoothed)
    create = assigning.client.datasets.create
    other_time = create({**new.fields, "timestamp": "2020-01-01T00:00:00+00:00"}).dsid
    described = create(new.fields, scientific_metadata={"remark": "mine"}).dsid
    filled = create(new.fields).dsid
    assigning.client.files.upload(filled, smoothed)
    linked = create(new.fields).dsid
    assigning.client.datasets.link_parent_child(linked, filled)
    made = register_output(assigning.client, new)
    theirs = {other_time, described, filled, linked}
    assert made.mfid not in theirs
    assert {mfid for mfid, _ in found(assigning)} == {made.mfid} | theirs
    assert assigning.client.metadata.get(described) == {"remark": "mine"}


def test_after_a_crash_at_any_call_there_is_one_dataset(
    assigning: Session, parent: str, smoothed: Path, dataset: Any
) -> None:
    for number in range(1, 40):
        recipe = {
            "kind": "step", "project": "lab", "step": "smooth", "output": "out", "code": "c0de" * 16,
            "params": {"number": number}, "inputs": {"spectrum": [{"mfid": parent, "files": {}}]},
        }  # fmt: skip
        new = replace(dataset(parent, smoothed, recipe), ingest=False)
        left = iter(range(number))

        def die(request: Any, left: Any = left) -> None:
            if next(left, None) is None:
                raise UnreachableError(f"killed before {request.url.path}")

        assigning.client._api.event_hooks = {"request": [die]}
        try:
            register_output(assigning.client, new)
        except UnreachableError:
            died = True
        else:
            died = False
        assigning.client._api.event_hooks = {}
        made = register_output(assigning.client, new, patience_s=0.05)
        assert [mfid for mfid, complete in found(assigning) if not complete] == [], f"killed at call {number}"
        same = assigning.client.datasets.list(keyword=f"recipe:{new.mfid}")
        assert [dataset.unique_id for dataset in same] == [made.mfid]
        if not died:
            assert number > 8, "so few calls cannot be all"
            return
    raise AssertionError("a registration of so many calls")
