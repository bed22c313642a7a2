"""One declaration for many datasets: `each`, `match` and `matrix` give instances, and lists collect them."""

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
from tests.runs import states

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def add(left: Path, right: Path, *, out: Path) -> dict:
    (out / "sum.txt").write_text(str(float(left.read_text()) + float(right.read_text())))
    return {}


@step
def power(base: Path, *, exponent: int = 2, out: Path) -> dict:
    (out / "power.txt").write_text(str(float(base.read_text()) ** exponent))
    return {"exponent": exponent}


@step
def table(values: list[Path], *, out: Path) -> dict:
    (out / "table.txt").write_text(" ".join(path.read_text() for path in values))
    return {"rows": len(values)}
"""

COLLECT = """

@step
def collect(spectrum: Path, values: list[Path], *, out: Path) -> dict:
    (out / "table.txt").write_text(" ".join(path.read_text() for path in values))
    return {}
"""

EACH = """
pipeline: many
project: lab
inputs:
  spectrum: {file: "s[0-9].txt", each: true, timestamp: "2024-05-01T12:00:00Z"}
  offset: {file: offset.txt, timestamp: "2024-05-01T11:00:00Z"}
steps:
  sum: {uses: "LABMODULE:add", inputs: {left: spectrum, right: offset}}
  square: {uses: "LABMODULE:power", inputs: {base: sum}}
  table: {uses: "LABMODULE:table", inputs: {values: square}}
"""

Run = Callable[[Path], RunResult]


@pytest.fixture
def many(lab: Any) -> Any:
    lab.file(f"{lab.module}.py", STEPS)
    for number in (1, 2, 3):
        lab.file(f"s{number}.txt", f"{number}")
    lab.file("offset.txt", "10")
    lab.declare(EACH)
    return lab


def test_each_dataset_has_its_own_results_and_a_list_collects_them(
    many: Any, session: Session, run: Run, text_of: Any
) -> None:
    result = run(many.pipeline)
    assert result.ok, result.errors
    assert list(result.datasets) == [
        *("sum[s1.txt]", "sum[s2.txt]", "sum[s3.txt]", "square[s1.txt]", "square[s2.txt]", "square[s3.txt]", "table")
    ]
    table = result.datasets["table"]["out"]
    assert text_of(table) == "121.0 144.0 169.0"
    parents = {parent.unique_id for parent in session.client.datasets.list_parents(table)}
    assert parents == {result.datasets[f"square[s{number}.txt]"]["out"] for number in (1, 2, 3)}
    assert session.client.datasets.get(table).dataset_name == "s1.txt and 2 more (table)"
    assert run(many.pipeline).executed == []


def test_a_new_dataset_makes_only_what_depends_on_it_and_supersedes_no_result_of_another_one(
    many: Any, session: Session, run: Run
) -> None:
    first = run(many.pipeline)
    many.file("s4.txt", "4")
    planned = make_plan(bind_file(many.pipeline, session.store), session)
    assert {step.name: step.state for step in planned.steps if step.state != "fresh"} == {
        "sum[s4.txt]": "missing",
        "square[s4.txt]": "missing",
        "table": "stale",
    }
    second = run(many.pipeline)
    assert second.executed == ["sum[s4.txt]", "square[s4.txt]", "table"]

    def supersedes(step: str) -> Any:
        metadata = session.client.datasets.get(second.datasets[step]["out"], include_metadata=True).scientific_metadata
        return (metadata or {})["crucible_lineage"]["supersedes"]

    assert supersedes("sum[s4.txt]") is None
    assert supersedes("table") == first.datasets["table"]["out"]


def test_an_unusable_dataset_does_not_stop_the_others(many: Any, session: Session, run: Run) -> None:
    path = many.declare("""
    pipeline: odd
    project: lab
    inputs:
      base:
        each:
          - {file: s1.txt, timestamp: "2024-05-01T12:00:00Z"}
          - {file: [s2.txt, s3.txt], timestamp: "2024-05-01T12:00:00Z"}
    steps:
      square: {uses: "LABMODULE:power", inputs: {base: base}}
    """)
    first = run(path)  # both are new, so the fault of the second appears on registration
    assert (first.ok, first.executed) == (False, ["square[s1.txt]"])
    assert states(session, path) == {"square[s1.txt]": "fresh", "square[s2.txt]": "blocked"}
    assert "has several files: s2.txt, s3.txt" in run(path).errors["square[s2.txt]"]


def test_without_datasets_nothing_is_done_and_nothing_fails(many: Any, session: Session, run: Run) -> None:
    many.declare(EACH.replace('"s[0-9].txt"', '"none*.txt", optional: true').replace("  table:", "  tables:"))
    assert states(session, many.pipeline) == {"tables": "blocked"}
    many.declare("\n".join(line for line in many.pipeline.read_text().splitlines() if "tables" not in line))
    result = run(many.pipeline)
    assert (result.ok, result.outcomes) == (True, {})


MATCHED = """
pipeline: matched
project: lab
inputs:
  spectrum:
    each:
      - {file: s1.txt, instrument_name: A}
      - {file: s2.txt, instrument_name: B}
      - {file: s3.txt, instrument_name: A, metadata: {laser: 785}}
    timestamp: "2024-05-01T12:00:00Z"
    metadata: {laser: 633}
  offset:
    each:
      - {file: offset.txt, instrument_name: A}
      - {file: second.txt, instrument_name: B}
    timestamp: "2024-05-01T11:00:00Z"
    match: {spectrum: instrument_name}
