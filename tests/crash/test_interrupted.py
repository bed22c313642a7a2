"""Killed at any point and run again, a pipeline ends as if nothing had happened: everything once, nothing half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A process that dies, as by SIGKILL, just before its Nth request to Crucible.
DYING = """
import itertools, os, signal, sys
import httpx
calls = itertools.count(1)
send = httpx.Client.send
def dying(self, request, **options):
    if next(calls) == int(os.environ["DIE_BEFORE"]):
        os.kill(os.getpid(), signal.SIGKILL)
    answer = send(self, request, **options)
    return answer
httpx.Client.send = dying
from crucible_lineage.cli import main
main(sys.argv[1:])
"""


def state(command: Any, data: Path, mfids: list[str]) -> list[Any]:
    """What Crucible says of these datasets, without what differs from run to run."""
    from crucible_lineage.session import Session
    from crucible_lineage.settings import Settings

    with Session(Settings(data)) as session:
        found = []
        for mfid in sorted(mfids):
            dataset = session.client.datasets.get(mfid, include_metadata=True)
            record = (dataset.scientific_metadata or {})["crucible_lineage"]
            found.append(
                (
                    mfid,
                    dataset.dataset_name,
                    record["status"],
                    record["recipe"],
                    record["generated"],
                    sorted((file.filename, file.sha256_hash) for file in session.client.datasets.list_files(mfid)),
                    sorted(parent.unique_id for parent in session.client.datasets.list_parents(mfid)),
                    sorted(word.keyword for word in session.client.datasets.get_keywords(mfid)),
                )
            )
        listed = session.client.datasets.list(project_id="lab", limit=None)
        return [found, sorted(dataset.unique_id for dataset in listed)]


def mfids_of(printed: dict[str, Any]) -> list[str]:
    results = [mfid for outputs in printed["datasets"].values() for mfid in outputs.values()]
    return results + [mfid for found in printed["inputs"].values() for mfid in found]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_killed_before_any_request_and_run_again_it_ends_as_undisturbed(lab: Any, tmp_path: Path, command: Any) -> None:
    arguments = ["run", str(lab.pipeline), "--engine", "local", "--json"]
    undisturbed = json.loads(command(*arguments, "--data", tmp_path / "calm").stdout)
    wanted = state(command, tmp_path / "calm", mfids_of(undisturbed))
    for number in range(1, 120, int(os.environ.get("CRASH_STEP", "9"))):  # `make crash` tries every request
        data = tmp_path / f"killed-{number}"
        killed = subprocess.run(
            [sys.executable, "-c", DYING, *arguments, "--data", str(data)],
            env={**os.environ, "DIE_BEFORE": str(number)},
            capture_output=True,
            timeout=120,
        )
        if killed.returncode == 0:
            assert number > 20, "so few requests cannot be all"
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        again = command(*arguments, "--data", data)
        assert again.returncode == 0, again.stderr
        assert state(command, data, mfids_of(json.loads(again.stdout))) == wanted, f"killed before request {number}"
    else:
        raise AssertionError("the process was killed every time; raise the range")


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is POSIX")
def test_ctrl_c_in_mid_run_then_run_again_finishes(lab: Any, data: Path, command: Any) -> None:
    module = f"{lab.module}_slow"
    lab.file(
        f"{module}.py",
        "from pathlib import Path\nimport time\n\n\n"
        "def slow(counts: Path, *, out: Path):\n"
        f"    Path({str(lab.folder / 'began')!r}).touch()\n"
        f"    while not Path({str(lab.folder / 'go')!r}).exists():\n        time.sleep(0.02)\n"
        "    (out / 'x.txt').write_text('1')\n",
    )
    lab.declare(
        lab.pipeline.read_text()
        + f"  slow:\n    uses: {module}:slow\n    inputs: {{counts: total}}\n".replace("total}", "first}")
    )
    arguments = ["run", str(lab.pipeline), "--engine", "local", "--data", str(data)]
    process = subprocess.Popen(
        [sys.executable, "-m", "crucible_lineage", *arguments], stderr=subprocess.PIPE, text=True
    )
    while not (lab.folder / "began").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    (lab.folder / "go").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again" in said
    again = command(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert len(state(command, data, mfids_of(json.loads(again.stdout)))[1]) == 5
