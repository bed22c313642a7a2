"""Certified calibrations: only valid ones are chosen, by time of measurement, and the choice is recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.explain import explain
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.records import chosen_in_time
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.statements.stating import certify, lift

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def calibrate(scan: Path, axis: Path, *, out: Path) -> dict:
    (out / "calibrated.txt").write_text(scan.read_text() + axis.read_text())
    return {}


@step
def between(scan: Path, axes: list[Path], *, out: Path) -> dict:
    (out / "between.txt").write_text(scan.read_text() + "".join(path.read_text() for path in axes))
    return {}


@step
def alone(scan: Path, axis: Path | None = None, *, out: Path) -> dict:
    (out / "alone.txt").write_text(scan.read_text() + (axis.read_text() if axis else "no axis"))
    return {}


@step
def together(scans: list[Path], axis: Path, *, out: Path) -> dict:
    (out / "together.txt").write_text("".join(path.read_text() for path in scans) + axis.read_text())
    return {}


@step
def pooled(scan: list[Path], *, out: Path) -> dict:
    (out / "pooled.txt").write_text("".join(path.read_text() for path in scan))
    return {}
"""
SCANS = """
pipeline: scans
project: lab
inputs:
  scan: {select: {measurement: scan}, each: true}
  axis: {calibration: wavenumber axis, for: scan}
steps:
  calibrate: {uses: "LABMODULE:calibrate", inputs: {scan: scan, axis: axis}}
"""
RAMAN = {"instrument": "Raman 1"}
Register = Callable[..., str]


@pytest.fixture
def register(lab: Any, session: Session) -> Register:
    lab.file(f"{lab.module}.py", STEPS)
    session.ensure_project("lab")

    def registered(
        name: str, when: str = "", measurement: str = "scan", instrument: str = "Raman 1", **more: Any
    ) -> str:
        path = lab.file(f"{name}.txt", name)
        fields = {"timestamp": when} if when else {}
        created = session.client.datasets.create(
            {
                "project_id": "lab",
                "dataset_name": name,
                "measurement": measurement,
                "instrument_name": instrument,
                **fields,
            },
            scientific_metadata=more,
        )
        session.client.files.upload(created.dsid, path)
        return created.dsid

    return registered


@pytest.fixture
def named(session: Session) -> Callable[[str], str]:
    """The name of an instance with that of its dataset instead of the id."""
    names = cache(lambda mfid: session.client.datasets.get(mfid).dataset_name)
    return lambda name: re.sub(r"\[([0-9a-z]{26})\]", lambda found: f"[{names(found[1])}]", name)


@pytest.fixture
def planned(planned: Any, named: Callable[[str], str]) -> Any:
    return lambda *given, **more: {named(name): step for name, step in planned(*given, **more).items()}


@pytest.fixture
def run(run: Any, named: Callable[[str], str]) -> Any:
    def ran(path: Any) -> RunResult:
        result = run(path)
        parts = {part: getattr(result, part) for part in ("datasets", "outcomes", "errors")}
        return replace(result, **{part: {named(name): of for name, of in by.items()} for part, by in parts.items()})

    return ran


@pytest.fixture
def axes(register: Register) -> tuple[str, str]:
    return register("first axis", measurement="wavenumber axis"), register("second axis", measurement="wavenumber axis")


def chosen(steps: dict[str, Any]) -> dict[str, str]:
    return {name: step.choices["axis"][0]["name"] for name, step in steps.items() if step.choices}


