"""Three machines register the same measured file without a time at once, and answers are lost: it is one dataset."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.provenance.record import KEY
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import share
from tests.serving import RunningServer

RACES = 29 if os.environ.get("CRASH_STEP") == "1" else 3
MACHINES = 3


@pytest.mark.parametrize("kinds", share([("page", "lose", "page", "late"), ("lose", "late")], 2))
def test_measured_files_without_a_time_are_one_dataset_for_all_machines(
    service: RunningServer, misbehaving: Any, tmp_path: Path, command: Any, kinds: tuple[str, ...]
) -> None:
    def register(machine: int, race: int) -> Any:
        proxy = misbehaving(service.url, 100 * race + machine, 0.25, kinds)
        data = tmp_path / f"machine-{machine}"
        path = tmp_path / f"copy-{machine}" / f"scan-{race}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"a,b\n{race},{race}\n" * 100)
        access = {"CRUCIBLE_API_URL": proxy.url, "CRUCIBLE_API_KEY": service.api_key}
        return command("register", path, "--project", "lab", CRUCIBLE_LINEAGE_DATA=str(data), **access)

    with (
        ThreadPoolExecutor(MACHINES) as pool,
        Session(Settings(tmp_path / "x", service.url, service.api_key)) as reader,
    ):
        for race in range(RACES):
            ended = list(pool.map(register, range(MACHINES), [race] * MACHINES))
            assert [run.returncode for run in ended] == [0] * MACHINES, [run.stderr for run in ended]
            assert len({run.stdout.split()[0] for run in ended}) == 1, [run.stdout for run in ended]
        found = reader.client.datasets.list(project_id="lab", include_metadata=True)
        assert sorted(dataset.dataset_name or "" for dataset in found) == sorted(
            f"scan-{race}.csv" for race in range(RACES)
        )
        assert {(dataset.scientific_metadata or {})[KEY]["status"] for dataset in found} == {"complete"}
        assert verify_project(reader, "lab", read_bytes=True).findings == ()
    access = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
    data = str(tmp_path / "machine-0")
    verified = command("verify", "--project", "lab", CRUCIBLE_LINEAGE_DATA=data, **access)
    assert verified.returncode == 0, verified.stdout + verified.stderr
