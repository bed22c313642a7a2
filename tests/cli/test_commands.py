"""Commands report results and errors; exit codes distinguish bad input (2) from failure (1)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


def test_bad_input_ends_with_code_2_and_an_error_with_its_position(lab: Any, data: Path, command: Any) -> None:
    text = lab.pipeline.read_text().replace("factor: 3", "facto: 3")
    lab.declare(text)
    ran = command("run", lab.pipeline, "--data", data)
    assert ran.returncode == 2
    assert f"error: {lab.pipeline}:11:14: " in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert not (data / "crucible" / "files").exists()
    absent = command("run", data / "absent.yaml", "--data", data)
    assert (absent.returncode, "there is no file " in absent.stderr) == (2, True)


def test_the_suggested_command_uses_the_same_crucible(lab: Any, data: Path, command: Any) -> None:
    ran = command("run", lab.pipeline, "--data", data, "--engine", "local")
    (line,) = (line for line in ran.stdout.splitlines() if line.startswith("see it: crucible-lineage "))
    shown = command(*shlex.split(line)[3:])
    assert (shown.returncode, "total" in shown.stdout) == (0, True), shown.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_does_not_import_prefect(command: Any, arguments: list[str]) -> None:
    ran = command(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert ran.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "crucible_lineage" in imported
    assert not {"prefect", "starlette", "httpx"} & imported


def test_a_fresh_run_starts_no_server_and_loads_nothing_that_only_makes_or_delivers(
    demo_data: Path, command: Any
) -> None:
    ran = command("run", "deployments/pipelines/raman.yaml", "--data", demo_data, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "3 reused" in ran.stdout
    assert not {"prefect", "starlette", "uvicorn", "scipy"} & imported
    assert "crucible_lineage.pipeline.run.run" in imported
    making = {"materialize", "calling", "delivering", "keeping"}
    assert not {f"crucible_lineage.pipeline.job.{name}" for name in making} & imported


def test_an_unreachable_address_is_reported(lab: Any, data: Path, command: Any) -> None:
    away = ("--url", "http://127.0.0.1:9/api/v3", "--api-key", "secret-key")
    ran = command("run", lab.pipeline, "--data", data, *away, CRUCIBLE_LINEAGE_RETRIES="1")
    assert ran.returncode == 3
    assert "127.0.0.1:9" in ran.stderr
    assert "secret-key" not in ran.stderr + ran.stdout


def test_the_project_of_the_pipelines_in_a_folder_need_not_be_named(
    lab: Any, data: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.folder)
    assert command("run", lab.pipeline, "--data", data, "--engine", "local").returncode == 0
    with Session(Settings(data)) as session:
        session.ensure_project("second")

    def output_of(*words: object, code: int = 0) -> str:
        ran = command(*words, "--data", data)
        assert ran.returncode == code, ran.stderr
        return str(ran.stdout + ran.stderr)

    assert "total" in output_of("list")
    assert "total" in output_of("lineage")
    output_of("verify")
    output_of("rerun", "--stale", "--dry-run")
    (lab.folder / "third.txt").write_text("3\n")
    output_of("register", "third.txt")
    assert "third.txt" in output_of("list", "--project", "lab")
    (lab.folder / "other.yaml").write_text(lab.pipeline.read_text().replace("project: lab", "project: second"))
    assert "this key can see 2 projects; name one with --project: lab, second" in output_of("list", code=2)
    assert "no pipeline in this folder names a project; give --project" in output_of("register", "third.txt", code=2)


def test_check_and_run_refuse_an_invalid_project(lab: Any, data: Path, command: Any) -> None:
    lab.declare(lab.pipeline.read_text().replace("project: lab", "project: ab"))
    for arguments in (("check", lab.pipeline), ("run", lab.pipeline, "--engine", "local")):
        ran = command(*arguments, "--data", data)
        assert ran.returncode == 2
        assert "no project can be called 'ab': a project id has 3 to 25 letters" in ran.stderr
    for listing in ("status", "runs"):
        assert "could not start" in command(listing, "--data", data).stdout
