"""Current values of measured files at Crucible win, and the plan shows differences from the declaration."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def mean(scans: list[Path], *, temperature: float = 0, out: Path) -> dict:
    (out / "mean.txt").write_text(f"{temperature} " + " ".join(path.read_text() for path in scans))
    return {}
"""
GROUPED = """
pipeline: grouped
project: lab
inputs:
  scans:
    each:
      - {file: s1.txt, metadata: {temperature_C: 20}}
      - {file: s2.txt, metadata: {temperature_C: 20}}
      - {file: s3.txt, metadata: {temperature_C: 30}}
    timestamp: "2024-05-01T12:00:00Z"
    instrument_name: counter A
steps:
  mean:
    uses: LABMODULE:mean
    inputs: {scans: {from: scans, group_by: metadata.temperature_C}}
    params: {temperature: "{scans.metadata.temperature_C}"}
    output: {dataset_name: "mean at {scans.metadata.temperature_C} C"}
"""


@pytest.fixture
def grouped(lab: Any, run: Any) -> Any:
    lab.file(f"{lab.module}.py", STEPS)
    for number in (1, 2, 3):
        lab.file(f"s{number}.txt", str(number))
    assert run(lab.declare(GROUPED)).ok
    return lab


def correct(session: Session, name: str, **metadata: object) -> str:
    (found,) = session.client.datasets.list(project_id="lab", dataset_name=name)
    session.client.metadata.merge(found.unique_id, metadata)
    return found.unique_id


def test_a_value_corrected_at_crucible_moves_groups_parameters_and_names(
    grouped: Any, session: Session, run: Any, text_of: Any
) -> None:
    mfid = correct(session, "s2.txt", temperature_C=30)
    plan = make_plan(bind_file(grouped.pipeline, session.store), session)
    assert {step.name: step.state for step in plan.steps} == {"mean[20]": "stale", "mean[30]": "stale"}
    (difference,) = plan.differences
    assert str(difference) == (
        f"input scans, s2.txt ({mfid}): metadata.temperature_C is 30 at Crucible, 20 as declared; Crucible's counts"
    )
    result = run(grouped.pipeline)
    assert text_of(result.datasets["mean[30]"]["out"]) == "30.0 2 3"
    assert session.client.datasets.get(result.datasets["mean[30]"]["out"]).dataset_name == "mean at 30 C"
    assert run(grouped.pipeline).executed == []


def test_a_value_declared_later_is_shown_and_holds_if_crucible_has_none(
    grouped: Any, session: Session, cli: Any
) -> None:
    later = GROUPED.replace("metadata: {temperature_C: 30}", "metadata: {temperature_C: 30, operator: Ada}")
    later = later.replace("instrument_name: counter A", "session_name: May")
    output = cli("plan", grouped.declare(later)).stdout
    assert 'metadata.operator is not at Crucible, "Ada" as declared' in output
    assert 'session_name is not at Crucible, "May" as declared' in output
    assert "`set MFID FIELD=VALUE` changes a value at Crucible" in output


def test_every_plan_names_a_difference_also_where_no_field_is_used(lab: Any, run: Any, cli: Any) -> None:
    assert run(lab.pipeline).ok
    lab.declare(lab.pipeline.read_text().replace("{file: first.txt,", "{file: first.txt, session_name: May,"))
    for _ in range(2):
        assert 'session_name is not at Crucible, "May" as declared' in cli("plan", lab.pipeline).stdout
