"""Many at once, and over a bad line: at the end there is one record per recipe, whole, and nothing else."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from crucible_lineage.errors import CrucibleError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import NIGHTLY
from tests.runs import run
from tests.serving import start_server

PROCESSES = 8 if NIGHTLY else 4
SEEDS = range(int(os.environ.get("CRASH_SEEDS", "2")))


def undisturbed(lab: Any, folder: Path, state_of: Any) -> dict[str, Any]:
    with Session(Settings(folder)) as session:
        assert run(session, lab.pipeline).ok
        state: dict[str, Any] = state_of(session)
        return state


def test_processes_that_start_at_the_same_moment_make_everything_once(
    lab: Any, tmp_path: Path, state_of: Any, begin: Any
) -> None:
    wanted = undisturbed(lab, tmp_path / "calm", state_of)
    with start_server(tmp_path / "service") as server:
        with Session(Settings(tmp_path / "first", server.url, server.api_key)) as session:
            session.client.projects.create(project_id="lab", organization="x", project_lead="local")
        there = {"CRUCIBLE_API_URL": server.url, "CRUCIBLE_API_KEY": server.api_key}
        processes = [
            begin("run", lab.pipeline, "--engine", "local", stderr=subprocess.PIPE, environment={**there, **here})
            for number in range(PROCESSES)  # half share a data folder, half have one of their own
            for here in [{"CRUCIBLE_LINEAGE_DATA": str(tmp_path / f"machine-{max(number, PROCESSES // 2 - 1)}")}]
        ]
        ended = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
        assert [code for _, code in ended] == [0] * PROCESSES, [text for text, code in ended if code]
        with Session(Settings(tmp_path / "first", server.url, server.api_key)) as session:
            assert state_of(session) == wanted


def test_over_a_line_that_loses_answers_it_ends_as_undisturbed(
    lab: Any, tmp_path: Path, state_of: Any, misbehaving: Any
) -> None:
    wanted = undisturbed(lab, tmp_path / "calm", state_of)
    for seed in SEEDS:
        with start_server(tmp_path / f"service-{seed}") as server:
            with Session(Settings(tmp_path / "direct", server.url, server.api_key)) as session:
                session.client.projects.create(project_id="lab", organization="x", project_lead="local")
            proxy = misbehaving(server.url, seed)
            ok = False
            for attempt in range(20):
                with Session(Settings(tmp_path / f"machine-{seed}-{attempt}", proxy.url, server.api_key)) as session:
                    with suppress(CrucibleError):  # what a person does then: run it again
                        ok = run(session, lab.pipeline).ok
                if ok:
                    break
            assert ok, "after 20 runs it should have gone through"
            assert proxy.faults > 0
            with Session(Settings(tmp_path / "direct", server.url, server.api_key)) as session:
                assert state_of(session) == wanted, f"seed {seed}"
