"""`rerun`: making a dataset, or all stale ones of a project, again with current code and parents."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.rerun import RecordedPipeline, plan_rerun, plan_stale
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from tests.runs import forget

Run = Callable[..., RunResult]
Rerun = Callable[..., RunResult]


@pytest.fixture
def make(session: Session) -> Callable[[RecordedPipeline], RunResult]:
    def made(found: RecordedPipeline) -> RunResult:
        engine = lambda: LocalEngine(session, 2)  # noqa: E731
        return plan_and_run(found.pipeline, session, engine, lambda event: None, found.choice, planned=found.planned)

    return made


@pytest.fixture
def rerun(session: Session, lab: Any, make: Callable[[RecordedPipeline], RunResult]) -> Rerun:
    def again(mfid: str, values: Mapping[str, Any] = {}, *, forced: bool = False) -> RunResult:
        return make(plan_rerun(mfid, session, lab.folder, values, forced=forced))

    return again


def change(lab: Any, old: str, new: str) -> None:
    """The laboratory's module is another one from now on, as it would be for a new process."""
    path = lab.folder / f"{lab.module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    sys.modules.pop(lab.module, None)


def test_current_results_are_not_made_again_unless_forced(lab: Any, run: Run, rerun: Rerun, record_of: Any) -> None:
    first = run(lab.pipeline)
    total = first.datasets["total"]["out"]
    assert rerun(total).executed == []
    forced = rerun(total, forced=True)
    (name,) = forced.executed
    assert name == f"total[{total}]"
    record = record_of(forced.datasets[name]["out"])
    assert (record["supersedes"], record["attempt"]) == (total, 1)
    later = rerun(total)
    assert later.executed == [], "the one that supersedes it stands for it"
    assert later.datasets[f"total[{forced.datasets[name]['out']}]"] == forced.datasets[name]


def test_a_result_of_changed_code_is_made_again_with_its_ancestors(
    lab: Any, session: Session, run: Run, rerun: Rerun, text_of: Any, record_of: Any, cli: Any
) -> None:
    first = run(lab.pipeline)
    change(lab, "float(line) * factor", "float(line) * factor + 100")
    again = rerun(first.datasets["total"]["out"])
    assert [name.partition("[")[0] for name in again.executed] == ["scaled", "total"]
    scaled, total = (again.datasets[name]["out"] for name in again.executed)
    assert text_of(scaled).split() == ["103.0", "106.0", "109.0"]
    record = record_of(total)
    assert record["supersedes"] == first.datasets["total"]["out"]
    assert {entry["mfid"] for entry in record["used"]} == {scaled, *first.inputs["second"]}
    was = record_of(first.datasets["total"]["out"])["pipeline"]
    assert record["pipeline"] == was, "it belongs to the pipeline and the step that it was declared as"
    by_yaml = run(lab.pipeline)
    assert (by_yaml.executed, by_yaml.datasets["total"]["out"]) == ([], total), "and the declaration finds it"
    assert cli("verify", "--project", "lab").exit_code == 0
    old, new = (session.client.datasets.get(mfid) for mfid in (first.datasets["total"]["out"], total))
    assert (new.dataset_name, new.measurement, new.data_type) == (old.dataset_name, old.measurement, old.data_type)
    keywords = [{k.keyword for k in session.client.datasets.get_keywords(d.unique_id)} for d in (old, new)]
    assert keywords[0] == keywords[1]


def test_a_parameter_may_have_another_value(lab: Any, run: Run, rerun: Rerun, record_of: Any) -> None:
    first = run(lab.pipeline)
    scaled = first.datasets["scaled"]["out"]
    again = rerun(scaled, {"factor": 5})
    (name,) = again.executed
    record = record_of(again.datasets[name]["out"])
    assert record["recipe"]["params"] == {"factor": 5.0}
    assert record["supersedes"] == scaled
    with pytest.raises(InputError, match="no parameter 'facter'; did you mean 'factor'"):
        rerun(scaled, {"facter": 5})


SECOND = """
pipeline: refining
project: lab
inputs:
  total: {pipeline: pipeline.yaml, from: total}
steps:
  halves:
    uses: LABMODULE:split
    inputs: {counts: {from: total, files: total.txt}}
    params: {at: 5}
  high: {uses: "LABMODULE:scale", inputs: {counts: halves.high}, output: {keywords: [fine], public: true}}
"""


