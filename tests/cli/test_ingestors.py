"""A failed or misspelt ingestor is reported by `check`, at the end of a run, and by `status`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STEPS = """
from pathlib import Path
from crucible_lineage import step

@step
def table(counts: Path, *, out: Path) -> dict:
    (out / "table.csv").write_text("x,y\\\\n1,2\\\\n3,4\\\\n")
    return {}

@step
def broken(counts: Path, *, out: Path) -> dict:
    (out / "broken.png").write_text("no picture")
    return {}

@step
def weird(counts: Path, *, out: Path) -> dict:
    (out / "weird.bin").write_bytes(bytes(range(256)))
    return {}
"""
PIPELINE = """
pipeline: ingested
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z", ingestor: DelimitedTextIngester}
steps:
  misspelt: {uses: "MODULE:table", inputs: {counts: first}, output: {ingestor: JsonIngester}}
  broken: {uses: "MODULE:broken", inputs: {counts: first}, output: {ingestor: ImageIngestor}}
  weird: {uses: "MODULE:weird", inputs: {counts: first}}
  fine: {uses: "MODULE:table", inputs: {counts: misspelt}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    module = f"ingested_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(STEPS.replace("\\\\n", "\\n"))
    (tmp_path / "first.txt").write_text("1,2\n3,4\n")
    (tmp_path / "ingested.yaml").write_text(PIPELINE.replace("MODULE", module))
    return tmp_path


def test_a_misspelt_ingestor_is_found_with_a_suggestion(folder: Path, command: Callable[..., Any]) -> None:
    checked = command("check", folder / "ingested.yaml", "--data", folder / "data")
    assert checked.returncode == 2
    first, second = checked.stderr.splitlines()
    assert first.endswith(
        "ingested.yaml:5:63: Crucible has no ingestor 'DelimitedTextIngester'; did you mean 'DelimitedTextIngestor'?"
    )
    assert "ingested.yaml:7:" in second
    assert "did you mean 'JsonIngestor'?" in second
    assert not (folder / "data").exists(), "the embedded Crucible is not started"


def test_failed_ingestions_are_reported_by_run_status_and_verify(folder: Path, command: Callable[..., Any]) -> None:
    ran = command("run", folder / "ingested.yaml", "--engine", "local", "--data", folder / "data")
    assert ran.returncode == 0, ran.stderr
    notes = sorted(line.split(" ")[1] for line in ran.stderr.splitlines() if line.startswith("note: "))
    assert notes == ["broken.png", "first.txt", "table.csv"], ran.stderr
    assert "There is no ingestor JsonIngester here" in ran.stderr
    status = command("status", "--data", folder / "data")
    assert status.stderr.count("note: ") + status.stdout.count("note: ") == 3
    checked = command("verify", "--project", "lab", "--data", folder / "data")
    assert checked.returncode == 0
    assert checked.stdout.count("warning: not-ingested: ") == 3
    assert "weird.bin" not in ran.stderr + checked.stdout, "no ingestor was requested for it"