def test_the_axis_is_the_one_valid_when_the_scan_was_measured_and_a_late_one_makes_its_range_stale(
    lab: Any, session: Session, register: Register, axes: tuple[str, str], run: Any, planned: Any, record_of: Any
) -> None:
    first, second = axes
    for name, when in (("a", "2024-01-10"), ("b", "2024-05-31T23:59:59"), ("c", "2024-06-01"), ("d", "2024-07-01")):
        register(name, f"{when}Z" if "T" in when else f"{when}T00:00:00Z")
    path = lab.declare(SCANS, "scans.yaml")
    blocked = planned(path)["calibrate[a]"]
    assert (blocked.state, "none is valid at any time" in blocked.causes[0]) == ("blocked", True)
    certify(session, first, RAMAN, "2020-01-01", "2020-02-01", kind="wave number axis", why="a slip of the pen")
    assert "other kinds that exist: wave number axis" in planned(path)["calibrate[a]"].causes[0]

    with pytest.raises(InputError, match="no data are of instrument 'raman 1'; name it as they do: 'Raman 1'"):
        certify(session, first, {"instrument": "raman 1"}, "2024-01-01", why="looked at residuals")

    certificate = certify(session, first, RAMAN, "2024-01-01", why="looked at residuals").statement
    before = run(path)
    assert set(before.outcomes.values()) == {"executed"}
    record = record_of(before.datasets["calibrate[a]"]["out"])
    (used,) = [parent for parent in record["used"] if parent["role"] == "axis"]
    entry = used["chosen"]["certificate"]
    assert (entry["statement"], entry["from"][:10], entry["until"]) == (certificate.mfid, "2024-01-01", None)
    dataset = session.client.datasets.get(before.datasets["calibrate[a]"]["out"], include_metadata=True)
    assert chosen_in_time(dataset.model_dump(), first) == "certified from 2024-01-01 on"
    assert certificate.mfid in str(explain(session, dataset.unique_id))

    with pytest.raises(InputError, match=rf"{first} is from 2024-01-01 on .*--replace"):
        certify(session, second, RAMAN, "2024-06-01", "2024-06-15", why="new lamp")
    certify(session, second, RAMAN, "2024-06-01", "2024-06-15", why="new lamp", replaced=True)
    steps = planned(path)
    assert {name: step.state for name, step in steps.items()} == {
        "calibrate[a]": "fresh", "calibrate[b]": "fresh", "calibrate[c]": "stale", "calibrate[d]": "fresh",
    }  # fmt: skip
    assert chosen(steps)["calibrate[c]"] == "second axis"
    assert run(path).executed == ["calibrate[c]"]
    old = planned(path, as_of="2020-01-01")
    assert {step.state for step in old.values()} == {"blocked"}, "as of a day on which nothing was stated"

    lift(session, [second], "wrong lamp")
    again = planned(path)
    assert chosen(again)["calibrate[c]"] == "first axis", "what it ended is valid again"
    lift(session, [first], "wrong lamp")
    assert "none is valid at any time" in planned(path)["calibrate[c]"].causes[0]


def test_a_repeated_certification_has_no_effect_until_it_is_withdrawn(
    session: Session, register: Register, axes: tuple[str, str]
) -> None:
    first, _ = axes
    statement_outcome, other = (
        certify(session, first, RAMAN, "2024-01-01", why=why) for why in ("looked at it", "again")
    )
    assert (statement_outcome.is_new, other.is_new, other.statement.mfid) == (
        True,
        False,
        statement_outcome.statement.mfid,
    )
    lift(session, [first], "wrong")
    assert not session.mirror.certificates("lab")
    with pytest.raises(InputError, match="no hold, flag, signature, certificate in force"):
        lift(session, [first], "wrong")
    again = certify(session, first, RAMAN, "2024-01-01", why="looked at it")
    assert again.is_new
    assert sum(bool(found.spans) for found in session.mirror.certificates("lab")) == 1


@pytest.mark.parametrize(
    ("otherwise", "state", "axis"),
    [("", "blocked", ""), (", else: nearest", "missing", "second axis"), (", else: none", "missing", "")],
)
def test_if_none_is_valid_the_declaration_decides(
    lab: Any,
    session: Session,
    register: Register,
    axes: tuple[str, str],
    planned: Any,
    otherwise: str,
    state: str,
    axis: str,
) -> None:
    register("gap", "2024-03-01T00:00:00Z")
    certify(session, axes[0], RAMAN, "2024-01-01", "2024-02-01", why="before")
    certify(session, axes[1], RAMAN, "2024-03-05", why="after")
    text = SCANS.replace("for: scan", f"for: scan{otherwise}").replace(":calibrate", ":alone")
    step = planned(lab.declare(text, "scans.yaml"))["calibrate[gap]"]
    assert step.state == state
    assert chosen({"it": step}).get("it", "") == axis
    within = text.replace("for: scan", "for: scan, within: 1d")
    if otherwise == "nearest":
        assert planned(lab.declare(within, "within.yaml"))["calibrate[gap]"].state == "blocked"


def test_the_time_since_a_file_is_known_is_not_that_of_its_measurement(
    lab: Any, session: Session, axes: tuple[str, str], planned: Any
) -> None:
    lab.file("scan.txt", "1")
    certify(session, axes[0], RAMAN, "2024-01-01", why="fits")
    file = '{file: scan.txt, each: true, timestamp: "since 2024-03-01T00:00:00Z", instrument_name: Raman 1}'
    path = lab.declare(SCANS.replace("{select: {measurement: scan}, each: true}", file), "scans.yaml")
    assert "no time of measurement" in next(iter(planned(path).values())).causes[0]


