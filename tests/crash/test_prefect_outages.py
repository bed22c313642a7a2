"""On Prefect, too, steps go on while the service is away: what was made is kept, delivered later, and told then."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.crash.conftest import COUNT
from tests.eventually import eventually
from tests.nights import by_night
from tests.serving import RunningServer
from tests.warm import WarmPython

COUNT_AND_SPLIT = (
    COUNT
    + """

@step(outputs=("low", "high"))
def split(counts: Path, *, low: Path, high: Path) -> dict:
    with CALLS.open("a") as calls:
        calls.write("split\\n")
    (low / "low.txt").write_text("low")
    (high / "high.txt").write_text("high")
    return {{"low": {{}}, "high": {{}}}}
"""
)
PIPELINE = """
pipeline: NAME
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  one: {uses: "MODULE:count", inputs: {counts: first}, params: {number: 1}}
  parts: {uses: "MODULE:split", inputs: {counts: one}}
  two: {uses: "MODULE:count", inputs: {counts: parts.low}, params: {number: 2}}
  three: {uses: "MODULE:count", inputs: {counts: parts.high}, params: {number: 3}}
"""
RUN = """
import json, os, sys
from crucible_lineage.flows.pipelines import Observer, observing, run_pipeline
from crucible_lineage.pipeline.run.result import StepChoice
from crucible_lineage.tasks import CrucibleConnection
if __name__ == "__main__":
    path, data, patience = sys.argv[1:]
    crucible = CrucibleConnection(data=data, api_url=os.environ["CRUCIBLE_API_URL"])
    with observing(Observer(lambda event: None, StepChoice(patience_s=float(patience)))):
        state = run_pipeline(path, crucible, return_state=True)
    done = state.result() if state.is_completed() else {}
    told = {"state": state.name, "message": state.message, "executed": done.get("executed")}
    print(json.dumps({**told, "run": str(state.state_details.flow_run_id)}))
"""


@pytest.fixture
def away(service: RunningServer, misbehaving: Any) -> Any:
    return misbehaving(service.url, 1, 0.0)


@pytest.fixture
def branches(lab: Any) -> Path:
    """Four steps, one of them with two outputs, that note each call; a pipeline of a name of its own."""
    module = f"{lab.module}_branches"
    lab.file(f"{module}.py", COUNT_AND_SPLIT.format(calls=str(lab.folder / "calls")))
    path: Path = lab.declare(PIPELINE.replace("MODULE", module).replace("NAME", module.replace("_", "-")))
    return path


@pytest.fixture
def flow(
    prefect: Any, service: RunningServer, away: Any, branches: Path, tmp_path: Path, warm_python: WarmPython
) -> Any:
    """The flow in a process of its own: what its state says."""
    environment = {
        "CRUCIBLE_API_URL": away.url,
        "CRUCIBLE_API_KEY": service.api_key,
        "CRUCIBLE_LINEAGE_RETRY_SECONDS": "0.2",
    }

    class Flow:
        def start(self, patience_s: float) -> Any:
            arguments = ["-c", RUN, str(branches), str(tmp_path / "machine"), str(patience_s)]
            return warm_python.popen(arguments, {**prefect.environment, **environment}, stderr=subprocess.PIPE)

        def run(self, patience_s: float) -> Any:
            ran = prefect.python("-c", RUN, branches, tmp_path / "machine", patience_s, **environment)
            assert ran.returncode == 0, ran.stderr
            return json.loads(ran.stdout.splitlines()[-1])

    return Flow()


def test_away_from_the_second_step_on_all_are_made_and_the_next_run_delivers_and_tells(
    flow: Any,
    away: Any,
    branches: Path,
    prefect: Any,
    service: RunningServer,
    tmp_path: Path,
    state_of: Any,
) -> None:
    name = branches.read_text().split("\n")[1].removeprefix("pipeline: ")

    def told() -> list[str]:
        events = prefect.events("prefect.asset", lambda event: event["payload"].get("pipeline") == name)
        return sorted(event["payload"]["step"] for event in events)

    away.away_after("POST", "/children/")
    first = flow.run(0)
    assert first["state"] == "Failed", first
    assert "datasets, made and kept here since" in first["message"]
    assert "no answer from" in first["message"]
    assert "crucible-lineage push" in first["message"]
    assert sorted(Path(branches.parent / "calls").read_text().split()) == ["1", "2", "3", "split"]
    assert told() == [], "nothing is told that is not at Crucible"
    left = prefect.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [first["run"]]}}})
    assert [one["key"] for one in left] == ["outputs"], "what is away is not asked for a picture"
    assert "waits to be delivered" in left[0]["data"]
    away.back()
    again = flow.run(30)
    assert (again["state"], again["executed"]) == ("Completed", []), again
    assert sorted(Path(branches.parent / "calls").read_text().split()) == ["1", "2", "3", "split"]
    eventually(lambda: told() == ["one", "parts", "parts", "three", "two"])
    with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
        assert [state["status"] for state in state_of(session).values()] == ["complete"] * 6


@by_night("a killed push without Prefect by day")
def test_killed_before_anything_is_delivered_nothing_is_made_again(
    flow: Any,
    away: Any,
    branches: Path,
    service: RunningServer,
    tmp_path: Path,
    state_of: Any,
) -> None:
    calls = branches.parent / "calls"
    away.away_after("POST", "/children/")
    running = flow.start(600)
    waiting = tmp_path / "machine" / "outbox"
    eventually(lambda: len([path for path in waiting.glob("*/*/result.json") if path.parent.name[0] != "."]) == 4, 120)
    below = psutil.Process(running.pid).children(recursive=True)
    for process in (running, *below):
        process.kill()
    running.communicate()
    away.back()
    again = flow.run(30)
    assert (again["state"], again["executed"]) == ("Completed", []), again
    assert sorted(calls.read_text().split()) == ["1", "2", "3", "split"]
    with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
        assert [state["status"] for state in state_of(session).values()] == ["complete"] * 6


@by_night("a hostile proxy without Prefect by day")
def test_through_a_hostile_proxy_all_is_there_once(
    flow: Any, away: Any, branches: Path, service: RunningServer, tmp_path: Path, state_of: Any
) -> None:
    away.share = 0.1
    assert flow.run(60)["state"] == "Completed"
    assert away.faults > 0
    assert sorted((branches.parent / "calls").read_text().split()) == ["1", "2", "3", "split"]
    with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
        assert [state["status"] for state in state_of(session).values()] == ["complete"] * 6
