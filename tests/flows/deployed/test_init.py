"""`init --prefect` writes a working prefect.yaml: deployed by Prefect's own command, run by a worker."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from crucible_lineage.cli import main


def test_what_it_writes_is_deployed_and_run(
    tmp_path: Path, prefect: Any, pool: str, worker: None, eventually: Any, monkeypatch: Any
) -> None:
    folder = tmp_path / f"lab-{abs(hash(tmp_path)) % 10**6}"
    begun = CliRunner().invoke(main, ["init", str(folder), "--prefect"])
    assert begun.exit_code == 0, begun.output
    assert "next: prefect deploy --all" in begun.output
    written = folder / "prefect.yaml"
    written.write_text(written.read_text().replace("name: crucible\n", f"name: {pool}\n"))
    prefect.command("deploy", "--all", cwd=folder)
    (deployment,) = prefect.deployments(folder.name)
    assert [entry["schedule"]["cron"] for entry in deployment["schedules"]] == ["0 2 * * *"]
    run = prefect.post(f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]

    def state() -> Any:
        (found,) = prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return found["state"] if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    ended = eventually(state, 180)
    assert "3 executed" in ended["message"], ended


def test_a_pipeline_that_is_there_gets_its_own(lab: Any) -> None:
    begun = CliRunner().invoke(main, ["init", str(lab.folder), "--prefect"])
    assert begun.exit_code == 0, begun.output
    assert "counting" in (lab.folder / "prefect.yaml").read_text()
    assert "project:lab" in (lab.folder / "prefect.yaml").read_text()
    assert not (lab.folder / "mysteps.py").exists()
    shutil.rmtree(lab.folder / "__pycache__", ignore_errors=True)
    assert CliRunner().invoke(main, ["init", str(lab.folder), "--prefect"]).exit_code == 2
