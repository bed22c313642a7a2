"""Progress of a run: a status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.cli.get import fetch_many
from crucible_lineage.machine.process import traffic
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import hash_files, raw_files, register_raw
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

pty = pytest.importorskip("pty", reason="terminals are POSIX")

SLOW = """
import time

@step
def slow(counts: Path, *, seconds: float = 0.5, out: Path) -> None:
    print("measuring", counts.name)
    time.sleep(seconds)
    (out / "x.txt").write_text(counts.read_text() + "9")
"""


@pytest.fixture
def slow(lab: Any) -> Any:
    """Declare three steps of half a second, one after the other."""
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text() + SLOW)
    head = lab.pipeline.read_text().partition("  second:")[0]
    steps = [f"  {name}: {{uses: {lab.module}:slow, inputs: {{counts: {source}}}}}" for name, source in CHAIN]
    lab.declare(f"{head}steps:\n" + "\n".join(steps) + "\n")
    return lab


CHAIN = (("one", "first"), ("two", "one"), ("three", "two"))


Shown = Callable[..., str]


@pytest.fixture
def shown(begin: Any) -> Shown:
    """Run a command on a terminal, and return its output."""

    def run(arguments: list[object], columns: int = 80, code: int = 0, **environment: str) -> str:
        ours, theirs = pty.openpty()
        settings = {"TERM": "xterm", "COLUMNS": str(columns), **environment}
        process = begin(*arguments, stdout=theirs, stderr=theirs, environment=settings)
        os.close(theirs)
        output = b""
        try:
            while block := os.read(ours, 1 << 16):
                output += block
        except OSError:  # Linux's end of file
            pass
        os.close(ours)
        assert process.wait(60) == code, output.decode()
        return output.decode()

    return run


def test_a_terminal_shows_progress_within_its_width(slow: Any, data: Path, shown: Shown) -> None:
    output = shown(["run", slow.pipeline, "--data", data, "--engine", "local"], columns=40)
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]", output)]
    progress = [line for line in lines if re.match(r"\d/3 \(", line)]
    assert any(re.match(r"1/3 \(33 %\), about [1-9] s left, ", line) for line in progress), lines
    assert all(len(line) < 40 for line in progress)
    assert re.search(r"one +done in [\d.]+ s", "\n".join(lines))
    assert "\x1b[32mdone" in output


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["no colour", "dumb"])
def test_colour_is_omitted_on_request(slow: Any, data: Path, environment: dict[str, str], shown: Shown) -> None:
    output = shown(["run", slow.pipeline, "--data", data, "--engine", "local"], **environment)
    assert not re.search(r"\x1b\[\d+m", output)
    if environment.get("TERM") == "dumb":
        assert "\x1b" not in output
        assert "1/3" not in output
    plan = shown(["plan", slow.pipeline, "--data", data], **environment)
    assert "\x1b" not in plan
    assert "\x1b[32m" in shown(["plan", slow.pipeline, "--data", data])


def test_a_file_gets_plain_lines_unless_quiet_and_verbose_adds_output_of_steps(
    slow: Any, data: Path, command: Any
) -> None:
    ran = command("run", slow.pipeline, "--data", data, "--engine", "local", "--verbose")
    lines = [line.split()[:2] for line in ran.stderr.splitlines()]
    assert lines == [["one", "|"], ["one", "done"], ["two", "|"], ["two", "done"], ["three", "|"], ["three", "done"]], (
        ran.stderr
    )
    assert "one | measuring first.txt" in ran.stderr
    quiet = command("run", slow.pipeline, "--data", data, "--engine", "local", "--quiet", "--force", "three")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_received_and_sent_files_are_counted(lab: Any, data: Path, tmp_path: Path) -> None:
    (lab.folder / "first.txt").write_bytes(bytes(300_000))
    measured = FileInput(file=(str(lab.folder / "first.txt"),))
    received, present, sent = traffic.received, traffic.present, traffic.sent
    with Session(Settings(data)) as session:
        session.ensure_project("lab")
        raw = register_raw(
            raw_files("lab", hash_files([lab.folder / "first.txt"], session)), measured, "first", session
        )
        assert traffic.sent - sent == 300_000
        (file,) = session.client.files.list(raw.mfid)
        (tmp_path / f".first.txt.{str(file.sha256_hash)[:16]}.part").write_bytes(bytes(100_000))
        fetch_many(session, {raw.mfid: tmp_path})
    assert (traffic.received - received, traffic.present - present) == (200_000, 100_000)


@pytest.mark.parametrize("stream", ["pipe", "terminal"])
def test_a_run_continues_after_its_reader_has_gone(slow: Any, data: Path, stream: str, begin: Any) -> None:
    ours, theirs = os.pipe() if stream == "pipe" else pty.openpty()
    arguments = ["run", slow.pipeline, "--data", data, "--engine", "local"]
    process = begin(*arguments, stderr=theirs, environment={"TERM": "xterm"})
    os.close(theirs)
    assert os.read(ours, 1 << 16)
    os.close(ours)
    output, _ = process.communicate(timeout=120)
    assert (process.returncode, "3 executed" in output) == (0, True)
