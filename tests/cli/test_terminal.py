"""`run` on a terminal: a line for each finished step, and beneath them a status line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty", reason="terminals are POSIX")


def on_a_terminal(begin: Any, *arguments: object) -> tuple[str, list[str]]:
    """Return all output to a terminal, and the lines that remain at the end."""
    ours, theirs = pty.openpty()
    process = begin(*arguments, stdout=theirs, stderr=theirs, environment={"TERM": "xterm"})
    os.close(theirs)
    output = b""
    while block := _read(ours):
        output += block
    os.close(ours)
    process.wait()
    text = re.sub(r"\r\x1b\[2K|.*\r(?!\n)", "", output.decode())
    return output.decode(), [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).splitlines()]


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:  # Linux's end of file
        return b""


def test_each_step_has_its_own_line_and_running_instances_are_named(lab: Any, data: Path, begin: Any) -> None:
    slow = "import time\n\n\n@step\ndef slow(counts: Path, *, out: Path) -> None:\n    time.sleep(1)\n"
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text() + slow + "    (out / 'x.txt').write_text('1')\n")
    head = lab.pipeline.read_text().partition("  second:")[0].replace("first.txt,", '"*.txt", each: true,')
    lab.declare(f"{head}steps:\n  slow: {{uses: {lab.module}:slow, inputs: {{counts: first}}}}\n")
    output, lines = on_a_terminal(begin, "run", lab.pipeline, "--data", data, "--engine", "local")
    done = [line for line in lines if "  done in " in line]
    assert sorted(line.split()[0] for line in done) == ["slow[first.txt]", "slow[second.txt]"], lines
    assert all(line.startswith("  slow[") for line in done), lines
    assert re.search(r"running slow\[(first|second)\.txt\] \d s, slow\[(first|second)\.txt\] \d s", output)
