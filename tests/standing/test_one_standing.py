"""Every door says of a dataset what the others say: after holds, replacements, another name of a pipeline."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

POOL = """

@step
def pool(parts: list[Path], out: Path) -> dict[str, float]:
    (out / "pool.txt").write_text("".join(part.read_text() for part in parts))
    return {"count": len(parts)}

@step
def noted(s: Path, *, title: str, out: Path) -> None:
    (out / "noted.txt").write_text(title)
"""
Ask = Callable[..., Any]
MANY = """
    pipeline: many
    project: lab
    inputs:
      raw: {file: "data/*.txt", each: true, ingest: false}
    steps:
      scaled: {uses: "LABMODULE:scale", inputs: {counts: raw}, output: {ingest: false}}
      total:
        uses: LABMODULE:pool
        inputs: {parts: {from: scaled, group_by: []GAPS}}
        output: {ingest: false}
"""


@pytest.fixture
def ask(lab: Any, data: Path) -> Ask:
    """Run a command with a data folder of its own; return its JSON, or its output as text."""
    module = lab.folder / f"{lab.module}.py"
    lab.file(module.name, module.read_text() + POOL)
    (lab.folder / "data").mkdir()
    for number in range(3):
        lab.file(f"data/{number}.txt", f"{number}\n")

    def command(*words: object, code: int = 0, text: bool = False) -> Any:
        sys.modules.pop(lab.module, None)
        form = [] if text else ["--json"]
        found = CliRunner().invoke(main, [*map(str, words), *form, "--data", str(data)])
        assert found.exit_code == code, (words, found.exit_code, found.output)
        return found.output if text else json.loads(found.stdout)

    return command


def plan(ask: Ask, path: Path) -> dict[str, Any]:
    return {step["name"]: step for step in ask("plan", path)["steps"]}


def listed(ask: Ask, *more: str) -> dict[str, Any]:
    return {dataset["mfid"]: dataset for dataset in ask("list", "--project", "lab", "--all", *more)["datasets"]}


def test_slots_are_filled_as_the_examples_say() -> None:
    run_examples(Path(__file__).with_name("slots.txt"))


def test_a_plan_and_a_run_call_doubtful_what_a_list_calls_doubtful(lab: Any, ask: Ask) -> None:
    path = lab.declare(MANY.replace("GAPS", ""))
    made = ask("run", path)
    held = next(mfid for mfid, dataset in listed(ask).items() if dataset["dataset_name"] == "1.txt")
    ask("hold", held, "--why", "laser drifted")

    steps = plan(ask, path)
    every = listed(ask)
    for name, step in steps.items():
        (mfid,) = step["datasets"].values()
        assert step["state"] == {"current": "fresh"}.get(every[mfid]["state"], every[mfid]["state"]), name
    assert {name for name, step in steps.items() if step["state"] == "doubtful"} == {"scaled[1.txt]", "total"}
    assert steps["total"]["causes"] == ["1 of 3 held (hold: laser drifted)"]
    assert "! total" in ask("plan", path, text=True)
    again = ask("run", path, text=True, code=4)
    assert "everything is up to date" not in again
    assert "laser drifted" in again
    (newest, *_) = ask("runs", "--project", "lab")["runs"]
    assert newest["state"] == "on hold"
    assert "the last run here is on hold" in ask("status", "--all", text=True, code=1)

    ask("lift", held)
    assert {step["state"] for step in plan(ask, path).values()} == {"fresh"}
    assert ask("run", path)["datasets"] == made["datasets"]


def test_a_group_with_gaps_is_made_without_what_is_on_hold_and_goes_back(lab: Any, ask: Ask) -> None:
    path = lab.declare(MANY.replace("GAPS", ", gaps: allow"))
    (whole,) = ask("run", path)["datasets"]["total"].values()
    held = next(mfid for mfid, dataset in listed(ask).items() if dataset["dataset_name"] == "1.txt")
    ask("hold", held, "--why", "laser drifted")
    assert plan(ask, path)["total"]["state"] == "stale"
    assert any("without scaled[1.txt]" in note for note in plan(ask, path)["total"]["notes"])
    made = ask("run", path, code=4)
    (rest,) = made["datasets"]["total"].values()
    assert made["executed"] == ["total"]
    assert listed(ask)[rest]["state"] == "current"
    assert listed(ask)[whole]["state"] == "superseded"
    assert "without scaled[1.txt]" in ask("why", rest, text=True)
    assert "scaled[1.txt]: comes" in ask("table", "--step", "total", "--project", "lab", text=True)
    drawn = lab.folder / "it.svg"
    ask("lineage", rest, "-o", drawn, text=True)
    assert "without 1" in drawn.read_text()

    ask("lift", held)
    back = ask("run", path)
    assert (back["executed"], [*back["datasets"]["total"].values()]) == ([], [whole])
    assert listed(ask)[whole]["state"] == "current"


def test_a_pipeline_with_another_name_has_the_results_that_it_relies_on(lab: Any, ask: Ask) -> None:
    text = MANY.replace("GAPS", "")
    ask("run", lab.declare(text))
    renamed = text.replace("pipeline: many", "pipeline: few")
    made = ask("run", lab.declare(renamed))
    assert made["executed"] == []
    results = {mfid for outputs in made["datasets"].values() for mfid in outputs.values()}
    assert listed(ask, "--pipeline", "few").keys() == results
    assert ask("table", "--step", "total", "--pipeline", "few", "--project", "lab")["rows"]
    (few,) = (pipeline for pipeline in ask("status", "--all")["pipelines"] if pipeline["pipeline"] == "few")
    assert (few["states"], few["todo"]) == ({"current": 4}, [])


def test_a_parameter_may_have_text_around_the_fields_of_its_data(lab: Any, ask: Ask) -> None:
    titled = """
        pipeline: titled
        project: lab
        inputs:
          s: {file: first.txt, instrument_name: Raman 1, measurement: counts, ingest: false}
        steps:
          noted: {uses: "LABMODULE:noted", inputs: {s: s}, params: {title: TITLE}, output: {ingest: false}}
    """
    title = '"Si on {s.instrument_name}, {s.measurement} of {x} and {s.upper}"'
    (mfid,) = ask("run", lab.declare(titled.replace("TITLE", title)))["datasets"]["noted"].values()
    assert "Si on Raman 1, counts of {x} and {s.upper}" in str(ask("show", mfid))
    for wrong, fault in (
        ('"Si on {t.instrument_name}"', "the step has no input 't'"),
        ('"Si on {s.instrument_nam}"', "did you mean 'instrument_name'?"),
        ('x}, matrix: {n: ["{s.measurement}"]', "where a parameter is a text, not in a matrix"),
    ):
        assert fault in ask("check", lab.declare(titled.replace("TITLE", wrong)), text=True, code=2)


def test_a_correction_wins_over_the_declaration_and_over_what_is_written_since(
    lab: Any, ask: Ask, session: Session
) -> None:
    path = lab.declare(MANY.replace("GAPS", "").replace("each: true", "each: true, metadata: {power: 20}"))
    raw = ask("run", path)["inputs"]["raw"][0]
    ask("set", raw, "metadata.power=25", "--why", "read again")
    assert ask("plan", path)["differences"] == []
    session.client.metadata.merge(raw, {"power": 20})  # as ingestion does
    assert ask("show", raw)["results"]["power"] == 25
    assert "another program wrote 20 since" in ask("why", raw, text=True)
    findings = {finding["class"]: finding for finding in ask("verify", "--project", "lab")["findings"]}
    assert findings["correction-overwritten"]["mfids"] == [raw]
    assert ask("plan", path)["differences"] == []


def test_tables_and_lists_know_a_result_by_each_name_and_what_its_current_parent_used(lab: Any, ask: Ask) -> None:
    """A result that is kept, since a parameter above it changed no bytes, was made with the parameter of now."""
    steps = """
      exposed: {uses: "LABMODULE:exposed", inputs: {s: raw}, params: {s_: 600}}
      fitted: {uses: "LABMODULE:scale", inputs: {counts: exposed}}
    """
    module = lab.folder / f"{lab.module}.py"
    exposed = "def exposed(s: Path, *, s_: int, out: Path) -> None:\n    (out / 'e.txt').write_text(s.read_text())\n"
    lab.file(module.name, module.read_text() + f"\n\n@step\n{exposed}")
    text = MANY.partition("steps:")[0] + "steps:" + steps
    ask("run", lab.declare(text))
    made = ask("run", lab.declare(text.replace("600", "40")))
    assert len(made["executed"]) == 3
    renamed = text.replace("600", "40").replace("fitted:", "pretty:").replace("exposed:", "shown:", 1)
    assert ask("run", lab.declare(renamed.replace("counts: exposed", "counts: shown"), "other.yaml"))["executed"] == []
    for name in ("fitted", "pretty"):
        asked = ("table", "--project", "lab", "--step", name, "--where", f"step == '{name}'")
        for column in ("exposed.params.s_", "shown.params.s_"):
            rows = ask(*asked, "--field", column)["rows"]
            assert [row[column] for row in rows] == [40, 40, 40]
        for selected in (("--step", name), ("--where", f"step == '{name}'")):
            assert len(ask("list", "--project", "lab", *selected)["datasets"]) == 3


def test_the_picture_of_a_declaration_has_selected_results_as_they_stand(lab: Any, ask: Ask) -> None:
    (mfid,) = ask("run", lab.declare(MANY.replace("GAPS", "")))["datasets"]["total"].values()
    ask("set", mfid, "measurement=pooled")
    selects = """
        pipeline: selects
        project: lab
        inputs:
          raw: {select: {measurement: pooled}, each: true}
        steps:
          scaled: {uses: "LABMODULE:pool", inputs: {parts: raw}, output: {ingest: false}}
    """
    nodes = {node["id"]: node["state"] for node in ask("lineage", lab.declare(selects))["nodes"]}
    assert nodes[mfid] == listed(ask)[mfid]["state"] == "current"


def test_copies_of_a_file_are_not_called_current_side_by_side(lab: Any, ask: Ask) -> None:
    ask("run", lab.pipeline)
    (copy := lab.folder.parent / "copy").mkdir()
    for file in lab.folder.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    said = ask("run", copy / lab.pipeline.name, text=True)
    assert "side by side" not in said
    assert "those of the newest run are current" in said


def test_what_was_swept_is_seen_in_lists_tables_and_names(lab: Any, ask: Ask) -> None:
    text = MANY.replace("GAPS", "").replace("inputs: {counts: raw}", "inputs: {counts: raw}, matrix: {factor: [2, 3]}")
    text = text.replace("total:", "some:", 1)
    path = lab.declare(text.replace("output: {ingest: false}}", "output: {dataset_name: same, ingest: false}}"))
    ask("run", path)
    scaled = [dataset for dataset in listed(ask).values() if dataset["step"] == "scaled"]
    assert {dataset["swept"] for dataset in scaled} == {"factor=2", "factor=3"}
    assert "scaled [factor=2]" in ask("list", "--project", "lab", text=True)
    assert {row["swept"] for row in ask("table", "--step", "scaled", "--project", "lab")["rows"]} == {
        "factor=2",
        "factor=3",
    }
    assert "(same, factor=3)" in ask("show", "same", text=True, code=2)


KINDS = {"one": "1", "real": "1.0", "true": "true", "True": '"True"', "composed": "caf\u00e9", "parted": "cafe\u0301"}


def test_selections_groups_and_conditions_call_the_same_values_equal(lab: Any, ask: Ask) -> None:
    made = {}
    for name, value in KINDS.items():
        path = lab.file(f"{name}.txt", f"{len(made)}\n")
        made[name] = ask("register", path, "--project", "lab", "--measurement", "counts")["mfid"]
        ask("set", made[name], f"metadata.k={value}")
    selects = """
        pipeline: selects
        project: lab
        inputs:
          raw: {select: {measurement: counts, metadata.k: VALUE}, each: true}
        steps:
          scaled: {uses: "LABMODULE:scale", inputs: {counts: raw}, output: {ingest: false}}
    """
    names = {mfid: name for name, mfid in made.items()}
    kinds = {"1": {"one", "real"}, "true": {"true"}, '"True"': {"True"}, "caf\u00e9": {"composed", "parted"}}
    for value, expected in kinds.items():
        steps = ask("plan", lab.declare(selects.replace("VALUE", value)))["steps"]
        assert {names[step["name"].partition("[")[2].rstrip("]")] for step in steps} == expected, value
    grouped = """
        pipeline: groups
        project: lab
        inputs:
          raw: {select: {measurement: counts}, each: true}
        steps:
          total: {uses: "LABMODULE:pool", inputs: {parts: {from: raw, group_by: metadata.k}}, output: {ingest: false}}
    """
    assert len(ask("plan", lab.declare(grouped))["steps"]) == 4
