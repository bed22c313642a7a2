"""Files that a step writes outside of its folder are reported, and are not part of the result."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.processes.child import watching_files
from crucible_lineage.pipeline.run.result import RunResult

STEPS = """
import tempfile
from pathlib import Path

from crucible_lineage import step


@step
def stray(counts: Path, *, folder: str, out: Path) -> dict:
    with tempfile.NamedTemporaryFile() as scratch:
        scratch.write(b"1")
    (Path(folder) / "stray.txt").write_text(counts.read_text())
    (out / "made.txt").write_text("1")
    return {}


@step
def lost(counts: Path, *, folder: str, out: Path) -> None:
    (Path(folder) / "lost.txt").write_text(counts.read_text())
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not one for temporary files, as those of tests otherwise are."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def declare(lab: Any, elsewhere: Path) -> Callable[[str, str], Path]:
    """A pipeline of one step of STEPS, with more lines for it."""
    lab.file(f"{lab.module}_stray.py", STEPS)

    def declared(step: str, more: str = "") -> Path:
        head = lab.pipeline.read_text().partition("  second:")[0]
        uses = f"uses: {lab.module}_stray:{step}, inputs: {{counts: first}}, params: {{folder: {elsewhere}}}"
        return Path(lab.declare(f"{head}steps:\n  {step}: {{{uses}{more}}}\n"))

    return declared


@pytest.mark.parametrize("more", ["", ", timeout: 60"], ids=["in this process", "in a process of its own"])
def test_a_run_reports_files_written_outside_of_the_folder(
    declare: Any, elsewhere: Path, run: Callable[..., RunResult], more: str
) -> None:
    result = run(declare("stray", more))
    assert result.ok, result.errors
    assert result.notes == {
        "stray": f"it wrote {elsewhere / 'stray.txt'}, outside of its folder; that is not part of its result"
    }


def test_the_error_of_a_step_that_wrote_only_elsewhere_names_the_file(
    declare: Any, elsewhere: Path, run: Callable[..., RunResult]
) -> None:
    result = run(declare("lost"))
    assert f"wrote nothing into 'out'; it wrote {elsewhere / 'lost.txt'}, outside" in result.errors["lost"]


def test_files_read_elsewhere_and_removed_files_are_not_listed(elsewhere: Path) -> None:
    (elsewhere / "read.txt").write_text("1")
    with watching_files(elsewhere / "out") as (written, _):
        (elsewhere / "read.txt").read_text()
        (elsewhere / "gone.txt").write_text("1")
        (elsewhere / "gone.txt").unlink()
        (elsewhere / "kept.txt").write_text("1")
        (elsewhere / "draft").write_text("1")
        (elsewhere / "draft").rename(elsewhere / "named.txt")
    (elsewhere / "later.txt").write_text("1")
    assert written == [elsewhere / "kept.txt", elsewhere / "named.txt"]
