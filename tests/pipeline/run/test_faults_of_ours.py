"""The traceback of an unexpected error goes to a file that the message names; the other steps continue."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.cli.run import error_lines
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.engines.local import with_retries
from crucible_lineage.registration import deliver
from crucible_lineage.session import Session


def test_an_unexpected_error_of_a_registration_names_the_file_with_its_traceback(
    lab: Any, session: Session, run: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("CRUCIBLE_API_KEY", "hush-hush")
    register = deliver.register_output

    def faulty(client: Any, new: Any, *rest: Any, **more: Any) -> Any:
        if "scaled" in new.name:
            raise KeyError("nobody thought of this, nor of hush-hush")
        return register(client, new, *rest, **more)

    monkeypatch.setattr(deliver, "register_output", faulty)
    other = f"  other: {{uses: '{lab.module}:scale', inputs: {{counts: second}}, params: {{factor: 2}}}}\n"
    result = run(lab.declare(lab.pipeline.read_text() + other))
    assert (result.outcomes["scaled"], result.outcomes["other"]) == ("failed", "executed")
    error = result.errors["scaled"]
    assert error.startswith(
        "made, and not registered: KeyError: 'nobody thought of this, nor of ***'; this is a fault of crucible-lineage"
    )
    (path,) = re.findall(r"its traceback is in (\S+)", error)
    assert result.logs["scaled"] == path
    trace = Path(path).read_text()
    assert "in faulty" in trace
    assert "hush-hush" not in trace
    assert Path(path).parent == session.settings.data / "logs"
    assert Path(path).stat().st_mode & 0o077 == 0
    assert "in faulty" not in "\n".join(error_lines(result, verbose=False))
    assert "in faulty" in "\n".join(error_lines(result, verbose=True))


def test_a_command_reports_an_unexpected_error_in_one_line(data: Path, command: Any, tmp_path: Path) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import crucible_lineage.core.journal as journal\n"
        "def fault(*_): raise RuntimeError('nobody thought of this')\n"
        "journal.Journal.recent_runs = fault\n"
    )
    ran = command("status", "--data", data, PYTHONPATH=str(tmp_path))
    assert ran.returncode == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: RuntimeError: nobody thought of this; this is a fault of crucible-lineage")
    (path,) = re.findall(r"its traceback is in (\S+)", line)
    assert "in fault" in Path(path).read_text()


@pytest.mark.parametrize(("error", "attempts"), [(OSError("stale file handle"), 2), (InputError("no such file"), 1)])
def test_a_step_is_tried_again_unless_that_cannot_help_whatever_runs_it(error: Exception, attempts: int) -> None:
    tried = []

    def make() -> Any:
        tried.append(len(tried))
        raise error

    job: Any = SimpleNamespace(spec=StepSpec(run="true", retries=1))
    with pytest.raises(type(error)):
        with_retries(job, make)
    assert len(tried) == attempts
