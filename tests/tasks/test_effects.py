"""Tasks that are not ours, and effects that no argument shows: what has happened decides, after the call."""

from __future__ import annotations

import json
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.machine.opened import OpenedFiles, watch_files, watching
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.golden.stored import compare
from tests.serving import start_server
from tests.tasks.told import told

PROGRAM = Path(__file__).with_name("effects_flow.py")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what child processes read")


@LINUX
def test_what_a_call_has_done_is_recorded_and_what_is_not_known_is_said(tmp_path: Path, prefect: Any) -> None:
    ran = prefect.python(PROGRAM, tmp_path / "data", tmp_path, PREFECT_LOCAL_STORAGE_PATH=str(tmp_path / "cached"))
    assert ran.returncode == 0, ran.stderr[-4000:]
    returned = json.loads(ran.stdout.splitlines()[-1])
    text, picture = returned.pop("shown")
    assert "returned by the task __main__:inputs_not_known.<locals>.fetch; inputs not known" in text
    assert "inputs not known" in picture, "a result of unknown inputs never looks like measured data"
    compare(
        "tasks/effects.txt", json.dumps(returned, indent=1) + told(tmp_path / "data", tmp_path, ran.stderr, prefect)
    )


def test_calls_of_ours_leave_the_sequence_that_a_flow_has_seeded(tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    path.write_text("1 2 3")
    with (
        start_server(tmp_path / "service") as server,
        Session(Settings(tmp_path, server.url, server.api_key)) as session,
    ):
        random.seed(4)
        session.client.projects.create(project_id="lab", organization="MF", project_lead="local")
        made = session.client.datasets.create({"project_id": "lab", "dataset_name": "scan"})
        session.client.files.upload(made.dsid, path)
        assert random.random() == random.Random(4).random()


@LINUX
def test_a_call_has_not_read_what_other_code_reads_meanwhile(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("read by others")
    watch_files()
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            for path in tmp_path.iterdir():
                path.read_bytes()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with ThreadPoolExecutor(3) as others:
        for _ in range(3):
            others.submit(read)
        try:
            for _ in range(3000):
                with watching(call := OpenedFiles((tmp_path,))):
                    pass
                assert [path.name for path in tmp_path.iterdir() if call.has_read(path)] == []
        finally:
            is_over.set()
            sys.setswitchinterval(interval)
