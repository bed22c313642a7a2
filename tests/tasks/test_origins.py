"""Origins by content: bytes that two calls returned have none."""

from __future__ import annotations

from pathlib import Path

from crucible_lineage.refs import DatasetRef
from crucible_lineage.tasks.origins import LEAST_BYTES, Origin, Origins


def test_bytes_with_two_origins_have_none_here_or_in_another_process(tmp_path: Path) -> None:
    origins, other_process = Origins(tmp_path), Origins(tmp_path)
    dark, flat = (Origin(DatasetRef(name, name, ()), (), name) for name in ("dark", "flat"))
    for digest in ("both", "one"):
        origins.note_content(digest, LEAST_BYTES, dark)
    assert origins.of_content("both") == dark
    origins.note_content("both", LEAST_BYTES, flat)
    origins.share()
    assert [known.of_content(digest) for known in (origins, other_process) for digest in ("both", "one")] == [
        None, dark, None, dark,
    ]  # fmt: skip
