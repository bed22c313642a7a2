"""A pipeline in Prefect's interfaces: arrows, names of runs, artifacts, and the output of a failed step."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.golden.stored import run_examples

PIPELINE = """
pipeline: seen
project: lab
inputs:
  first: {file: first.txt}
  second: {file: second.txt}
steps:
  a: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 2}}
  b: {uses: "LABMODULE:scale", inputs: {counts: second}, params: {factor: 3}}
  c: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 4}}
  ab: {uses: "LABMODULE:add", inputs: {left: a, right: b}}
  abc: {uses: "LABMODULE:add", inputs: {left: {from: ab, files: total.txt}, right: c}}
"""

RUN = """
import json, sys
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
given = json.loads(sys.argv[3])
state = run_pipeline(sys.argv[1], CrucibleConnection(data=sys.argv[2]), given, return_state=True)
print(json.dumps([state.type.value, state.message, str(state.state_details.flow_run_id)]))
"""


@pytest.fixture
def prefect(prefect: Any) -> Any:
    """Provide the server, which gets the logs of flows."""
    logs = {"PREFECT_LOGGING_TO_API_ENABLED": "true", "PREFECT_LOGGING_LEVEL": "INFO"}
    prefect.environment = {**prefect.environment, **logs}
    return prefect


def graph_of(prefect: Any, run: str) -> dict[str, list[str]]:
    """Return the sources of arrows by the name of a task run, once all of them exist."""
    end = time.monotonic() + 90
    while True:
        answer = prefect.ask("GET", f"flow_runs/{run}/graph-v2").json()
        nodes = dict(answer["nodes"])
        if len(nodes) >= 5 and all(node["end_time"] for node in nodes.values()):
            return {
                node["label"]: sorted({nodes[parent["id"]]["label"] for parent in node["parents"]})
                for node in nodes.values()
            }
        assert time.monotonic() < end, answer
        time.sleep(0.5)


def test_what_is_told_to_prefect_and_by_it() -> None:
    run_examples(Path(__file__).with_name("reports.txt"))


def test_arrows_are_those_of_the_lineage(lab: Any, data: Any, prefect: Any) -> None:
    path = lab.declare(PIPELINE, "seen.yaml")
    state, message, run = prefect.run(RUN, path, data, '{"a.factor": 5}')
    assert state == "COMPLETED", message
    assert graph_of(prefect, run) == {"a": [], "b": [], "c": [], "ab": ["a", "b"], "abc": ["ab", "c"]}
    (flow_run,) = prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert re.fullmatch(r"lab / seen \[a\.factor=5\] \d{4}-\d\d-\d\d \d\d:\d\d.*", flow_run["name"])
    artifacts = {
        artifact["key"]: artifact
        for artifact in prefect.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    }
    assert set(artifacts) == {"lineage", "outputs"}
    assert artifacts["lineage"]["data"].startswith("![Lineage of 7 datasets](data:image/svg+xml;base64,")
    assert "first (a)" in artifacts["outputs"]["data"]


def test_reused_steps_are_cached_and_a_run_of_one_step_makes_it_again(lab: Any, data: Any, prefect: Any) -> None:
    path = lab.declare(PIPELINE, "seen.yaml")
    assert prefect.run(RUN, path, data, "{}")[0] == "COMPLETED"
    of_one_step = RUN.replace("given, ", 'given, only=["a"], force=["a"], ')
    for code, expected in (
        (RUN, dict.fromkeys(("a", "b", "c", "ab", "abc"), "Cached")),
        (of_one_step, {"a": "Completed"}),
    ):
        state, message, run = prefect.run(code, path, data, "{}")
        assert state == "COMPLETED", message
        ended = eventually_ended(prefect, run, len(expected))
        assert {name: ended[name] for name in expected} == expected


def eventually_ended(prefect: Any, run: str, number: int) -> dict[str, str]:
    """Return the state of each task run by its name, once all have ended."""
    end = time.monotonic() + 90
    while True:
        found = prefect.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        if len(found) >= number and all(one["state_type"] == "COMPLETED" for one in found):
            return {one["name"]: one["state_name"] for one in found}
        assert time.monotonic() < end, found
        time.sleep(0.5)


def test_a_run_whose_artifacts_prefect_refuses_is_completed(lab: Any, data: Any, prefect: Any) -> None:
    refused = """
from crucible_lineage.flows import reports
def refuse(*given, **named):
    raise RuntimeError("Prefect answered 500")
reports.create_table_artifact = refuse
"""
    path = lab.declare(PIPELINE, "seen.yaml")
    state, message, run = prefect.run(refused + RUN, path, data, "{}")
    assert state == "COMPLETED", message
    end = time.monotonic() + 60
    while not any(
        "Prefect did not store the artifacts of the run: Prefect answered 500" in log["message"]
        for log in prefect.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    ):
        assert time.monotonic() < end
        time.sleep(0.5)
