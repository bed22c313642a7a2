"""Correction commands: their changes, their records of author, time and reason, and their consequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
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


def test_a_correction_that_crucible_refuses_is_wrong_input(made: dict[str, str], cl: Any) -> None:
    scan, other, mean = made["s1.txt"], made["s2.txt"], made["mean[s1.txt]"]
    nowhere = "0trb2d1cz9y0f000gqqg970hw0"
    sample = cl("sample", "add", "gold", "--project", "lab").stdout.split()[0]
    for arguments, reason in (
        (("link", mean, scan), "would close a cycle"),
        (("link", scan, scan), "cannot be its own parent"),
        (("link", sample, scan), "Dataset not found"),
        (("unlink", other, mean), "they are not linked"),
        (("sample", "rename", nowhere, "x"), "Sample not found"),
        (("sample", "rename", sample, " "), "a sample needs a name"),
        (("sample", "add", "", "--project", "lab"), "a sample needs a name"),
        (("sample", "link", nowhere, scan), "Sample not found"),
        (("set", scan, "instrument_id=nowhere"), "instrument 'nowhere' does not exist"),
    ):
        refused = cl(*arguments)
        assert refused.exit_code == 2, (arguments, refused.output)
        assert reason in refused.output
        assert "nothing was changed" in refused.output
    assert cl("delete", mean).exit_code == 0
    again = cl("delete", mean)
    assert (again.exit_code, "request for this resource is already open" in again.output) == (2, True)


def test_an_unknown_instrument_in_a_table_is_found_before_anything_is_changed(
    lab: Any, session: Session, made: dict[str, str], cl: Any
) -> None:
    table = lab.file("fix.csv", f"mfid,session_name,instrument_name\n{made['s1.txt']},May,\n{made['s2.txt']},,none\n")
    refused = cl("set", "--from", table)
    assert refused.exit_code == 2
    assert "fix.csv:3: set instrument_name=none: there is none" in refused.output
    assert session.client.datasets.get(made["s1.txt"]).session_name is None


def test_both_values_of_a_corrected_number_have_the_same_form(made: dict[str, str], cl: Any) -> None:
    change = "metadata.temperature_C 20 -> 26"
    assert cl("set", made["s1.txt"], "metadata.temperature_C=26.0").stdout.splitlines()[0].endswith(change)
    assert f"{change}\n" in cl("why", made["s1.txt"]).stdout
    assert cl("set", made["s1.txt"], "session_name=May").stdout.splitlines()[0].endswith("nothing -> 'May'")


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


def test_names_links_and_samples_can_be_corrected(session: Session, made: dict[str, str], cl: Any) -> None:
    assert cl("rename", made["s1.txt"], "Scan of gold").exit_code == 0
    assert session.client.datasets.get(made["s1.txt"]).dataset_name == "Scan of gold"
    assert cl("link", made["s2.txt"], made["mean[s1.txt]"], "--why", "it was averaged in").exit_code == 0
    parents = {one.unique_id for one in session.client.datasets.list_parents(made["mean[s1.txt]"])}
    assert made["s2.txt"] in parents
    assert f"linked below {made['s2.txt']} (it was averaged in)" in cl("why", made["mean[s1.txt]"]).stdout
    assert cl("unlink", made["s2.txt"], made["mean[s1.txt]"]).exit_code == 0
    added = cl("sample", "add", "gold on mica", "--project", "lab", "--on", made["s1.txt"])
    sample = added.stdout.split()[0]
    assert cl("sample", "rename", sample, "gold on glass").exit_code == 0
    assert session.client.samples.get(sample).sample_name == "gold on glass"
    assert cl("sample", "link", sample, made["s2.txt"]).exit_code == 0
    linked = session.client.datasets.get(made["s2.txt"], include_links=True).links
    assert sample in {link.unique_id for link in linked}


def test_control_characters_in_names_are_printed_escaped(
    session: Session, made: dict[str, str], cl: Any, lab: Any
) -> None:
    sample = cl("sample", "add", "gold\rmica", "--project", "lab", "--on", made["s1.txt"])
    ran = [
        sample,
        cl("sample", "rename", sample.stdout.split()[0], "gold\x1b[2Kglass"),
        cl("rename", made["s1.txt"], "scan\rof gold"),
        cl("set", made["s1.txt"], "metadata.temperature_C=25"),
        cl("why", made["mean[s1.txt]"]),
        cl("register", lab.file("more.txt", "3"), "--project", "lab", "--name", "more\rscans"),
        cl("replace", made["s1.txt"], lab.file("s1b.txt", "4")),
    ]
    for one in ran:
        assert one.exit_code == 0, one.output
        assert "\r" not in one.stdout_bytes.decode()
        assert "\x1b" not in one.stdout_bytes.decode()
    assert r"scan\rof gold" in ran[2].stdout


def test_a_replaced_measurement_is_superseded_and_selections_use_the_new_one(
    lab: Any, session: Session, made: dict[str, str], cl: Any
) -> None:
    again = lab.file("again.txt", "1.1")
    ran = cl("replace", made["s1.txt"], again, "--json", "--why", "the lamp was off")
    assert ran.exit_code == 0, ran.output
    new = json.loads(ran.stdout)["mfid"]
    dataset = session.client.datasets.get(new, include_metadata=True)
    assert (dataset.dataset_name, dataset.scientific_metadata["temperature_C"]) == ("s1.txt", 20)
    declared = next(line for line in ONE.splitlines() if line.startswith("  scan: "))
    select = ONE.replace(declared, "  scan: {select: {metadata.temperature_C: 20}, each: true}")
    plan = make_plan(bind_file(lab.declare(select, "select.yaml"), session.store), session)
    assert {step.name for step in plan.steps} == {f"mean[{new}]", f"mean[{made['s2.txt']}]"}
    refused = cl("replace", made["mean[s2.txt]"], again)
    assert "it was made from other datasets" in refused.output
    assert f"replaced by {new} (the lamp was off)" in cl("why", made["s1.txt"]).stdout


@pytest.mark.usefixtures("made")
def test_a_replaced_measurement_without_results_is_superseded_in_its_lineage(lab: Any, cl: Any) -> None:
    registered = cl("register", lab.file("alone.txt", "1"), "--project", "lab", "--json")
    old = json.loads(registered.stdout)["mfid"]
    new = json.loads(cl("replace", old, lab.file("better.txt", "2"), "--json").stdout)["mfid"]
    (node,) = (one for one in json.loads(cl("lineage", old, "--format", "json").stdout)["nodes"] if one["id"] == old)
    assert (node["state"], node["superseded_by"]) == ("superseded", [new])


def test_a_dataset_with_results_is_deleted_only_if_confirmed(session: Session, made: dict[str, str], cl: Any) -> None:
    refused = cl("delete", made["s1.txt"])
    assert refused.exit_code == 2
    assert f"1 dataset made from it: {made['mean[s1.txt]']}" in refused.output
    assert cl("delete", made["mean[s1.txt]"], "--why", "wrong sample").exit_code == 0
    listed = {one.unique_id for one in session.client.datasets.list(project_id="lab")}
    assert made["mean[s1.txt]"] not in listed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("set",), "name a dataset and what to set"),
        (("set", "MFID"), "name what to set, as in metadata.power_mW=5"),
        (
            ("set", "MFID", "temperature=5"),
            "datasets have no such field; an entry of the metadata is set by metadata.temperature=VALUE",
        ),
        (("set", "MFID", "timestamp=yesterday"), "write it as in 2024-05-10T12:00:00Z"),
        (("set", "MFID", "metadata.crucible_lineage=5"), "reserved for the provenance record"),
        (("set", "MFID", "instrument_name=laser 9"), "there is none"),
    ],
)
def test_invalid_values_are_refused(made: dict[str, str], cl: Any, words: tuple[str, ...], expected: str) -> None:
    ran = cl(*[made["s1.txt"] if word == "MFID" else word for word in words])
    assert (ran.exit_code, expected in ran.output) == (2, True), ran.output
