"""Findings of `verify` are printed, counted and turned into an exit code in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import FINDINGS_SHOWN, Verification
from crucible_lineage.lineage.checks import Finding


@pytest.mark.parametrize(
    ("severities", "ok"), [((), True), (("notice", "warning"), True), (("warning", "error"), False)]
)
def test_only_an_error_is_not_ok(severities: tuple[Any, ...], ok: bool) -> None:
    findings = tuple(Finding("orphan", severity, ("a",), "alone") for severity in severities)
    assert Verification(findings, 1, 1, 0, 0, ()).ok is ok


def test_the_worst_comes_first_and_many_of_a_kind_are_counted() -> None:
    warnings = [Finding("orphan", "warning", (f"w{number}",), "alone") for number in range(FINDINGS_SHOWN + 3)]
    error = Finding("cycle", "error", ("a", "b"), "round and round", "crucible unlink a b")
    found = Verification((*warnings, error), 13, 13, 0, 0, (), name="lab")
    lines = str(found).splitlines()
    assert lines[:3] == ["error: cycle: a b", "  round and round", "  way out: crucible unlink a b"]
    assert lines[-2:] == [
        "warning: orphan: 3 more; --json lists them",
        "lab: 1 error: cycle, 13 warnings: orphan; looked at 13 datasets (13 with a record), 0 files",
    ]


def test_a_project_without_findings_says_what_was_looked_at(demo_data: Path, command: Any) -> None:
    ran = command("verify", "--project", "demo-raman", "--data", demo_data)
    assert ran.returncode == 0, ran.stdout
    assert "demo-raman: no findings; looked at" in ran.stdout
