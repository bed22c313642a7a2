"""Operations on runs of a deployed pipeline in Prefect: cancel, suspend and resume, retry, pause."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.nights import by_night

pytestmark = [pytest.mark.usefixtures("worker"), pytest.mark.skipif(os.name == "nt", reason="files and signals")]

GATED = """
import time
from pathlib import Path

def gated(counts: Path, *, gate: str = "open", out: Path) -> None:
    folder = Path(__file__).parent
    (folder / "arrived").touch()
    for _ in range(2400):
        if (folder / gate).exists():
            break
        time.sleep(0.05)
    if (folder / "broken").exists():
        raise ValueError("the lamp was off")
    (out / "x.txt").write_text(counts.read_text() + "9")
"""


@pytest.fixture
def deployed(lab: Any, data: Path, prefect: Any, pool: str) -> str:
    """Deploy a pipeline of three steps, of which the second waits for a file `open` in the folder; return its name."""
    name = f"gated-{abs(hash(str(lab.folder))) % 10**8}"
    lab.file(f"{lab.module}_gated.py", GATED)
    path = lab.declare(
        f"""
        pipeline: {name}
        project: lab
        inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
        schedule: 1d
        steps:
          before: {{uses: "{lab.module}:scale", inputs: {{counts: first}}}}
          gate: {{uses: "{lab.module}_gated:gated", inputs: {{counts: before}}}}
          after: {{uses: "{lab.module}:scale", inputs: {{counts: gate}}, params: {{factor: 5}}}}
        """
    )
    done = prefect.python("-m", "crucible_lineage", "deploy", path, "--pool", pool, "--data", data)
    assert done.returncode == 0, done.stderr
    return name


@pytest.fixture
def begun(deployed: str, lab: Any, prefect: Any) -> str:
    """Start a run of it and wait until its second step is running."""
    (deployment,) = prefect.deployments(deployed)
    asked = {"state": {"type": "SCHEDULED"}, "idempotency_key": deployed}

    def created() -> str:
        try:
            return str(prefect.post(f"deployments/{deployment['id']}/create_flow_run", asked)["id"])
        except AssertionError:  # a server that is busy says 503 once
            return ""

    run: str = eventually(created, 60)
    eventually((lab.folder / "arrived").exists, 120)
    return run


def state_of(prefect: Any, run: str) -> dict[str, Any]:
    (found,) = prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    state: dict[str, Any] = found["state"]
    return state


def awaited(prefect: Any, run: str, kind: str) -> str:
    """Wait until the run's state is of that kind and return its message."""
    eventually(lambda: state_of(prefect, run)["type"] == kind, 120)
    return str(state_of(prefect, run)["message"])


def test_a_cancelled_run_says_what_was_made(begun: str, prefect: Any) -> None:
    prefect.command("flow-run", "cancel", begun)
    awaited(prefect, begun, "CANCELLED")
    (artifact,) = prefect.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [begun]}}})
    assert artifact["key"] == "stopped"
    assert "1 executed, 1 stopped, 1 skipped" in artifact["data"]


SUSPEND = """
import sys
from prefect.client.orchestration import get_client
from prefect.states import Suspended
with get_client(sync_client=True) as client:
    print(1 if client.set_flow_run_state(sys.argv[1], Suspended(timeout_seconds=3600)).status == "ACCEPT" else 0)
"""


@by_night("ten seconds of waiting")
def test_a_run_that_is_suspended_goes_on_where_it_stopped(begun: str, lab: Any, prefect: Any) -> None:
    assert prefect.run(SUSPEND, begun) == 1
    time.sleep(10)  # Prefect tells the run's process when it gets to it, and nothing says that it has
    lab.file("open", "")

    def artifacts() -> list[Any]:
        found: list[Any] = prefect.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [begun]}}})
        return found

    first, *_ = eventually(artifacts, 60)
    if first["key"] == "stopped":  # else the signal came too late, when all was done
        assert "2 executed, 1 skipped" in first["data"], "what was under way was made, and nothing was begun any more"
    assert state_of(prefect, begun)["name"] == "Suspended"
    prefect.post(f"flow_runs/{begun}/resume")
    assert "executed" in awaited(prefect, begun, "COMPLETED")


def test_a_failed_run_that_is_retried_makes_what_is_left(begun: str, lab: Any, prefect: Any) -> None:
    lab.file("broken", "")
    lab.file("open", "")
    assert "the lamp was off" in awaited(prefect, begun, "FAILED")
    (lab.folder / "broken").unlink()
    prefect.command("flow-run", "retry", begun)
    assert "2 executed" in awaited(prefect, begun, "COMPLETED")