def test_all_stale_results_of_a_project_are_made_again_in_order(
    lab: Any, session: Session, run: Run, make: Any, cli: Any, record_of: Any
) -> None:
    run_result = run(lab.pipeline)
    second = lab.declare(SECOND, "second.yaml")
    two = run(second)
    assert two.ok, two.errors
    assert make(plan_stale("lab", session, lab.folder)).executed == [], "nothing is"

    change(lab, "float(line) * factor", "float(line) * factor * 10")
    found = plan_stale("lab", session, lab.folder)
    assert {step.name.partition("[")[0]: step.state for step in found.planned.steps} == dict.fromkeys(
        ("scaled", "total", "halves", "high"), "stale"
    )
    again = make(found)
    assert again.ok, again.errors
    assert [name.partition("[")[0] for name in again.executed] == ["scaled", "total", "halves", "high"]
    for step, before in {"total": run_result.datasets["total"]["out"], "high": two.datasets["high"]["out"]}.items():
        (made,) = (outputs["out"] for name, outputs in again.datasets.items() if name.startswith(step))
        record = record_of(made)
        assert record["supersedes"] == before
        assert record["pipeline"]["step"] == step
        assert record["pipeline"]["name"] == ("refining" if step == "high" else "counting")
    assert (run(lab.pipeline).executed, run(second).executed) == ([], []), "both declarations find everything fresh"
    assert make(plan_stale("lab", session, lab.folder)).executed == []
    verified = cli("verify", "--project", "lab")
    assert verified.exit_code == 0, verified.stdout


def test_superseded_results_are_not_made_again(lab: Any, session: Session, run: Run, make: Any) -> None:
    run(lab.pipeline)
    run(lab.pipeline, scaled__factor=4)
    change(lab, "float(line) * factor", "float(line) * factor * 10")
    again = make(plan_stale("lab", session, lab.folder))
    assert [name.partition("[")[0] for name in again.executed] == ["scaled", "total"]


def test_a_step_whose_module_is_gone_is_left_out_with_the_reason(
    lab: Any, session: Session, run: Run, make: Any, cli: Any
) -> None:
    lab.file(f"{lab.module}_gone.py", (lab.folder / f"{lab.module}.py").read_text())
    lab.declare(lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}_gone:scale"))
    first = run(lab.pipeline)
    (lab.folder / f"{lab.module}_gone.py").unlink()
    sys.modules.pop(f"{lab.module}_gone")
    change(lab, "both added", "both added up")
    found = plan_stale("lab", session, lab.folder)
    scaled = first.datasets["scaled"]["out"]
    assert set(found.left_out) == {scaled}
    assert f"there is no module '{lab.module}_gone'" in found.left_out[scaled]
    again = make(found)
    assert [name.partition("[")[0] for name in again.executed] == ["total"], "of the parent that is there"
    refused = cli("rerun", scaled, "--folder", lab.folder)
    assert refused.exit_code == 2
    assert f"dataset {scaled} cannot be rerun: there is no module" in refused.stderr
    ran = cli("rerun", "--stale", "--project", "lab", "--folder", lab.folder, "--json")
    assert (ran.exit_code, f"{scaled} is left out" in ran.stderr) == (0, True)
    assert json.loads(ran.stdout)["executed"] == []


SECRETIVE = """
from pathlib import Path

from crucible_lineage import step


@step(secrets=["token"])
def ask(counts: Path, *, token: str = "", out: Path) -> dict:
    (out / "answer.txt").write_text(str(len(token)))
    return {}
"""


def test_a_secret_has_to_be_given_again(lab: Any, session: Session, run: Run, rerun: Rerun, text_of: Any) -> None:
    lab.file(f"{lab.module}_ask.py", SECRETIVE)
    lab.declare(
        """
        pipeline: asking
        project: lab
        inputs:
          first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
        steps:
          asked: {uses: "LABMODULE_ask:ask", inputs: {counts: first}, params: {token: hush}}
        """
    )
    asked = run(lab.pipeline).datasets["asked"]["out"]
    with pytest.raises(InputError, match="its parameter 'token' is secret and was not kept"):
        rerun(asked)
    assert set(plan_stale("lab", session, lab.folder).left_out) == {asked}
    assert rerun(asked, {"token": "hush"}).executed == [], "it is the same secret"
    longer = rerun(asked, {"token": "hush-hush"})
    assert text_of(next(iter(longer.datasets.values()))["out"]) == "9"


SCRIPT = """
import os, pathlib, sys
source, factor, out = sys.argv[1:]
pathlib.Path(out, "made.txt").write_text(source.rpartition("/")[2] + " " + factor + " " + os.environ["LAB_TOKEN"][::-1])
"""


def test_a_command_is_made_again_with_its_script_and_its_environment(
    lab: Any, run: Run, rerun: Rerun, text_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "hush")
    script = lab.file("make.py", SCRIPT)
    lab.declare(
        f"""
        pipeline: commands
        project: lab
        env: [LAB_TOKEN]
        inputs:
          first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
        steps:
          made:
            run: ["{sys.executable}", make.py, "{{inputs.counts}}", "{{params.factor}}", "{{out}}"]
            inputs: {{counts: first}}
            params: {{factor: 2}}
            env: {{LAB_TOKEN: "${{env.LAB_TOKEN}}"}}
        """
    )
    made = run(lab.pipeline).datasets["made"]["out"]
    assert rerun(made).executed == []
    script.write_text(SCRIPT + "# changed\n")
    monkeypatch.setenv("LAB_TOKEN", "other")
    again = rerun(made, {"factor": 3})
    assert text_of(next(iter(again.datasets.values()))["out"]) == "first.txt 3 rehto"


