"""Which result is current: the newest run that relied on one decides, on all machines, and no work is repeated."""

from __future__ import annotations

from typing import Any

from crucible_lineage.ask.explain import explain
from crucible_lineage.ask.verify import verify_project
from crucible_lineage.ask.view import show_dataset
from crucible_lineage.core.slots import slots_of
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.files import existing_dataset, hash_files, raw_files, register_raw
from crucible_lineage.pipeline.plan.planner import ProjectIndex, make_plan
from crucible_lineage.pipeline.run.result import StepChoice, StepEvent
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.registration.read import registered
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import make_current_now
from tests.runs import forget, run
from tests.runs import listed_states as states


def current(session: Session, step: str) -> set[str]:
    found = ProjectIndex(session, "lab", None).results.registered()
    now = states(session)
    return {
        mfid
        for mfid, one in found.items()
        if one.step_record and one.step_record.declared_step == step and now[mfid] == "current"
    }


def test_a_run_that_changes_nothing_writes_nothing(lab: Any, session: Session) -> None:
    run(session, lab.pipeline)
    run(session, lab.pipeline, scaled__factor=4)
    run(session, lab.pipeline)
    calls: list[str] = []
    session.client._api.event_hooks = {"request": [lambda request: calls.append(request.method)]}
    again = run(session, lab.pipeline)
    assert (again.executed, again.current_again) == ([], ())
    assert set(calls) <= {"GET"}
    calls.clear()
    run(session, lab.pipeline)
    assert calls == [], "nothing was changed by others, which the data folder tells"
    run(session, lab.pipeline, scaled__factor=4)
    run(session, lab.pipeline)
    forget(session.mirror)
    calls.clear()
    again = run(session, lab.pipeline)
    assert (again.executed, again.current_again, set(calls)) == ([], (), {"GET"}), "all is read again"


def test_reused_results_are_current_before_others_are_made(lab: Any, session: Session) -> None:
    """A run that is killed leaves no result current that was made from a superseded one."""
    first = run(session, lab.pipeline)
    run(session, lab.pipeline, scaled__factor=4)
    lab.file("second.txt", "11\n")
    seen: dict[str, set[str]] = {}

    def listen(event: StepEvent) -> None:
        if event.step == "total":
            seen[event.outcome] = current(session, "scaled")

    plan_and_run(bind_file(lab.pipeline, session.store), session, lambda: LocalEngine(session, 2), listen, StepChoice())
    assert len(seen) > 1
    assert all(ids == {first.datasets["scaled"]["out"]} for ids in seen.values()), seen


