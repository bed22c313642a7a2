"""A step with a timeout runs in a process of its own; one that hangs or dies is reported and leaves no processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session


def declare(lab: Any, body: str, timeout: float) -> Path:
    module = f"{lab.module}_timed"
    lab.file(f"{module}.py", f"from pathlib import Path\n\n\ndef timed(counts: Path, *, out: Path):\n{body}")
    path: Path = lab.declare(
        f"""
        pipeline: timed
        project: lab
        inputs:
          first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
        steps:
          timed: {{uses: "{module}:timed", inputs: {{counts: first}}, timeout: {timeout}}}
        """
    )
    return path


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_a_step_that_hangs_is_killed_with_what_it_started(lab: Any, run: Any, session: Session) -> None:
    pid = lab.folder / "pid"
    body = (
        "    import subprocess, sys, time\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"    Path({str(pid)!r}).write_text(str(child.pid))\n"
        "    time.sleep(600)\n"
    )
    result = run(declare(lab, body, 3))
    assert "took longer than its timeout of 3 s" in result.errors["timed"]
    stat = Path(f"/proc/{pid.read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z", "it is dead, if perhaps not yet buried"
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 1, "only the input"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    import os\n    print('last words')\n    os._exit(3)\n", "died (exit code 3); its output is in"),
        ("    raise ValueError('no lamp')\n", "failed: ValueError: no lamp"),
        ("    (out / 'x').write_text('1')\n    return {1, 2}\n", "it returned a set; return a mapping"),
    ],
)
def test_a_step_that_dies_is_reported_with_the_cause(lab: Any, run: Any, body: str, words: str) -> None:
    result = run(declare(lab, body, 60))
    assert words in result.errors["timed"]
