"""`check` finds results that hold and should not, each with its way out: followed, the finding is gone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.core.slots import SlotClaim, hold, slots_of, slots_to_json
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.queries.catalogue.listing import list_datasets
from crucible_lineage.queries.catalogue.view import show_dataset
from crucible_lineage.queries.check import check_dataset, check_projects
from crucible_lineage.queries.explain import explain
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.session import Session

LATER = "2126-01-01T00:00:00+00:00"


def run(session: Session, path: Path, choice: StepChoice = StepChoice(), **overrides: Any) -> RunResult:
    bound = bind_file(path, session.store, {name.replace("__", "."): value for name, value in overrides.items()})
    done = plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None, choice)
    assert done.ok, done.errors
    return done


def found(session: Session) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.check, finding.ids) for finding in check_projects(session, ["lab"]).findings]


def test_a_result_that_holds_and_was_made_of_what_is_superseded(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline).datasets
    only = StepChoice(only=("scaled",))
    second = run(session, lab.pipeline, only, scaled__factor=4).datasets
    scaled, total, new = first["scaled"]["out"], first["total"]["out"], second["scaled"]["out"]
    assert found(session) == [("made-of-superseded", (total, scaled))]
    (finding,) = check_projects(session, ["lab"]).findings
    assert finding.severity == "warning"
    assert finding.command == f"crucible-lineage rerun {total}"
    assert f"{new[-5:]}) has replaced" in finding.message
    assert [one.check for one in check_dataset(session, total).findings] == ["made-of-superseded"]
    run(session, lab.pipeline, scaled__factor=4)
    assert found(session) == []


def test_what_stays_since_the_bytes_do_is_made_of_what_holds(lab: Any, session: Session) -> None:
    before = run(session, lab.pipeline)
    code = lab.folder / f"{lab.module}.py"
    code.write_text(code.read_text().replace("float(line) * factor", "factor * float(line)"))
    sys.modules.pop(lab.module)
    after = run(session, lab.pipeline)
    assert after.executed == ["scaled"]
    assert after.datasets["total"] == before.datasets["total"]
    assert found(session) == []


def test_where_the_later_result_is_to_be_deleted_the_earlier_one_is_current_wherever_it_is_shown(
    lab: Any, session: Session
) -> None:
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
    assert new not in {one.mfid for one in list_datasets(session, "lab", every=True).entries}


def test_a_hand_made_result_of_a_superseded_one(lab: Any, session: Session, tmp_path: Path) -> None:
    from crucible_lineage.pipeline.inputs.existing import existing_dataset, hash_files
    from crucible_lineage.pipeline.inputs.register import register_raw
    from crucible_lineage.pipeline.spec.inputs import FileInput

    old = run(session, lab.pipeline).datasets["total"]["out"]
    path = tmp_path / "fitted.txt"
    path.write_text("by hand")
    raw = hash_files("lab", [path], None, session, parents=[existing_dataset(old, session)])
    made = register_raw(raw, FileInput(file=str(path)), "fitted", session, "fitted by eye")
    assert found(session) == []
    new = run(session, lab.pipeline, scaled__factor=4).datasets["total"]["out"]
    (finding,) = check_projects(session, ["lab"]).findings
    assert (finding.check, finding.ids) == ("made-of-superseded", (made.mfid, old))
    assert f"--parent {new} --supersedes {made.mfid}" in finding.command


def test_a_place_that_two_hold_and_one_that_a_stranger_claims(lab: Any, session: Session) -> None:
    done = run(session, lab.pipeline)
    other = run(session, lab.pipeline, scaled__factor=4)
    old, new, raw = done.datasets["total"]["out"], other.datasets["total"]["out"], done.inputs["first"][0]
    filled = slots_of(session.client.metadata.get(new))
    hold(session.mirror, session.client, "lab", old, filled)
    scaled = slots_of(session.client.metadata.get(other.datasets["scaled"]["out"]))
    hold(session.mirror, session.client, "lab", done.datasets["scaled"]["out"], scaled)
    twice = [ids for name, ids in found(session) if name == "held-twice"]
    assert [set(ids) for ids in twice] == [
        {done.datasets["scaled"]["out"], other.datasets["scaled"]["out"]},
        {old, new},
    ]
    run(session, lab.pipeline)
    assert found(session) == []
    (key,) = filled
    session.client.metadata.merge(raw, slots_to_json({key: SlotClaim(LATER, "", filled[key].declared_in)}))
    session.client.datasets.add_keyword(raw, "pipeline:counting")
    assert found(session) == [], "measured data fills no place, whatever is written on it"
    assert list_datasets(session, "lab", step="total").entries[0].mfid == old


def test_a_result_that_is_to_be_deleted_and_two_declarations(lab: Any, session: Session) -> None:
    old = run(session, lab.pipeline).datasets["total"]["out"]
    new = run(session, lab.pipeline, scaled__factor=4).datasets["total"]["out"]
    request = session.client.datasets.delete(new, "by mistake")
    withdrawn = [ids for name, ids in found(session) if name == "withdrawn-holder"]
    assert withdrawn == [(new, old)]
    session.client.deletions.reject(request.id, elevated=True)
    assert found(session) == []
    twin = lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 5"), "twin.yaml")
    run(session, twin)
    notices = [one for one in check_projects(session, ["lab"]).findings if one.check == "declared-twice"]
    assert [one.severity for one in notices] == ["notice"]
    assert "twin.yaml" in notices[0].message


@pytest.mark.parametrize("factor", [3, 4])
def test_a_clean_project_has_none(lab: Any, session: Session, factor: int) -> None:
    run(session, lab.pipeline, scaled__factor=factor)
    run(session, lab.pipeline)
    assert found(session) == []
