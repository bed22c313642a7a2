"""A step with a timeout runs in a process of its own; one that hangs or dies is reported and leaves no processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_a_step_that_hangs_is_killed_with_what_it_started(lab: Any, odd: Any, run: Any, session: Session) -> None:
    pid = lab.folder / "pid"
    body = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"Path({str(pid)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    result = run(odd(body, ", timeout: 3"))
    assert "took longer than its timeout of 3 s" in result.errors["odd"]
    stat = Path(f"/proc/{pid.read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z", "it is dead, if perhaps not yet buried"
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 1, "only the input"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('last words')\nos._exit(3)", "its process ended with exit code 3; its output is in"),
        ("raise ValueError('no lamp')", "failed: ValueError: no lamp"),
        ("(out / 'x').write_text('1')\nreturn {1, 2}", "it returned a set; return a mapping"),
    ],
)
def test_a_step_that_dies_is_reported_with_the_cause(odd: Any, run: Any, body: str, words: str) -> None:
    result = run(odd(body, ", timeout: 60"))
    assert words in result.errors["odd"]
