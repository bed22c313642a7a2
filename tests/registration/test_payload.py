"""A payload is verified by its hashes: a copy is as good as the original, one changed bit makes it invalid."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from crucible_lineage.core.folders import leftovers
from crucible_lineage.core.journal import FAILED, MADE
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import Payload
from tests.registration.test_outbox import dataset, outbox_of


@pytest.fixture
def payload(data: Path, tmp_path: Path) -> Payload:
    data.mkdir()
    new = dataset(tmp_path)
    return outbox_of(data).put("fit", "lab", [new], "run-1")


def states(outbox: Outbox) -> list[tuple[str, str]]:
    rows = outbox.journal.rows("SELECT step, state FROM result ORDER BY id")
    return [(step, state) for step, state in rows]


def test_a_copied_folder_with_other_times_is_valid(data: Path, payload: Payload, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy, copy_function=shutil.copy)
    for path in copy.rglob("*"):
        os.utime(path, ns=(1, 1))
    outbox = outbox_of(copy)
    (found,) = outbox.all()
    whole = outbox.checked(found)
    assert whole is not None
    assert whole.datasets[0].files[0].checksums.mtime_ns == 1
    assert outbox.set_aside() == []


@pytest.mark.parametrize("where", ["metadata", "seal", "file"])
def test_a_payload_with_a_changed_byte_is_set_aside_until_it_is_freed(data: Path, payload: Payload, where: str) -> None:
    if where == "file":
        path = payload.datasets[0].files[0].path
        state = path.stat()
        path.write_bytes(b"2\n")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        path = payload.folder / "result.json"
        before, after = (b'"n": 1', b'"n": 3') if where == "metadata" else (b'{"sha256": "', b'{"sha256": "0')
        content = path.read_bytes()
        changed = content.replace(before, after, 1)
        path.write_bytes(changed if where == "metadata" else changed[:77] + changed[78:])
        assert path.read_bytes() != content
    outbox = outbox_of(data)
    found = outbox.all()
    assert [outbox.checked(one) for one in found] == ([None] if where == "file" else [])
    assert outbox.all(again=True) == []
    (aside,) = outbox.set_aside()
    assert (aside.name, aside.step, aside.project) == (payload.name, "fit", "lab")
    assert aside.folder.is_dir()
    assert states(outbox) == [("fit", FAILED)]
    for path in (*aside.folder.iterdir(), aside.folder):
        os.utime(path, (1, 1))
    assert leftovers(data) == []
    assert not outbox.free("0" * 26)
    assert outbox.free(payload.name)
    assert outbox.set_aside() == []


def test_results_of_another_account_are_neither_seen_nor_delivered(data: Path, payload: Payload) -> None:
    other = outbox_of(data, account="b")
    assert (other.all(), other.find(payload.name), other.waiting()) == ([], None, [])
    (row,) = other.journal.waiting(of_others=True)
    assert (row.name, row.account) == (payload.name, "a")
    assert [one.name for one in outbox_of(data, account="a").all()] == [payload.name]


def test_lost_rows_are_restored_from_the_folders(data: Path, payload: Payload) -> None:
    for path in data.glob("journal.sqlite*"):
        path.unlink()
    outbox = outbox_of(data)
    (waiting,) = outbox.waiting()
    assert (waiting.mfids, waiting.step, waiting.project, waiting.run) == ((payload.name,), "fit", "lab", "run-1")
    assert waiting.made == payload.made


def test_a_row_whose_payload_was_removed_fails_with_that_reason(data: Path, payload: Payload) -> None:
    shutil.rmtree(payload.folder)
    outbox = outbox_of(data)
    assert outbox.waiting() == []
    (row,) = outbox.journal.rows("SELECT state, error FROM result")
    assert row[0] == FAILED
    assert "removed from the outbox" in row[1]


def test_a_result_made_twice_waits_once(data: Path, payload: Payload, tmp_path: Path) -> None:
    new = dataset(tmp_path)
    outbox = outbox_of(data)
    outbox.put("fit", "lab", [new], "run-2")
    assert [one.run for one in outbox.all(again=True)] == ["run-2"]
    other = outbox_of(data)
    assert [row.state for row in other.journal.waiting()] == [MADE]
