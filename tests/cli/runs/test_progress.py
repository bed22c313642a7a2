"""Progress of a run: a status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.files import fetch_many
from crucible_lineage.ask.verify import verify_project
from crucible_lineage.cli import working
from crucible_lineage.cli.progress import Progress
from crucible_lineage.cli.working import TrafficMonitor, showing_work
from crucible_lineage.machine.process import Traffic, traffic
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import hash_files, register_raw
from crucible_lineage.pipeline.run.result import Outcome, StepEvent
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
    assert any(re.match(r"1/3 \(33 %\), running two [01] s", line) for line in progress), lines
    assert all(len(line) < 40 for line in progress)
    assert re.search(r"one +done in \d\.\d+ s", "\n".join(lines))
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


def test_durations_count_from_the_actual_start(lab: Any, data: Path, command: Any) -> None:
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text() + SLOW)
    for number in range(4):
        lab.file(f"m{number}.dat", f"{number}\n")
    head = lab.pipeline.read_text().partition("  first:")[0]
    each = f'{head}  first: {{file: "*.dat", each: true, timestamp: "2024-05-01T12:00:00Z"}}\n'
    lab.declare(f"{each}steps:\n  slow: {{uses: {lab.module}:slow, inputs: {{counts: first}}}}\n")
    ran = command("run", lab.pipeline, "--data", data, "--engine", "local", "--jobs", "1")
    took = [float(seconds) for seconds in re.findall(r"done in ([\d.]+) s", ran.stderr)]
    assert len(took) == 4
    assert all(0.5 <= seconds < 2 for seconds in took), "one after the other, not counted from when they were queued"
    plan = command("plan", lab.pipeline, "--data", data, "--set", "slow.seconds=0.6").stdout
    assert re.search(r"about [2-7](\.\d)? s of work", plan), plan


def test_a_thousand_fast_steps_take_few_lines_and_little_time(capfd: pytest.CaptureFixture[str]) -> None:
    names = [f"step[{number}]" for number in range(1000)]
    cpu = time.process_time()
    with Progress(names) as progress:
        progress.listen(StepEvent("", Outcome.PLANNED, todo=dict.fromkeys(names)))
        for name in names:
            for phase in (Outcome.QUEUED, Outcome.STARTED, Outcome.MADE):
                progress.listen(StepEvent(name, phase))
            progress.listen(StepEvent(name, Outcome.EXECUTED, "0" * 26, 0.1))
        progress.listen(StepEvent("long", Outcome.EXECUTED, "0" * 26, 3.0))
    cost = time.process_time() - cpu
    *done, long, hidden = capfd.readouterr().err.splitlines()
    assert (len(done), long.split()[:2], hidden) == (20, ["long", "done"], "  ... and 980 done")
    assert cost < 0.2, "2 % of the ten seconds that a thousand steps take at the least"


def test_work_shows_its_progress(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "PLAIN_S", 0.0)
    monkeypatch.setattr(working, "FIRST_S", 0.0)
    output = ""
    with showing_work() as work:
        work("reading bytes: 3 of 7 files", 2_000_000)
        while not output:
            output = capfd.readouterr().err
    assert output.splitlines()[0] == "  reading bytes: 3 of 7 files, 0 B of 2.0 MB (0 %) (0 s)"


def test_transfers_are_shown_with_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(working.time, "monotonic", lambda: now)
    counts = Traffic()
    monitor = TrafficMonitor(counts)
    assert monitor.text() == ""
    now += 2
    counts.count(present=2_000_000, received=4_000_000)
    assert monitor.text() == "4.0 MB received at 2.0 MB/s"
    assert monitor.text(total=10_000_000) == "6.0 MB of 10 MB (60 %), 2.0 MB/s, about 2 s left"
    now += 60
    monitor.text()
    now += 6
    assert monitor.text() == "", "nothing has moved for a while"
    assert monitor.text(total=10_000_000) == "6.0 MB of 10 MB (60 %)"
    counts.count(sent=500)
    assert monitor.text() == "", "too few to be shown"
    counts.count(sent=600_000)
    now += 1
    assert re.match(r"600 kB sent at \d+ kB/s", monitor.text())


def test_received_and_sent_files_are_counted(lab: Any, data: Path, tmp_path: Path) -> None:
    (lab.folder / "first.txt").write_bytes(bytes(300_000))
    measured = FileInput(file=(str(lab.folder / "first.txt"),))
    received, present, sent = traffic.received, traffic.present, traffic.sent
    with Session(Settings(data)) as session:
        session.ensure_project("lab")
        raw = register_raw(hash_files("lab", [lab.folder / "first.txt"], None, session), measured, "first", session)
        assert traffic.sent - sent == 300_000
        (file,) = session.client.files.list(raw.mfid)
        (tmp_path / f".first.txt.{str(file.sha256_hash)[:16]}.part").write_bytes(bytes(100_000))
        fetch_many(session, {raw.mfid: tmp_path})
    assert (traffic.received - received, traffic.present - present) == (200_000, 100_000)


@pytest.mark.parametrize("mode", ["colour", "NO_COLOR", "dumb"])
def test_faults_and_findings_have_colour_like_plans(lab: Any, data: Path, mode: str, shown: Shown) -> None:
    environment = {"colour": {}, "NO_COLOR": {"NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}[mode]
    good = shown(["check", lab.pipeline, "--data", data], **environment)
    lab.declare("pipeline: broken\nproject: lab\nsteps: {a: {uses: nowhere:at_all}}\n", "broken.yaml")
    bad = shown(["check", lab.folder / "broken.yaml", "--data", data], code=2, **environment)
    refused = shown(["run", lab.folder / "broken.yaml", "--data", data], code=2, **environment)
    if mode == "colour":
        assert "\x1b[32mno faults\x1b[0m" in good
        assert all("\x1b[31merror\x1b[0m: " in output for output in (bad, refused)), (bad, refused)
    else:
        assert not any("\x1b" in output for output in (good, bad, refused))


def test_verify_reports_files_and_bytes(lab: Any, data: Path, command: Any) -> None:
    assert command("run", lab.pipeline, "--data", data, "--engine", "local").returncode == 0
    reports: list[tuple[str, int]] = []
    with Session(Settings(data)) as session:
        verify_project(session, "lab", read_bytes=True, tell=lambda text, total: reports.append((text, total)))
    assert reports[0] == ("comparing 4 datasets with the record", 0)
    assert reports[-1][0] == "reading bytes: 5 of 5 files"
    assert reports[-1][1] > 20


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


def test_a_command_without_a_reader_ends_quietly(lab: Any, data: Path, command: Any) -> None:
    assert command("run", lab.pipeline, "--data", data, "--engine", "local").returncode == 0
    for arguments in ["list", "--project", "lab"], ["status"], ["list", "--project", "lab", "--json"]:
        ours, theirs = os.pipe()
        os.close(ours)
        words = [sys.executable, "-m", "crucible_lineage", *arguments, "--data", data]
        ran = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False)
        os.close(theirs)
        assert (ran.returncode, b"fault" in ran.stderr, (data / "logs").exists()) == (1, False, False), ran.stderr
