"""Campaigns: candidates have their usual ids, change nothing, and are promoted by one statement."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.certifying import certify
from crucible_lineage.cli.campaign import comparison_page
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.campaign import (
    CampaignPlan,
    approve,
    canary,
    find_campaign,
    new_campaign,
    plan_campaign,
    promote,
    roll_back,
)
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.queries.campaigns import compare_campaign
from crucible_lineage.queries.catalogue.listing import list_datasets
from crucible_lineage.remake.reproduce import sampled
from crucible_lineage.server import start_server
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.stating import revoke

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def calibrate(scan: Path, axis: Path, *, out: Path) -> dict:
    value = float(scan.read_text()) + float(axis.read_text())
    (out / "calibrated.txt").write_text(str(value))
    return {"peak_cm1": value}


@step
def fit(calibrated: Path, *, out: Path) -> dict:
    value = 2 * float(calibrated.read_text())
    (out / "fit.txt").write_text(str(value))
    return {"twice": value}
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


@pytest.fixture
def register(lab: Any, session: Session) -> Register:
    lab.file(f"{lab.module}.py", STEPS)
    session.ensure_project("lab")

    def registered(name: str, value: float, when: str, measurement: str = "scan", instrument: str = "Raman 1") -> str:
        path = lab.file(f"{name}.txt", str(value))
        fields = {
            "project_id": "lab",
            "dataset_name": name,
            "measurement": measurement,
            "timestamp": f"{when}T00:00:00Z",
        }
        created = session.client.datasets.create({**fields, "instrument_name": instrument})
        session.client.files.upload(created.dsid, path)
        return created.dsid

    return registered


@pytest.fixture
def scans(lab: Any, session: Session, register: Register, run: Any) -> tuple[Path, str]:
    """Scans of half a year, calibrated with an old axis, and a new axis."""
    for month in range(1, 5):
        register(f"s{month}", 100 + month, f"2024-0{month}-10", instrument="Raman 2" if month == 4 else "Raman 1")
    old = register("old axis", 0.0, "2024-01-01", "wavenumber axis")
    for instrument in ("Raman 1", "Raman 2"):
        certify(session, old, {"instrument": instrument}, "2024-01-01", why="the first one")
    path = lab.declare(SCANS, "scans.yaml")
    assert run(path).ok
    return path, register("new axis", 0.5, "2024-01-02", "wavenumber axis")


def current(session: Session) -> dict[str, str]:
    listing = list_datasets(session, "lab", where="step != None")
    return {entry.summary.name: entry.mfid for entry in listing.entries if entry.state == "current"}


def begin(session: Session, path: Path, new: str, **more: Any) -> CampaignPlan:
    bound = bind_file(path, session.store)
    new_campaign(session, bound, "neon", [("axis", new)], "2024-02-01", why="second lamp", **more)
    return plan_campaign(session, bound, find_campaign(session, "lab", "neon"))


def choice(session: Session, only: tuple[str, ...]) -> StepChoice:
    return StepChoice(only=only, campaign=find_campaign(session, "lab", "neon").mfid)


def test_the_data_of_a_campaign_are_named_like_those_of_a_certificate(
    session: Session, scans: tuple[Path, str]
) -> None:
    path, new = scans
    short = begin(session, path, new, fields={"instrument": "Raman 1"})
    assert set(short.affected) == {"calibrate[s2]", "fit[s2]", "calibrate[s3]", "fit[s3]"}
    with pytest.raises(InputError, match="no field 'lens'"):
        new_campaign(
            session,
            bind_file(path, session.store),
            "lens",
            [("axis", new)],
            "2024-02-01",
            fields={"lens": "a"},
            why="x",
        )


def test_a_campaign_that_changes_nothing_is_not_promoted(session: Session, scans: tuple[Path, str]) -> None:
    path, new = scans
    begin(session, path, new, fields={"instrument": "another one"})
    campaign = find_campaign(session, "lab", "neon")
    approve(session, campaign, "looked")
    with pytest.raises(InputError, match="it changes nothing"):
        promote(session, bind_file(path, session.store), find_campaign(session, "lab", "neon"))


def test_a_campaign_changes_nothing_until_promoted_and_rolling_back_restores_all(
    session: Session, scans: tuple[Path, str], run: Any, planned: Any, register: Register
) -> None:
    path, new = scans
    before = current(session)
    plan = begin(session, path, new)
    assert set(plan.affected) == {"calibrate[s2]", "fit[s2]", "calibrate[s3]", "fit[s3]"}, "of its instrument and time"
    bound = bind_file(path, session.store)
    with pytest.raises(InputError, match=r"nobody has approved it.*4 results of 4 are not made"):
        promote(session, bound, find_campaign(session, "lab", "neon"))

    tried = run(path, choice(session, ("calibrate[s2]", "fit[s2]")))
    assert tried.executed == ["calibrate[s2]", "fit[s2]"]
    assert current(session) == before
    assert run(path).executed == [], "scheduled runs go on with what is current"
    register("late", 200, "2024-03-20")
    assert run(path).executed == ["calibrate[late]", "fit[late]"]
    with_old = current(session)
    plan = plan_campaign(session, bound, find_campaign(session, "lab", "neon"))
    assert (len(plan.affected), set(plan.done)) == (6, {"calibrate[s2]", "fit[s2]"})
    rest = run(path, choice(session, plan.affected))
    assert set(rest.executed) == {"calibrate[s3]", "fit[s3]", "calibrate[late]", "fit[late]"}
    made = rest.datasets["fit[s3]"]["out"]
    written = session.client.datasets.get(made).modification_time
    assert run(path, choice(session, plan.affected)).executed == []
    assert session.client.datasets.get(made).modification_time == written, "and it writes nothing"
    assert current(session) == with_old
    assert sum(entry.state == "candidate" for entry in list_datasets(session, "lab", every=True).entries) == 6

    approve(session, find_campaign(session, "lab", "neon"), "compared")
    known = set(session.mirror.statements())
    stating, _ = promote(session, bound, find_campaign(session, "lab", "neon"), why="better")
    assert set(session.mirror.statements()) - known == {stating.statement.mfid}, "one statement"
    promoted = current(session)
    changed = {name for name in promoted if promoted[name] != with_old[name]}
    assert changed == {"s2 (calibrate)", "s2 (fit)", "s3 (calibrate)", "s3 (fit)", "late (calibrate)", "late (fit)"}
    assert {step.state for step in planned(path).values()} == {"fresh"}
    assert run(path).executed == [], "promoting computes nothing"
    assert current(session) == promoted
    ids = {mfid for one in (tried, rest) for outputs in one.datasets.values() for mfid in outputs.values()}
    assert {promoted[name] for name in changed} <= ids
    assert set(sampled(session, "lab", 100)) == set(promoted.values()), "what is made again as a sample is current"
    with pytest.raises(InputError, match="old enough"):
        sampled(session, "lab", 1, older_than="1w")

    roll_back(session, find_campaign(session, "lab", "neon"), "too early")
    assert current(session) == with_old
    assert run(path).executed == []
    assert current(session) == with_old
    promote(session, bound, find_campaign(session, "lab", "neon"), why="after all")
    assert current(session) == promoted


def test_existing_results_become_candidates_too(session: Session, scans: tuple[Path, str], run: Any) -> None:
    path, new = scans
    begin(session, path, new)
    plan = plan_campaign(session, bind_file(path, session.store), find_campaign(session, "lab", "neon"))
    anyway = certify(session, new, {"instrument": "Raman 1"}, "2024-02-01", why="x", replaced=True).statement
    made = run(path)
    assert set(made.executed) == set(plan.affected)
    revoke(session, [anyway], "it was a trial")
    assert run(path).executed == []
    before = current(session)
    bound, campaign = bind_file(path, session.store), find_campaign(session, "lab", "neon")
    assert len(plan_campaign(session, bound, campaign).todo) == 4, "they are there, and not of the campaign"
    assert run(path, choice(session, plan.affected)).executed == []
    assert current(session) == before
    approve(session, campaign, "looked")
    promote(session, bound, find_campaign(session, "lab", "neon"))
    now = current(session)
    assert now["s2 (fit)"] == made.datasets["fit[s2]"]["out"] != before["s2 (fit)"]


def test_candidates_are_compared_pair_by_pair_and_the_condition_stops_a_promotion(
    session: Session, scans: tuple[Path, str], run: Any
) -> None:
    path, new = scans
    plan = begin(session, path, new, require="abs(median(d.peak_cm1)) < 0.4")
    run(path, choice(session, plan.affected))
    bound, campaign = bind_file(path, session.store), find_campaign(session, "lab", "neon")
    found = compare_campaign(campaign, plan_campaign(session, bound, campaign), ("instrument", "month"))
    assert {(one.step, one.number): one.median for one in found.effects} == {
        ("calibrate", "peak_cm1"): 0.5, ("fit", "twice"): 1.0,
    }  # fmt: skip
    assert found.effects[0].by_stratum == {"Raman 1, 2024-02": (1, 0.5), "Raman 1, 2024-03": (1, 0.5)}
    assert "does not hold" in found.gate
    page = comparison_page(found)
    assert "0.5 in all pairs" in page
    assert "not met" in page
    pairs = [
        replace(one, point=replace(one.point, value=0.1 * at)) for at, one in enumerate(found.effects[0].pairs * 3)
    ]
    pairs[-1] = replace(pairs[-1], point=replace(pairs[-1].point, value=9.0))
    spread = replace(found, effects=(replace(found.effects[0], pairs=tuple(pairs)),))
    assert [far.point.value for far in spread.effects[0].outliers] == [9.0]
    far = [replace(one, point=replace(one.point, value=100.0 + at)) for at, one in enumerate(pairs)]
    effect = replace(found.effects[0], pairs=(*pairs * 3, *far))
    assert len(effect.outliers) == 5, "the table has the farthest ones"
    drawn = effect.trend("lab").series[0].points
    assert sum(one.beyond for one in drawn if one.value >= 100) == len(far), "the picture marks all beyond"
    page = comparison_page(spread, "https://crucible.example")
    assert page.count("<svg") == 1
    assert f'<a href="https://crucible.example/datasets/{pairs[-1].new}">' in page
    approve(session, campaign, "not looked")
    with pytest.raises(InputError, match="does not hold"):
        promote(session, bound, find_campaign(session, "lab", "neon"), found.gate)


def test_a_canary_is_spread_over_the_strata(session: Session, scans: tuple[Path, str], register: Register) -> None:
    path, new = scans
    for number in range(5):
        register(f"more{number}", number, "2024-02-15")
    plan = begin(session, path, new)
    assert len(plan.affected) == 14
    assert canary(plan, 2, ("month",)) == ("calibrate[s2]", "calibrate[s3]", "fit[s2]", "fit[s3]")
    assert len(canary(plan, 4, ("month",))) == 8
    assert set(canary(plan, 100, ("instrument", "month"))) == set(plan.affected)
    with pytest.raises(InputError, match="exists"):
        begin(session, path, new)


def test_a_single_instance_of_a_step_can_be_executed(scans: tuple[Path, str], lab: Any, run: Any) -> None:
    path, _ = scans
    lab.file(f"{lab.module}.py", STEPS.replace("2 *", "3 *"))
    done = run(path, StepChoice(only=("fit[s2]",)))
    assert done.executed == ["fit[s2]"]
    assert sum(outcome == "left out" for outcome in done.outcomes.values()) == 3
    with pytest.raises(InputError, match=r"has no step 'fit\[s9\]'"):
        run(path, StepChoice(only=("fit[s9]",)))


@pytest.mark.parametrize(
    ("replaced", "since", "message"),
    [
        ("scan", "2024-01-01", "not chosen by certificate"),
        ("axes", "2024-01-01", "no input 'axes'"),
        ("axis", "x", "--since x"),
    ],
)
def test_an_invalid_campaign_is_refused(
    session: Session, scans: tuple[Path, str], replaced: str, since: str, message: str
) -> None:
    path, new = scans
    known = set(session.mirror.statements())
    with pytest.raises(InputError, match=message):
        new_campaign(session, bind_file(path, session.store), "neon", [(replaced, new)], since, why="x")
    session.mirror.sync_statements()
    assert set(session.mirror.statements()) == known


def test_another_machine_reads_the_promotion_and_two_workers_make_each_candidate_once(lab: Any, tmp_path: Path) -> None:
    with start_server(tmp_path / "service") as server:
        here, there = (Settings(tmp_path / name, server.url, server.api_key) for name in ("here", "there"))
        with Session(here) as first, Session(there) as second:
            lab.file(f"{lab.module}.py", STEPS)
            first.client.projects.create(project_id="lab", organization="lab", project_lead="local")

            def register(name: str, value: float, measurement: str) -> str:
                path = lab.file(f"{name}.txt", str(value))
                fields = {"project_id": "lab", "dataset_name": name, "measurement": measurement}
                fields |= {"timestamp": "2024-03-01T00:00:00Z", "instrument_name": "Raman 1"}
                created = first.client.datasets.create(fields)
                first.client.files.upload(created.dsid, path)
                return created.dsid

            for number in range(3):
                register(f"s{number}", number, "scan")
            old, new = (register(name, value, "wavenumber axis") for name, value in (("old", 0.0), ("new", 0.5)))
            certify(first, old, {"instrument": "Raman 1"}, "2024-01-01", why="the first one")
            path = lab.declare(SCANS, "scans.yaml")
            run_of(first, path, StepChoice())
            before = current(second)
            plan = begin(first, path, new)
            with ThreadPoolExecutor(2) as pool:
                runs = [pool.submit(run_of, one, path, choice(one, plan.affected)) for one in (first, second)]
                done = [one.result() for one in runs]
            assert all(one.ok for one in done)
            assert done[0].datasets == done[1].datasets
            assert current(first) == current(second) == before
            approve(first, find_campaign(first, "lab", "neon"), "compared")
            promote(first, bind_file(path, first.store), find_campaign(first, "lab", "neon"))
            promoted = current(second)
            assert set(promoted.values()).isdisjoint(before[name] for name in promoted if "(" in name)
            assert run_of(second, path, StepChoice()).executed == []
            roll_back(second, find_campaign(second, "lab", "neon"), "from the other machine")
            assert current(first) == before


def run_of(session: Session, path: Path, wanted: StepChoice) -> RunResult:
    bound = bind_file(path, session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None, wanted)
