"""Two machines that share nothing but the service run the same pipeline at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.provenance.record import read_record
from crucible_lineage.queries.verify.verify import verify_project
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import by_night

KEY = "a-key-for-two-machines"
SCANS = 16


@pytest.fixture
def service(tmp_path: Path, warm_python: Any, eventually: Any) -> Iterator[str]:
    """The address of an embedded Crucible that runs for others, with the project lab."""
    words = ["-m", "crucible_lineage", "serve", "--json", "--api-key", KEY, "--data", str(tmp_path / "service")]
    said = tmp_path / "said"
    serving = warm_python.start(words, os.environ, said, tmp_path / "complained")
    url = json.loads(eventually(lambda: said.read_text().rpartition("\n")[0]))["url"]
    with CrucibleClient(url, KEY) as client:
        lead = client.account.whoami().user_unique_id
        client.projects.create(project_id="lab", organization="local", project_lead=lead)
    yield url
    serving.send_signal(signal.SIGTERM)
    serving.wait(30)


def run_machine(
    python: Any, home: Path, pipeline: Path, url: str, engine: list[str], environment: dict[str, str]
) -> Any:
    """The pipeline, run from a home and a data folder of its own; gives the JSON that it prints."""
    home.mkdir()
    environment = {**environment, "HOME": str(home), "CRUCIBLE_API_URL": url, "CRUCIBLE_API_KEY": KEY}
    environment |= {"CRUCIBLE_LINEAGE_DATA": str(home / "data")}
    environment |= {"LAB_MEETS": str(home.parent / "machines"), "LAB_MACHINE": home.name}
    words = ["-m", "crucible_lineage", "run", str(pipeline), "--json", "--engine", *engine]
    ran = python.run(words, environment, timeout=400)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(["local", "--jobs", "2"], id="local", marks=by_night("two processes at any call by day")),
        pytest.param(["prefect"], id="prefect", marks=by_night("two servers of Prefect")),
    ],
)
def test_two_machines_split_the_work_and_nothing_is_there_twice(
    many: Any, service: str, tmp_path: Path, engine: list[str], request: pytest.FixtureRequest, warm_python: Any
) -> None:
    on_prefect = engine == ["prefect"]
    environment = request.getfixturevalue("prefect_server").environment if on_prefect else dict(os.environ)
    for number in range(1, SCANS + 1):
        many.file(f"scan-{number}.txt", str(number))
    text = many.pipeline.read_text().partition("  broken:")[0]
    # What one machine has made has to arrive before the other one would begin it, however slow this computer is.
    text = text.replace("{scan: scan}", f"{{scan: scan}}, params: {{pause: {1.0 if on_prefect else 0.3}}}")
    path = many.declare(text.replace("project: lab", "project: lab\nrunner: {type: threads, workers: 2}"))
    homes = [tmp_path / name for name in ("east", "west")]
    with ThreadPoolExecutor(2) as both:
        results = list(both.map(lambda home: run_machine(warm_python, home, path, service, engine, environment), homes))
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
