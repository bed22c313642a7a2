"""Whichever answer of Crucible a task of the API does not get, it does what it does otherwise, and nothing twice.

Every third answer is lost by day, each of them by night.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crucible_lineage.tasks import API_TASKS
from tests.nights import NIGHTLY
from tests.serving import start_server

PROGRAM = Path(__file__).with_name("losing_answers.py")


def test_no_answer_is_missed(data: Path, tmp_path: Path, prefect: Any) -> None:
    with start_server(data / "crucible") as server:
        ran = prefect.python(PROGRAM, data, server.url, server.api_key, tmp_path / "files", 1 if NIGHTLY else 3)
    assert ran.returncode == 0, ran.stderr[-4000:]
    answers: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert {name: answer for name, answer in answers.items() if answer["differing"]} == {}
    assert set(answers) == set(API_TASKS)
    assert sum(answer["requests"] for answer in answers.values()) > 80, "of these"