steps:
  sum: {uses: "LABMODULE:add", inputs: {left: spectrum, right: offset}}
"""


def test_inputs_are_matched_by_a_field_of_their_records(many: Any, session: Session, run: Run, text_of: Any) -> None:
    many.file("second.txt", "20")
    result = run(many.declare(MATCHED))
    assert {step: text_of(outputs["out"]) for step, outputs in result.datasets.items()} == {
        "sum[s1.txt]": "11.0",
        "sum[s2.txt]": "22.0",
        "sum[s3.txt]": "13.0",
    }
    third = session.client.datasets.get(result.inputs["spectrum"][2], include_metadata=True).scientific_metadata or {}
    assert third["laser"] == 785


def test_an_instance_without_a_match_is_blocked_and_the_others_run(many: Any, session: Session, run: Run) -> None:
    many.file("second.txt", "20")
    path = many.declare(MATCHED.replace("second.txt, instrument_name: B", "second.txt, instrument_name: C"))
    planned = make_plan(bind_file(path, session.store), session)
    blocked = {step.name: step.causes for step in planned.steps if step.state == "blocked"}
    assert blocked == {"sum[s2.txt]": ("input offset has no dataset with instrument_name=B, as s2.txt has",)}
    result = run(path)
    assert (result.ok, result.executed) == (False, ["sum[s1.txt]", "sum[s3.txt]"])
    assert "instrument_name=B" in result.errors["sum[s2.txt]"]


def test_a_list_takes_all_matches_and_a_single_file_the_nearest_before(
    many: Any, session: Session, run: Run, text_of: Any
) -> None:
    many.file("second.txt", "20")
    several = """
    pipeline: several
    project: lab
    inputs:
      spectrum: {each: [{file: s1.txt, instrument_name: A}], timestamp: "2024-05-01T12:00:00Z"}
      offset:
        each:
          - {file: offset.txt, timestamp: "2024-05-01T11:00:00Z"}
          - {file: s2.txt, timestamp: "2024-05-01T11:30:00Z"}
          - {file: second.txt, timestamp: "2024-05-01T13:00:00Z"}
        instrument_name: A
        match: {spectrum: [instrument_name]}
    steps:
      sum: {uses: "LABMODULE:add", inputs: {left: spectrum, right: offset}}
      table: {uses: "LABMODULE:collect", inputs: {spectrum: spectrum, values: offset}}
    """
    many.file(f"{many.module}.py", STEPS + COLLECT)
    result = run(many.declare(several))
    assert result.ok, result.errors
    assert text_of(result.datasets["sum[s1.txt]"]["out"]) == "3.0"
    assert text_of(result.datasets["table[s1.txt]"]["out"]) == "10 2 20"


SWEPT = """
pipeline: swept
project: lab
inputs:
  spectrum: {file: s2.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  power: {uses: "LABMODULE:power", inputs: {base: spectrum}, matrix: {exponent: [1, 2, 3]}}
  again: {uses: "LABMODULE:power", inputs: {base: power}, matrix: [{exponent: 1}, {exponent: 2}]}
  table: {uses: "LABMODULE:table", inputs: {values: power}}
"""


def test_a_matrix_makes_every_combination(many: Any, session: Session, run: Run, text_of: Any) -> None:
    result = run(many.declare(SWEPT))
    assert result.ok, result.errors
    assert text_of(result.datasets["table"]["out"]) == "2.0 4.0 8.0"
    assert len([name for name in result.datasets if name.startswith("again")]) == 6
    name = "again[exponent=3, exponent=2]"
    assert text_of(result.datasets[name]["out"]) == "64.0"
    record = session.client.datasets.get(result.datasets["power[exponent=3]"]["out"])
    assert record.dataset_name == "spectrum (power, exponent=3)"


def test_an_additional_value_in_a_matrix_supersedes_nothing(many: Any, session: Session, run: Run) -> None:
    run(many.declare(SWEPT))
    path = many.declare(SWEPT.replace("[1, 2, 3]", "[1, 2, 3, 4]"))
    states_now = states(session, path)
    assert states_now["power[exponent=4]"] == "missing"
    assert (states_now["power[exponent=3]"], states_now["table"]) == ("fresh", "stale")
    path = many.declare(SWEPT.replace("[1, 2, 3]", "[1, 2, 5]"))
    planned = {step.name: step for step in make_plan(bind_file(path, session.store), session).steps}
    assert planned["power[exponent=5]"].state == "missing", "a new variant, not a stale one"


def test_a_pattern_without_matches_is_a_fault_unless_it_is_optional(many: Any, session: Session, run: Run) -> None:
    text = EACH.replace('"s[0-9].txt"', '"later/*.txt"')
    with pytest.raises(InputError, match="add `optional: true`"):
        bind_file(many.declare(text))
    optional = many.declare(text.replace("each: true,", "each: true, optional: true,", 1))
    assert run(optional).outcomes in ({}, {"table": "skipped"}, {"table": "failed"})
    (many.folder / "later").mkdir()
    many.file("later/s9.txt", "9")
    assert "sum[s9.txt]" in run(optional).datasets


def test_two_instances_of_one_name_are_refused_and_not_one_of_them_left_out(many: Any, session: Session) -> None:
    path = many.declare(EACH.replace("inputs: {base: sum}", "inputs: {base: sum}, matrix: {label: [5, '5']}"))
    many.file(f"{many.module}.py", STEPS.replace("exponent: int = 2", "exponent: int = 2, label: object = None"))
    with pytest.raises(InputError, match=r"two instances would be called 'square\[s1.txt, label=5\]'"):
        states(session, path)
