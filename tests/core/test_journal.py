"""The journal, the mirror's rows and the folders of data: examples, and no wrong answer from a damaged journal."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from crucible_lineage.core.journal import MADE, Journal, ResultRow
from tests.golden.stored import run_examples


@pytest.mark.parametrize("examples", sorted(Path(__file__).parent.glob("*.txt")), ids=lambda path: path.stem)
def test_the_examples_hold(examples: Path) -> None:
    run_examples(examples)


@pytest.mark.parametrize("seed", range(6))
def test_a_journal_with_overwritten_bytes_never_names_a_wrong_dataset(tmp_path: Path, seed: int) -> None:
    path, dice = tmp_path / "journal.sqlite", random.Random(seed)
    names = [f"{number:026d}" for number in range(120)]
    with closing(Journal(path, "here", lambda: "")) as journal:
        journal.begin_run("r", "p", "lab", Path("p.yaml"))
        journal.note_present("r", "reused", {f"s{name}": {"out": name} for name in names[:60]})
        for name in names[60:]:
            journal.note_made(ResultRow("r", "a", "lab", f"s{name}", name, {"out": name}, MADE, "2026-11-27"))
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 3, 40))):
        offset = dice.randrange(len(content) - 3)
        content[offset : offset + 3] = dice.randbytes(3)
    path.write_bytes(content)
    with closing(Journal(path, "here", lambda: "")) as journal:
        assert journal.datasets("lab") <= set(names)
        assert {mfid for row in journal.waiting() for mfid in row.outputs.values()} <= set(names)
        journal.recent_runs("lab", 5), journal.pipelines()
