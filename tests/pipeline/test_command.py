"""A step may be a command: split without a shell, its scripts in its identity, its failures told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.model import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.local import LocalEngine
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.scheduler import run_pipeline
from crucible_lineage.session import Session

SCRIPT = """
import json, pathlib, sys
source, factor, out = sys.argv[1:]
values = [float(line) * float(factor) for line in pathlib.Path(source).read_text().split()]
pathlib.Path(out, "scaled.txt").write_text(" ".join(map(str, values)))
pathlib.Path(out, "metadata.json").write_text(json.dumps({"sum": sum(values)}))
"""

PIPELINE = f"""
pipeline: commands
project: lab
inputs:
  first: {{file: "a file.txt", timestamp: "2024-05-01T12:00:00Z"}}
steps:
  scaled:
    run: "{sys.executable} scale.py {{inputs.counts}} {{params.factor}} {{out}}"
    inputs: {{counts: first}}
    params: {{factor: 3}}
    output: {{measurement: counting}}
"""


@pytest.fixture
def commands(lab: Any) -> Any:
    lab.file("scale.py", SCRIPT)
    lab.file("a file.txt", "1\n2\n")
    lab.declare(PIPELINE)
    return lab


def run(path: Path, session: Session) -> RunResult:
    bound = bind_file(path, session.store)
    return run_pipeline(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def test_a_command_makes_a_child_with_files_and_metadata(commands: Any, session: Session) -> None:
    result = run(commands.pipeline, session)
    assert result.executed == ["scaled"], result.errors
    mfid = result.datasets["scaled"]["out"]
    found = session.client.datasets.get(mfid, include_metadata=True)
    assert (found.measurement, (found.scientific_metadata or {})["sum"]) == ("counting", 9.0)
    assert [file.filename for file in session.client.datasets.list_files(mfid)] == ["scaled.txt"]
    assert run(commands.pipeline, session).executed == []


@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("scale.py", "import json", "import  json", "stale"),
        ("pipeline.yaml", "factor: 3", "factor: 4", "stale"),
        ("pipeline.yaml", "scale.py {inputs.counts}", "-B scale.py {inputs.counts}", "stale"),
        ("pipeline.yaml", "measurement: counting", "measurement: Counting", "fresh"),
    ],
)
def test_what_changes_the_command_or_its_script_makes_it_stale(
    commands: Any, session: Session, file: str, old: str, new: str, state: str
) -> None:
    run(commands.pipeline, session)
    path = commands.folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    (planned,) = make_plan(bind_file(commands.pipeline, session.store), session).steps
    assert planned.state == state


def test_a_file_name_stays_one_argument(commands: Any, session: Session) -> None:
    hostile = commands.file("$(touch pwned); x.txt", "1\n")
    commands.declare(PIPELINE.replace('"a file.txt"', f'"{hostile.name}"'))
    assert run(commands.pipeline, session).ok
    assert not list(session.settings.data.rglob("pwned"))


def test_a_command_that_fails_is_told_with_what_it_printed(commands: Any, session: Session) -> None:
    commands.file("scale.py", "import sys\nprint('no lamp')\nsys.exit(7)\n")
    result = run(commands.pipeline, session)
    assert "exit code 7" in result.errors["scaled"]
    assert "no lamp" in result.errors["scaled"]
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{params.factor}", "{params.facto}", "the command has {params.facto}; possible here:"),
        (" {out}", "", "the command does not use {out}"),
        (sys.executable, "no-such-program", "there is no command 'no-such-program'"),
        ("scale.py", "'scale.py", "cannot be split"),
        ("run:", "rum:", "unknown key 'rum'; did you mean 'run'?"),
        ("    inputs:", "    uses: lab:scale\n    inputs:", "one of the keys uses"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_runs(commands: Any, old: str, new: str, words: str) -> None:
    commands.declare(PIPELINE.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        bind_file(commands.pipeline)
    assert words in str(caught.value)
