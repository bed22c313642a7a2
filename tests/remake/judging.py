"""Shared parts of tests that judge remaking: laboratories that are run and then moved away, and the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MATERIAL = Path(__file__).parent / "judged"
VALIDATORS = Path(__file__).parents[2] / ".venv" / "validators" / "bin"
python: Any = None  # that starts with its imports done; the fixture `judging` gives it
VARIABLES = {"CRUCIBLE_LINEAGE_KEEP": "yes", "LAB_SITE": "beamline 7"}


def environment(**more: str) -> dict[str, str]:
    """Return the variables of a process whose `python` is this one; `uv` is the judges', unless another is on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(VALIDATORS)])
    return {**os.environ, "PATH": path, **more}


def output_of(arguments: Sequence[object], *, cwd: Path, codes: Sequence[int] = (0,), **variables: str) -> str:
    """Run a process and return its output."""
    done = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, cwd=cwd, env=environment(**variables), timeout=900
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def crucible(*arguments: object, cwd: Path, codes: Sequence[int] = (0,), **variables: str) -> Any:
    """Return the output of `crucible-lineage ... --json`."""
    command = ["-m", "crucible_lineage", *map(str, arguments), "--json"]
    done = python.run(command, environment(**variables), cwd, timeout=900)
    assert done.returncode in codes, done.stdout + done.stderr
    return json.loads(done.stdout)


@contextmanager
def answering(folder: Path) -> Iterator[str]:
    """Serve a file of a folder until the block ends, and yield its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/answer.txt"
        server.shutdown()


def made(laboratory: Path, data: Path) -> dict[str, str]:
    """Return the results of the laboratory's pipeline by step."""
    shutil.copytree(MATERIAL, laboratory, ignore=shutil.ignore_patterns("__pycache__"))
    served = laboratory.parent / "served"
    served.mkdir()
    (served / "answer.txt").write_text("42\n")
    with answering(served) as address:
        run = ("run", laboratory / "pipeline.yaml", "--engine", "local", "--data", data)
        ran = crucible(*run, cwd=laboratory, **VARIABLES, LAB_ADDRESS=address)
    assert ran["errors"] == {}
    found = {step: outputs["out"] for step, outputs in ran["datasets"].items()}
    return {**found, "raw": ran["inputs"]["scan"][0]}


def move_away(laboratory: Path) -> None:
    """Move the laboratory to an unknown folder."""
    laboratory.rename(laboratory.with_name(f"{laboratory.name} moved away"))


def remade(data: Path, mfids: Sequence[str], *options: object, **variables: str) -> dict[str, dict[str, Any]]:
    """Make results again from an empty folder, and return the outcomes by id."""
    empty = data.parent / "empty"
    empty.mkdir(exist_ok=True)
    arguments = ("reproduce", *mfids, *options, "--data", data)
    output = crucible(*arguments, cwd=empty, codes=(0, 1), **variables)
    return {mfid: result for result in output["results"] for mfid in result["mfids"]}
