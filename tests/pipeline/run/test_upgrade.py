"""Data folders of earlier revisions are read and verified, their results are current, and nothing is made again.

`folders/REVISION.tar.gz` holds a pipeline of three steps and the data folder in which that revision ran it, with its
embedded Crucible. Each release adds its own.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.queries.catalogue.listing import list_datasets
from crucible_lineage.queries.verify.verify import verify_project
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

FOLDERS = Path(__file__).with_name("folders")
IDS = {
    "scaled": {"out": "0shj5v00026yvbb3wqmqmfrgbr"},
    "total": {"out": "0shj5zp0024n514frjs7xa7ybw"},
    "listed": {"out": "0shj5v00025ad565m33sa0ntm8"},
}


@pytest.fixture(params=sorted(path.name.partition(".")[0] for path in FOLDERS.iterdir()))
def folder(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with tarfile.open(FOLDERS / f"{request.param}.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    before = list(sys.path)
    yield tmp_path
    sys.modules.pop("counting_steps", None)
    sys.path[:] = before


def run(folder: Path, session: Session) -> RunResult:
    bound = bind_file(folder / "pipeline.yaml", session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def test_nothing_is_made_again_and_all_results_are_current(folder: Path) -> None:
    with Session(Settings(folder / "data")) as session:
        result = run(folder, session)
        assert (result.ok, result.executed, result.datasets) == (True, [], IDS), result.errors
        states = [entry.state for entry in list_datasets(session, "lab").entries]
        assert sorted(states) == ["current"] * 3 + ["raw"] * 2
        verified = verify_project(session, "lab", read_bytes=True)
        assert not verified.findings, verified.findings


def test_changed_results_take_the_slots_of_older_ones(folder: Path) -> None:
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("factor: 3", "factor: 4"))
    with Session(Settings(folder / "data")) as session:
        result = run(folder, session)
        assert sorted(result.executed) == ["scaled", "total"], result.errors
        listed = list_datasets(session, "lab", every=True).entries
        states = {entry.mfid: entry.state for entry in listed}
        assert [states[IDS[step]["out"]] for step in ("scaled", "total", "listed")] == [
            "superseded",
            "superseded",
            "current",
        ]
