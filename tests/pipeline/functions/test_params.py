"""Parameters are converted to the function's annotations; a secret reaches only the function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

MODULE = """
import hashlib
from datetime import datetime
from enum import Enum
from pathlib import Path

from pydantic import SecretStr

from crucible_lineage import step


class Mode(Enum):
    FAST = "fast"


@step
def typed(counts: Path, *, mode: Mode, since: datetime, where: Path = Path("a/b"), out: Path) -> dict:
    (out / "x.txt").write_text(f"{mode!r} {since.year} {where.name}")


@step(secrets=["password"])
def secretive(counts: Path, *, token: SecretStr, password: str = "", out: Path) -> dict:
    both = token.get_secret_value() + password
    assert hashlib.sha256(both.encode()).hexdigest().startswith("615c3738535ed444")
    (out / "x.txt").write_text("logged in")
    return {"n": 1}
"""


def declare(lab: Any, step: str) -> Path:
    module = f"{lab.module}_params"
    lab.file(f"{module}.py", MODULE)
    path: Path = lab.declare(
        f"""
        pipeline: params
        project: lab
        inputs:
          first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
        steps:
          made: {{uses: "{module}:{step}, inputs: {{counts: first}}}}
        """
    )
    return path


def test_what_calls_in_a_flow_are_about_and_the_slots_that_they_fill() -> None:
    run_examples(Path(__file__).with_name("calls.txt"))


def test_parameters_are_converted_to_the_annotations_of_the_function(lab: Any, run: Any, session: Session) -> None:
    path = declare(lab, 'typed", params: {mode: fast, since: "2024-05-01T00:00:00Z"}')
    result = run(path)
    assert result.ok, result.errors
    (file,) = session.client.datasets.list_files(result.datasets["made"]["out"])
    assert session.client.files.download_bytes(file) == b"<Mode.FAST: 'fast'> 2024 b"


def test_a_secret_of_the_wrong_type_is_not_repeated_in_the_error(lab: Any) -> None:
    path = declare(lab, 'secretive", params: {token: [hush-hush]}')
    with pytest.raises(Exception, match="parameter 'token'") as caught:
        bind_file(path)
    assert "hush" not in str(caught.value)
