"""What `run` shows on a terminal: a line for each step, and beneath them what runs, never on one line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty", reason="terminals are POSIX")


def on_a_terminal(begin: Any, *arguments: object) -> tuple[str, list[str]]:
    """All that a terminal was told, and the lines that stand there in the end."""
    ours, theirs = pty.openpty()
    process = begin(*arguments, stdout=theirs, stderr=theirs, environment={"TERM": "xterm"})
    os.close(theirs)
    said = b""
    while block := _read(ours):
        said += block
    os.close(ours)
    process.wait()
    text = re.sub(r"\r\x1b\[2K|.*\r(?!\n)", "", said.decode())
    return said.decode(), [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).splitlines()]


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:  # so Linux tells the end
        return b""


def test_each_step_has_a_line_of_its_own_and_what_runs_is_named_with_its_brackets(
    lab: Any, data: Path, begin: Any
) -> None:
    slow = "import time\n\n\n@step\ndef slow(counts: Path, *, out: Path) -> None:\n    time.sleep(1)\n"
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text() + slow + "    (out / 'x.txt').write_text('1')\n")
    head = lab.pipeline.read_text().partition("  second:")[0].replace("first.txt,", '"*.txt", each: true,')
    lab.declare(f"{head}steps:\n  slow: {{uses: {lab.module}:slow, inputs: {{counts: first}}}}\n")
    told, lines = on_a_terminal(begin, "run", lab.pipeline, "--data", data, "--engine", "local")
    done = [line for line in lines if "  done in " in line]
    assert sorted(line.split()[0] for line in done) == ["slow[first.txt]", "slow[second.txt]"], lines
    assert all(line.startswith("  slow[") for line in done), lines
    assert re.search(r"running slow\[(first|second)\.txt\] \d s, slow\[(first|second)\.txt\] \d s", told)
