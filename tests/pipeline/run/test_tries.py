"""Tries: candidates have their usual ids, change nothing, and are promoted, and rolled back, by one statement."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.diff import compare_candidates
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.remake.reproduce import sampled
from crucible_lineage.server import start_server
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.stating import certify, lift, promote
from tests.runs import run

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def calibrate(scan: Path, axis: Path, *, out: Path) -> dict:
    value = float(scan.read_text()) + float(axis.read_text())
    (out / "calibrated.txt").write_text(str(value))
    return {"peak_cm1": value}


@step
def fit(calibrated: Path, *, factor: float = 2.0, out: Path) -> dict:
    value = factor * float(calibrated.read_text())
    (out / "fit.txt").write_text(str(value))
    return {"scaled": value}
"""
SCANS = """
pipeline: scans
project: lab
inputs:
  scan: {select: {measurement: scan}, each: true, label: "{dataset_name}"}
  axis: {calibration: wavenumber axis, for: scan}
steps:
  calibrate: {uses: "LABMODULE:calibrate", inputs: {scan: scan, axis: axis}}
  fit: {uses: "LABMODULE:fit", inputs: {calibrated: calibrate}}
"""
Register = Callable[..., str]
NEON = StepChoice(trial="neon")


@pytest.fixture
def register(lab: Any, session: Session) -> Register:
    lab.file(f"{lab.module}.py", STEPS)
    session.ensure_project("lab")
    return lambda *of: registered(lab, session, *of)


def registered(
    lab: Any,
    session: Session,
    name: str,
    value: float,
    when: str,
    measurement: str = "scan",
    instrument: str = "Raman 1",
) -> str:
    path = lab.file(f"{name}.txt", str(value))
    fields = {"project_id": "lab", "dataset_name": name, "measurement": measurement, "instrument_name": instrument}
    created = session.client.datasets.create({**fields, "timestamp": f"{when}T00:00:00Z"})
    session.client.files.upload(created.dsid, path)
    return created.dsid


@pytest.fixture
def scans(lab: Any, session: Session, register: Register, run: Any) -> tuple[Path, str]:
    """Scans of four months, calibrated with an old axis, and a new axis."""
    for month in range(1, 5):
        register(f"s{month}", 100 + month, f"2024-0{month}-10", "scan", "Raman 2" if month == 4 else "Raman 1")
    old = register("old axis", 0.0, "2024-01-01", "wavenumber axis")
    for instrument in ("Raman 1", "Raman 2"):
        certify(session, old, {"instrument": instrument}, "2024-01-01", why="the first one")
    path = lab.declare(SCANS, "scans.yaml")
    assert run(path).ok
    return path, register("new axis", 0.5, "2024-01-02", "wavenumber axis")


def current(session: Session) -> dict[str, str]:
    entries = list_datasets(session, "lab").entries
    return {entry.summary.name: entry.mfid for entry in entries if entry.state == "current"}


def candidates(session: Session) -> int:
    return sum(entry.state == "candidate" for entry in list_datasets(session, "lab", every=True).entries)


