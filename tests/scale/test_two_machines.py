"""Two machines that share nothing but the service run the same pipeline at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.provenance.record import read_record
from crucible_lineage.queries.verify.verify import verify_project
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

KEY = "a-key-for-two-machines"
SCANS = 16


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The address of an embedded Crucible that runs for others, with the project lab."""
    command = [sys.executable, "-m", "crucible_lineage", "serve", "--json", "--api-key", KEY]
    serving = subprocess.Popen([*command, "--data", str(tmp_path / "service")], stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    url = json.loads(serving.stdout.readline())["url"]
    with CrucibleClient(url, KEY) as client:
        lead = client.account.whoami().user_unique_id
        client.projects.create(project_id="lab", organization="local", project_lead=lead)
    yield url
    serving.terminate()
    serving.wait(30)
    serving.stdout.close()


def start_machine(
    home: Path, pipeline: Path, url: str, engine: list[str], environment: dict[str, str]
) -> subprocess.Popen[str]:
    """The pipeline, run from a home and a data folder of its own."""
    home.mkdir()
    environment = {**environment, "HOME": str(home), "CRUCIBLE_API_URL": url, "CRUCIBLE_API_KEY": KEY}
    environment |= {"CRUCIBLE_LINEAGE_DATA": str(home / "data")}
    environment |= {"LAB_MEETS": str(home.parent / "machines"), "LAB_MACHINE": home.name}
    command = [sys.executable, "-m", "crucible_lineage", "run", str(pipeline), "--json", "--engine", *engine]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("engine", [["local", "--jobs", "2"], ["prefect"]], ids=["local", "prefect"])
def test_two_machines_split_the_work_and_nothing_is_there_twice(
    many: Any, service: str, tmp_path: Path, engine: list[str], request: pytest.FixtureRequest
) -> None:
    on_prefect = engine == ["prefect"]
    environment = request.getfixturevalue("prefect_server").environment if on_prefect else dict(os.environ)
    for number in range(1, SCANS + 1):
        many.file(f"scan-{number}.txt", str(number))
    text = many.pipeline.read_text().partition("  broken:")[0]
    # What one machine has made has to arrive before the other one would begin it, however slow this computer is.
    text = text.replace("{scan: scan}", f"{{scan: scan}}, params: {{pause: {1.0 if on_prefect else 0.3}}}")
    path = many.declare(text.replace("project: lab", "project: lab\nrunner: {type: threads, workers: 2}"))
    machines = [start_machine(tmp_path / name, path, service, engine, environment) for name in ("east", "west")]
    ended = [(machine, *machine.communicate(timeout=400)) for machine in machines]
    results = [json.loads(out) for machine, out, err in ended if machine.returncode == 0 or pytest.fail(err)]
    assert results[0]["datasets"] == results[1]["datasets"]
    executed = [len(result["executed"]) for result in results]
    assert min(executed) > 0, "both have worked"
    assert sum(executed) < 2 * (SCANS + 1), "and not all of it twice"
    with CrucibleClient(service, KEY) as client:
        found = client.datasets.list(project_id="lab", limit=None, include_metadata=True)
    records = [read_record(dataset.scientific_metadata) for dataset in found]
    assert len(found) == 2 * SCANS + 1
    assert all(record.is_complete for record in records)
    with Session(Settings(tmp_path / "check", service, KEY)) as session:
        assert verify_project(session, "lab").findings == ()
