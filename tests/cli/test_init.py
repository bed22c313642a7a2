"""`init` writes a pipeline that works at once: it has no faults, runs, and its test passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main


def test_the_written_pipeline_passes_check_run_and_test(tmp_path: Path, data: Path, command: Any) -> None:
    folder = tmp_path / "my lab"
    created = CliRunner().invoke(main, ["init", str(folder), "--json"])
    assert created.exit_code == 0, created.output
    assert json.loads(created.stdout)["project"] == "my-lab"
    pipeline = folder / "pipeline.yaml"
    assert CliRunner().invoke(main, ["check", str(pipeline), "--data", str(data)]).exit_code == 0
    ran = command("run", pipeline, "--data", data, "--engine", "local", "--json")
    assert json.loads(ran.stdout)["executed"] == ["mean[monday.csv]", "mean[tuesday.csv]", "table"], ran.stderr
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=folder, capture_output=True, text=True
    )
    assert "2 passed" in tested.stdout, tested.stdout


@pytest.mark.parametrize("installed", [True, False])
def test_pytest_is_recommended_only_if_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        monkeypatch.setattr("crucible_lineage.cli.start.find_spec", lambda name: None)
    created = CliRunner().invoke(main, ["init", str(tmp_path / "lab")])
    assert "next: crucible-lineage run pipeline.yaml" in created.stdout
    assert ("next: python -m pytest" in created.stdout) == installed


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mysteps.py").write_text("mine")
    refused = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert (refused.exit_code, "mysteps.py already exists" in refused.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["mysteps.py"]


def test_an_invalid_project_name_is_refused(tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["init", str(tmp_path / "lab"), "--project", "my lab"])
    assert refused.exit_code == 2
    assert "no project can be called 'my lab': a project id has 3 to 25 letters" in refused.stderr
    assert not (tmp_path / "lab").exists()
