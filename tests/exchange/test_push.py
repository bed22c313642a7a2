"""A project brought to a service: all of it, under the same ids, once; what contradicts is told before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.exchange.copying import bring, plan_named, plan_project
from crucible_lineage.pipeline.plan.corrections import corrections, record_act
from crucible_lineage.provenance.record import KEY, read_record
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


def test_everything_is_there_as_it_was_here_under_the_same_ids(
    rich: Session, service: Any, push: Any, state_of: Any
) -> None:
    _, outcome = push(service, rich)
    assert (outcome.skipped, len(outcome.sent)) == ([], 7)
    here, there = state_of(rich), service.state()
    assert there == here
    with service.session() as session:
        records = [read_record(d.scientific_metadata) for d in session.client.datasets.list(include_metadata=True)]
        assert sum(record is not None and record.is_complete for record in records) == 4
        assert verify_project(session, "lab", read_bytes=True).findings in ((), [])


def test_a_second_push_sends_nothing_and_one_of_what_changed_only_that(
    rich: Session, service: Any, push: Any, writes: list[str], state_of: Any
) -> None:
    push(service, rich)
    writes.clear()
    plan, outcome = push(service, rich)
    assert (plan.items, plan.equal, outcome.sent, writes) == ((), 5, [], [])
    (total,) = rich.client.datasets.list(project_id="lab", data_type="sum")
    rich.client.datasets.add_keyword(total.unique_id, "looked at")
    rich.client.metadata.merge(total.unique_id, {"remark": {"by": "me"}})
    writes.clear()
    plan, _ = push(service, rich)
    assert [(item.mfid, item.missing.in_words) for item in plan.items] == [
        (total.unique_id, "metadata: remark; keywords: looked at")
    ]
    assert len(writes) == 2
    assert service.state() == state_of(rich)


def test_two_offline_machines_that_did_overlapping_work_end_as_one(
    lab: Any, rich: Session, service: Any, push: Any, tmp_path: Path, run_local: Any, state_of: Any
) -> None:
    lab.file("second.txt", "20\n")
    with Session(Settings(tmp_path / "other")) as other:
        run_local(lab.pipeline, other)
        mine, theirs = state_of(rich), state_of(other)
        common = mine.keys() & theirs.keys()
        assert len(common) == 2, "the raw data and the scaled ones"
        push(service, rich)
        plan, outcome = push(service, other)
        assert (plan.conflicts, outcome.skipped) == ((), [])
        assert service.state().keys() == mine.keys() | theirs.keys()
        again, _ = push(service, rich)
        assert (again.items, again.conflicts) == ((), ())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda c, mfid: c.datasets.update(mfid, dataset_name="another"),
            "dataset_name is 'another' at the target and",
        ),
        (lambda c, mfid: c.metadata.merge(mfid, {"factor": 7}), "metadata factor is 7 at the target and 3.0 at"),
        (lambda c, mfid: c.datasets.delete(mfid, "wrong"), "its deletion is requested at the target"),
        (lambda c, mfid: c.metadata.merge(mfid, {KEY: {"recipe": {"code": "other"}}}), "the target has another recipe"),
    ],
)
def test_what_contradicts_is_named_and_holds_back_what_was_made_of_it(
    lab: Any, rich: Session, service: Any, push: Any, writes: list[str], change: Any, told: str
) -> None:
    push(service, rich)
    (scaled,) = rich.client.datasets.list(project_id="lab", data_type="scaled")
    (total,) = rich.client.datasets.list(project_id="lab", data_type="sum")
    rich.client.datasets.add_keyword(total.unique_id, "looked at")
    with service.session() as session:
        change(session.client, scaled.unique_id)
    writes.clear()
    plan, outcome = push(service, rich)
    assert [conflict.mfid for conflict in plan.conflicts] == [scaled.unique_id]
    assert told in plan.conflicts[0].reason
    assert (outcome.sent, [one.mfid for one in plan.skipped], writes) == ([], [total.unique_id], [])


def test_an_id_that_is_taken_in_another_project_is_told(rich: Session, service: Any, push: Any) -> None:
    (raw,) = rich.client.datasets.list(project_id="lab", dataset_name="first")
    with service.session() as session:
        lead = session.client.account.whoami().user_unique_id
        session.client.projects.create(project_id="elsewhere", organization="x", project_lead=lead)
        session.client.datasets.create({"unique_id": raw.unique_id, "project_id": "elsewhere", "dataset_name": "x"})
    plan, _ = push(service, rich)
    assert [conflict.reason for conflict in plan.conflicts] == [
        "its id is taken at the target by a dataset of project 'elsewhere'"
    ]
    assert raw.unique_id not in service.state()


def test_what_is_lost_there_is_sent_again(rich: Session, service: Any, push: Any, state_of: Any) -> None:
    push(service, rich)
    with service.session() as session:
        (made,) = session.client.datasets.list(dataset_name="by hand")
        for file in session.client.files.list(made.unique_id):
            session.client.files.delete(file.mfid)
        for picture in session.client.datasets.get_thumbnails(made.unique_id):
            session.client.datasets.delete_thumbnail(made.unique_id, picture.id)
        session.client.datasets.remove_sample(made.unique_id, "0rztm2jg021sb77z7kvdejhvp0")
    push(service, rich)
    assert service.state() == state_of(rich)


def test_which_result_holds_is_brought_as_of_the_later_run(
    lab: Any, offline: Session, service: Any, push: Any, run_local: Any, state_of: Any
) -> None:
    def three(number: int) -> None:
        lab.pipeline.write_text(lab.pipeline.read_text().replace("factor: 4", "factor: 3").replace(
            "factor: 3", f"factor: {number}"))  # fmt: skip

    three(4)
    run_local(lab.pipeline, offline)
    push(service, offline)
    three(3)
    run_local(lab.pipeline, offline)
    plan, _ = push(service, offline)
    assert all(item.missing.in_words.startswith("slots: counting/") for item in plan.items)
    assert service.state() == state_of(offline)


def test_corrections_there_join_those_that_were_brought(rich: Session, service: Any, push: Any) -> None:
    (total,) = rich.client.datasets.list(project_id="lab", data_type="sum")
    record_act(rich, total.unique_id, "looked at here")
    push(service, rich)
    with service.session() as session:
        record_act(session, total.unique_id, "looked at there")
        there = session.client.datasets.get(total.unique_id, include_metadata=True).scientific_metadata
    assert [correction.what for correction in corrections(there)] == ["looked at here", "looked at there"]
    again, _ = push(service, rich)
    assert (again.items, again.conflicts) == ((), ())


@pytest.mark.parametrize("is_known", [True, False])
def test_an_instrument_is_linked_where_it_is_known_and_else_only_named(
    offline: Session, service: Any, push: Any, is_known: bool
) -> None:
    fields = {"instrument_id": "sem-1", "instrument_name": "The SEM", "location": "here"}
    offline.client.instruments.create(fields)
    made = offline.client.datasets.create({"dataset_name": "x", "project_id": "lab", "instrument_id": "sem-1"}).dsid
    if is_known:
        with service.session() as session:
            session.client.instruments.create(fields)
    plan, _ = push(service, offline)
    assert plan.conflicts == ()
    with service.session() as session:
        found = session.client.datasets.get(made)
        assert (found.instrument_name, found.instrument_id) == ("The SEM", "sem-1" if is_known else None)
    again, _ = push(service, offline)
    assert (again.items, again.conflicts) == ((), ())


def test_what_is_not_finished_here_stays_here_and_is_told(
    offline: Session, service: Any, push: Any, unfinish: Any
) -> None:
    (total,) = offline.client.datasets.list(project_id="lab", data_type="sum")
    unfinish(offline.client, total.unique_id)
    plan, outcome = push(service, offline)
    assert [(one.mfid, one.reason) for one in plan.skipped] == [(total.unique_id, "it is unfinished in the source")]
    assert total.unique_id not in service.state()
    assert len(outcome.sent) == 3


def test_what_another_machine_begins_there_after_it_was_listed_is_no_conflict(
    offline: Session, service: Any, tmp_path: Path
) -> None:
    (first,) = offline.client.datasets.list(project_id="lab", dataset_name="first", include_metadata=True)
    mfid, record = first.unique_id, {**(first.scientific_metadata or {})[KEY], "status": "incomplete", "completed": {}}
    with service.session("other") as other, service.session("offline") as target:
        other.client.datasets.create({"unique_id": mfid, "project_id": "lab", "dataset_name": "first"})
        listed = target.client.files.list

        def begun_before(dataset: str) -> Any:
            if dataset == mfid and other.client.metadata.get(mfid) is None:
                other.client.metadata.create(mfid, {KEY: record})
                (tmp_path / "first.txt").write_text("other")
                other.client.files.upload(mfid, tmp_path / "first.txt")
            return listed(dataset)

        target.client.files.list = begun_before  # type: ignore[method-assign]
        plan = plan_project(offline, target, "lab", lambda *_: None)
    assert plan.conflicts == ()
    assert {item.mfid: item.missing.everything for item in plan.items}[mfid]


def test_a_parent_in_another_project_has_to_be_there(offline: Session, service: Any, push: Any) -> None:
    offline.client.projects.create(project_id="beam", organization="x", project_lead=offline.agent["unique_id"])
    raw = offline.client.datasets.create({"dataset_name": "dark field", "project_id": "beam"}).dsid
    (total,) = offline.client.datasets.list(project_id="lab", data_type="sum")
    offline.client.datasets.link_parent_child(raw, total.unique_id, relationship_type="is_part_of")
    plan, _ = push(service, offline)
    assert [conflict.reason for conflict in plan.conflicts] == [
        f"it was made of {raw}, of another project, which the target lacks; push that project first"
    ]
    assert total.unique_id not in service.state()


def push_alone(source: Session, service: Any, mfids: list[str]) -> tuple[str, ...]:
    """Bring only these datasets, and return the names of what was planned."""
    with service.session(source.settings.data) as target:
        plan = plan_named(source, target, mfids, lambda *_: None)
        assert plan.conflicts == ()
        bring(source, target, plan, lambda *_: None, lambda _: None, ingests=False, patience_s=0.0)
        return tuple(item.source.name for item in plan.items)


def test_a_link_follows_once_the_parent_is_there_and_is_not_planned_before(rich: Session, service: Any) -> None:
    (total,) = rich.client.datasets.list(project_id="lab", data_type="sum")
    parents = [parent.unique_id for parent in rich.client.datasets.list_parents(total.unique_id)]
    assert total.dataset_name in push_alone(rich, service, [total.unique_id])
    assert push_alone(rich, service, [total.unique_id]) == ()
    push_alone(rich, service, parents)
    assert push_alone(rich, service, [total.unique_id]) == (total.dataset_name,)
    with service.session() as there:
        linked = [parent.unique_id for parent in there.client.datasets.list_parents(total.unique_id)]
    assert sorted(linked) == sorted(parents)


def test_what_is_refused_keeps_back_only_what_was_made_of_it(rich: Session, service: Any, push: Any) -> None:
    (scaled,) = rich.client.datasets.list(project_id="lab", data_type="scaled")
    (file,) = [file for file in rich.client.files.list(scaled.unique_id) if file.filename == "scaled.txt"]
    stored = next(path for path in (rich.settings.data / "crucible").rglob("*") if path.name == file.sha256_hash[2:])
    stored.write_bytes(b"damaged")
    rich.cache.evict(str(file.sha256_hash))
    _, outcome = push(service, rich)
    assert len(outcome.sent) == 5
    assert {one.name for one in outcome.skipped} == {"first (scaled)", "first (total)"}
