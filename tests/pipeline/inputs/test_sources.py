"""Kinds of inputs: datasets, selections, results of another pipeline, patterns of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

Run = Callable[..., RunResult]
Text = Callable[[str], str]

TABLE = """
from pathlib import Path

from crucible_lineage import step


@step
def table(values: list[Path], *, out: Path) -> dict:
    (out / "table.txt").write_text(" ".join(path.read_text().strip() for path in values))
    return {"rows": len(values)}


@step
def copy(value: Path, *, out: Path) -> dict:
    (out / "copy.txt").write_text(value.read_text())
    return {}
"""

MANY = """
pipeline: many
project: lab
inputs:
  spectrum: {file: "s*.txt", each: true, timestamp: "2024-05-01T12:00:00Z"}
steps:
  copied: {uses: "LABMODULE_table:copy", inputs: {value: spectrum}}
"""


@pytest.fixture
def many(lab: Any) -> Any:
    lab.file(f"{lab.module}_table.py", TABLE)
    (lab.folder / "second.txt").unlink()
    for number in (1, 2, 3):
        lab.file(f"s{number}.txt", f"{number}")
    lab.declare(MANY, "many.yaml")
    return lab


def declare(lab: Any, declared: str, step: str = "table", name: str = "pipeline.yaml") -> Path:
    role = "values" if step == "table" else "value"
    path: Path = lab.declare(
        f"""
        pipeline: inputs
        project: lab
        inputs:
          data: {declared}
        steps:
          made: {{uses: "LABMODULE_table:{step}", inputs: {{{role}: data}}}}
        """,
        name,
    )
    return path


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("inputs.txt"))


def test_a_pattern_matches_files_and_an_existing_name_is_not_a_pattern(many: Any) -> None:
    declared = bind_file(declare(many, '{file: "s[12].txt"}')).spec.inputs["data"]
    assert [path.name for path in declared.paths] == ["s1.txt", "s2.txt"]  # type: ignore[union-attr]
    many.file("s[12].txt", "itself")
    declared = bind_file(declare(many, '{file: "s[12].txt"}', "copy")).spec.inputs["data"]
    assert [path.name for path in declared.paths] == ["s[12].txt"]  # type: ignore[union-attr]
    (many.folder / "deep" / "er").mkdir(parents=True)
    many.file("deep/er/s9.txt", "9")
    declared = bind_file(declare(many, '{file: ["**/s9.txt", s1.txt]}')).spec.inputs["data"]
    assert [path.name for path in declared.paths] == ["s9.txt", "s1.txt"]  # type: ignore[union-attr]


def test_inputs_may_be_listed_selected_or_results_of_another_pipeline(
    many: Any, session: Session, run: Run, text_of: Text
) -> None:
    first = run(many.folder / "many.yaml")
    copies = [first.datasets[f"copied[s{n}.txt]"]["out"] for n in (1, 2, 3)]

    listed = run(declare(many, f"{{dataset: [{copies[2]}, {copies[0]}]}}"))
    assert text_of(listed.datasets["made"]["out"]) == "3 1", "in the order in which they are listed"
    parents = session.client.datasets.list_parents(listed.datasets["made"]["out"])
    assert {parent.unique_id for parent in parents} == {copies[0], copies[2]}
    single = run(declare(many, f"{{dataset: {copies[0]}}}", "copy"))
    assert text_of(single.datasets["made"]["out"]) == "1"
    each = run(declare(many, f"{{dataset: [{copies[0]}, {copies[1]}], each: true}}", "copy"))
    assert sorted(each.datasets) == sorted(f"made[{mfid}]" for mfid in copies[:2])

    selected = run(declare(many, '{select: {keyword: "pipeline:many"}}'))
    assert sorted(text_of(selected.datasets["made"]["out"]).split()) == ["1", "2", "3"]

    other = run(declare(many, "{pipeline: many.yaml, from: copied}"))
    assert text_of(other.datasets["made"]["out"]) == "1 2 3", "in the order of the other pipeline"
    mine = run(declare(many, "{pipeline: many.yaml, from: copied, each: true}", "copy"))
    assert len(mine.datasets) == 3
    assert len(mine.executed) == 1, "two of them were made above"


def test_incomplete_and_superseded_datasets_are_not_selected(
    many: Any, session: Session, run: Run, text_of: Text, record_of: Any, unfinish: Any
) -> None:
    first = run(many.folder / "many.yaml")
    many.file(f"{many.module}_other.py", TABLE.replace("value.read_text()", "value.read_text() + '!'"))
    second = run(many.declare(MANY.replace("LABMODULE_table", f"{many.module}_other"), "many.yaml"))
    assert record_of(second.datasets["copied[s1.txt]"]["out"])["supersedes"] == first.datasets["copied[s1.txt]"]["out"]

    mfid = second.datasets["copied[s3.txt]"]["out"]
    unfinish(session.client, mfid)
    chosen = run(declare(many, '{select: {keyword: "pipeline:many"}}'))
    chosen_texts = sorted(text_of(chosen.datasets["made"]["out"]).split())
    assert chosen_texts == ["1!", "2!", "3"], "the third is not superseded yet, since its successor is incomplete"


def test_an_unusable_selected_dataset_stops_only_its_own_instance(many: Any, session: Session, run: Run) -> None:
    session.ensure_project("lab")
    run(many.folder / "many.yaml")
    session.client.datasets.create({"project_id": "lab", "dataset_name": "without files", "measurement": "none"})
    session.client.datasets.create({"project_id": "lab", "dataset_name": "another", "measurement": "none"})
    path = declare(many, "{select: {measurement: none}, each: true}", "copy")
    steps = make_plan(bind_file(path, session.store), session).steps
    assert [step.state for step in steps] == ["blocked", "blocked"]
    assert "has no files" in steps[0].causes[0]
    result = run(path)
    assert not result.ok
    assert all("has no files" in error for error in result.errors.values())


def test_an_empty_selection_is_an_error_or_gives_no_instances(many: Any, session: Session, run: Run) -> None:
    session.ensure_project("lab")
    with pytest.raises(InputError, match="no complete dataset matches the selection"):
        run(declare(many, "{select: {measurement: nothing}}"))
    result = run(declare(many, "{select: {measurement: nothing}, each: true}", "copy"))
    assert (result.ok, result.outcomes) == (True, {})


def test_a_missing_result_of_another_pipeline_blocks_the_step(
    many: Any, session: Session, run: Run, planned: Any
) -> None:
    (made,) = planned(declare(many, "{pipeline: many.yaml, from: copied}")).values()
    assert made.state == "blocked"
    assert "copied[s1.txt] of" in made.causes[0]
    assert "is missing; run that pipeline first" in made.causes[0]
    assert "run that pipeline first" in run(many.pipeline).errors["made"]


def test_one_result_of_another_pipeline_is_one_dataset(many: Any, session: Session, run: Run, text_of: Text) -> None:
    run(many.declare(MANY.replace('"s*.txt", each: true', "s2.txt"), "many.yaml"))
    result = run(declare(many, "{pipeline: many.yaml, from: copied}", "copy"))
    assert text_of(result.datasets["made"]["out"]) == "2"
    many.declare(MANY, "many.yaml")
    run(many.folder / "many.yaml")
    refused = run(many.pipeline)
    assert "input data has 3 datasets" in refused.errors["made"]
    assert "each: true" in refused.errors["made"]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("{pipeline: none.yaml, from: copied}", "there is no file"),
        ("{pipeline: pipeline.yaml, from: made}", "uses its own result"),
        ("{pipeline: many.yaml, from: copid}", "no step 'copid'; did you mean 'copied'?"),
        ("{pipeline: many.yaml, from: copied, output: low}", "has the outputs out; name one with `output:`"),
        ("{dataset: []}", "at least 1"),
        ("{file: s1.txt, timestamp: 2024}", "this would be seconds since 1970"),
        ("{file: s1.txt, timestamp: since 2024-05-01T12:00:00}", "the time zone is missing"),
    ],
)
def test_an_invalid_input_is_reported(many: Any, session: Session, declared: str, words: str) -> None:
    path = declare(many, declared)
    with pytest.raises(InputError) as caught:
        make_plan(bind_file(path), session)
    assert words in str(caught.value)
