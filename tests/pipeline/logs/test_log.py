"""The output of a command is stored with its result or failure; files written beside its folder are reported."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.errors import StepError
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.job.worker import call_command
from crucible_lineage.pipeline.logs import LOG_LIMIT_BYTES, StepLog
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

Run = Callable[..., RunResult]

TALK = """
import os, pathlib, sys
source, out = map(pathlib.Path, sys.argv[1:])
print("read", source.name, flush=True)
print("no lamp", file=sys.stderr)
(out / "copy.txt").write_text(source.read_text())
"""
QUIET = TALK.replace("print(", "max(").replace(", flush=True", "").replace(", file=sys.stderr", "")
FAIL = "import sys\nprint('the lamp is off')\nsys.exit(3)\n"

PIPELINE = f"""
pipeline: talking
project: lab
inputs:
  first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
steps:
  talked:
    run: ["{sys.executable}", talk.py, "{{inputs.counts}}", "{{out}}"]
    inputs: {{counts: first}}
  quiet:
    run: ["{sys.executable}", quiet.py, "{{inputs.counts}}", "{{out}}"]
    inputs: {{counts: talked}}
  broken:
    run: ["{sys.executable}", fail.py, "{{inputs.counts}}", "{{out}}"]
    inputs: {{counts: quiet}}
"""


@pytest.fixture
def talking(lab: Any) -> Any:
    for name, text in {"talk.py": TALK, "quiet.py": QUIET, "fail.py": FAIL}.items():
        lab.file(name, text)
    lab.declare(PIPELINE)
    return lab


def test_the_output_of_a_command_is_a_file_of_its_child_and_not_data_for_the_next_step(
    talking: Any, session: Session, run: Run, record_of: Any
) -> None:
    result = run(talking.pipeline)
    assert result.executed == ["talked", "quiet"], result.errors
    files = {file.filename: file for file in session.client.datasets.list_files(result.datasets["talked"]["out"])}
    assert set(files) == {"copy.txt", "step.log"}
    text = session.client.files.download_bytes(files["step.log"]).decode()
    assert sorted(text.split("\n")) == ["", "no lamp", "read first.txt"]
    used = record_of(result.datasets["quiet"]["out"])["used"]
    assert [file["name"] for file in used[0]["files"]] == ["copy.txt"]
    generated = record_of(result.datasets["talked"]["out"])["generated"]
    assert [file.get("log", False) for file in generated] == [False, True]
    quiet = session.client.datasets.list_files(result.datasets["quiet"]["out"])
    assert [file.filename for file in quiet] == ["copy.txt"], "a log that is empty is no file"

    log = Path(result.logs["broken"])
    assert log.read_text() == "the lamp is off\n"
    assert f"exit code 3; its output is in {log}: the lamp is off" in result.errors["broken"]
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 3


DEEP = """
import json
from pathlib import Path


def read(counts):
    return json.loads(counts.read_text() + "no JSON")


def deep(counts: Path, *, out: Path):
    read(counts)
