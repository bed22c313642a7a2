"""Fixtures of the pipeline tests: faults of a declaration, a run on threads, the current plan."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.provenance.record import read_record
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run as run_file
from tests.serving import start_server


@pytest.fixture
def faults() -> Callable[..., list[str]]:
    """The faults of a declaration, without the name of its file."""

    def found(path: Path, overrides: Mapping[str, Any] | None = None) -> list[str]:
        with pytest.raises(InputError) as caught:
            bind_file(path, None, overrides)
        return [str(fault).removeprefix(f"{path}:") for fault in caught.value.faults]

    return found


@pytest.fixture
def run(session: Session) -> Callable[..., RunResult]:
    """A run of a declaration on threads of this process."""

    return partial(run_file, session)


@pytest.fixture
def odd(lab: Any) -> Callable[..., Path]:
    """Declares a pipeline of one step: the function `odd` with this body, and these further settings."""

    def declared(body: str, settings: str = "") -> Path:
        code = "import os, shutil, socket\nfrom pathlib import Path\n\n\ndef odd(counts: Path, *, out: Path):\n"
        lab.file(f"{lab.module}_odd.py", code + textwrap.indent(f"{body}\n", "    "))
        path: Path = lab.declare(
            f"""
            pipeline: one
            project: lab
            inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
            steps:
              odd: {{uses: "{lab.module}_odd:odd", inputs: {{counts: first}}{settings}}}
            """
        )
        return path

    return declared


@pytest.fixture
def planned(session: Session) -> Callable[..., dict[str, StepPlan]]:
    """The plan of a declaration, by instance."""

    def plan_file(path: Path, forced: tuple[str, ...] = (), as_of: str = "") -> dict[str, StepPlan]:
        steps = make_plan(bind_file(path, session.store), session, forced, as_of).steps
        return {step.name: step for step in steps}

    return plan_file


@pytest.fixture
def record_of(session: Session) -> Callable[[str], dict[str, Any]]:
    """The provenance record of a dataset."""

    def record(mfid: str) -> dict[str, Any]:
        found = read_record(session.client.datasets.get(mfid, include_metadata=True).scientific_metadata)
        assert found is not None
        return found.document()

    return record


@pytest.fixture
def text_of(session: Session) -> Callable[[str], str]:
    """The text of a dataset that has one file of data."""

    def text(mfid: str) -> str:
        (file,) = (f for f in session.client.datasets.list_files(mfid) if f.filename != "step.log")
        return session.client.files.download_bytes(file).decode()

    return text


@pytest.fixture
def cli(data: Path) -> Callable[..., Result]:
    """Runs a command in this process, on the data folder of the test's session."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments), "--data", str(data)])

    return invoke


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Session, Session]]:
    """Two machines at one service with the project `lab`."""
    with start_server(tmp_path / "service") as server:
        settings = [Settings(tmp_path / name, server.url, server.api_key) for name in ("alpha", "beta")]
        with Session(settings[0]) as alpha, Session(settings[1]) as beta:
            alpha.client.projects.create(project_id="lab", organization="lab", project_lead="local")
            yield alpha, beta