DECLARED = """
pipeline: declared
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
    retries: 2
    timeout: 90
    output: {ingest: false, ingestor: JsonIngestor, metadata: {operator: Ada, beam: {kev: 12}}}
"""


def test_settings_declared_beside_the_recipe_are_applied_again(
    lab: Any, session: Session, run: Run, rerun: Rerun, record_of: Any
) -> None:
    first = run(lab.declare(DECLARED)).datasets["scaled"]["out"]
    found = plan_rerun(first, session, lab.folder, {"factor": 5})
    (step,) = found.pipeline.steps.values()
    spec = step.spec
    assert (spec.retries, spec.timeout) == (2, 90)
    assert (spec.output.ingest, spec.output.ingestor) == (False, "JsonIngestor")
    again = rerun(first, {"factor": 5})
    second = next(iter(again.datasets.values()))["out"]
    described = session.client.datasets.get(second, include_metadata=True).scientific_metadata or {}
    assert (described["operator"], described["beam"], described["factor"]) == ("Ada", {"kev": 12}, 5)
    assert record_of(second)["activity"]["declared"] == record_of(first)["activity"]["declared"]


def test_results_that_cannot_be_made_again_are_reported(
    lab: Any, session: Session, run: Run, rerun: Rerun, cli: Any
) -> None:
    first = run(lab.pipeline)
    raw = first.inputs["first"][0]
    with pytest.raises(InputError, match="was not made by a step that is recorded"):
        rerun(raw)
    assert cli("rerun").exit_code == 2
    assert cli("rerun", "--stale").exit_code == 0, "of the only project"
    assert cli("rerun", raw, "--stale", "--project", "lab").exit_code == 2
    none = cli("rerun", "0tr5k2ndm5zvd000nr21qakeh4")
    assert (none.exit_code, "0tr5k2ndm5zvd000nr21qakeh4" in none.stderr) == (2, True)


def test_what_was_begun_is_finished_from_its_recorded_parents_or_the_reason_is_told(
    lab: Any, session: Session, run: Run, rerun: Rerun, unfinish: Any, record_of: Any
) -> None:
    first = run(lab.pipeline)
    total = first.datasets["total"]["out"]
    run(lab.pipeline, scaled__factor=4)  # its pipeline has moved on
    unfinish(session.client, total)
    forget(session.mirror)
    finished = rerun(total)
    assert (finished.ok, finished.datasets) == (True, {f"total[{total}]": {"out": total}})
    assert record_of(total)["status"] == "complete"
    unfinish(session.client, total)
    forget(session.mirror)
    change(lab, "total = sum", "total = 1 + sum")
    reason = "since the code of its step has changed; restore the old code, or request the deletion of the dataset"
    with pytest.raises(InputError, match=f"dataset {total} is incomplete and cannot be finished, {reason}"):
        rerun(total)
    (lab.folder / f"{lab.module}.py").unlink()
    sys.modules.pop(lab.module, None)
    with pytest.raises(InputError, match=f"dataset {total} cannot be finished: .*there is no module"):
        rerun(total)
    alone = session.client.datasets.create({"dataset_name": "alone"}).dsid
    with pytest.raises(InputError, match=f"dataset {alone} belongs to no project"):
        rerun(alone)
    with pytest.raises(InputError, match=r"project 'lap' does not exist, .* did you mean 'lab'"):
        plan_stale("lap", session, lab.folder)


def test_the_command_shows_its_plan_and_executes_it(lab: Any, run: Run, cli: Any) -> None:
    first = run(lab.pipeline)
    total = first.datasets["total"]["out"]
    dry = cli("rerun", total, "--set", "factor=5", "--dry-run")
    assert dry.exit_code == 2, "total has no such parameter"
    scaled = first.datasets["scaled"]["out"]
    dry = cli("rerun", scaled, "--set", "scaled.factor=5", "--dry-run", "--json")
    (step,) = json.loads(dry.stdout)["steps"]
    assert step["causes"][0].startswith("parameter factor changed: 3.0 -> 5.0")
    ran = cli("rerun", scaled, "--set", "factor=5")
    assert (ran.exit_code, "1 executed" in ran.stdout) == (0, True)
    forced = cli("rerun", total, "--force", "--json")
    assert len(json.loads(forced.stdout)["executed"]) == 1, "its parent is made with what is current: factor 5"


def test_the_folder_of_the_steps_is_known_from_the_last_run(
    lab: Any, run: Run, cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = run(lab.pipeline)
    monkeypatch.chdir(tmp_path)
    shown = cli("rerun", first.datasets["total"]["out"], "--dry-run", "--json")
    assert shown.exit_code == 0, shown.stderr
    assert {step["state"] for step in json.loads(shown.stdout)["steps"]} == {"fresh"}