def test_a_refactoring_with_the_same_bytes_costs_one_step(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    source = (lab.folder / f"{lab.module}.py").read_text()
    lab.file(f"{lab.module}_2.py", source.replace("float(line) * factor", "factor * float(line)"))
    lab.declare(lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}_2:scale"))
    second = run(session, lab.pipeline)
    assert (second.executed, second.stayed) == (["scaled"], ("total",))
    assert second.datasets["total"] == first.datasets["total"]
    total, scaled = first.datasets["total"]["out"], second.datasets["scaled"]["out"]
    found = registered(session.client, session.client.datasets.get(total, include_metadata=True, include_links=True))
    assert found.record is not None
    assert found.record.equal_parents == {scaled: first.datasets["scaled"]["out"]}
    assert f"    equal bytes now: {scaled}" in str(explain(session, total))
    parents = {link.unique_id for link in found.dataset.links or () if link.direction == "source"}
    assert {scaled, first.datasets["scaled"]["out"]} <= parents
    shown = show_dataset(session, total)
    assert len(shown.parents) == 2, "an equal parent is named once, beside the recorded one"
    assert shown.equal == {first.datasets["scaled"]["out"]: (scaled,)}
    assert current(session, "scaled") == {scaled}
    assert not verify_project(session, "lab").findings, "its parents are current"
    assert run(session, lab.pipeline).executed == []


def test_equal_bytes_of_different_measurements_stay_different_results(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    lab.file("third.txt", (lab.folder / "first.txt").read_text())
    text = lab.pipeline.read_text().replace("first.txt", "third.txt")
    assert "third.txt" in text
    other = run(session, lab.declare(text))
    assert other.datasets["scaled"] != first.datasets["scaled"]
    assert current(session, "scaled") == {first.datasets["scaled"]["out"], other.datasets["scaled"]["out"]}


def test_a_step_with_a_lost_output_is_executed_again(lab: Any, session: Session) -> None:
    parts = "  parts: {uses: LABMODULE:split, inputs: {counts: first}}\n"
    path = lab.declare(lab.pipeline.read_text() + parts)
    first = run(session, path)
    session.client.deletions.delete(first.datasets["parts"]["high"], force=True, elevated=True)
    (lost,) = (step for step in make_plan(bind_file(path, session.store), session).steps if step.name == "parts")
    replaced = {output.supersedes for output in lost.outputs}
    assert (lost.state, lost.causes, replaced) == ("missing", ("never made",), {None})
    again = run(session, path)
    assert (again.executed, again.ok, again.datasets) == (["parts"], True, first.datasets)


def test_declarations_of_one_name_that_share_a_result_do_not_supersede_each_other(lab: Any, session: Session) -> None:
    text = lab.pipeline.read_text()
    old = run(session, lab.pipeline, scaled__factor=2).datasets["total"]["out"]
    shared = run(session, lab.pipeline).datasets["total"]["out"]
    other = lab.declare(text, "other.yaml")
    assert run(session, other).datasets["total"]["out"] == shared
    assert current(session, "total") == {shared}, f"and not {old} again"
    new = run(session, lab.declare(text.replace("factor: 3", "factor: 4"), "other.yaml")).datasets["total"]["out"]
    assert current(session, "total") == {shared, new}
    run(session, lab.pipeline)
    assert current(session, "total") == {shared, new}
    back = run(session, lab.pipeline, scaled__factor=2).datasets["total"]["out"]
    assert (back, current(session, "total")) == (old, {old, new})


def test_a_renamed_declaration_keeps_its_results(lab: Any, session: Session) -> None:
    old = run(session, lab.pipeline, scaled__factor=2).datasets["total"]["out"]
    shared = run(session, lab.pipeline).datasets["total"]["out"]
    moved = lab.pipeline.rename(lab.folder / "moved.yaml")
    assert run(session, moved).executed == []
    assert current(session, "total") == {shared}, f"and not {old} again"
    new = run(session, moved, scaled__factor=4).datasets["total"]["out"]
    assert current(session, "total") == {new}


def test_a_plan_says_which_results_are_current_under_another_name_of_the_pipeline_only(
    lab: Any, session: Session
) -> None:
    first = run(session, lab.pipeline)
    moved = lab.declare(lab.pipeline.read_text().replace("pipeline: counting", "pipeline: adding"))
    planned = make_plan(bind_file(moved, session.store), session)
    assert [(step.name, step.state) for step in planned.steps] == [("scaled", "superseded"), ("total", "superseded")]
    only = "current as counting/total/out/first.txt only; a run makes it current here, too"
    assert planned.steps[1].causes == (only,)
    assert (planned.is_done, planned.is_fresh) == (True, False)
    again = run(session, moved)
    assert (again.executed, sorted(again.current_again)) == ([], ["scaled", "total"])
    assert make_plan(bind_file(moved, session.store), session).is_fresh
    assert current(session, "total") == {first.datasets["total"]["out"]}


def test_machines_agree_that_the_newest_run_decides(lab: Any, machines: tuple[Session, Session]) -> None:
    east, west = machines
    first = run(east, lab.pipeline).datasets["total"]["out"]
    other = run(west, lab.pipeline, scaled__factor=4).datasets["total"]["out"]
    assert (states(east)[first], states(east)[other]) == ("superseded", "current")
    back = run(east, lab.pipeline)
    assert (back.executed, sorted(back.current_again)) == ([], ["scaled", "total"]), "west has changed its mind since"
    assert states(west) == states(east)
    assert states(west)[first] == "current"
    assert run(east, lab.pipeline).current_again == ()


def test_results_lost_by_the_service_are_made_again(lab: Any, machines: tuple[Session, Session]) -> None:
    east, _ = machines
    first = run(east, lab.pipeline)
    total = first.datasets["total"]["out"]
    request = east.client.datasets.delete(total, "a test")
    (planned,) = [step for step in make_plan(bind_file(lab.pipeline, east.store), east).steps if step.name == "total"]
    asked = run(east, lab.pipeline)
    assert not asked.ok, "its id is taken, and it is not to be relied on"
    assert (planned.state, asked.executed) == ("blocked", []), "nothing is made that cannot be registered"
    assert "has a request for deletion" in planned.causes[0]
    assert f"has a request for deletion ({request.id}, pending)" in asked.errors["total"]
    east.client.deletions.delete(total)
    again = run(east, lab.pipeline)
    assert again.executed == ["total"], "and not `everything is up to date`"
    assert again.datasets == first.datasets


def test_slots_are_stored_beside_the_record(lab: Any, session: Session) -> None:
    made = run(session, lab.pipeline)
    metadata = session.client.metadata.get(made.datasets["total"]["out"])
    ((key, filled),) = slots_of(metadata).items()
    assert key == "counting/total/out/first.txt"
    assert (filled.run, filled.declared_in) == (made.run_id, "pipeline.yaml")


def test_a_changed_output_section_is_named_by_the_plan(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    total = first.datasets["total"]["out"]
    assert session.client.datasets.get(total).dataset_name == "first (total)", "names do not grow with the chain"
    text = lab.pipeline.read_text().replace(
        "    inputs: {left: scaled, right: second}\n",
        "    inputs: {left: scaled, right: second}\n"
        "    output: {dataset_name: sum, measurement: adding, instrument_name: A, metadata: {unit: counts}}\n",
    )
    again = run(session, lab.declare(text))
    assert (again.executed, again.datasets) == ([], first.datasets)
    found = session.client.datasets.get(total)
    assert found.dataset_name == "first (total)", "Crucible's value holds"
    plan = make_plan(bind_file(lab.pipeline, session.store), session)
    assert {difference.field: (difference.declared, difference.at_crucible) for difference in plan.differences} == {
        "dataset_name": ("sum", "first (total)"),
        "measurement": ("adding", found.measurement),
        "instrument_name": ("A", None),
        "metadata.unit": ("counts", None),
    }
    assert {difference.mfid for difference in plan.differences} == {total}


def test_every_variant_of_a_matrix_is_current_and_removed_ones_and_steps_are_reported(
    lab: Any, session: Session
) -> None:
    text = lab.pipeline.read_text().replace("params: {factor: 3}", "matrix: {factor: [2, 3]}")
    first = run(session, lab.declare(text))
    assert len(current(session, "scaled")) == 2
    second = run(session, lab.declare(text.replace("[2, 3]", "[3]")))
    assert second.executed == []
    assert second.undeclared == ("scaled/out/first.txt, factor=2", "total/out/first.txt, factor=2")
    assert current(session, "scaled") == {
        outputs["out"] for name, outputs in first.datasets.items() if name.startswith("scaled")
    }
    alone = "\n".join(line for line in text.replace("[2, 3]", "[3]").splitlines() if "second:" not in line)
    alone = alone.partition("  total:")[0]
    removed = ("scaled/out/first.txt, factor=2", "total/out/first.txt, factor=2", "total/out/first.txt, factor=3")
    assert run(session, lab.declare(alone)).undeclared == removed
    moved = alone.replace("first.txt", "second.txt")
    assert "scaled/out/first.txt, factor=3" not in run(session, lab.declare(moved)).undeclared, "for other data"


POOL = """
from pathlib import Path

def pool(parts: list[Path], *, out: Path) -> None:
    (out / "pool.txt").write_text(" ".join(part.read_text() for part in parts))
"""


def test_an_additional_file_of_a_pattern_supersedes_and_another_name_does_not(lab: Any, session: Session) -> None:
    (lab.folder / "in").mkdir()
    lab.file("in/a.txt", "1\n")
    lab.file(f"{lab.module}_pool.py", POOL)
    step = f"  pooled: {{uses: '{lab.module}_pool:pool', inputs: {{parts: all}}}}\n"
    text = lab.pipeline.read_text().replace("steps:\n", f'  all: {{file: "in/*.txt"}}\nsteps:\n{step}')
    first = run(session, lab.declare(text))
    lab.file("in/b.txt", "2\n")
    more = run(session, lab.pipeline)
    assert more.executed == ["pooled"]
    assert current(session, "pooled") == {more.datasets["pooled"]["out"]}
    lab.file("third.txt", "7\n")
    renamed = run(session, lab.declare(text.replace("first.txt", "third.txt")))
    assert current(session, "scaled") == {first.datasets["scaled"]["out"], renamed.datasets["scaled"]["out"]}
    assert renamed.undeclared == ()


def test_results_of_a_failed_run_are_current_and_not_mixed_with_older_ones(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    source = (lab.folder / f"{lab.module}.py").read_text()
    lab.file(
        f"{lab.module}_bad.py",
        source.replace("def add(", "def add(left, right, *, out):\n    raise ValueError('no')\n\ndef _add("),
    )
    text = (
        lab.pipeline.read_text().replace("factor: 3", "factor: 4").replace(f"{lab.module}:add", f"{lab.module}_bad:add")
    )
    broken = run(session, lab.declare(text))
    assert not broken.ok
    now = states(session)
    assert now[broken.datasets["scaled"]["out"]] == "current"
    assert now[first.datasets["scaled"]["out"]] == "superseded"
    assert now[first.datasets["total"]["out"]] == "current", "nothing has replaced it"


def test_a_run_does_not_undo_a_manual_replacement_of_its_result(lab: Any, session: Session) -> None:
    done = run(session, lab.pipeline).datasets
    old, scaled = done["total"]["out"], done["scaled"]["out"]
    path = lab.file("by-eye.txt", "41\n")
    raw = raw_files("lab", hash_files([path], session), parents=[existing_dataset(scaled, session)])
    by_hand = register_raw(raw, FileInput(file=(str(path),)), "total", session, "by eye", old).mfid
    make_current_now(session.mirror, session.client, "lab", by_hand, slots_of(session.client.metadata.get(old)))
    assert states(session)[by_hand] == "current"

    again = run(session, lab.pipeline)

    assert (again.executed, again.current_again) == ([], ())
    assert (states(session)[old], states(session)[by_hand]) == ("superseded", "current")
    run(session, lab.pipeline, scaled__factor=4)
    assert states(session)[by_hand] == "superseded", "a run that comes to another result has the last word"