def test_another_certificate_changes_nothing_until_promoted_and_lifting_restores_all(
    session: Session, scans: tuple[Path, str], run: Any, planned: Any, register: Register
) -> None:
    path, new = scans
    before = current(session)
    certify(session, new, {"instrument": "Raman 1"}, "2024-02-01", why="second lamp", trial="neon")
    assert {step.state for step in planned(path).values()} == {"fresh"}, "it does not count without the try"

    tried = run(path, StepChoice(only=("calibrate[s2]", "fit[s2]"), trial="neon"))
    assert tried.executed == ["calibrate[s2]", "fit[s2]"]
    assert current(session) == before
    assert run(path).executed == [], "scheduled runs go on with what is current"
    register("late", 200, "2024-03-20")
    assert run(path).executed == ["calibrate[late]", "fit[late]"]
    with_old = current(session)
    rest = run(path, NEON)
    assert set(rest.executed) == {"calibrate[s3]", "fit[s3]", "calibrate[late]", "fit[late]"}
    made = rest.datasets["fit[s3]"]["out"]
    written = session.client.datasets.get(made).modification_time
    assert run(path, NEON).executed == []
    assert session.client.datasets.get(made).modification_time == written, "and it writes nothing"
    assert current(session) == with_old
    assert candidates(session) == 6

    known = set(session.mirror.statements())
    stating, promoted_ids = promote(session, "lab", "neon", "better")
    assert set(session.mirror.statements()) - known == {stating.statement.mfid}, "one statement"
    promoted = current(session)
    changed = {name for name in promoted if promoted[name] != with_old[name]}
    assert changed == {"s2 (calibrate)", "s2 (fit)", "s3 (calibrate)", "s3 (fit)", "late (calibrate)", "late (fit)"}
    assert {promoted[name] for name in changed} == set(promoted_ids)
    assert {step.state for step in planned(path).values()} == {"fresh"}
    assert run(path).executed == [], "promoting computes nothing, and its certificate counts"
    assert current(session) == promoted
    ids = {mfid for one in (tried, rest) for outputs in one.datasets.values() for mfid in outputs.values()}
    assert {promoted[name] for name in changed} <= ids
    assert set(sampled(session, "lab", 100)) == set(promoted.values()), "what is made again as a sample is current"
    with pytest.raises(InputError, match="promoted already"):
        promote(session, "lab", "neon")
    with pytest.raises(InputError, match="choose another name"):
        run(path, NEON)

    lift(session, [stating.statement.mfid], "too early")
    assert current(session) == with_old
    assert run(path).executed == []
    assert current(session) == with_old
    promote(session, "lab", "neon", "after all")
    assert current(session) == promoted


def test_another_parameter_is_tried_compared_and_promoted_by_the_commands(
    session: Session, scans: tuple[Path, str], run: Any, cli: Any
) -> None:
    path, _ = scans
    before = current(session)
    session.close()
    tried = cli("run", path, "--try", "triple", "--set", "fit.factor=3", "--engine", "local")
    assert (tried.exit_code, "4 executed, 4 reused" in tried.output) == (0, True), tried.output
    compared = json.loads(cli("diff", "--try", "triple", "--json").output)
    assert [(one["step"], one["number"], one["median"]) for one in compared["effects"]] == [("fit", "scaled", 102.5)]
    assert (len(compared["pairs"]), compared["unpaired"]) == (4, [])
    assert "fit.scaled: 4 differences, median 102.5" in cli("diff", "--try", "triple").output
    assert current(session) == before
    promoted = cli("promote", "triple", "--why", "it fits")
    assert "4 candidates current" in promoted.output
    assert {name for name, mfid in current(session).items() if mfid != before[name]} == {
        f"s{month} (fit)" for month in range(1, 5)
    }
    assert "median 102.5" in cli("diff", "--try", "triple").output, "with what would be current without it"
    (stated,) = json.loads(cli("statements", "--kind", "promotion", "--json").output)["statements"]
    assert f"crucible-lineage lift {stated['mfid']}" in promoted.output
    lifted = cli("lift", stated["mfid"], "--why", "no")
    assert "the results from before the promotion of try triple are current again" in lifted.output
    assert current(session) == before
    refused = cli("diff", "--try", "double")
    assert (refused.exit_code, "no candidates of a try 'double'" in refused.output) == (2, True)
    assert run(path).executed == []


def test_other_code_and_another_input_are_tried_and_the_last_run_of_a_try_counts(
    session: Session, scans: tuple[Path, str], run: Any, lab: Any
) -> None:
    path, new = scans
    before = current(session)
    lab.file(f"{lab.module}.py", STEPS.replace("factor *", "1 + factor *"))
    code = StepChoice(trial="code")
    first = run(path, code)
    assert set(first.executed) == {f"fit[s{month}]" for month in range(1, 5)}
    lab.file(f"{lab.module}.py", STEPS.replace("factor *", "17 + factor *"))
    sys.modules.pop(lab.module, None)
    second = run(path, code)
    assert set(second.executed) == set(first.executed)
    other = lab.declare(SCANS.replace("{calibration: wavenumber axis, for: scan}", f"{{dataset: {new}}}"), "other.yaml")
    third = run(other, StepChoice(trial="axis"))
    assert len(third.executed) == 8
    lab.file(f"{lab.module}.py", STEPS)
    sys.modules.pop(lab.module, None)
    assert run(path).executed == []
    assert current(session) == before
    assert {one.number: one.median for one in compare_candidates(session, "lab", "code").effects} == {"scaled": 17.0}
    promote(session, "lab", "code")
    assert current(session)["s1 (fit)"] == second.datasets["fit[s1]"]["out"]
    promote(session, "lab", "axis")
    assert current(session)["s1 (fit)"] == third.datasets["fit[s1]"]["out"], "of another file, and in its place"
    assert len(current(session)) == 8
    assert run(path).executed == []
    assert current(session) == before, "a run as declared relies on the earlier results again"


