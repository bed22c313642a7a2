"""What a registering flow returns, says, and leaves at Crucible and Prefect, whether it ends well or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.golden.stored import compare
from tests.tasks.told import told

HERE = Path(__file__).parent


def test_what_flows_leave_behind_is_what_it_was(tmp_path: Path, prefect: Any) -> None:
    storage = str(tmp_path / "cached")
    ran = prefect.python(HERE / "contract_cases.py", tmp_path / "data", tmp_path, PREFECT_LOCAL_STORAGE_PATH=storage)
    assert ran.returncode == 0, ran.stderr[-4000:]
    returned = json.dumps(json.loads(ran.stdout.splitlines()[-1]), indent=1)
    compare("tasks/contract.txt", returned + told(tmp_path / "data", tmp_path, ran.stderr, prefect))
