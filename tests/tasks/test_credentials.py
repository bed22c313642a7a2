"""The block CrucibleCredentials: registered as users do it, saved, and loaded by a flow by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from crucible_lineage.tasks.credentials import CrucibleCredentials

KEY = "key-of-the-test-7c1d"

RUN = """
import json, sys
from crucible_lineage.tasks.credentials import CrucibleCredentials
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
block = CrucibleCredentials(url=sys.argv[2], api_key=sys.argv[3])
block.save("lab-crucible", overwrite=True)
with block.get_client() as client:
    who = client.account.whoami().user_unique_id
state = run_pipeline(sys.argv[1], CrucibleConnection(block="lab-crucible", data=sys.argv[4]), return_state=True)
other = run_pipeline(sys.argv[1], CrucibleConnection(block="no-such-block"), return_state=True)
print(json.dumps([who, state.type.value, state.message, str(state.state_details.flow_run_id), other.message]))
"""


@pytest.fixture
def service(tmp_path: Path, begin: Any) -> Iterator[str]:
    """Provide the address of a shared embedded Crucible, with a key and the project lab."""
    from crucible_lineage.client import CrucibleClient

    serving = begin("serve", "--data", tmp_path / "service", "--json", "--api-key", KEY)
    url = json.loads(serving.stdout.readline())["url"]
    with CrucibleClient(url, KEY) as client:
        lead = client.account.whoami().user_unique_id
        client.projects.create(project_id="lab", organization="local", project_lead=lead)
    yield url
    serving.terminate()
    serving.wait(30)
    serving.stdout.close()


def test_a_flow_takes_the_name_of_a_block_and_its_key_is_seen_nowhere(
    lab: Any, service: str, tmp_path: Path, prefect: Any
) -> None:
    from crucible_lineage.client import CrucibleClient

    assert "Crucible Credentials" in prefect.command("block", "register", "-m", "crucible_lineage.tasks.credentials")
    who, state, message, run, refused = prefect.run(RUN, lab.pipeline, service, KEY, tmp_path / "data")
    assert state == "COMPLETED", message
    with CrucibleClient(service, KEY) as client:
        assert client.datasets.count(project_id="lab") == 4
        assert client.account.whoami().user_unique_id == who
    flow_run = prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]
    assert flow_run["parameters"]["crucible"]["block"] == "lab-crucible"
    tasks = prefect.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert KEY not in json.dumps([flow_run, tasks])
    assert "there is no usable block crucible-credentials/no-such-block" in refused


def test_prefect_finds_it_by_itself() -> None:
    found = [entry.value for entry in entry_points(group="prefect.collections", name="crucible_lineage")]
    assert found == ["crucible_lineage.tasks.credentials"], (
        "installed before the entry point was declared? `make test` installs anew"
    )


def test_its_key_is_masked_and_its_address_checked() -> None:
    block = CrucibleCredentials(url="https://crucible.example/api/", api_key=KEY)
    assert block.url == "https://crucible.example/api"
    assert KEY not in repr(block)
    assert KEY not in block.model_dump_json()
    with pytest.raises(ValidationError, match="starts with http"):
        CrucibleCredentials(url="crucible.example", api_key=KEY)


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "https://crucible.example", "api_key": [KEY]},
        {"url": KEY, "api_key": KEY},
    ],
)
def test_an_error_of_it_prints_no_part_of_the_key(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        CrucibleCredentials(**fields)
    assert KEY[:6] not in str(refused.value)
