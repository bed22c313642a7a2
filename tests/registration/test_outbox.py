"""The outbox: payloads are complete, for every process, until they are delivered."""

from __future__ import annotations

import os
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from crucible_lineage.core.journal import Journal
from crucible_lineage.machine.checksums import require_unchanged, scan_file
from crucible_lineage.provenance.environment import agent
from crucible_lineage.provenance.recipe import raw_mfid, raw_recipe
from crucible_lineage.provenance.record import files_record
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import COPIED_BYTES, LocalFile, NewDataset
from crucible_lineage.text.times import utc

AGENT = agent({"unique_id": "0000-0000-0000-0001", "username": "local", "is_service_account": False})


def dataset(folder: Path, name: str = "a.txt", content: bytes = b"1\n", parents: tuple[str, ...] = ()) -> NewDataset:
    path = folder / name
    path.write_bytes(content)
    checksums = scan_file(path)
    file = LocalFile(path, FileRef(name, checksums.sha256, checksums.size), checksums)
    recipe = raw_recipe("lab", [file.ref])
    mfid = raw_mfid(recipe, utc("2024-05-01T12:00:00Z"))
    return NewDataset(
        mfid=mfid,
        fields={"project_id": "lab", "dataset_name": name},
        record=files_record(recipe, [file.ref], AGENT),
        metadata={"n": 1},
        files=(file,),
        keywords=("k",),
        parents=parents,
    )


def outbox_of(data: Path, service: str = "https://x.test", account: str = "a", *, durable: bool = False) -> Outbox:
    """Open the outbox as another process does; its journal is closed when it is forgotten."""
    journal = Journal(data / "journal.sqlite", service, lambda: account)
    outbox = Outbox(data, journal, durable=durable)
    weakref.finalize(outbox, journal.close)
    return outbox


@pytest.fixture
def outbox(data: Path) -> Outbox:
    data.mkdir()
    return outbox_of(data, durable=True)


@pytest.mark.parametrize("size", [2, COPIED_BYTES + 1])
def test_every_process_finds_a_payload_with_its_bytes(outbox: Outbox, data: Path, tmp_path: Path, size: int) -> None:
    new = dataset(tmp_path, content=b"x" * size)
    outbox.put("s", "lab", [new])
    (tmp_path / "a.txt").unlink()
    assert outbox_of(data).file(new.mfid, new.files[0].ref.sha256) is not None, "whatever is asked first"
    other = outbox_of(data)
    (found,) = map(other.opened, other.all())
    assert found is not None
    (again,) = found.datasets
    (file,) = again.files
    assert file.path.read_bytes() == b"x" * size
    assert scan_file(file.path) == file.checksums == new.files[0].checksums
    assert (again.mfid, again.fields, again.metadata, again.keywords) == (new.mfid, new.fields, new.metadata, ("k",))
    assert again.record.document() == new.record.document()
    assert outbox_of(data, "https://y.test").all() == [], "it is for another service"


@pytest.mark.parametrize("damage", ["cut", "no json", "gone"])
def test_incomplete_payloads_are_set_aside(outbox: Outbox, data: Path, tmp_path: Path, damage: str) -> None:
    new = dataset(tmp_path)
    made = outbox.put("s", "lab", [new])
    path = made.folder / ("result.json" if damage in ("no json",) else new.files[0].ref.sha256)
    path.chmod(0o600)
    if damage == "gone":
        path.unlink()
    else:
        path.write_text({"cut": "1", "no json": "{"}[damage])
    fresh = outbox_of(data)
    assert fresh.all() == []
    assert fresh.find(new.mfid) is None
    assert [path.name[:7] for path in outbox.folder.iterdir()] == [".aside-"]


def test_drafts_of_dead_processes_are_ignored(outbox: Outbox, data: Path, tmp_path: Path) -> None:
    new = dataset(tmp_path)
    made = outbox.put("s", "lab", [new])
    made.folder.rename(made.folder.with_name(f".{made.name}-0123"))
    assert outbox_of(data).all() == []


@pytest.mark.parametrize("size", [2, COPIED_BYTES + 1])
@pytest.mark.parametrize("again", [False, True])
def test_files_with_equal_bytes_share_one_copy_whatever_their_age(
    outbox: Outbox, data: Path, tmp_path: Path, size: int, again: bool
) -> None:
    news = []
    for number, name in enumerate(("a.txt", "b.txt", "c.txt")):
        new = dataset(tmp_path, name, b"x" * size)
        os.utime(tmp_path / name, ns=(number, number * 10**9))
        checksums = scan_file(tmp_path / name)
        news.append(replace(new, files=(replace(new.files[0], checksums=checksums),)))
    new_dataset = replace(news[0], files=tuple(file for new in news for file in new.files))
    put = outbox.put("s", "lab", [new_dataset])
    other = outbox_of(data)
    (made,) = map(other.opened, other.all()) if again else [put]
    assert made is not None
    for file in made.datasets[0].files:
        require_unchanged(file.path, file.checksums)
