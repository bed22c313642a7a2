"""Correction commands: their changes, their records of author, time and reason, and their consequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.corrections import CORRECTIONS_KEY, uncorrected
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session

MEAN = """
from pathlib import Path

from crucible_lineage import step


@step
def mean(scan: Path, *, temperature: float = 0, out: Path) -> dict:
    (out / "mean.txt").write_text(f"{temperature} {scan.read_text()}")
    return {"temperature": temperature}
"""
ONE = """
pipeline: one
project: lab
inputs:
  scan: {file: "s[12].txt", each: true, timestamp: "2024-05-01T12:00:00Z", metadata: {temperature_C: 20}}
steps:
  mean: {uses: "LABMODULE:mean", inputs: {scan: scan}, params: {temperature: "{scan.metadata.temperature_C}"}}
"""


@pytest.fixture
def made(lab: Any, session: Session) -> dict[str, str]:
    """Run a pipeline over two scans; return the ids of its datasets, by instance and file."""
    lab.file(f"{lab.module}.py", MEAN)
    lab.file("s1.txt", "1")
    lab.file("s2.txt", "2")
    path = lab.declare(ONE)
    result = plan_and_run(
        bind_file(path, session.store), session, lambda: LocalEngine(session, 2), lambda _: None, StepChoice()
    )
    assert result.ok, result.errors
    scans = {session.client.datasets.get(mfid).dataset_name: mfid for mfid in result.inputs["scan"]}
    return {**{name: outputs["out"] for name, outputs in result.datasets.items()}, **scans}


@pytest.fixture
def cl(data: Path) -> Any:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments), "--data", str(data)])

    return invoke


def states(lab: Any, session: Session) -> dict[str, str]:
    return {step.name: step.state for step in make_plan(bind_file(lab.pipeline, session.store), session).steps}


def test_a_corrected_value_is_recorded_and_makes_its_results_stale(
    lab: Any, session: Session, made: dict[str, str], cl: Any
) -> None:
    ran = cl("set", made["s1.txt"], "metadata.temperature_C=25", "--why", "the sensor was off by five")
    assert ran.exit_code == 0, ran.output
    assert "metadata.temperature_C 20 -> 25" in ran.stdout
    assert states(lab, session) == {"mean[s1.txt]": "stale", "mean[s2.txt]": "fresh"}
    story = cl("why", made["s1.txt"]).stdout
    assert "Corrections" in story
    assert "metadata.temperature_C 20 -> 25 (the sensor was off by five)" in story
    assert cl("set", made["s1.txt"], "metadata.temperature_C=25").stdout == "nothing to change\n"
    verified = cl("verify", made["s1.txt"])
    assert verified.exit_code == 0, verified.output


def test_a_deletion_is_requested_once(made: dict[str, str], cl: Any) -> None:
    assert cl("delete", made["mean[s1.txt]"]).exit_code == 0
    again = cl("delete", made["mean[s1.txt]"])
    assert (again.exit_code, "request for this resource is already open" in again.output) == (2, True)


def test_a_table_of_corrections_is_checked_before_anything_is_changed(
    lab: Any, session: Session, made: dict[str, str], cl: Any
) -> None:
    table = lab.file(
        "fix.csv", f"mfid,metadata.temperature_C,session_name\n{made['s1.txt']},25,May\n{made['s2.txt']},,June\n"
    )
    dry = cl("set", "--from", table, "--dry-run")
    assert "3 values would be changed" in dry.stdout
    assert session.client.datasets.get(made["s1.txt"]).session_name is None
    assert json.loads(cl("set", "--from", table, "--json", "--why", "logbook").stdout)["changed"] is True
    first = session.client.datasets.get(made["s1.txt"], include_metadata=True)
    assert (first.session_name, first.scientific_metadata["temperature_C"]) == ("May", 25)
    assert session.client.datasets.get(made["s2.txt"]).session_name == "June"
    wrong = lab.file(
        "wrong.csv", f"mfid,metadata.x,sessionname\n{made['s1.txt']},1,\n{made['s2.txt']},2,July\n0tnothere,3,\n"
    )
    refused = cl("set", "--from", wrong)
    assert refused.exit_code == 2
    assert "wrong.csv:3: set sessionname: datasets have no such field" in refused.output
    assert "nothing was changed" in refused.output
    assert "x" not in session.client.datasets.get(made["s1.txt"], include_metadata=True).scientific_metadata


def test_names_links_samples_and_keywords_can_be_corrected(session: Session, made: dict[str, str], cl: Any) -> None:
    scan, other, mean = made["s1.txt"], made["s2.txt"], made["mean[s1.txt]"]
    assert cl("set", scan, "dataset_name=Scan of gold", "sample=gold on mica", "keyword+=gold").exit_code == 0
    found = session.client.datasets.get(scan, include_links=True)
    assert found.dataset_name == "Scan of gold"
    assert "gold" in {word.keyword for word in session.client.datasets.get_keywords(scan)}
    (mica,) = session.client.samples.list(sample_name="gold on mica")
    assert cl("set", mean, "parent+=s2.txt", "sample+=gold on mica", "--why", "it was averaged in").exit_code == 0
    assert {parent.unique_id for parent in session.client.datasets.list_parents(mean)} == {scan, other}
    assert f"parent nothing -> '{other}' (it was averaged in)" in cl("why", mean).stdout
    assert f"sample nothing -> '{mica.unique_id}'" in cl("why", mean).stdout
    assert cl("set", mean, f"parent+={other}", "sample+=gold on mica").stdout == "nothing to change\n"
    assert cl("set", mean, f"parent-={other}", "sample=glass").exit_code == 0
    links = {link.unique_id for link in session.client.datasets.get(mean, include_links=True).links}
    (glass,) = session.client.samples.list(sample_name="glass")
    assert links == {scan, glass.unique_id}


def test_the_current_results_of_a_step_are_corrected_together(
    lab: Any, session: Session, made: dict[str, str], cl: Any
) -> None:
    dry = cl("set", "--step", "mean", "--project", "lab", "measurement=Raman", "--dry-run")
    assert dry.stdout.endswith("2 values would be changed\n")
    assert cl("set", "--step", "mean", "--project", "lab", "measurement=Raman", "metadata.power_mW=5").exit_code == 0
    for mean in (made["mean[s1.txt]"], made["mean[s2.txt]"]):
        found = session.client.datasets.get(mean, include_metadata=True)
        assert (found.measurement, found.scientific_metadata["power_mW"]) == ("Raman", 5)
    assert set(states(lab, session).values()) == {"fresh"}


def test_a_replaced_measurement_is_superseded_and_selections_use_the_new_one(
    lab: Any, session: Session, made: dict[str, str], cl: Any
) -> None:
    again = lab.file("again.txt", "1.1")
    ran = cl("register", again, "--replaces", made["s1.txt"], "--json", "--note", "the lamp was off")
    assert ran.exit_code == 0, ran.output
    new = json.loads(ran.stdout)["mfid"]
    dataset = session.client.datasets.get(new, include_metadata=True)
    assert (dataset.dataset_name, dataset.scientific_metadata["temperature_C"]) == ("s1.txt", 20)
    declared = next(line for line in ONE.splitlines() if line.startswith("  scan: "))
    select = ONE.replace(declared, "  scan: {select: {metadata.temperature_C: 20}, each: true}")
    plan = make_plan(bind_file(lab.declare(select, "select.yaml"), session.store), session)
    assert {step.name for step in plan.steps} == {f"mean[{new}]", f"mean[{made['s2.txt']}]"}
    refused = cl("register", again, "--replaces", made["mean[s2.txt]"])
    assert "it was made from other datasets" in refused.output
    assert f"replaced by {new} (the lamp was off)" in cl("why", made["s1.txt"]).stdout


@pytest.mark.parametrize(
    ("values", "before"),
    [
        ({"a": 3, "b": 5}, {"a": 1}),
        ({"a": 2, "b": 5}, {"a": 1}),
        ({"a": 4, "b": 6, "name": "y"}, {"a": 4, "b": 6, "name": "y"}),
    ],
)
def test_a_correction_is_left_out_where_its_value_still_stands(values: dict[str, Any], before: dict[str, Any]) -> None:
    changes = [("metadata.a", 1, 2), ("metadata.a", 2, 3), ("metadata.b", None, 5), ("name", "x", "y")]
    acts = {str(n): {"field": field, "was": was, "now": now} for n, (field, was, now) in enumerate(changes)}
    assert uncorrected({**values, CORRECTIONS_KEY: acts}) == {**before, CORRECTIONS_KEY: acts}
