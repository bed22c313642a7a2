"""A deployed run whose result needs a signature ends Suspended, and goes on once somebody has signed, from any door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def declared(lab: Any) -> Path:
    text = lab.pipeline.read_text().replace("params: {factor: 3}", "params: {factor: 3}\n    approve: {count: 1}")
    path: Path = lab.declare(text.replace("pipeline: counting", f"pipeline: {lab.module.replace('_', '-')}"))
    return path


@pytest.mark.parametrize("door", ["sign", "watch"])
def test_a_run_waits_without_a_process_until_its_result_is_signed(
    declared: Path,
    lab: Any,
    data: Path,
    command: Any,
    prefect: Any,
    pool: str,
    worker: None,
    eventually: Any,
    door: str,
) -> None:
    name = lab.module.replace("_", "-")
    assert command("deploy", declared, "--pool", pool, "--data", data, **prefect.environment).returncode == 0
    watch = ["watch", "--data", data, "--once"]
    assert command(*watch, **prefect.environment).returncode == 0, "what is signed from now on is news"
    prefect.command("deployment", "run", f"run-pipeline/{name}")
    (deployment,) = prefect.deployments(name)

    def run() -> dict[str, Any]:
        found: list[dict[str, Any]] = prefect.post(
            "flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}}
        )
        (one,) = found
        return one

    eventually(lambda: run()["state_type"] == "PAUSED")
    (tag,) = (tag for tag in run()["tags"] if tag.startswith("unsigned-"))
    mfid = tag.removeprefix("unsigned-")
    prefect.command("deployment", "run", f"run-pipeline/{name}")  # a second one does not wait as well
    both = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    eventually(
        lambda: sorted(one["state_type"] for one in prefect.post("flow_runs/filter", both)) == ["FAILED", "PAUSED"]
    )
    signed = command(
        "sign", mfid, "--data", data, **(prefect.environment if door == "sign" else {"PREFECT_API_URL": ""})
    )
    assert signed.returncode == 0, signed.stderr
    if door == "watch":
        assert "resumed" not in signed.stdout
        signed = command(*watch, **prefect.environment)
        assert "reported crucible.result.signed" in signed.stdout, signed.stderr
    assert "resumed flow run" in signed.stdout
    states = ["COMPLETED", "FAILED"]
    eventually(lambda: sorted(one["state_type"] for one in prefect.post("flow_runs/filter", both)) == states)
    assert "1 executed" in command("status", "--data", data).stdout, "the total, which waited"
