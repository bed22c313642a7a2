"""Commands as steps: split without a shell, with scripts in their identity, and their failures reported."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.rerun import plan_rerun
from crucible_lineage.pipeline.run.run import plan_and_run
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


def test_a_command_makes_a_child_with_files_and_metadata(commands: Any, run: Any, session: Session) -> None:
    result = run(commands.pipeline)
    assert result.executed == ["scaled"], result.errors
    mfid = result.datasets["scaled"]["out"]
    found = session.client.datasets.get(mfid, include_metadata=True)
    assert (found.measurement, (found.scientific_metadata or {})["sum"]) == ("counting", 9.0)
    assert [file.filename for file in session.client.datasets.list_files(mfid)] == ["scaled.txt"]
    assert run(commands.pipeline).executed == []


@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("scale.py", "import json", "import  json", "stale"),
        ("pipeline.yaml", "factor: 3", "factor: 4", "stale"),
        ("pipeline.yaml", "scale.py {inputs.counts}", "-B scale.py {inputs.counts}", "stale"),
        ("pipeline.yaml", "measurement: counting", "measurement: Counting", "fresh"),
    ],
)
def test_a_change_of_the_command_or_its_script_makes_the_step_stale(
    commands: Any, run: Any, session: Session, file: str, old: str, new: str, state: str
) -> None:
    run(commands.pipeline)
    path = commands.folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    (planned,) = make_plan(bind_file(commands.pipeline, session.store), session).steps
    assert planned.state == state


def test_a_file_name_stays_one_argument(commands: Any, run: Any, session: Session) -> None:
    hostile = commands.file("$(touch pwned); x.txt", "1\n")
    commands.declare(PIPELINE.replace('"a file.txt"', f'"{hostile.name}"'))
    assert run(commands.pipeline).ok
    assert not list(session.settings.data.rglob("pwned"))


SHELL = """
pipeline: commands
project: lab
inputs:
  first: {file: "a file.txt", timestamp: "2024-05-01T12:00:00Z"}
steps:
  top:
    run: [sh, -c, 'sort -rn "$1" | head -$2 > "$3/top"', sh, "{inputs.counts}", "{params.lines}", "{out}"]
    inputs: {counts: first}
    params: {lines: 1}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_a_line_for_a_shell_is_run_again_as_one(lab: Any, run: Any, session: Session) -> None:
    lab.file("a file.txt", "1\n3\n2\n")
    made = run(lab.declare(SHELL)).datasets["top"]["out"]
    again = plan_rerun(made, session, lab.folder, {"lines": 2})
    engine = lambda: LocalEngine(session, 1)  # noqa: E731
    result = plan_and_run(again.pipeline, session, engine, lambda event: None, again.choice, planned=again.planned)
    (outputs,) = result.datasets.values()
    (top,) = (f for f in session.client.datasets.list_files(outputs["out"]) if f.filename == "top")
    assert session.client.files.download_bytes(top) == b"3\n2\n"
