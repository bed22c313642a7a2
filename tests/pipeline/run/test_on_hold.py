"""Holds: nothing is made from data on hold, earlier results are doubtful, and lifting a hold computes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.plans import PlanAnswer
from crucible_lineage.ask.table import make_table
from crucible_lineage.ask.verify import verify_project
from crucible_lineage.ask.view import show_dataset
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import draw_plan, make_plan
from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import FLAG, HOLD, TRUST, About
from crucible_lineage.statements.stating import lift, state
from tests.runs import listed_states as states

Run = Callable[..., RunResult]
WHY = "detector saturated"
DOWNSTREAM = """
pipeline: later
project: other
inputs:
  total: {dataset: MFID}
steps:
  again:
    uses: LABMODULE:scale
    inputs: {counts: {from: total, files: total.txt}}
"""


def put_on_hold(session: Session, mfid: str, project: str = "lab", **more: Any) -> str:
    return state(session, project, HOLD, About((mfid,)), why=WHY, **more).statement.mfid


def blocked(session: Session, path: Path, *forced: str) -> dict[str, str]:
    steps = make_plan(bind_file(path, session.store), session, forced).steps
    return {step.name: "; ".join(step.causes) for step in steps if step.state == "blocked"}


def test_a_doubtful_result_can_be_superseded_manually(
    lab: Any, session: Session, run: Run, data: Path, command: Any
) -> None:
    made = run(lab.pipeline)
    total = made.datasets["total"]["out"]
    put_on_hold(session, made.inputs["first"][0])
    path = lab.file("by_hand.txt", "5")
    words = ("--project", "lab", "--parent", made.inputs["second"][0], "--supersedes", total, "--note", "without first")
    registered = command("register", path, *words, "--data", data, "--json")
    assert registered.returncode == 0, registered.stderr
    found = states(session)
    assert (found[total], found[json.loads(registered.stdout)["mfid"]]) == ("superseded", "current")


def test_a_hold_blocks_descendants_at_any_depth_and_lifting_it_computes_nothing(
    lab: Any, session: Session, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(lab.pipeline)
    first = made.inputs["first"][0]
    put_on_hold(session, first)
    assert blocked(session, lab.pipeline) == {}, "what is there is not made again"
    reasons = blocked(session, lab.pipeline, "scaled")
    assert reasons["scaled"].startswith(f"{first} is on hold by ")
    assert reasons["scaled"].endswith(f": {WHY}")
    assert reasons["total"] == "parent scaled is blocked"
    print(PlanAnswer("", make_plan(bind_file(lab.pipeline, session.store), session, ("scaled",))))
    assert f"because {first} is on hold by" in capsys.readouterr().out
    shown = str(PlanAnswer("", make_plan(bind_file(lab.pipeline, session.store), session, ("total",))))
    assert (f"2 steps are held: {first} is on hold by" in shown, shown.count(WHY)) == (True, 1)

    other = run(lab.pipeline, StepChoice(forced=("total",)))
    assert not other.ok
    assert other.errors["total"].startswith(f"blocked: {first} is on hold by "), "at any depth: of scaled, of first"

    assert lift(session, [first], "it was not")[0].why == WHY
    assert blocked(session, lab.pipeline, "scaled") == {}
    again = run(lab.pipeline)
    assert (again.ok, again.executed) == (True, [])


def test_earlier_results_are_doubtful_until_the_hold_is_lifted(lab: Any, session: Session, run: Run) -> None:
    made = run(lab.pipeline)
    first, second = made.inputs["first"][0], made.inputs["second"][0]
    scaled, total = made.datasets["scaled"]["out"], made.datasets["total"]["out"]
    before = states(session)
    hold = put_on_hold(session, first)
    assert states(session) == {**before, first: "doubtful", scaled: "doubtful", total: "doubtful"}
    listed = list_datasets(session, "lab")
    assert ([standing.mfid for standing in listed.entries], listed.others) == ([second], {"doubtful": 3})
    assert {standing.mfid for standing in list_datasets(session, "lab", every=True).entries} == before.keys()
    table = make_table(session, "lab", "total")
    assert (table.rows, dict(table.others)) == ((), {"doubtful": 1})
    assert len(make_table(session, "lab", "total", every=True)) == 1
    shown = show_dataset(session, total).to_json()
    assert (shown["state"], shown["doubtful"]["source"], shown["doubtful"]["hold"]) == ("doubtful", first, hold)
    lift(session, [first], "")
    assert states(session) == before
    assert [applied.in_force for applied in show_dataset(session, first).statements] == [False]


def test_holds_by_instrument_and_time_stop_data_and_holds_by_fingerprint_stop_code(
    lab: Any, session: Session, run: Run
) -> None:
    text = lab.pipeline.read_text().replace("timestamp", "instrument_name: Raman 1, timestamp")
    path = lab.declare(text, "measured.yaml")
    made = run(path)
    at = About(instrument="raman 1", since="2024-05-01T12:01:00+00:00", until="2024-05-01T13:00:00+00:00")
    held = state(session, "lab", HOLD, at, why=WHY)
    assert set(blocked(session, path, "scaled", "total")) == {"total"}, "only the second was measured then"
    assert states(session)[made.datasets["scaled"]["out"]] == "current"
    assert states(session)[made.datasets["total"]["out"]] == "doubtful"
    lift(session, [held.statement.mfid])
    recipe = session.client.datasets.get(made.datasets["scaled"]["out"], include_metadata=True).scientific_metadata
    code = recipe["crucible_lineage"]["activity"]["code"]["fingerprint"]
    state(session, "lab", HOLD, About(code=code), why="wrong sign")
    reasons = blocked(session, path, "scaled")
    assert reasons["scaled"].startswith(f"code {code[:12]} is on hold by")
    assert states(session)[made.datasets["total"]["out"]] == "doubtful"


def test_a_hold_stops_other_projects_that_trust_its_project(lab: Any, session: Session, run: Run) -> None:
    made = run(lab.pipeline)
    first, total = made.inputs["first"][0], made.datasets["total"]["out"]
    later = lab.declare(DOWNSTREAM.replace("MFID", total), "later.yaml")
    again = run(later).datasets["again"]["out"]
    put_on_hold(session, first)
    assert blocked(session, later, "again")["again"].startswith(f"{first} is on hold by")
    assert states(session, "other") == {again: "doubtful"}
    assert {node.state for node in draw_plan(bind_file(later), session).nodes.values()} == {"doubtful"}
    lift(session, [first], "")

    session.ensure_project("third")
    put_on_hold(session, first, "third")
    assert blocked(session, later, "again") == {}, "stated in a project that neither lab nor other trusts"
    assert [applied.counts for applied in show_dataset(session, first).statements if applied.in_force] == [False]
    state(session, "other", TRUST, About(project="other"), body={"whose": ["third"]})
    assert set(blocked(session, later, "again")) == {"again"}
    assert blocked(session, lab.pipeline, "scaled") == {}


def test_a_hold_stops_rerun_as_well(lab: Any, session: Session, run: Run) -> None:
    made = run(lab.pipeline)
    put_on_hold(session, made.inputs["second"][0])
    total = made.datasets["total"]["out"]
    planned = plan_rerun(total, session, lab.folder, {}, forced=True).planned
    assert [step.state for step in planned.steps] == ["fresh", "blocked"]
    lab.file(
        f"{lab.module}.py", (lab.folder / f"{lab.module}.py").read_text().replace("total = sum", "total = 1 + sum")
    )
    assert [step.state for step in plan_stale("lab", session, lab.folder).planned.steps] == ["fresh", "blocked"]


def test_a_flag_warns_and_stops_nothing(lab: Any, session: Session, run: Run) -> None:
    first = run(lab.pipeline).inputs["first"][0]
    state(session, "lab", FLAG, About((first,)), why=WHY, body={"flag": "saturated"})
    assert blocked(session, lab.pipeline, "scaled") == {}
    (entry,) = (standing for standing in list_datasets(session, "lab").entries if standing.mfid == first)
    assert (entry.flags, entry.state) == (("saturated",), "raw")
    lift(session, [first], "")
    assert all(not standing.flags for standing in list_datasets(session, "lab").entries)


def test_holds_cost_a_plan_no_additional_calls(lab: Any, session: Session, run: Run) -> None:
    made = run(lab.pipeline)
    put_on_hold(session, made.datasets["total"]["out"])
    make_plan(bind_file(lab.pipeline, session.store), session)
    with Session(session.settings) as again, pytest.MonkeyPatch.context() as patched:
        patched.setattr(Session, "client", property(lambda _: pytest.fail("Crucible was asked")))
        assert make_plan(bind_file(lab.pipeline, again.store), again).is_done


def test_a_selection_can_use_flags_and_never_selects_a_statement(lab: Any, session: Session, run: Run) -> None:
    first = run(lab.pipeline).inputs["first"][0]
    selecting = lab.declare(
        """
        pipeline: selecting
        project: lab
        inputs:
          counts: {select: {creation_time_gte: "2020-01-01T00:00:00Z", flags: {none_of: [saturated]}}, each: true}
        steps:
          twice: {uses: LABMODULE:scale, inputs: {counts: counts}}
        """,
        "selecting.yaml",
    )
    state(session, "lab", FLAG, About((first,)), why=WHY, body={"flag": "odd"})
    assert len(make_plan(bind_file(selecting, session.store), session).steps) >= 2
    every = {step.name for step in make_plan(bind_file(selecting, session.store), session).steps}
    state(session, "lab", FLAG, About((first,)), why=WHY, body={"flag": "saturated"})
    left = {step.name for step in make_plan(bind_file(selecting, session.store), session).steps}
    assert {name for name in every - left if first in name}
    assert len(every - left) == 1
    only = lab.declare(selecting.read_text().replace("none_of", "any_of"), "only.yaml")
    assert len(make_plan(bind_file(only, session.store), session).steps) == 1
    with pytest.raises(InputError, match="under none_of or any_of"):
        bind_file(lab.declare(selecting.read_text().replace("none_of", "without"), "odd.yaml"), session.store)


def test_statements_are_no_data_and_are_verified_like_any_dataset(lab: Any, session: Session, run: Run) -> None:
    made = run(lab.pipeline)
    hold = put_on_hold(session, made.datasets["scaled"]["out"])
    assert blocked(session, lab.pipeline, "scaled") == {}
    assert set(blocked(session, lab.pipeline, "total")) == {"total"}
    now = states(session)
    assert now[made.inputs["first"][0]] == "raw", "a hold on a result does not affect its parents"
    assert hold not in now
    assert hold in session.mirror.statements()
    lift(session, [hold])
    assert [(finding.check, finding.ids) for finding in verify_project(session, "lab").findings] == []


def test_an_equal_statement_of_another_machine_is_the_same_and_a_lifted_one_can_be_stated_again(
    lab: Any, session: Session, run: Run, tmp_path: Path
) -> None:
    first = run(lab.pipeline).inputs["first"][0]
    key = (session.settings.data / "crucible" / "api_key").read_text().strip()
    with Session(Settings(tmp_path / "elsewhere", session.client.api_url, key)) as other:
        assert blocked(other, lab.pipeline, "scaled") == {}
        hold = put_on_hold(session, first)
        assert set(blocked(other, lab.pipeline, "scaled")) == {"scaled", "total"}
        assert put_on_hold(other, first) == hold == put_on_hold(session, first)
        lift(other, [first])
    assert blocked(session, lab.pipeline, "scaled") == {}
    with pytest.raises(InputError, match="there is no hold, flag, signature, certificate in force"):
        lift(session, [first])
    assert put_on_hold(session, first) != hold
    assert blocked(session, lab.pipeline, "scaled")
    assert len(session.client.datasets.list(project_id="lab", keyword="statement")) == 3


def test_commands_hold_flag_sign_and_lift_by_dataset_and_by_statement(
    lab: Any, session: Session, run: Run, cli: Any
) -> None:
    first = run(lab.pipeline).inputs["first"][0]
    session.close()

    def ask(*words: str) -> Any:
        ran = cli(*words, "--json")
        assert ran.exit_code == 0, ran.output
        return json.loads(ran.stdout)

    hold = ask("hold", first, "--why", WHY)["mfid"]
    flag = ask("hold", first, "--flag", "odd", "--why", "peaks twice")["mfid"]
    signature = ask("sign", first, "--why", "looked at it")["mfid"]
    listed = ask("statements", "--project", "LAB")["statements"]
    assert [dataset["mfid"] for dataset in listed] == [hold, flag, signature]
    refused = cli("lift", first)
    assert (refused.exit_code, f"{flag} (flag by" in refused.output) == (2, True)
    assert [one["mfid"] for one in ask("lift", first, "--kind", "flag")["lifted"]] == [flag]
    assert ask("lift", signature)["follows"] == [
        f"{first} is on hold by {listed[0]['who']} since {listed[0]['when'][:10]}: {WHY}"
    ]
    answer = ask("lift", first, "--why", "it was not")
    assert ([one["mfid"] for one in answer["lifted"]], answer["follows"]) == ([hold], [f"{first} is not on hold"])
    assert ask("statements")["statements"] == []
    assert len(ask("statements", first, "--all")["statements"]) == 3
    (revoking,) = (statement for statement in ask("statements", "--all")["statements"] if hold in statement["revokes"])
    assert "counts again" in ask("lift", revoking["mfid"])["follows"][0]
    assert ask("statements", "--kind", "hold")["statements"][0]["mfid"] == hold
    instrument = ask(
        "hold", "--instrument", "Raman 1", "--from", "2024-05-01", "--project", "lab", "--why", "misaligned"
    )
    assert [one["mfid"] for one in ask("lift", instrument["mfid"])["lifted"]] == [instrument["mfid"]]
