"""Counts, sizes and times are worded in one place, so that nobody reads of 1 datasets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crucible_lineage.text.amounts import amount, size_text

ROOT = Path(__file__).parents[1]
COUNTED = re.compile(
    r"\{(?:len\(|[\w.]*\b(?:count|number|total|datasets|files|edges|nodes|hidden|failures)\b)[^{}]*\} "
    r"(?:datasets|steps|files|runs|results|rows|columns|instances|parents|children|links|findings|pipelines|projects)\b"
)


def test_one_is_singular_and_all_else_plural() -> None:
    assert [amount(count, "dataset") for count in (0, 1, 2, 2000)] == (
        ["0 datasets", "1 dataset", "2 datasets", "2,000 datasets"]
    )
    assert amount(1, "entry", "entries") == "1 entry"
    assert amount(3, "entry", "entries") == "3 entries"
    assert size_text(1) == "1 B"


@pytest.mark.parametrize("folder", ["crucible_lineage", "tasks", "flows"])
def test_no_message_words_a_count_itself(folder: str) -> None:
    """These are exempt: more than one is certain, or the code is that of a step of the demo, whose ids stay."""
    certain = (
        "== 1 else",
        "expected Raman shift",
        "MAX_FILES",
        "MOST_INPUTS",
        "len(projects)} projects",
        "len(mfids)",
        "len(datasets)} datasets; facts",
        "a folder of",
    )
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if COUNTED.search(line) and not any(word in line for word in certain)
    ]
    assert found == []
