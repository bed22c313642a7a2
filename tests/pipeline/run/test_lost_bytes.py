"""A result whose bytes Crucible has lost is an error that says what can be done about it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from crucible_lineage.cli.get import fetch_many
from crucible_lineage.session import Session
from tests.runs import run


def test_a_step_that_needs_lost_bytes_fails_and_names_the_ways_out(lab: Any, session: Session, tmp_path: Path) -> None:
    scaled = run(session, lab.pipeline).datasets["scaled"]["out"]
    (file,) = session.client.files.list(scaled)
    sha256 = str(file.sha256_hash)
    (session.settings.data / "crucible" / "contents" / sha256[:2] / sha256[2:]).unlink()
    shutil.rmtree(session.settings.data / "cache", ignore_errors=True)
    source = (lab.folder / f"{lab.module}.py").read_text()
    lab.file(f"{lab.module}_2.py", source.replace('"both added"', '"both were added"'))
    other = lab.declare(lab.pipeline.read_text().replace(f"{lab.module}:add", f"{lab.module}_2:add"))
    (fetched,) = fetch_many(session, {scaled: tmp_path})

    for error in (run(session, other).errors["total"], fetched.absent[file.filename]):
        assert f"crucible-lineage reproduce {scaled} --restore" in error
