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
from tests.serving import start_server

PROGRAM = Path(__file__).with_name("effects_flow.py")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what child processes read")
CASES = {
    "a_text_of_one_part": (15, [" -> make", "make -> save", "save -> load"]),
    "other_decorators": (
        7.5,
        [
            *(" -> make", " -> s3://lab/final", "final -> after", "final -> peak", "make -> final"),
            *("peak -> decorated", "s3://lab/final -> after"),
        ],
    ),
    "a_child_process": ("content of acontent of b", [" -> a.txt", " -> b.txt", "a.txt + b.txt -> joined"]),
    "inputs_not_known": (None, [" -> fetch"]),
    "a_list_that_is_empty_at_first": (4.0, [" -> one", "one -> one", "one -> use"]),
    "partial_functions": (8.5, [" -> added", "added -> use"]),
    "a_cache_that_a_plain_flow_warmed": ([0.5, 1.5, 2.5, 7.5], [" -> make", " -> warmed"]),
    "texts_that_are_names_of_files": (["first.txt!", "second.txt!", "first.txt!"], [" -> listed"]),
    "models_made_of_items_of_results": (4.0, [" -> measure", "measure -> total"]),
    "files_that_no_argument_names": (20, [" -> make", "make -> write", "write -> read"]),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, prefect: Any) -> Any:
    folder = tmp_path_factory.mktemp("effects")
    ran = prefect.python(PROGRAM, folder / "data", folder, PREFECT_LOCAL_STORAGE_PATH=str(folder / "cached"))
    assert ran.returncode == 0, ran.stderr[-4000:]
    return {**json.loads(ran.stdout.splitlines()[-1]), "stderr": ran.stderr}


@pytest.mark.parametrize("name", [pytest.param(n, marks=LINUX) if n == "a_child_process" else n for n in CASES])
def test_what_a_call_has_done_is_recorded(name: str, reports: Any) -> None:
    returned, edges, _ = reports[name]
    assert (returned, edges) == CASES[name]


def test_what_is_not_known_is_said(reports: Any) -> None:
    told = {name: reports[name][2] for name in CASES}
    not_seen = "files were written, and none was seen to be read"
    assert told["inputs_not_known"]["fetch"]["unknown_inputs"] == not_seen
    assert "unknown_inputs" not in told["a_text_of_one_part"]["save"]
    warmed = told["a_cache_that_a_plain_flow_warmed"]["warmed"]
    assert warmed["from_cache"] == "Prefect's cache has it from a run that registered nothing"
    assert warmed["arguments"] == {"key": "plain", "values": "the same object"}
    assert told["other_decorators"]["final"]["addresses"] == ["s3://lab/final"]
    assert "not stored" not in reports["stderr"]


def test_a_result_of_unknown_inputs_never_looks_like_measured_data(reports: Any) -> None:
    text, picture = reports["shown"]
    assert "returned by the task __main__:inputs_not_known.<locals>.fetch; inputs not known" in text
    assert "inputs not known" in picture


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
