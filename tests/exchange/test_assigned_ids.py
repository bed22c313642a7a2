"""A service that gives ids of its own: the map is kept, records name the ids there, and nothing comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from crucible_lineage.client.dataset.datasets import DatasetCalls
from crucible_lineage.ids import new_mfid
from crucible_lineage.provenance.record import read_record
from crucible_lineage.session import Session


@pytest.fixture
def assigning(service: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The service, which takes no notice of the id that it is asked for."""
    create = DatasetCalls.create

    def assign(self: DatasetCalls, fields: Any, **more: Any) -> Any:
        here = self._connection.api_url == service.url
        return create(self, {**fields, "unique_id": new_mfid()} if here else fields, **more)

    monkeypatch.setattr(DatasetCalls, "create", assign)
    return service


@contextmanager
def records(service: Any) -> Iterator[dict[str, Any]]:
    with service.session() as session:
        found = session.client.datasets.list(include_metadata=True, include_links=True)
        yield {dataset.unique_id: dataset for dataset in found}


def test_the_lineage_is_there_under_other_ids_and_a_second_push_sends_nothing(
    rich: Session, assigning: Any, push: Any, writes: list[str]
) -> None:
    _, outcome = push(assigning, rich)
    assert (outcome.skipped, len(outcome.ids)) == ([], 5)
    (total,) = rich.client.datasets.list(project_id="lab", data_type="sum", include_metadata=True)
    ours = read_record(total.scientific_metadata)
    with records(assigning) as there:
        theirs = read_record(there[outcome.ids[total.unique_id]].scientific_metadata)
        assert ours is not None
        assert theirs is not None
        assert theirs.recipe == ours.recipe
        assert theirs.parents == tuple(outcome.ids[parent] for parent in ours.parents)
        linked = {link.unique_id for link in there[outcome.ids[total.unique_id]].links or ()}
        assert {*theirs.parents} <= linked
        assert len(there) == 5
    writes.clear()
    plan, again = push(assigning, rich)
    assert (plan.items, plan.conflicts, again.ids, writes) == ((), (), outcome.ids, [])


def test_another_folder_finds_what_is_there_by_its_recipe(rich: Session, assigning: Any, push: Any) -> None:
    push(assigning, rich)
    rich.store.database.write("DELETE FROM brought")
    plan, _ = push(assigning, rich)
    assert (plan.items, plan.conflicts) == ((), ())
    with records(assigning) as there:
        assert len(there) == 5
