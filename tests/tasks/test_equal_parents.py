"""Results of tasks that were made from other datasets of equal bytes are linked to these too."""

from __future__ import annotations

from crucible_lineage.json_types import JsonObject
from crucible_lineage.provenance.recipe import UsedDataset, raw_recipe
from crucible_lineage.provenance.record import raw_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.register import register_output
from crucible_lineage.session import Session
from crucible_lineage.tasks.dataset import link_equal_parents


def test_the_result_of_a_task_that_does_not_change_its_own_result_is_linked_to_others_only(session: Session) -> None:
    session.ensure_project("lab")
    fields: JsonObject = {"project_id": "lab", "dataset_name": "scan"}
    first, second = (DatasetRef(session.client.datasets.create(fields).dsid, "scan", ()) for _ in range(2))
    record = raw_record(raw_recipe("lab", [], [first]), [], session.agent, [first], "cleaned")
    mfid = session.client.datasets.create(fields).dsid
    made = register_output(session.client, NewDataset(mfid, fields, record, {}, (), parents=(first.mfid,)))
    assert link_equal_parents(made, [UsedDataset("data", made, ())], session) == made
    linked = link_equal_parents(made, [UsedDataset("data", second, ())], session)
    assert linked.equals == (second.mfid,)
    parents = {one.unique_id for one in session.client.datasets.list_parents(made.mfid)}
    assert parents == {first.mfid, second.mfid}
