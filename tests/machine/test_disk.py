"""Files that are replaced at once: complete or unchanged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crucible_lineage.machine.disk import replacing

WRITER = """
import sys
from pathlib import Path

from crucible_lineage.machine.disk import replacing

with replacing(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print("begun", flush=True)
    sys.stdin.readline()
    draft.write_text("whole")
"""


@contextmanager
def writing(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has written half of a file; a line on its standard input makes it finish."""
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.kill()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_two_processes_replace_a_file_at_once(tmp_path: Path) -> None:
    target = tmp_path / "peaks.csv"
    with writing(target) as process:
        for number in range(3):
            with replacing(target) as draft:
                draft.write_text(f"{number}")
        assert sorted(contents(tmp_path).values()) == ["2", "half"]
        process.communicate("finish\n")
        assert process.returncode == 0
    assert contents(tmp_path) == {"peaks.csv": "whole"}


def test_a_replacement_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "peaks.csv"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(target) as draft:
        draft.write_text("new \udc80", encoding="utf-8")
    assert contents(tmp_path) == {"peaks.csv": "old"}
