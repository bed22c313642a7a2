"""The folders in which steps are executed: nothing of an attempt is there for the next one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from crucible_lineage.core.folders import attempt_folder, is_in_use

INPUTS = ("inputs/raw/1", "inputs/raw/2", "inputs/dark/1")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[Path]:
    with FileLock(tmp_path / "turn.lock"):
        yield tmp_path / "turn.lock"


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


EMPTY = ["inputs", "inputs/dark", "inputs/dark/1", "inputs/raw", "inputs/raw/1", "inputs/raw/2"]


def test_whatever_an_attempt_leaves_the_next_one_finds_its_empty_folders_only(work: Path, turn: Path) -> None:
    rng, elsewhere = random.Random(7), work.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    for number in range(50):
        with attempt_folder(work, "step", INPUTS, turn) as folder:
            assert (tree(folder), is_in_use(folder)) == (EMPTY, True)
            for _ in range(rng.randrange(6)):
                places = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
                path = rng.choice(places) / rng.choice(["a", "out", "1", "raw"])
                match rng.randrange(6):
                    case 0 if not path.exists():
                        path.mkdir()
                    case 1 if not path.exists() and not path.is_symlink():
                        path.symlink_to(elsewhere)
                    case 2 if path.is_dir() and not path.is_symlink() and path.name != "a":
                        path.rename(folder / f"moved-{rng.randrange(10**9)}")
                    case 3 if path.is_dir() and not path.is_symlink():
                        path.chmod(0o500)
                    case _ if not path.is_dir():
                        path.write_text(str(number))
    assert (elsewhere / "kept").read_text() == "kept"
    assert list(work.iterdir()) == []


def test_a_failed_attempt_stays_as_it_is(work: Path, turn: Path) -> None:
    def fail() -> None:
        with attempt_folder(work, "step", INPUTS, turn) as folder:
            (folder / "step.log").write_text("what it printed")
            raise RuntimeError(folder)

    with pytest.raises(RuntimeError) as failed:
        fail()
    folder = failed.value.args[0]
    with attempt_folder(work, "step", INPUTS, turn):
        pass
    assert list(work.iterdir()) == [folder]
    assert "step.log" in tree(folder)
