"""The files of a record, including its attached part, are compared with the stored ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.registration.read import other_files

RECORD: Any = SimpleNamespace(
    files=(SimpleNamespace(name="a.txt", sha256="1" * 64),),
    attached=SimpleNamespace(name="provenance.json.gz", sha256="2" * 64),
    recipe={"files": {"a.txt": "1" * 64}},
)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"a.txt": "1" * 64, "provenance.json.gz": "2" * 64}, ""),
        ({"a.txt": None, "provenance.json.gz": None}, ""),
        ({"a.txt": "1" * 64}, "its file provenance.json.gz is missing"),
        ({"a.txt": "1" * 64, "provenance.json.gz": "3" * 64}, "its file provenance.json.gz has SHA-256 333"),
        ({"provenance.json.gz": "2" * 64}, "its file a.txt is missing"),
    ],
)
def test_missing_and_different_files_are_named(stored: dict[str, str | None], expected: str) -> None:
    listed: Any = [SimpleNamespace(filename=name, sha256_hash=sha256) for name, sha256 in stored.items()]
    assert other_files(RECORD, listed)[: len(expected) or None] == expected
