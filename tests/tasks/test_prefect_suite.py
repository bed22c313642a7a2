"""Prefect's own tests of tasks and flows pass within `registering` as they pass without.

They are in Prefect's repository alone: PREFECT_REPOSITORY names a folder with its `tests` of the installed version, and
their requirements (pytest-asyncio, pytest-env, respx, opentelemetry-test-utils) have to be installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.nights import by_night

REPOSITORY = os.environ.get("PREFECT_REPOSITORY", "")
FILES = [f"tests/test_{name}.py" for name in ("tasks", "flows", "task_engine", "flow_engine")]
PLUGIN = Path(__file__).with_name("suite")


@by_night("takes an hour")
@pytest.mark.skipif(not REPOSITORY, reason="PREFECT_REPOSITORY names no folder with Prefect's own tests")
@pytest.mark.timeout(4 * 3600)
def test_tests_that_pass_plain_pass_within_registering(tmp_path: Path) -> None:
    plain = _passed(tmp_path / "plain.xml")
    within = _passed(tmp_path / "within.xml", CRUCIBLE_LINEAGE_DATA=str(tmp_path / "data"))
    assert len(plain) > 1000
    assert sorted(plain - within) == []


def _passed(report: Path, **environment: str) -> set[str]:
    """Run the tests, and return the names of those that pass."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), known.get("PATH", "")])
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "2", "--timeout", "900", "-p", "no:cacheprovider"),
            *("-p", "within_registering", f"--junitxml={report}", *FILES),
        ],
        cwd=REPOSITORY,
        env={**known, "PYTHONPATH": str(PLUGIN), "PATH": path, **environment},
        check=False,
    )
    cases = ET.parse(report).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}" for case in cases if len(case) == 0}
