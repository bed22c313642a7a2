"""The pages show that a run failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

FAILING = """
  broken:
    uses: LABMODULE:fail
    inputs: {counts: scaled}
"""


@pytest.fixture
def failed(lab: Any, data: Path, command: Any) -> Path:
    """Make a data folder in which a run made two results and failed once."""
    pipeline = lab.declare((lab.folder / "pipeline.yaml").read_text() + FAILING)
    ran = command("run", pipeline, "--data", data, "--engine", "local")
    assert ran.returncode == 1, ran.stderr
    return data


def test_a_failed_run_is_failed_on_the_page_of_runs(serving: Any, failed: Path) -> None:
    with serving(failed) as (printed, key), httpx.Client(base_url=printed["pages"].rstrip("/"), timeout=60) as browser:
        site = printed["pages"].rstrip("/")
        assert browser.post("/sign-in", data={"key": key}, headers={"Origin": site}).status_code == 303
        page = browser.get("/projects/lab/runs").text
        (link,) = re.findall(r'href="(/projects/lab\?run=[^"]+)"', page)
        assert "2 datasets of run" in browser.get(link).text
    assert '<span class="state bad">failed</span>' in page
    assert "complete</span>" not in page
    assert re.search(r"2 executed, 1 failed|1 failed, 2 executed", page)
