"""API tasks in flows: repeated, mapped, with each way to name a Crucible, and with failing ingestions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.serving import start_server

REPEATED = """
import json, sys
from prefect import flow
from crucible_lineage.tasks import *
crucible = CrucibleConnection(data=sys.argv[1])
made, attempts = [], []

@flow(retries=1)
def repeated():
    ensure_project("lab", crucible=crucible)
    mapped = create_dataset.map([f"scan {n}" for n in range(6)], "lab", crucible=crucible).result()
    twice = [create_dataset("same", "lab", crucible=crucible) for _ in range(2)]
    made.append([sorted(mapped), sorted(twice)])
    if len(made) == 1:
        raise RuntimeError("the network went away")
    return create_dataset.fn("same", "lab", crucible=crucible)

made.append(repeated())
print(json.dumps(made))
"""


def test_a_flow_that_is_tried_again_finds_what_it_made(data: Path, prefect: Any) -> None:
    first, second, plain = prefect.run(REPEATED, data)
    assert first == second
    assert len({*first[0], *first[1], plain}) == 9, "calls of the same arguments are datasets of their own"
    with Session(Settings(data)) as session:
        assert session.client.datasets.count(project_id="lab") == 9


WAYS = """
import asyncio, json, sys
from prefect import flow
from crucible_lineage.errors import RunError
from crucible_lineage.tasks import *
url, key, folder = sys.argv[1:]
block = CrucibleCredentials(url=url, api_key=key)
block.save("ways", overwrite=True)

@flow
def ways(file: str):
    made = create_dataset.map(["one", "two"], "lab", crucible=block).result()
    add_keywords(made[0], "gold", crucible="ways")
    found = get_keywords.submit(made[0], crucible=CrucibleConnection(block="ways")).result()
    found += get_keywords.with_options(retries=0).map([made[0]], crucible=block).result()[0]
    try:
        create_dataset("text", "lab", files=[file], wait_for_ingestion=True, crucible=block)
    except RunError as error:
        failed = str(error)
    warned = create_dataset(
        "text 2", "lab", files=file, wait_for_ingestion=True, on_failed_ingestion="warn", crucible=block
    )
    return found, failed, warned, made

@flow
async def awaited(mfid: str):
    return [p.unique_id for p in await alist_datasets(crucible="ways", dataset_name="one")], await asyncio.gather(
        *(aget_keywords(mfid, crucible=block) for _ in range(3))
    )

found, failed, warned, made = ways(folder)
print(json.dumps([found, failed, warned, made, asyncio.run(awaited(made[0]))]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there is the memory of an ingestion bounded")
def test_crucible_is_named_by_block_connection_or_name_and_a_failed_ingestion_is_a_failure(
    data: Path, tmp_path: Path, prefect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB", "64")  # too little for this table
    file = tmp_path / "scan.csv"
    file.write_text("x,y\n" + "1.25,2.5\n" * 200_000)
    with start_server(data / "crucible") as server:
        with CrucibleClient(server.url, server.api_key) as client:
            lead = client.account.whoami().user_unique_id
            client.projects.create(project_id="lab", organization="local", project_lead=lead)
            found, failed, warned, made, awaited = prefect.run(WAYS, server.url, server.api_key, file)
            assert found == ["gold", "gold"]
            assert failed.startswith("ingestion request")
            assert "the file is stored" in failed
            assert client.datasets.get(warned).dataset_name == "text 2"
            assert "takes more than 64 MB of memory" in failed
        assert awaited == [[made[0]], [["gold"]] * 3]
        runs = prefect.post("task_runs/filter", {"task_runs": {"name": {"like_": "create"}}, "limit": 200})
        assert server.api_key not in json.dumps(runs)
