"""The flow `rerun`: stale results of a project are made again as Prefect tasks, without the declaration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crucible_lineage.core.folders import MARK, runs
from tests.eventually import eventually

RERUN = """
import json, sys
from crucible_lineage.flows.upkeep import rerun
from crucible_lineage.tasks import CrucibleConnection
state = rerun(project="lab", crucible=CrucibleConnection(data=sys.argv[1]), return_state=True)
result = state.result() if state.is_completed() else state.message
print(json.dumps({"state": state.type.value, "result": result}))
"""
RUNNING = {"type": "RUNNING", "name": "Running"}


def test_what_is_stale_is_made_again_without_its_declaration(lab: Any, data: Path, command: Any, prefect: Any) -> None:
    local = ("--data", data, "--engine", "local", "--json")
    first = json.loads(command("run", lab.pipeline, *local).stdout)["datasets"]
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text().replace("float(line) * factor for", "float(line) * factor + 1 for"))
    declaration = lab.pipeline.read_text()
    lab.pipeline.unlink()
    ran = prefect.run(RERUN, data)
    assert ran["state"] == "COMPLETED", ran
    assert len(ran["result"]["executed"]) == 2, "what was made from it is made again too"
    lab.pipeline.write_text(declaration)
    later = json.loads(command("run", lab.pipeline, *local).stdout)
    assert later["executed"] == [], "the pipeline finds what the rerun made"
    assert later["datasets"]["total"] != first["total"]


def test_a_step_that_fails_again_is_an_event(lab: Any, data: Path, command: Any, prefect: Any) -> None:
    assert command("run", lab.pipeline, "--data", data, "--engine", "local", "--json").returncode == 0
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text().replace("float(line) * factor for", "float(line) / 0 for"))
    killed = prefect.post("flow_runs/", {"flow_id": prefect.post("flows/", {"name": "rerun"})["id"], "state": RUNNING})
    (runs(data) / f"prefect-{killed['id']}{MARK}").touch()  # as a killed run leaves it
    assert prefect.run(RERUN, data)["state"] == "FAILED"
    (ended,) = prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [killed["id"]]}}})
    assert ended["state_type"] == "CRASHED"
    is_ours = lambda event: "division by zero" in event["payload"]["error"]  # noqa: E731
    assert eventually(lambda: prefect.events("crucible.step.failed", is_ours), 30)
