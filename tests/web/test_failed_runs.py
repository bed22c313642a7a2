"""The pages show that a run failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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


def shown(serving: Any, data: Path) -> tuple[str, str]:
    import httpx

    with serving(data) as (printed, key), httpx.Client(base_url=printed["pages"].rstrip("/"), timeout=60) as browser:
        site = printed["pages"].rstrip("/")
        assert browser.post("/sign-in", data={"key": key}, headers={"Origin": site}).status_code == 303
        page = browser.get("/projects/lab/runs")
        (link,) = re.findall(r'href="(/projects/lab/runs/[^"]+)"', page.text)
        return page.text, browser.get(link).text


def test_a_failed_run_is_failed_on_its_page(serving: Any, failed: Path) -> None:
    for page in shown(serving, failed):
        assert '<span class="state bad">failed</span>' in page
        assert "complete</span>" not in page
        assert re.search(r"2 executed, 1 failed|1 failed, 2 executed", page)
