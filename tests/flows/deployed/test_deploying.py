"""Pipelines deployed as declared, on a real Prefect server with a real worker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually

SCHEDULE = "schedule: '0 2 * * *'\ntimezone: America/Los_Angeles\n"
TRIGGER = "trigger: {crucible.dataset.created: {measurement: count*, kind: raw}}\n"


@pytest.fixture
def declared(lab: Any, selected: Path, request: pytest.FixtureRequest) -> Path:
    """Provide the pipeline under a unique name, since the server is shared; it runs every night and on an event."""
    text = selected.read_text().replace("pipeline: selected", f"pipeline: {lab.module.replace('_', '-')}")
    path: Path = lab.declare(text + SCHEDULE + TRIGGER, "declared.yaml")
    return path


@pytest.fixture
def name(lab: Any) -> str:
    return str(lab.module.replace("_", "-"))


@pytest.fixture
def crucible_lineage(command: Any, prefect: Any) -> Any:
    """Run the command line with Prefect configured."""
    return lambda *arguments: command(*arguments, **prefect.environment)


def test_deploying_twice_makes_one_schedule_and_one_automation_and_removing_takes_them_away(
    declared: Path, name: str, crucible_lineage: Any, prefect: Any, pool: str
) -> None:
    first = json.loads(crucible_lineage("deploy", declared, "--pool", pool, "--json").stdout)["deployments"]
    again = json.loads(crucible_lineage("deploy", declared, "--pool", pool, "--json").stdout)["deployments"]
    assert (first[0]["created"], again[0]["created"], again[0]["id"]) == (True, False, first[0]["id"])
    (deployment,) = prefect.deployments(name)
    (schedule,) = deployment["schedules"]
    assert schedule["schedule"] == {"cron": "0 2 * * *", "timezone": "America/Los_Angeles", "day_or": True}
    assert deployment["entrypoint"] == "crucible_lineage.flows.pipelines.run_pipeline"
    assert deployment["parameters"] == {"pipeline": str(declared)}
    form = deployment["parameter_openapi_schema"]["properties"]
    assert {name for name, one in form.items() if not one.get("readOnly")} == {"overrides", "only", "force"}
    assert form["overrides"]["properties"]["scaled.factor"]["type"] == "number"
    assert form["only"]["items"]["enum"] == ["scaled"]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"  # since an event starts it
    (automation,) = prefect.automations(name)
    assert automation["trigger"]["expect"] == ["crucible.dataset.created"]
    assert automation["trigger"]["match"] == {"project_id": "lab", "measurement": "count*", "kind": "raw"}

    declared.write_text(declared.read_text().replace(SCHEDULE, "schedule: 1h\n").replace(TRIGGER, ""))
    assert crucible_lineage("deploy", declared, "--pool", pool).returncode == 0
    (changed,) = prefect.deployments(name)
    assert [schedule["schedule"]["interval"] for schedule in changed["schedules"]] == [3600]
    assert prefect.automations(name) == []
    assert changed["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"

    declared.write_text(declared.read_text().replace("schedule: 1h\n", ""))
    assert crucible_lineage("deploy", declared, "--pool", pool).returncode == 0
    assert prefect.deployments(name)[0]["schedules"] == []
    removed = crucible_lineage("deploy", declared, "--remove")
    assert removed.stdout == f"{name}: removed\n"
    assert prefect.deployments(name) == []
    assert crucible_lineage("deploy", declared, "--remove").stdout == f"{name}: was not deployed\n"


def test_deploying_again_changes_nothing_that_an_operator_set(
    declared: Path, name: str, crucible_lineage: Any, prefect: Any, pool: str
) -> None:
    def patched(**fields: Any) -> None:
        (found,) = prefect.deployments(name)
        answer = prefect.ask("PATCH", f"deployments/{found['id']}", fields)
        assert answer.is_success, answer.text

    def shown() -> Any:
        (found,) = prefect.deployments(name)
        limit = (found["global_concurrency_limit"] or {}).get("limit")
        schedules = sorted((schedule["slug"] or "", schedule["active"]) for schedule in found["schedules"])
        (trigger,) = prefect.automations(name)
        settings = found["paused"], found["job_variables"], limit, sorted(found["tags"]), found["parameters"]
        return *settings, schedules, trigger["enabled"]

    assert crucible_lineage("deploy", declared, "--pool", pool).returncode == 0
    fresh = shown()
    (found,) = prefect.deployments(name)
    (schedule,) = found["schedules"]
    patched(job_variables={"env": {"OMP_NUM_THREADS": "2"}}, concurrency_limit=3, tags=[*found["tags"], "beamtime"])
    patched(parameters={**found["parameters"], "overrides": {"scaled.factor": 4}})
    answer = prefect.ask("PATCH", f"deployments/{found['id']}/schedules/{schedule['id']}", {"active": False})
    assert answer.is_success
    of_theirs = [{"schedule": {"cron": "5 5 * * *"}, "active": True}]  # as Prefect's UI makes one
    assert prefect.ask("POST", f"deployments/{found['id']}/schedules", of_theirs).is_success
    (trigger,) = prefect.automations(name)
    assert prefect.ask("PATCH", f"automations/{trigger['id']}", {"enabled": False}).is_success
    patched(paused=True)
    set_by_hand = shown()
    assert set_by_hand != fresh
    assert crucible_lineage("deploy", declared, "--pool", pool).returncode == 0
    assert shown() == set_by_hand
    assert crucible_lineage("deploy", declared, "--pool", pool, "--reset").returncode == 0
    assert shown()[1:] == fresh[1:]
    assert crucible_lineage("deploy", declared, "--remove").returncode == 0


def test_a_file_of_this_machine_is_not_deployed_to_containers(
    declared: Path, crucible_lineage: Any, prefect: Any
) -> None:
    prefect.command("work-pool", "create", "containers", "--type", "docker", "--overwrite")
    refused = crucible_lineage("deploy", declared, "--pool", "containers", "--image", "lab:1")
    assert refused.returncode == 2
    assert "is a file on this machine" in refused.stderr
    assert "package:NAME/PATH" in refused.stderr
    pipeline = "package:crucible_lineage.deployments/pipelines/raman.yaml"
    assert crucible_lineage("deploy", pipeline, "--pool", "containers", "--image", "lab:1").returncode == 0
    (found,) = prefect.deployments("raman-calibration")
    assert found["job_variables"]["image"] == "lab:1"
    assert crucible_lineage("deploy", pipeline, "--remove").returncode == 0


def test_every_kind_of_schedule_is_deployed_in_its_time_zone(
    declared: Path, name: str, lab: Any, crucible_lineage: Any, prefect: Any, pool: str
) -> None:
    text = declared.read_text().replace(TRIGGER, "")
    kinds = {
        "cron": "'30 2 * * MON-FRI'\ntimezone: America/Los_Angeles",
        "interval": "15m\ntimezone: Europe/Berlin",
    }
    paths = [
        lab.declare(text.replace(name, f"{name}-{kind}").replace(SCHEDULE, f"schedule: {schedule}\n"), f"{kind}.yaml")
        for kind, schedule in kinds.items()
    ]
    deployed = crucible_lineage("deploy", *paths, "--pool", pool)
    assert deployed.returncode == 0, deployed.stderr
    found = [prefect.deployments(f"{name}-{kind}")[0]["schedules"][0]["schedule"] for kind in kinds]
    assert found[0] == {"cron": "30 2 * * MON-FRI", "timezone": "America/Los_Angeles", "day_or": True}
    assert (found[1]["interval"], found[1]["timezone"]) == (900, "Europe/Berlin")
    assert found[1]["anchor_date"].startswith("2020-01-01T00:00:00"), "deploying again does not move the ticks"
    assert crucible_lineage("deploy", *paths, "--remove").stdout.count(": removed\n") == 2


def test_schedules_that_make_no_sense_are_all_told_before_anything_is_changed(
    declared: Path, name: str, lab: Any, crucible_lineage: Any, prefect: Any, pool: str
) -> None:
    text = declared.read_text()
    for number, schedule in enumerate(("'0 25 * * *'", "'0 2 * * NODAY'")):
        lab.declare(
            text.replace(name, f"{name}-{number}").replace(SCHEDULE, f"schedule: {schedule}\n"), f"{number}.yaml"
        )
    refused = crucible_lineage("deploy", declared, lab.folder / "0.yaml", lab.folder / "1.yaml", "--pool", pool)
    assert refused.returncode == 2
    checked = crucible_lineage("check", lab.folder / "0.yaml", lab.folder / "1.yaml")
    assert checked.returncode == 2
    for message in (refused.stderr, checked.stderr):
        assert re.search(r'0.yaml:\d+:\d+: schedule: Invalid cron string: "0 25 \* \* \*"', message), message
        assert re.search(r'1.yaml:\d+:\d+: schedule: Invalid cron string: "0 2 \* \* NODAY"', message), message
    assert prefect.deployments(name) == []
    lab.declare(text.replace("America/Los_Angeles", "Mars/Phobos").replace("0 2 * * *", "0 2 * *"), "0.yaml")
    checked = crucible_lineage("check", lab.folder / "0.yaml")
    assert checked.returncode == 2
    assert "unknown time zone" in checked.stderr
    assert "write five fields" in checked.stderr


def test_a_pipeline_with_faults_is_refused_before_anything_is_changed(
    declared: Path, name: str, lab: Any, crucible_lineage: Any, prefect: Any, pool: str
) -> None:
    broken = lab.declare(declared.read_text().replace(":scale", ":scael"), "broken.yaml")
    refused = crucible_lineage("deploy", declared, broken, "--pool", pool)
    assert refused.returncode == 2
    assert "broken.yaml" in refused.stderr
    assert "nothing was changed" in refused.stderr
    twice = crucible_lineage("deploy", declared, declared, "--pool", pool)
    assert (twice.returncode, "two of the files declare" in twice.stderr) == (2, True)
    nowhere = crucible_lineage("deploy", declared, "--pool", "no-such-pool")
    assert nowhere.returncode == 2
    assert "prefect work-pool create no-such-pool --type process" in nowhere.stderr
    keyless = crucible_lineage("deploy", declared, "--pool", pool, "--block", "no-such-block")
    assert keyless.returncode == 2
    assert "this Prefect server has no block crucible-credentials/no-such-block" in keyless.stderr
    assert prefect.deployments(name) == []


def test_without_a_prefect_server_it_says_how_to_get_one(declared: Path, command: Any, tmp_path: Path) -> None:
    refused = command("deploy", declared, PREFECT_API_URL="", PREFECT_HOME=str(tmp_path))
    assert refused.returncode == 2
    assert "prefect config set PREFECT_API_URL" in refused.stderr


@pytest.mark.parametrize("verb", ["run", "deploy"])
def test_a_prefect_server_that_does_not_answer_is_told_in_a_line(
    declared: Path, lab: Any, data: Path, command: Any, verb: str
) -> None:
    pipeline = lab.pipeline if verb == "run" else declared
    away = command(verb, pipeline, "--data", data, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert away.returncode == 3
    assert re.fullmatch(r"error: could not .*: Prefect at http://127.0.0.1:9/api: .*\n.*\n", away.stderr), away.stderr


def test_a_file_that_arrives_becomes_an_event_that_starts_a_run_that_registers_the_result(
    declared: Path,
    name: str,
    data: Path,
    tmp_path: Path,
    crucible_lineage: Any,
    results: Any,
    prefect: Any,
    pool: str,
    worker: None,
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    assert crucible_lineage("deploy", declared, "--data", data, "--pool", pool).returncode == 0
    (deployment,) = prefect.deployments(name)
    watch = ["watch", "--data", data, "--project", "lab", "--folder", inbox, "--once", "--settle", "0.2"]
    watch += ["--pattern", "*.txt", "--measurement", "counting", "--data-type", "raw"]
    assert crucible_lineage(*watch).returncode == 0
    (inbox / "scan.txt").write_text("1\n2\n")
    watched = crucible_lineage(*watch)
    assert watched.returncode == 0, watched.stderr
    assert "reported crucible.dataset.created" in watched.stdout
    again = crucible_lineage(*watch).stdout.splitlines()[1:]  # of the result, if it is there already
    assert not set(again) & set(watched.stdout.splitlines()[1:]), "each is reported once"
    eventually(lambda: [run["state_type"] for run in prefect.runs(deployment["id"], "AUTOMATION")] == ["COMPLETED"])
    assert list(results().values()) == [[3]]
    (asset,) = eventually(
        lambda: prefect.events("prefect.asset", lambda event: event["payload"].get("pipeline") == name)
    )
    assert asset["event"] == "prefect.asset.materialization.succeeded"
    (step,) = [part for part in asset["related"] if part["prefect.resource.role"] == "step"]
    assert step["prefect.resource.id"] == f"crucible.step.{name}.scaled"
    assert len(prefect.runs(deployment["id"], "AUTOMATION")) == 1


def test_a_request_becomes_an_event_that_starts_a_run_for_its_dataset(
    selected: Path,
    lab: Any,
    name: str,
    data: Path,
    tmp_path: Path,
    crucible_lineage: Any,
    results: Any,
    prefect: Any,
    pool: str,
    worker: None,
) -> None:
    text = selected.read_text().replace("pipeline: selected", f"pipeline: {name}")
    declared = lab.declare(f"{text}request: {{name: rga_analysis, input: counts}}\n", "requested.yaml")
    deployed = crucible_lineage("deploy", declared, "--data", data, "--pool", pool)
    assert "on requests of rga_analysis" in deployed.stdout
    (deployment,) = prefect.deployments(name)
    scan = tmp_path / "scan.txt"
    scan.write_text("1\n2\n")
    with Session(Settings(data)) as session:
        session.ensure_project("lab")
        asked, _ = (
            session.client.datasets.create(
                {"dataset_name": word, "project_id": "lab", "measurement": "counting", "data_type": "raw"}, files=[scan]
            ).dsid
            for word in ("asked", "other")
        )
        request = session.client.requests.ask(asked, "rga_analysis")
        for _ in range(2):
            assert crucible_lineage("watch", "--data", data, "--project", "lab", "--once").returncode == 0
        eventually(lambda: session.client.requests.get(request.id).status == "complete")
        eventually(lambda: [run["state_type"] for run in prefect.runs(deployment["id"], "AUTOMATION")] == ["COMPLETED"])
        assert list(results()) == [asked]
        assert session.client.requests.get(request.id).results
