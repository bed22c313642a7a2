"""Findings of `verify` are printed, counted and turned into an exit code in the same way."""

from __future__ import annotations

from crucible_lineage.ask.verify import FINDINGS_SHOWN, Verification
from crucible_lineage.lineage.checks import Finding


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
