"""The folders in which steps are executed: nothing of an attempt is there for the next one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from crucible_lineage.core.folders import MOST_EMPTY, Attempts, is_in_use

INPUTS = ("inputs/raw/1", "inputs/raw/2", "inputs/dark/1")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def attempts(work: Path) -> Iterator[Attempts]:
    found = Attempts(work)
    yield found
    found.close()


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[Path]:
    with FileLock(tmp_path / "turn.lock"):
        yield tmp_path / "turn.lock"


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


EMPTY = ["inputs", "inputs/dark", "inputs/dark/1", "inputs/raw", "inputs/raw/1", "inputs/raw/2"]


def test_whatever_an_attempt_leaves_the_next_one_finds_its_empty_folders_only(
    work: Path, attempts: Attempts, turn: Path
) -> None:
    rng, elsewhere = random.Random(7), work.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    for number in range(200):
        with attempts.folder("step", INPUTS, turn) as folder:
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
    attempts.close()
    assert list(work.iterdir()) == []


def test_an_emptied_folder_serves_only_an_attempt_with_the_same_subfolders(attempts: Attempts, turn: Path) -> None:
    with attempts.folder("a", INPUTS, turn) as first:
        number = first.stat().st_ino
    with attempts.folder("b", INPUTS[:1], turn) as other:
        assert tree(other) == ["inputs", "inputs/raw", "inputs/raw/1"]
    with attempts.folder("c", INPUTS, turn) as again:
        assert (again.stat().st_ino, again.name[:2], first.exists()) == (number, "c-", False)


def test_a_failed_attempt_stays_as_it_is(work: Path, attempts: Attempts, turn: Path) -> None:
    def fail() -> None:
        with attempts.folder("step", INPUTS, turn) as folder:
            (folder / "step.log").write_text("what it printed")
            raise RuntimeError(folder)

    with pytest.raises(RuntimeError) as failed:
        fail()
    folder = failed.value.args[0]
    with attempts.folder("step", INPUTS, turn):
        pass
    attempts.close()
    assert list(work.iterdir()) == [folder]
    assert "step.log" in tree(folder)


def test_what_another_process_has_tidied_up_is_made_again(attempts: Attempts, turn: Path) -> None:
    with attempts.folder("a", INPUTS, turn) as folder:
        pass
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()
    with attempts.folder("b", INPUTS, turn) as folder:
        assert tree(folder) == EMPTY


def test_no_more_than_some_empty_folders_are_kept(work: Path, attempts: Attempts, turn: Path) -> None:
    for number in range(MOST_EMPTY + 5):
        with attempts.folder("a", [f"inputs/raw/{number}"], turn):
            pass
    assert len(list(work.iterdir())) == MOST_EMPTY
