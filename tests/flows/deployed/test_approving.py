"""A deployed run whose result needs a signature ends Suspended, and continues after a signature by any means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.nights import by_night


@pytest.fixture
def declared(lab: Any) -> Path:
    text = lab.pipeline.read_text().replace("params: {factor: 3}", "params: {factor: 3}\n    approve: {count: 1}")
    path: Path = lab.declare(text.replace("pipeline: counting", f"pipeline: {lab.module.replace('_', '-')}"))
    return path


@pytest.mark.parametrize("door", ["sign", pytest.param("watch", marks=by_night("signed where no Prefect is"))])
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
    (deployment,) = prefect.deployments(name)

    def begin() -> None:
        prefect.post(f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})

    def states() -> list[str]:
        return sorted(one["state_type"] for one in prefect.runs(deployment["id"]))

    begin()
    eventually(lambda: states() == ["PAUSED"])
    (run,) = prefect.runs(deployment["id"])
    (tag,) = (tag for tag in run["tags"] if tag.startswith("unsigned-"))
    mfid = tag.removeprefix("unsigned-")
    if door == "sign":
        begin()  # a second one does not wait as well
        eventually(lambda: states() == ["FAILED", "PAUSED"])
    signed = command(
        "sign", mfid, "--data", data, **(prefect.environment if door == "sign" else {"PREFECT_API_URL": ""})
    )
    assert signed.returncode == 0, signed.stderr
    if door == "watch":
        assert "resumed" not in signed.stdout
        signed = command(*watch, **prefect.environment)
        assert "reported crucible.result.signed" in signed.stdout, signed.stderr
    assert "resumed flow run" in signed.stdout
    eventually(lambda: states() == (["COMPLETED", "FAILED"] if door == "sign" else ["COMPLETED"]))
    assert "1 executed" in command("status", "--data", data).stdout, "the total, which waited"
