"""The flow run-command: `verify`, `reproduce` and `rerun` on Prefect; a run is Failed if its command is."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.core.folders import MARK, runs
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually

RUN = """
import json, sys
from crucible_lineage.flows.commands import run_command
from crucible_lineage.tasks import CrucibleConnection
data, *command = sys.argv[1:]
state = run_command(command, CrucibleConnection(data=data), return_state=True)
print(json.dumps([state.type.value, state.message, str(state.state_details.flow_run_id)]))
"""
CANCELLED = """
import os, signal, sys, time
from pathlib import Path
from threading import Thread
from crucible_lineage.flows.commands import run_command
from crucible_lineage.tasks import CrucibleConnection
children = Path(f"/proc/self/task/{os.getpid()}/children")
def cancel():
    is_serve = lambda child: "crucible_lineage\\0serve" in Path(f"/proc/{child}/cmdline").read_text()
    while not any(map(is_serve, children.read_text().split())):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
Thread(target=cancel).start()
run_command(["serve", "--port", "0"], CrucibleConnection(data=sys.argv[1]))
"""
KEPT = {"CRUCIBLE_LINEAGE_KEEP": "yes", "OMP_NUM_THREADS": "1"}
LOGS = {"PREFECT_LOGGING_TO_API_ENABLED": "true", "PREFECT_LOGGING_LEVEL": "INFO"}
OTHER = "0000-0002-1825-0097"


@pytest.fixture
def ran(lab: Any, data: Path, command: Any) -> Any:
    """Run the pipeline, whose step uses a variable for the number of threads; return what edits the step."""

    def edit(old: str, new: str) -> None:
        module = lab.folder / f"{lab.module}.py"
        module.write_text(module.read_text().replace(old, new))

    edit("from pathlib", "import os\nfrom pathlib")
    edit("* factor for", "* factor * int(os.environ['OMP_NUM_THREADS']) for")
    first = command("run", lab.pipeline, "--data", data, "--engine", "local", **KEPT)
    assert first.returncode == 0, first.stderr
    return edit


def test_a_link_that_went_fails_the_verification(ran: Any, data: Path, prefect: Any) -> None:
    type_, message, _ = prefect.run(RUN, data, "verify", "--project", "lab", "--bytes")
    assert (type_, "lab: no findings; looked at 6 datasets" in message) == ("COMPLETED", True), message
    with Session(Settings(data)) as session:
        (child, *_) = session.client.datasets.list(project_id="lab", data_type="scaled")
        (parent,) = session.client.datasets.list_parents(child.unique_id)
        session.client.datasets.unlink(parent.unique_id, child.unique_id)
    type_, message, run_id = prefect.run(RUN, data, "verify", "--project", "lab", **LOGS)
    assert (type_, "verify ended with exit code 1" in message) == ("FAILED", True), message
    assert "there is no link between them" in message
    asked = {"logs": {"flow_run_id": {"any_": [run_id]}}}
    said = lambda: [log for log in prefect.post("logs/filter", asked) if "crucible link" in log["message"]]  # noqa: E731
    assert eventually(said, 30)


def test_a_result_that_is_not_the_same_or_of_others_fails_the_reproduction(ran: Any, data: Path, prefect: Any) -> None:
    reproduce = ("reproduce", "--project", "lab", "--sample", "5", "--here")
    type_, message, _ = prefect.run(RUN, data, *reproduce, OMP_NUM_THREADS="1")
    assert (type_, "2 of 2 results reproduced" in message) == ("COMPLETED", True), message
    type_, message, _ = prefect.run(RUN, data, *reproduce, OMP_NUM_THREADS="4")
    assert (type_, "1 of 2 results reproduced" in message) == ("FAILED", True), message
    with Session(Settings(data)) as session:
        for dataset in session.client.datasets.list(project_id="lab", include_metadata=True):
            record = (dataset.scientific_metadata or {}).get("crucible_lineage", {})
            if "step" in record:
                record["agent"]["unique_id"] = OTHER
                session.client.metadata.merge(dataset.unique_id, {"crucible_lineage": record})
    type_, message, _ = prefect.run(RUN, data, *reproduce, OMP_NUM_THREADS="1")
    assert (type_, "code of others would run here, and was not run" in message) == ("FAILED", True), message
    type_, message, _ = prefect.run(RUN, data, *reproduce, "--run-code-of", OTHER, OMP_NUM_THREADS="1")
    assert type_ == "COMPLETED", message


def test_what_is_stale_is_made_again_without_its_declaration(
    ran: Any, lab: Any, data: Path, command: Any, prefect: Any
) -> None:
    ran("float(line) * factor", "float(line) + 1 * factor")
    declaration = lab.pipeline.read_text()
    lab.pipeline.unlink()
    killed = prefect.post(
        "flow_runs/", {"flow_id": prefect.post("flows/", {"name": "run-command"})["id"], "state": {"type": "RUNNING"}}
    )
    (runs(data) / f"prefect-{killed['id']}{MARK}").touch()  # as a killed run leaves it
    type_, message, _ = prefect.run(RUN, data, "rerun", "--stale", "--project", "lab", OMP_NUM_THREADS="1")
    assert type_ == "COMPLETED", message
    (ended,) = prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [killed["id"]]}}})
    assert ended["state_type"] == "CRASHED"
    lab.pipeline.write_text(declaration)
    later = command("run", lab.pipeline, "--data", data, "--engine", "local", "--json", **KEPT)
    assert '"executed": []' in later.stdout, "the pipeline finds what the rerun made"
    ran("float(line) + 1 * factor", "float(line) / 0")
    type_, message, _ = prefect.run(RUN, data, "rerun", "--stale", "--project", "lab", OMP_NUM_THREADS="1")
    assert (type_, "division by zero" in message) == ("FAILED", True), message


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_cancelled_command_ends_with_its_flow_run(data: Path, prefect: Any) -> None:
    ran = prefect.python("-c", CANCELLED, data)
    assert ran.returncode, ran.stdout

    def is_gone() -> bool:
        with suppress(OSError):  # one has ended meanwhile
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
            return not [line for line in lines if b"crucible_lineage\0serve" in line and str(data).encode() in line]
        return False

    eventually(is_gone, 15)
