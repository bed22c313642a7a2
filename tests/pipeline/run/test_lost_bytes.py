"""A result whose bytes Crucible has lost is made again once that is known, and keeps its id if they agree."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.queries.catalogue.files import fetch_many
from crucible_lineage.queries.verify.verify import verify_dataset
from crucible_lineage.session import Session

RANDOM = '''"""A step that gives other bytes each time."""
import os
from pathlib import Path
from crucible_lineage import step

@step
def noise(part: Path, *, out: Path) -> dict:
    (out / "noise.txt").write_bytes(os.urandom(16))
    return {}
'''


def run(session: Session, path: Path) -> RunResult:
    bound = bind_file(path, session.store, {})
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def lose(session: Session, mfid: str) -> str:
    """Remove the bytes of a dataset's file at Crucible and in the cache; return its name."""
    (file,) = session.client.files.list(mfid)
    sha256 = str(file.sha256_hash)
    (session.settings.data / "crucible" / "contents" / sha256[:2] / sha256[2:]).unlink()
    shutil.rmtree(session.settings.data / "cache", ignore_errors=True)
    return file.filename


def content(session: Session, mfid: str, folder: Path) -> bytes:
    folder.mkdir()
    ((path,),) = [one.files for one in fetch_many(session, {mfid: folder})]
    return path.read_bytes()


def met_by_get(session: Session, mfid: str, folder: Path) -> None:
    folder.mkdir()
    (fetched,) = fetch_many(session, {mfid: folder})
    assert fetched.absent


def met_by_verify(session: Session, mfid: str, folder: Path) -> None:
    assert verify_dataset(session, mfid, read_bytes=True).findings


@pytest.mark.parametrize("met", [met_by_get, met_by_verify])
def test_a_known_loss_makes_the_step_run_again_and_the_result_keeps_its_id(
    lab: Any, session: Session, tmp_path: Path, met: Any
) -> None:
    first = run(session, lab.pipeline)
    scaled = first.datasets["scaled"]["out"]
    before = content(session, scaled, tmp_path / "before")
    name = lose(session, scaled)
    assert run(session, lab.pipeline).executed == [], "nobody has noticed"
    met(session, scaled, tmp_path / "met")

    plan = {step.name: step for step in make_plan(bind_file(lab.pipeline, session.store, {}), session).steps}
    assert plan["scaled"].causes == (f"Crucible has lost the bytes of its file {name}",)
    again = run(session, lab.pipeline)

    assert again.errors == {}
    assert (again.executed, again.datasets) == (["scaled"], first.datasets)
    assert content(session, scaled, tmp_path / "after") == before
    assert run(session, lab.pipeline).executed == []


def test_a_step_that_needs_lost_bytes_fails_once_and_the_next_run_makes_them(lab: Any, session: Session) -> None:
    scaled = run(session, lab.pipeline).datasets["scaled"]["out"]
    lose(session, scaled)
    source = (lab.folder / f"{lab.module}.py").read_text()
    lab.file(f"{lab.module}_2.py", source.replace('"both added"', '"both were added"'))
    other = lab.declare(lab.pipeline.read_text().replace(f"{lab.module}:add", f"{lab.module}_2:add"))
    assert "total" in run(session, other).errors
    healed = run(session, other)
    assert healed.errors == {}
    assert sorted(healed.executed) == ["scaled", "total"]


def test_other_bytes_are_not_put_under_the_old_id(lab: Any, session: Session, tmp_path: Path) -> None:
    lab.file(f"{lab.module}_noise.py", RANDOM)
    path = lab.declare(
        "pipeline: noise\nproject: lab\ninputs: {first: {file: first.txt, ingest: false}}\n"
        "steps: {noise: {uses: 'LABMODULE_noise:noise', inputs: {part: first}, output: {ingest: false}}}\n"
    )
    noise = run(session, path).datasets["noise"]["out"]
    lose(session, noise)
    met_by_get(session, noise, tmp_path / "met")

    again = run(session, path)

    assert not again.ok
    assert f"Crucible has lost the bytes of noise.txt of dataset {noise}" in again.errors["noise"]
    assert "--force noise" in again.errors["noise"]


def test_bytes_that_have_returned_are_not_made_again(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    session.mirror.note_lost(first.datasets["scaled"]["out"], "scaled.txt")
    assert run(session, lab.pipeline).executed == []
    assert session.mirror.all_lost() == frozenset()