"""


@pytest.mark.parametrize("more", ["", ", timeout: 60"], ids=["in this process", "in a process of its own"])
def test_a_failed_function_leaves_its_traceback_and_its_line_is_named(
    lab: Any, session: Session, run: Run, more: str
) -> None:
    lab.file(f"{lab.module}_deep.py", DEEP)
    head = PIPELINE.partition("  talked:")[0]
    result = run(lab.declare(f"{head}  deep: {{uses: {lab.module}_deep:deep, inputs: {{counts: first}}{more}}}\n"))
    log = Path(result.logs["deep"])
    message = f"JSONDecodeError: Extra data: line 2 column 1 (char 2), at {lab.module}_deep.py:7"
    assert result.errors["deep"] == f"step 'deep' failed: {message}; the traceback is in {log}"
    lines = log.read_text().splitlines()
    assert [line.strip() for line in lines if line.strip().startswith(("read(", "return json"))] == [
        "read(counts)",
        'return json.loads(counts.read_text() + "no JSON")',
    ]
    assert "in deep" in lines[1], "it starts at the step, and not at what called it"


def command(name: str, spec: StepSpec) -> Any:
    """The parts of a job that a command needs."""
    inspection = SimpleNamespace(params={})
    return SimpleNamespace(name=name, spec=spec, inspection=inspection, variables=(), run_id="")


def asked(folder: Path) -> dict[str, Any]:
    return {"inputs": {}, "outputs": {"out": folder / "out"}, "facts": None}


def call(folder: Path, code: str, **env: str) -> dict[str, Any]:
    """What the command left; its folder is laid out as that of a step."""
    (folder / "out").mkdir(parents=True)
    job = command("odd", StepSpec(run=(sys.executable, "-c", code, "{out}"), env=env, folder=folder, timeout=60))
    with closing(StepLog(folder / "step.log")) as log:
        left: dict[str, Any] = call_command(job, asked(folder), folder, log).result
    return left


def test_what_is_kept_of_output_and_faults() -> None:
    run_examples(Path(__file__).with_name("logs.txt"))


def test_the_environment_of_a_command_has_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRUCIBLE_API_KEY", "PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY", "LAB_MODE"):
        monkeypatch.setenv(name, "hush")
    code = "import json, os, sys; open(sys.argv[1] + '/metadata.json', 'w').write(json.dumps(dict(os.environ)))"
    seen = call(tmp_path / "step", code, LAB_MODE="fast")
    assert seen["LAB_MODE"] == "fast"
    assert seen["PATH"] == os.environ["PATH"]
    assert "hush" not in seen.values()


def test_the_log_of_an_endless_output_has_its_beginning_and_end(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("1")
    code = "import sys; print('first'); [sys.stdout.write('x' * 400_000) for _ in range(4)]; print('last')"
    with closing(StepLog(tmp_path / "step.log")) as log:
        spec = StepSpec(run=(sys.executable, "-c", code), folder=tmp_path, timeout=120)
        call_command(command("loud", spec), asked(tmp_path), tmp_path, log)
    text = log.path.read_bytes()
    assert len(text) < 2 * LOG_LIMIT_BYTES
    assert text.startswith(b"first")
    assert text.rstrip().endswith(b"last")
    (left_out,) = re.findall(rb"\[\.\.\. (\d+) bytes are left out here \.\.\.\]", text)
    marker = len(b"\n[... " + left_out + b" bytes are left out here ...]\n")
    assert int(left_out) + len(text) - marker == 1_600_000 + len("first\nlast\n")


def test_files_that_a_command_writes_beside_its_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"wrote stray\.txt beside \{out\} instead of into it"):
        call(tmp_path / "step", "open('stray.txt', 'w').write('1')")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import os, sys; os.symlink('/etc/hostname', sys.argv[2] + '/h.txt')",
            "left a link 'h.txt' where its files go",
        ),
        ("import sys; open(sys.argv[2] + '/step.log', 'w').write('1')", "wrote step.log, which is a reserved name"),
        ("import sys; open(sys.argv[2] + '/metadata.json', 'w').write('[1]')", "that is not a JSON object"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9; the system may have run out of memory; it printed"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="links and signals are POSIX")
def test_an_invalid_result_is_reported_with_the_reason_and_nothing_is_registered(
    lab: Any, session: Session, run: Run, code: str, words: str
) -> None:
    lab.file("odd.py", code)
    odd = PIPELINE.partition("  talked:")[0]
    command = f'["{sys.executable}", odd.py, "{{inputs.counts}}", "{{out}}"]'
    odd += f"  odd:\n    run: {command}\n    inputs: {{counts: first}}\n"
    result = run(lab.declare(odd))
    assert words in result.errors["odd"]
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 1, "only the input"


def test_a_variable_of_a_command_is_part_of_its_identity(talking: Any, run: Run, planned: Any, record_of: Any) -> None:
    text = PIPELINE.partition("  quiet:")[0]
    first = run(talking.declare(text))
    assert run(talking.declare(text.replace("    inputs:", "    env: {}\n    inputs:"))).executed == []
    talking.declare(text.replace("    inputs:", '    env: {MODE: fast, ALONG: "a b"}\n    inputs:'))
    (step,) = planned(talking.pipeline).values()
    assert (step.state, step.supersedes) == ("stale", first.datasets["talked"])
    made = run(talking.pipeline).datasets["talked"]["out"]
    assert record_of(made)["activity"]["function"].startswith("run: MODE=fast 'ALONG=a b' ")
