"""A flow is stopped by a hold on its input until that is lifted, and does not rely on a result to be deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_a_task_that_is_given_what_is_on_hold_fails_before_it_runs(data: Path, tmp_path: Path, prefect: Any) -> None:
    program = Path(__file__).parent / "held_flow.py"
    ran = prefect.python(program, data, tmp_path)
    assert ran.returncode == 0, ran.stderr[-4000:]
    free, held, lifted, again = json.loads(ran.stdout.splitlines()[-1])
    assert (free, lifted, again) == (6.0, 12.0, 12.0)
    assert held.startswith("OnHoldError: blocked: MFID is on hold by ")
    assert held.endswith(": the lamp was off")
    assert "the result of total is not registered" in ran.stderr
    assert "has a request for deletion" in ran.stderr
