"""Files that a step reads without being given them: named, or declared, so that their bytes count."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.explain import explain
from crucible_lineage.pipeline.processes.child import watching_files
from crucible_lineage.session import Session

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def correct(scan: Path, *, out: Path) -> dict:
    offset = float((Path(__file__).parent / "calib.dat").read_text())
    (out / "corrected.txt").write_text(str(float(scan.read_text()) - offset))
    return {}


@step(reads=["calib.dat"])
def declared(scan: Path, *, out: Path) -> dict:
    offset = float((Path(__file__).parent / "calib.dat").read_text())
    (out / "corrected.txt").write_text(str(float(scan.read_text()) - offset))
    return {}
"""
ONE = """
pipeline: one
project: lab
inputs:
  scan: {file: s1.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  corrected: {uses: "LABMODULE:correct", inputs: {scan: scan}}
"""


@pytest.fixture
def reading(lab: Any) -> Any:
    lab.file(f"{lab.module}.py", STEPS)
    lab.file("s1.txt", "5")
    lab.file("calib.dat", "1")
    return lab


def test_a_file_that_a_step_was_not_given_is_named_in_run_record_log_and_story(
    reading: Any, session: Session, run: Any, record_of: Any
) -> None:
    result = run(reading.declare(ONE))
    calib = str(reading.folder / "calib.dat")
    assert f"it read {calib}, which it was not given" in result.notes["corrected"]
    made = result.datasets["corrected"]["out"]
    assert record_of(made)["activity"]["code"]["read"] == [calib]
    assert f"it read undeclared files, which are not part of the recipe: {calib}" in str(explain(session, made))
    (log,) = [file for file in session.client.files.list(made) if file.filename == "step.log"]
    assert f"note: it read {calib}" in session.client.files.download_bytes(log).decode()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no folder in memory")
def test_a_file_in_memory_is_data_and_a_device_is_not(tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as data:
        with watching_files(tmp_path / "out") as (_, read):
            for path in (data.name, os.devnull, "/dev/zero"):
                Path(path).open("rb").close()
        assert read == [Path(data.name)]


@pytest.mark.parametrize("by", ["step", "declaration"])
def test_the_bytes_of_a_declared_file_count(reading: Any, run: Any, text_of: Any, planned: Any, by: str) -> None:
    text = ONE.replace(":correct", ":declared") if by == "step" else ONE.replace("scan}}", "scan}, reads: [calib.dat]}")
    first = run(reading.declare(text))
    assert first.notes == {}
    reading.file("calib.dat", "2")
    step = planned(reading.pipeline)["corrected"]
    assert step.state == "stale"
    assert "file calib.dat changed" in step.causes[0]
    assert text_of(run(reading.pipeline).datasets["corrected"]["out"]) == "3.0"
    reading.file("calib.dat", "1")
    assert run(reading.pipeline).executed == [], "what was made with these bytes holds again"


def test_a_command_may_declare_the_files_that_it_reads(reading: Any, run: Any, planned: Any) -> None:
    command = 'corrected: {run: "cp {inputs.scan} {out}/", inputs: {scan: scan}, reads: calib.dat}'
    text = ONE[: ONE.index("  corrected:")] + f"  {command}\n"
    assert run(reading.declare(text)).ok
    reading.file("calib.dat", "2")
    assert planned(reading.pipeline)["corrected"].state == "stale"


def test_neither_packages_nor_files_written_by_the_step_are_listed(tmp_path: Path) -> None:
    import json

    (tmp_path / "data.txt").write_text("1")
    allowed = tmp_path / "step"
    allowed.mkdir()
    with watching_files(allowed) as (_, read):
        Path(json.__file__).read_text()
        (tmp_path / "scratch.txt").write_text("2")
        (tmp_path / "scratch.txt").read_text()
        (allowed / "mine.txt").write_text("3")
        (allowed / "mine.txt").read_text()
        (tmp_path / "data.txt").read_text()
    assert read == [tmp_path / "data.txt"]


def test_a_file_to_which_a_step_only_adds_was_not_read(tmp_path: Path) -> None:
    (tmp_path / "calls.txt").write_text("1\n")
    (tmp_path / "state.txt").write_text("1\n")
    with watching_files(tmp_path / "own") as (_, read):
        for name in ("calls.txt", "state.txt"):
            if name == "state.txt":
                (tmp_path / name).read_text()
            with (tmp_path / name).open("a") as stream:
                stream.write("2\n")
    assert read == [tmp_path / "state.txt"]
