"""The flow, its tasks, and a deployment run by a worker, on a real Prefect server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually
from tests.nights import by_night

ROOT = Path(__file__).parents[2]

# Runs in a process of its own, since Prefect reads its settings once.
IN_PROCESS = """
import json, sys
from pathlib import Path
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
state = run_pipeline(sys.argv[1], CrucibleConnection(data=sys.argv[2]), return_state=True)
print(json.dumps({"state": state.type.value, "message": state.message,
                  "result": state.result() if state.is_completed() else None}))
"""


def test_the_flow_runs_what_is_not_fresh_and_gives_the_ids_of_the_local_engine(
    lab: Any, data: Path, command: Any, tmp_path: Path, prefect: Any
) -> None:
    ran = prefect.run(IN_PROCESS, lab.pipeline, data)
    assert ran["state"] == "COMPLETED", ran
    assert ran["result"]["executed"] == ["scaled", "total"]
    local = json.loads(command("run", lab.pipeline, "--data", tmp_path / "x", "--engine", "local", "--json").stdout)
    assert ran["result"]["datasets"] == local["datasets"]
    again = prefect.run(IN_PROCESS, lab.pipeline, data)
    assert (again["state"], again["result"]["executed"]) == ("COMPLETED", [])


SHOWN = """
import json, sys
from prefect import Flow
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
given = {"pipeline": "p.yaml", "crucible": CrucibleConnection(data="d"), "only": ("a",), "overrides": {"n": [1, None]}}
sys.modules["fastapi.encoders"] = None  # so that an import fails
shown = run_pipeline.serialize_parameters(given)
del sys.modules["fastapi.encoders"]
print(json.dumps([shown, Flow.serialize_parameters(run_pipeline, given)]))
"""


def test_prefect_is_told_the_parameters_without_fastapi_as_it_would_tell_them(prefect: Any) -> None:
    shown, as_prefect = prefect.run(SHOWN)
    assert shown == as_prefect
    assert shown["overrides"] == {"n": [1, None]}


def test_a_flow_with_a_failed_step_fails_and_names_it(lab: Any, data: Path, prefect: Any) -> None:
    text = lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}:fail")
    lab.declare(text.replace("    params: {factor: 3}\n", ""))
    ran = prefect.run(IN_PROCESS, lab.pipeline, data)
    assert ran["state"] == "FAILED"
    assert "step 'scaled' failed: RuntimeError: the lamp was off" in ran["message"]


def test_a_run_uses_the_configured_prefect_by_itself(lab: Any, data: Path, command: Any, prefect: Any) -> None:
    ran = command("run", lab.pipeline, "--data", data, "--json", **prefect.environment)
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    shown = command("lineage", record["datasets"]["total"]["out"], "--data", data, "--format", "json").stdout
    assert record["executed"] == ["scaled", "total"]
    assert record["datasets"]["scaled"]["out"] in shown
    assert any(name.startswith("lab / counting 2") for name in flow_run_names(prefect))


@by_night("deployments of a smaller pipeline by day")
def test_the_deployments_of_the_package_are_run_by_a_worker(
    data: Path, demo_origin: Any, prefect: Any, warm_python: Any, tmp_path: Path
) -> None:
    prefect.command("work-pool", "create", "crucible", "--type", "process", "--overwrite")
    prefect.command("deploy", "--all", "--prefect-file", "deployments/prefect.yaml", cwd=ROOT)
    words, log = ["-m", "prefect", "worker", "start", "--pool", "crucible", "--limit", "1"], tmp_path / "log"
    environment = {**prefect.environment, "CRUCIBLE_LINEAGE_DATA": str(data)}
    worker = warm_python.start(words, environment, log, log, data.parent)
    try:
        for deployment in ("run-pipeline/raman-nightly", "run-command/verify-raman"):
            output = prefect.command("deployment", "run", deployment)
            found = re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", output)
            assert found, output
            assert final_state(prefect, found.group()) == "COMPLETED"
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:  # it waits for another deployment's run that it has begun
            worker.kill()
            worker.wait()
    with Session(Settings(data)) as session:
        listed = {dataset.unique_id for dataset in session.client.datasets.list(project_id="demo-raman", limit=None)}
    assert listed == set(json.loads(demo_origin[1])["datasets"].values())


def flow_run_names(server: Any) -> set[str]:
    runs = server.ask("POST", "flow_runs/filter", {"limit": 100}).json()
    return {run["name"] for run in runs}


def final_state(server: Any, flow_run_id: str, seconds: float = 400) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = server.ask("GET", f"flow_runs/{flow_run_id}").json()
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return str(run["state_type"])
        time.sleep(0.5)
    raise AssertionError(f"the flow run did not end within {seconds} s: {run['state']}")


@pytest.mark.skipif(os.name == "nt", reason="the ephemeral API is tried on POSIX only")
@by_night("`make demo` does it by day")
def test_without_any_prefect_configured_the_demo_starts_one_for_itself(tmp_path: Path, command: Any) -> None:
    environment = {"PREFECT_API_URL": "", "HOME": str(tmp_path / "home"), "HTTP_PROXY": "http://127.0.0.1:9"}
    ran = command("demo", "--data", tmp_path / "data", "--json", **environment)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["executed"] == ["axis", "calibrated", "bands"]
    assert not (tmp_path / "home" / ".prefect").exists(), "the demo keeps Prefect's files in its own folder"


KILLED = """
import os, signal, sys
from pathlib import Path
from crucible_lineage.cli.engines import PREFECT_SETTINGS, _TemporaryServer
os.environ |= PREFECT_SETTINGS
server = _TemporaryServer(Path(sys.argv[1]))
server.wait_until_ready()
print(os.environ['PREFECT_API_URL'], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@by_night("a server of its own")
@pytest.mark.skipif(os.name == "nt", reason="the ephemeral API is tried on POSIX only")
def test_the_prefect_server_of_a_run_that_is_killed_ends_too(
    tmp_path: Path, prefect: Any, prefect_database: Path
) -> None:
    shutil.copyfile(prefect_database, tmp_path / "prefect.db")
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    def refuses() -> bool:
        try:
            httpx.get(f"{run.stdout.strip()}/health")
        except httpx.ConnectError:
            return True
        except httpx.TransportError:  # it is busy, or ends
            return False
        return False

    assert run.stdout.startswith("http"), run.stderr
    eventually(refuses, 60)
