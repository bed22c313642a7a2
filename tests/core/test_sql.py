"""SQLite files in the data folder are opened, or set aside and replaced; stored rows are verified."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.core.store import Store
from crucible_lineage.errors import StorageError
from crucible_lineage.refs import DatasetRef, FileRef

NOTES = "CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL)"
DATED = "CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL, dated TEXT)"
CALIBRATED = DatasetRef("0tr5k2ndm5zvd000nr21qakeh4", "calibrated", (FileRef("a.txt", "0" * 64, 1),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.sqlite"


def opened(path: Path, schema: str = NOTES) -> closing[LocalDatabase]:
    return closing(LocalDatabase(path, schema))


def filled(path: Path, rows: int = 1) -> None:
    with opened(path) as notes:
        notes.write_many("INSERT INTO note VALUES (?, ?)", [(str(number), "x" * 500) for number in range(rows)])


def count(path: Path) -> int:
    with opened(path) as notes:
        return int(notes.row("SELECT count(*) FROM note")[0])


def aside(path: Path) -> list[Path]:
    return [found for found in path.parent.glob(f"{path.name}.aside-*") if not found.name.endswith(("-wal", "-shm"))]


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def truncated(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(2 * 4096 + 100)


def overwritten(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(os.urandom(path.stat().st_size - 4096))


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE bookmark (url TEXT)")


def of_another_version(path: Path) -> None:
    path.unlink()
    with opened(path, DATED):
        pass


@pytest.mark.parametrize("damage", [garbage, truncated, overwritten, of_another_program, of_another_version])
def test_an_unusable_file_is_set_aside_with_one_line_and_replaced(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    filled(path, 200)
    damage(path)
    assert count(path) == 0
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    (kept,) = aside(path)
    assert line.startswith(f"{path} could not be used (")
    assert line.endswith(f"set aside as {kept.name}; a new one starts empty and is filled again")
    filled(path)
    assert (count(path), aside(path)) == (1, [kept])


def test_damage_met_during_work_is_repaired_and_the_work_repeated(path: Path) -> None:
    filled(path, 200)
    with opened(path) as notes:
        overwritten(path)
        notes.write("INSERT INTO note VALUES ('new', 'x')")
        assert notes.rows("SELECT name FROM note") == [("new",)]
    assert len(aside(path)) == 1


def test_no_write_ahead_log_is_used_on_a_network_file_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    with opened(path) as notes:
        assert notes.row("PRAGMA journal_mode") == ("wal",)
    mounts = f"server:/export {path.parent} nfs rw 0 0\n"
    monkeypatch.setattr("crucible_lineage.core.sql._mounts", lambda: mounts)
    with opened(path) as notes:
        assert notes.row("PRAGMA journal_mode") == ("truncate",)
        assert notes.row("PRAGMA synchronous") == (2,)
        notes.write("INSERT INTO note VALUES ('new', 'x')")
    assert count(path) == 2


def test_a_full_disk_is_reported_and_existing_rows_stay(path: Path) -> None:
    filled(path)
    with opened(path) as notes:
        pages = notes.row("PRAGMA page_count")[0]
        notes._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StorageError, match=r"notes\.sqlite: the disk is full; free some space"):
            notes.write_many("INSERT INTO note VALUES (?, ?)", [(f"n{number}", "x" * 4000) for number in range(50)])
        assert notes.rows("SELECT name FROM note") == [("0",)]


def test_only_the_owner_can_read_the_file_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path.parent / "data" / "notes.sqlite") as notes:
            notes.write("INSERT INTO note VALUES ('a', 'x')")
            modes = {part.name: stat.S_IMODE(part.stat().st_mode) for part in (path.parent / "data").iterdir()}
            assert stat.S_IMODE((path.parent / "data").stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["notes.sqlite", "notes.sqlite-wal", "notes.sqlite-shm"], 0o600)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "store.sqlite", "here")) as opened:
        yield opened


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "mirror.sqlite", nobody, "here")) as opened:
        yield opened


def nobody() -> CrucibleClient:
    raise AssertionError("nobody asks Crucible here")


def trusted(*datasets: DatasetRef) -> dict[str, DatasetRef]:
    return {dataset.mfid: dataset for dataset in datasets}


def test_a_trusted_dataset_is_ignored_once_a_character_has_changed(mirror: Mirror) -> None:
    mirror.trust(trusted(CALIBRATED))
    assert mirror.known(CALIBRATED.mfid) == CALIBRATED
    mirror.write("UPDATE trusted SET ref = replace(ref, '0000', '0001')")
    assert mirror.known(CALIBRATED.mfid) is None
    assert mirror.known_among([CALIBRATED.mfid]) == {}
    mirror.trust(trusted(CALIBRATED))
    assert mirror.known(CALIBRATED.mfid) == CALIBRATED


def test_a_row_that_a_damaged_index_finds_under_another_key_is_ignored(mirror: Mirror) -> None:
    other = DatasetRef("0tr5k2ndm5zvd000nr21qakeh5", "other", CALIBRATED.files)
    mirror.trust(trusted(CALIBRATED, other))
    (kept,) = mirror.row("SELECT ref FROM trusted WHERE mfid = ?", other.mfid)
    mirror.write("UPDATE trusted SET ref = ? WHERE mfid = ?", kept, CALIBRATED.mfid)
    assert (mirror.known(CALIBRATED.mfid), mirror.known(other.mfid)) == (None, other)


@pytest.mark.parametrize("seed", range(6))
def test_a_mirror_with_overwritten_bytes_never_answers_wrongly(tmp_path: Path, seed: int) -> None:
    path, dice = tmp_path / "mirror.sqlite", random.Random(seed)
    datasets = [DatasetRef(f"{number:026d}", f"data {number}", CALIBRATED.files) for number in range(200)]
    with closing(Mirror(path, nobody, "here")) as mirror:
        mirror.trust(trusted(*datasets))
        mirror.note_attempt(CALIBRATED.mfid, 3)
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 3, 40))):
        offset = dice.randrange(len(content) - 3)
        content[offset : offset + 3] = dice.randbytes(3)
    path.write_bytes(content)
    with closing(Mirror(path, nobody, "here")) as mirror:
        assert all(mirror.known(dataset.mfid) in (dataset, None) for dataset in datasets)
        assert mirror.known_among([dataset.mfid for dataset in datasets]).items() <= trusted(*datasets).items()
        mirror.trust(trusted(*datasets))
        # Where SQLite does not notice that an order is damaged, single rows are not found: these are asked for again.
        remembered = [dataset for dataset in datasets if mirror.known(dataset.mfid) == dataset]
        assert len(remembered) >= 0.9 * len(datasets)
        assert all(mirror.known(dataset.mfid) in (dataset, None) for dataset in datasets)


def test_a_damaged_stored_hash_is_computed_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1\n")
    right = store.checksums(path)
    wrong = "f" * 64
    store.write("UPDATE file_checksums SET checksums = replace(checksums, ?, ?)", right.sha256, wrong)
    assert store.checksums(path) == right


def open_at_once(paths: Sequence[Path], begin: Barrier, failures: SimpleQueue[str]) -> None:
    for path in paths:
        begin.wait()
        try:
            with opened(path):
                failures.put("")
        except StorageError as error:
            failures.put(str(error))


@pytest.mark.skipif(os.name == "nt", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # beside threads, from Python 3.12 on
def test_processes_that_open_a_new_file_at_once_all_use_it(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    paths = [tmp_path / f"new-{number}.sqlite" for number in range(60)]
    begin, failures = processes.Barrier(6), processes.SimpleQueue()
    started = [processes.Process(target=open_at_once, args=(paths, begin, failures)) for _ in range(6)]
    for process in started:
        process.start()
    assert [failures.get() for _ in paths for _ in started] == [""] * 360
    for process in started:
        process.join()
    assert [aside(path) for path in paths] == [[]] * 60