def test_conditions_distinguish_data_and_contradicting_certificates_block(
    lab: Any, session: Session, register: Register, axes: tuple[str, str], planned: Any
) -> None:
    register("fine", "2024-03-01T00:00:00Z", grating=1800)
    register("coarse", "2024-03-01T00:00:00Z", grating=600)
    register("elsewhere", "2024-03-01T00:00:00Z", instrument="Raman 2")
    register("undated")
    path = lab.declare(SCANS, "scans.yaml")
    certify(session, axes[0], RAMAN, "2024-01-01", where="metadata.grating == 1800", why="fine")
    certify(session, axes[1], RAMAN, "2024-01-01", where="metadata.grating < 1000", why="coarse")
    steps = planned(path)
    assert chosen(steps) == {"calibrate[fine]": "first axis", "calibrate[coarse]": "second axis"}
    assert "no time of measurement" in steps["calibrate[undated]"].causes[0]
    assert steps["calibrate[elsewhere]"].state == "blocked"
    certify(session, axes[1], {**RAMAN, "metadata.grating": "1800"}, "2024-02-01", why="another opinion")
    (cause,) = planned(path)["calibrate[fine]"].causes
    assert "2 certificates fit " in cause
    assert axes[0] in cause
    assert axes[1] in cause


def test_both_sides_and_groups(
    lab: Any, session: Session, register: Register, axes: tuple[str, str], run: Any, planned: Any, text_of: Any
) -> None:
    register("one", "2024-01-10T00:00:00Z", sample="x")
    register("two", "2024-01-20T00:00:00Z", sample="x")
    certify(session, axes[0], RAMAN, "2024-01-01", until="next", why="first lamp")
    both = SCANS.replace("for: scan", "for: scan, nearest: [before, after]").replace(":calibrate", ":between")
    path = lab.declare(both.replace("axis: axis", "axes: axis"), "both.yaml")
    assert "that becomes valid next" in planned(path)["calibrate[one]"].causes[0]
    certify(session, axes[1], RAMAN, "2024-01-15", until="next", why="second lamp")
    steps = planned(path)
    assert [axis["name"] for axis in steps["calibrate[one]"].choices["axes"]] == ["first axis", "second axis"]
    done = run(path)
    assert text_of(done.datasets["calibrate[one]"]["out"]) == "onefirst axissecond axis"
    assert steps["calibrate[two]"].state == "blocked", "nothing becomes valid after it"
    group = SCANS.replace(":calibrate", ":together")
    group = group.replace("scan: scan, axis", "scans: {from: scan, group_by: metadata.sample}, axis").replace(
        "pipeline: scans", "pipeline: groups"
    )
    grouped = planned(lab.declare(group, "groups.yaml"))
    assert "several" in next(iter(grouped.values())).causes[0], "its members have different axes"


def test_the_command_shows_the_axis_its_reason_alternatives_and_status(
    lab: Any, session: Session, register: Register, axes: tuple[str, str], run: Any, cli: Any
) -> None:
    scan = register("a", "2024-01-10T00:00:00Z")
    session.close()
    made = cli("certify", axes[0], "--for", "instrument=Raman 1", "--from", "2024-01-01", "--why", "fits")
    assert "is the wavenumber axis of instrument_name=Raman 1 from 2024-01-01 on" in made.output
    later = ("certify", axes[1], "--for", "instrument=Raman 1", "--from", "2024-02-01", "--why", "newer")
    refused = cli(*later)
    assert (refused.exit_code, "Nothing was stated" in refused.output) == (2, True)
    assert cli(*later, "--replace").exit_code == 0
    assert run(lab.declare(SCANS, "scans.yaml")).ok
    shown = cli("show", scan)
    for words in (f"wavenumber axis: {axes[0]}, from 2024-01-01 until 2024-02-01, for instrument_name=Raman 1", "fits"):
        assert words in shown.output, words
    (result,) = json.loads(cli("list", "--step", "calibrate", "--json").output)["datasets"]
    assert f"axis: {axes[0]}, certified from 2024-01-01 until 2024-02-01" in cli("show", result["mfid"]).output
    listed = cli("statements", "--kind", "certificate")
    assert "2 statements" in listed.output
    (one,) = json.loads(cli("statements", "--kind", "certificate", "--for", scan, "--json").output)["statements"]
    assert one["about"]["datasets"] == [axes[0]]
    ended = cli("lift", one["mfid"], "--why", "lamp broken")
    for words in ("is lifted", "from 2024-01-01 on: " + axes[1], f"1 current result made with {axes[0]}"):
        assert words in ended.output, ended.output
    shown = cli("show", scan)
    assert "wavenumber axis: none, as none is certified for 2024-01-10" in shown.output
    assert f"{axes[1]} is valid from 2024-02-01 on, 22 d after" in shown.output


