"""`verify` finds results that are wrongly current, each with a command that resolves the finding."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.explain import explain
from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.verify import verify_dataset, verify_project
from crucible_lineage.ask.view import show_dataset
from crucible_lineage.core.slots import SlotClaim, slots_of, slots_to_json
from crucible_lineage.errors import NotFoundError, RefusedError
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import make_current
from tests.runs import run as run_file

PNG = b"\x89PNG\r\n\x1a\n"  # as a picture begins
LATER = "2126-01-01T00:00:00+00:00"


def run(session: Session, path: Path, choice: StepChoice = StepChoice(), **overrides: Any) -> RunResult:
    result = run_file(session, path, choice, **overrides)
    assert result.ok, result.errors
    return result


def findings_of(session: Session) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.check, finding.ids) for finding in verify_project(session, "lab").findings]


def test_a_current_result_of_a_superseded_one_is_found(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline).datasets
    only = StepChoice(only=("scaled",))
    second = run(session, lab.pipeline, only, scaled__factor=4).datasets
    scaled, total, new = first["scaled"]["out"], first["total"]["out"], second["scaled"]["out"]
    assert findings_of(session) == [("made-of-superseded", (total, scaled))]
    (finding,) = verify_project(session, "lab").findings
    assert finding.severity == "warning"
    assert finding.command == f"crucible-lineage rerun {total}"
    assert f"{new[-5:]}) has replaced" in finding.message
    assert [finding.check for finding in verify_dataset(session, total).findings] == ["made-of-superseded"]
    run(session, lab.pipeline, scaled__factor=4)
    assert findings_of(session) == []


def test_an_earlier_result_is_current_everywhere_while_the_later_is_to_be_deleted(lab: Any, session: Session) -> None:
    old = run(session, lab.pipeline).datasets["total"]["out"]
    new = run(session, lab.pipeline, scaled__factor=4).datasets["total"]["out"]
    session.client.deletions.request(new, reason="wrong factor")
    lineage = fetch_lineage(session, old)
    for mfid, state in ((old, "current"), (new, "withdrawn")):
        assert fetch_lineage(session, mfid).nodes[mfid].state == state
        assert show_dataset(session, mfid).entry.state == explain(session, mfid).entry.state == state
        described = {mfid: lineage.nodes[mfid].record or {}}
        assert lineage.with_records(described).nodes[mfid].state == state, "as pages draw it"
    assert lineage.nodes[old].superseded_by == ()
    assert "Withdrawn: its deletion was requested" in str(explain(session, new))
    assert new not in {standing.mfid for standing in list_datasets(session, "lab", every=True).entries}


def test_a_lineage_has_what_is_to_be_deleted_and_has_no_graph_beside_others(
    lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = run(session, lab.pipeline).datasets["total"]["out"]
    gone, kept = (session.client.datasets.create({"project_id": "lab", "dataset_name": name}).dsid for name in "gk")
    session.client.deletions.request(gone, reason="empty")
    linked, graph_of = {*fetch_lineage(session, total).nodes}, session.client.graphs.get

    def without_graphs(mfid: str, **more: Any) -> Any:
        if mfid != total:
            raise NotFoundError("no graph")
        return graph_of(mfid, **more)

    monkeypatch.setattr(session.client.graphs, "get", without_graphs)
    for mfids, most, there in (
        ((gone,), 1, {gone}), ((gone, gone, total), 2, {gone, *linked}), ((total, gone), 2, {gone, *linked}),
        ((total, *linked, gone), 1, linked), ((gone, total), 1, {gone}),
    ):  # fmt: skip
        nodes = fetch_lineage(session, *mfids, most=most).nodes
        assert ({*nodes}, nodes[gone].state if gone in nodes else "") == (there, "withdrawn" * (gone in there)), mfids
    session.client.datasets.add_thumbnail(total, PNG, "spectrum.png")
    drawn = fetch_lineage(session, total, thumbnails=True).nodes
    shown = {mfid: node.record["thumbnail"] for mfid, node in drawn.items() if node.record}
    assert shown == {**dict.fromkeys(linked), total: f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}
    with pytest.raises(RefusedError) as refused:
        fetch_lineage(session, total, kept, most=2)
    needed = "lineages need one; `crucible-lineage doctor` tests what else this Crucible lacks"
    assert str(refused.value) == f"dataset {kept} exists, but Crucible has no graph of it\n{needed}"


def test_a_manual_result_of_a_superseded_one_is_found(lab: Any, session: Session, tmp_path: Path) -> None:
    from crucible_lineage.pipeline.declare.inputs import FileInput
    from crucible_lineage.pipeline.plan.files import existing_dataset, hash_files, raw_files, register_raw

    old = run(session, lab.pipeline).datasets["total"]["out"]
    path = tmp_path / "fitted.txt"
    path.write_text("by hand")
    raw = raw_files("lab", hash_files([path], session), parents=[existing_dataset(old, session)])
    made = register_raw(raw, FileInput(file=(str(path),)), "fitted", session, "fitted by eye")
    assert findings_of(session) == []
    new = run(session, lab.pipeline, scaled__factor=4).datasets["total"]["out"]
    (finding,) = verify_project(session, "lab").findings
    assert (finding.check, finding.ids) == ("made-of-superseded", (made.mfid, old))
    assert f"--parent {new} --supersedes {made.mfid}" in finding.command


def test_a_slot_with_two_results_and_a_claim_by_measured_data(lab: Any, session: Session) -> None:
    first_run = run(session, lab.pipeline)
    other = run(session, lab.pipeline, scaled__factor=4)
    old, new, raw = first_run.datasets["total"]["out"], other.datasets["total"]["out"], first_run.inputs["first"][0]
    claims = slots_of(session.client.metadata.get(new))
    make_current(session.mirror, session.client, "lab", old, claims)
    scaled = slots_of(session.client.metadata.get(other.datasets["scaled"]["out"]))
    make_current(session.mirror, session.client, "lab", first_run.datasets["scaled"]["out"], scaled)
    twice = [ids for name, ids in findings_of(session) if name == "current-twice"]
    assert [set(ids) for ids in twice] == [
        {first_run.datasets["scaled"]["out"], other.datasets["scaled"]["out"]},
        {old, new},
    ]
    run(session, lab.pipeline)
    assert findings_of(session) == []
    (key,) = claims
    session.client.metadata.merge(raw, slots_to_json({key: SlotClaim(LATER, "", claims[key].declared_in)}))
    session.client.datasets.add_keyword(raw, "pipeline:counting")
    assert findings_of(session) == [], "measured data fill no slot, whatever their metadata"
    assert list_datasets(session, "lab", step="total").entries[0].mfid == old


def test_a_result_to_be_deleted_and_two_declarations_are_found(lab: Any, session: Session) -> None:
    old = run(session, lab.pipeline).datasets["total"]["out"]
    new = run(session, lab.pipeline, scaled__factor=4).datasets["total"]["out"]
    session.client.datasets.delete(new, "by mistake")
    withdrawn = [ids for name, ids in findings_of(session) if name == "withdrawn-holder"]
    assert withdrawn == [(new, old)]
    twin = lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 5"), "twin.yaml")
    run(session, twin)
    notices = [finding for finding in verify_project(session, "lab").findings if finding.check == "declared-twice"]
    assert [notice.severity for notice in notices] == ["notice"]
    assert "twin.yaml" in notices[0].message
