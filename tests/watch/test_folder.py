"""A folder that an instrument writes into: each file is registered once, when it has stopped growing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.errors import InputError, UnreachableError
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.watch import Arrival, Folder
from crucible_lineage.session import Session


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watcher(inbox: Path, session: Session, clock: Clock) -> Callable[[], Folder]:
    """Return a function that makes a new watcher of the folder, as after a restart."""
    declared = FileInput(file=("*.txt",), measurement="counting", data_type="raw", keywords=("from-inbox",))
    return lambda: Folder(inbox, "*.txt", "lab", declared, session, settle_s=10, clock=clock)


def names(arrivals: Any) -> list[str]:
    found: list[Arrival] = list(arrivals)
    assert all(arrival.dataset for arrival in found), found
    return [arrival.path.name for arrival in found]


def settle(folder: Folder, clock: Clock) -> None:
    """See the files of a folder, and let the time pass after which they have arrived."""
    list(folder.poll())
    clock.now += 11


def datasets(session: Session) -> list[Any]:
    if session.client.projects.find("lab") is None:
        return []
    return session.client.datasets.list(project_id="lab", limit=None)


def test_a_growing_file_is_registered_when_it_has_settled(
    inbox: Path, watcher: Any, session: Session, clock: Clock
) -> None:
    folder, scan = watcher(), inbox / "scan.txt"
    for part in range(3):
        with scan.open("a") as growing:
            growing.write(f"{part}\n")
        assert names(folder.poll()) == []
        assert folder.waiting == 1
        clock.now += 9
    assert names(folder.poll()) == []
    clock.now += 2
    assert names(folder.poll()) == ["scan.txt"]
    assert (folder.waiting, names(folder.poll())) == (0, [])
    (dataset,) = datasets(session)
    assert (dataset.dataset_name, dataset.measurement, dataset.data_type) == ("scan.txt", "counting", "raw")
    (file,) = session.client.datasets.list_files(dataset.unique_id)
    assert file.size == 6
    assert [keyword.keyword for keyword in session.client.datasets.get_keywords(dataset.unique_id)] == ["from-inbox"]


def test_after_a_restart_or_without_marks_a_file_is_the_same_dataset(
    inbox: Path, watcher: Any, session: Session, clock: Clock
) -> None:
    (inbox / "scan.txt").write_text("1\n")
    first = watcher()
    list(first.poll())
    restarted = watcher()  # before the file had settled
    assert names(restarted.poll()) == []
    clock.now += 11
    assert names(restarted.poll()) == ["scan.txt"]
    assert names(watcher().poll()) == []
    session.store.write("DELETE FROM mark")
    forgetful = watcher()
    settle(forgetful, clock)
    assert names(forgetful.poll()) == ["scan.txt"]
    assert names(first.poll()) == []
    assert len(datasets(session)) == 1


def test_the_same_bytes_are_one_dataset_and_changed_bytes_another(
    inbox: Path, watcher: Any, session: Session, clock: Clock
) -> None:
    scan = inbox / "scan.txt"
    scan.write_text("1\n")
    folder = watcher()
    for text in ("1\n", "1\n2\n"):
        scan.write_text(text)
        os.utime(scan, (1_700_000_000, 1_700_000_000 + len(text)))
        settle(folder, clock)
        assert names(folder.poll()) == ["scan.txt"]
    os.utime(scan, (1_800_000_000, 1_800_000_000))
    settle(folder, clock)
    assert names(folder.poll()) == ["scan.txt"]
    assert len(datasets(session)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems report writers differently, or not at all")
def test_a_file_that_is_open_for_writing_is_waited_for(inbox: Path, watcher: Any, clock: Clock) -> None:
    folder, scan = watcher(), inbox / "scan.txt"
    with scan.open("w") as slow:
        slow.write("1\n")
        slow.flush()
        list(folder.poll())
        clock.now += 60
        assert names(folder.poll()) == []
    assert names(folder.poll()) == ["scan.txt"]


def test_a_file_that_cannot_be_registered_is_reported_once_and_stops_no_other(
    inbox: Path, watcher: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    from crucible_lineage.pipeline import watch as arrivals

    really = arrivals.register_raw
    fails: dict[str, Exception] = {"a.txt": InputError("no such instrument"), "b.txt": UnreachableError("no answer")}

    def register(raw: Any, declared: Any, name: str, opened: Session) -> Any:
        if name in fails:
            raise fails[name]
        return really(raw, declared, name, opened)

    monkeypatch.setattr(arrivals, "register_raw", register)
    for name in ("a.txt", "b.txt", "c.txt"):
        (inbox / name).write_text(name)
    folder = watcher()
    settle(folder, clock)
    faulty, away, good = folder.poll()
    expected = "no such instrument; it will be tried again when it has changed, or at the next start"
    assert (faulty.dataset, faulty.error) == (None, expected)
    assert away.error == "no answer; it will be tried again"
    assert good.dataset is not None
    del fails["b.txt"]
    assert names(folder.poll()) == ["b.txt"], "a service that was away is tried again, a faulty file is not"
    assert len(datasets(session)) == 2
    fails.clear()
    restarted = watcher()
    settle(restarted, clock)
    assert names(restarted.poll()) == ["a.txt"], "the instrument may exist at the next start"


def test_an_interrupted_registration_is_completed(
    inbox: Path, watcher: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    """The bytes are there already, by which the dataset is found."""
    from crucible_lineage.registration import register as registering

    def lose(*arguments: Any) -> Any:
        raise UnreachableError("no answer")

    (inbox / "scan.txt").write_text("1\n")
    folder = watcher()
    settle(folder, clock)
    with monkeypatch.context() as broken:
        broken.setattr(registering, "complete", lose)
        (arrival,) = folder.poll()
    assert arrival.error == "no answer; it will be tried again"
    (half,) = datasets(session)
    assert names(folder.poll()) == ["scan.txt"]
    (complete,) = datasets(session)
    assert complete.unique_id == half.unique_id
    assert verify_project(session, "lab").findings == ()


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_odd_files_are_registered_or_refused_by_name(
    inbox: Path, watcher: Any, clock: Clock, session: Session, tmp_path: Path
) -> None:
    """A name that is not UTF-8, one of 244 bytes, an empty file, links out of the folder and within it."""
    (tmp_path / "key.txt").write_text("secret")
    raw_name = os.fsencode(inbox) + b"/caf\xe9.txt"
    Path(os.fsdecode(raw_name)).write_text("1\n")
    long_name = "n" * 240 + ".txt"
    (inbox / long_name).write_text("2\n")
    (inbox / "empty.txt").touch()
    (inbox / "out.txt").symlink_to(tmp_path / "key.txt")
    (inbox / "within.txt").symlink_to(long_name)
    folder = watcher()
    settle(folder, clock)
    found = {os.fsencode(one.path.name): one for one in folder.poll()}
    assert "is empty" in found[b"empty.txt"].error
    assert "a link out of" in found[b"out.txt"].error
    escaped = found[b"caf\xe9.txt"].dataset
    assert [file.name for file in escaped.files] == ["caf%E9.txt"]
    stored = session.client.datasets.get(escaped.mfid, include_metadata=True).scientific_metadata
    assert bytes.fromhex(stored["file_name_bytes"]["caf%E9.txt"]) == b"caf\xe9.txt"
    assert found[long_name.encode()].dataset
    assert found[b"within.txt"].dataset
    settle(folder, clock)
    assert list(folder.poll()) == [], "each is reported once"
    assert verify_project(session, "lab", read_bytes=True).findings == ()
    again = watcher()  # a new start
    settle(again, clock)
    assert {one.path.name for one in again.poll()} == {"empty.txt", "out.txt"}, "only what is not registered"


@pytest.mark.skipif(sys.platform == "win32", reason="no file can be called so there")
def test_looking_once_ends_with_code_1_if_a_file_could_not_be_registered(inbox: Path, data: Path, command: Any) -> None:
    (inbox / "a\\b.txt").write_text("1\n")
    watch = ["watch", "--data", data, "--project", "lab", "--folder", inbox, "--once", "--no-events", "--settle", "0"]
    refused = command(*watch)
    assert (refused.returncode, "has a line break, tab, backslash or control sign" in refused.stderr) == (1, True), (
        refused.stderr
    )
    (inbox / "a\\b.txt").rename(inbox / "ab.txt")
    repaired = command(*watch)
    assert (repaired.returncode, repaired.stdout.count("registered ")) == (0, 1), repaired.stderr