def test_a_certificate_of_another_project_counts_if_that_is_trusted(
    lab: Any, session: Session, register: Register, axes: tuple[str, str], planned: Any, cli: Any
) -> None:
    register("a", "2024-01-10T00:00:00Z")
    session.ensure_project("beamline")
    certify(session, axes[0], RAMAN, "2024-01-01", why="fits", project="beamline")
    path: Path = lab.declare(SCANS, "scans.yaml")
    assert planned(path)["calibrate[a]"].state == "blocked"
    assert cli("project", "trust", "beamline", "--project", "lab", "--why", "they run it").exit_code == 0
    assert planned(path)["calibrate[a]"].state == "missing"
    with pytest.raises(InputError, match="where statements of lab do not count"):
        certify(session, axes[1], RAMAN, "2024-01-05", why="newer", replaced=True)
    lift(session, [axes[0]], "wrong")
    assert planned(path)["calibrate[a]"].state == "blocked"


NEONS = """
pipeline: axes
project: lab
inputs:
  neon: {select: {measurement: neon}, each: true}
steps:
  axis:
    uses: "LABMODULE:alone"
    inputs: {scan: neon}
    output: {measurement: wavenumber axis}
    certify: {for: instrument_name, from: "{scan.timestamp}", until: next}
"""


def test_a_step_certifies_its_result_until_the_next_one_and_does_not_overrule_a_person(
    lab: Any, session: Session, register: Register, run: Any, planned: Any
) -> None:
    register("n1", "2024-01-01T00:00:00Z", "neon")
    register("n2", "2024-06-01T00:00:00Z", "neon")
    for name, when in (("early", "2023-12-31"), ("a", "2024-01-10"), ("b", "2024-06-01")):
        register(name, f"{when}T00:00:00Z")
    scans, neons = lab.declare(SCANS, "scans.yaml"), lab.declare(NEONS, "neons.yaml")
    done = run(neons)
    assert done.ok, done.errors
    steps = planned(scans)
    assert chosen(steps) == {"calibrate[a]": "n1 (axis)", "calibrate[b]": "n2 (axis)"}
    assert steps["calibrate[early]"].state == "blocked"
    second = done.datasets["axis[n2]"]["out"]
    lift(session, [second], "lamp broken")
    assert run(neons).ok
    assert chosen(planned(scans))["calibrate[b]"] == "n1 (axis)", "the next run does not certify it again"
    register("n3", "2024-05-01T00:00:00Z", "neon")
    third = run(neons).datasets["axis[n3]"]["out"]
    assert chosen(planned(scans)) == {"calibrate[a]": "n1 (axis)", "calibrate[b]": "n3 (axis)"}
    other = register("by hand", measurement="wavenumber axis")
    certify(session, other, RAMAN, "2024-05-01", why="a person knows better", replaced=True)
    lab.file(f"{lab.module}.py", STEPS.replace('"no axis"', '"another axis"'))
    refused = run(neons)
    assert "is registered, but not certified" in refused.errors["axis[n3]"]
    assert other in refused.errors["axis[n3]"]
    assert third not in [item.dataset for item in session.mirror.certificates("lab") if item.spans]


def test_a_result_is_certified_only_for_what_all_its_data_state(
    lab: Any, session: Session, register: Register, run: Any
) -> None:
    register("n1", "2024-01-01T00:00:00Z", "neon", grating=1800)
    other = register("n2", "2024-01-02T00:00:00Z", "neon")
    text = NEONS.replace("alone", "pooled").replace("for: instrument_name", "for: metadata.grating")
    path = lab.declare(text.replace("{scan: neon}", "{scan: {from: neon, group_by: []}}"), "neons.yaml")
    assert f"metadata.grating of the data it is made from: {other} has none" in run(path).errors["axis"]
    session.client.metadata.merge(other, {"grating": 1800.0})
    assert run(path).ok
    assert [certificate.fields for certificate in session.mirror.certificates("lab")] == [(("metadata.grating", 1800),)]


def test_a_changed_step_replaces_its_certificate(
    lab: Any, session: Session, register: Register, run: Any, planned: Any
) -> None:
    register("n1", "2024-01-01T00:00:00Z", "neon")
    register("a", "2024-01-10T00:00:00Z")
    scans, neons = lab.declare(SCANS, "scans.yaml"), lab.declare(NEONS, "neons.yaml")
    before = run(neons).datasets["axis[n1]"]["out"]
    lab.file(f"{lab.module}.py", STEPS.replace('"no axis"', '"another axis"'))
    after = run(neons)
    assert after.ok, after.errors
    now = after.datasets["axis[n1]"]["out"]
    assert now != before
    (valid,) = [item.dataset for item in session.mirror.certificates("lab") if item.spans]
    assert valid == now
    assert planned(scans)["calibrate[a]"].state == "missing"