def test_existing_results_become_candidates_of_several_tries(
    session: Session, scans: tuple[Path, str], run: Any
) -> None:
    path, _ = scans
    before = current(session)
    made = run(path, **{"fit.factor": 3})
    run(path)
    assert current(session) == before
    assert run(path, StepChoice(trial="a"), **{"fit.factor": 3}).executed == []
    assert run(path, StepChoice(trial="b"), **{"fit.factor": 3}).executed == []
    assert current(session) == before
    promoted, ids = promote(session, "lab", "a")
    assert set(ids) == {made.datasets[f"fit[s{month}]"]["out"] for month in range(1, 5)}
    assert current(session)["s2 (fit)"] == made.datasets["fit[s2]"]["out"]
    lift(session, [promoted.statement.mfid])
    assert current(session) == before
    promote(session, "lab", "b")
    assert current(session)["s2 (fit)"] == made.datasets["fit[s2]"]["out"]


def test_a_try_without_candidates_is_not_promoted(session: Session, scans: tuple[Path, str], run: Any) -> None:
    path, _ = scans
    assert run(path, StepChoice(trial="same")).executed == []
    with pytest.raises(InputError, match="no candidates of this try"):
        promote(session, "lab", "same")


def test_a_single_instance_of_a_step_can_be_executed(scans: tuple[Path, str], lab: Any, run: Any) -> None:
    path, _ = scans
    lab.file(f"{lab.module}.py", STEPS.replace("factor *", "3 *"))
    done = run(path, StepChoice(only=("fit[s2]",)))
    assert done.executed == ["fit[s2]"]
    assert sum(outcome == "left out" for outcome in done.outcomes.values()) == 3
    with pytest.raises(InputError, match=r"has no step 'fit\[s9\]'"):
        run(path, StepChoice(only=("fit[s9]",)))


def test_another_machine_reads_the_promotion_and_two_workers_make_each_candidate_once(lab: Any, tmp_path: Path) -> None:
    with start_server(tmp_path / "service") as server:
        here, there = (Settings(tmp_path / name, server.url, server.api_key) for name in ("here", "there"))
        with Session(here) as first, Session(there) as second:
            lab.file(f"{lab.module}.py", STEPS)
            first.client.projects.create(project_id="lab", organization="lab", project_lead="local")
            for number in range(3):
                registered(lab, first, f"s{number}", number, "2024-03-01")
            old = registered(lab, first, "old", 0.0, "2024-03-01", "wavenumber axis")
            certify(first, old, {"instrument": "Raman 1"}, "2024-01-01", why="the first one")
            path = lab.declare(SCANS, "scans.yaml")
            run_of(first, path)
            before = current(second)
            with ThreadPoolExecutor(2) as pool:
                runs = [pool.submit(run_of, one, path, NEON, factor=3) for one in (first, second)]
                done = [one.result() for one in runs]
            assert all(one.ok for one in done)
            assert done[0].datasets == done[1].datasets
            assert current(second) == before
            promote(first, "lab", "neon")
            made = {mfid for name, outputs in done[0].datasets.items() if "fit" in name for mfid in outputs.values()}
            assert made <= set(current(second).values())


def run_of(session: Session, path: Path, choice: StepChoice = StepChoice(), factor: float = 2.0) -> RunResult:
    return run(session, path, choice, fit__factor=factor)
