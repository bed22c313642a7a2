"""The cache keeps files by their hash, within its size, and gives out none that is not what its name says."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.core import folders as file_cache
from crucible_lineage.core.folders import FileCache
from crucible_lineage.errors import FileChangedError, StorageError
from crucible_lineage.machine.checksums import scan_file


def put(cache: FileCache, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    cache.get(sha256, written(content))
    return sha256


def written(content: bytes) -> Callable[[Path], str]:
    def fetch(target: Path) -> str:
        target.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    return fetch


def unasked(target: Path) -> str:
    pytest.fail("it is there")


def age(cache: FileCache, sha256: str, seconds: int) -> None:
    os.utime(cache.path(sha256), (seconds, seconds))


def test_the_file_that_just_came_stays_though_it_looks_older_than_all_others(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit_bytes=2500)
    newer = [put(cache, bytes([kind]) * 1000) for kind in b"ab"]
    for name in newer:
        age(cache, name, 4_000_000_000)
    old = tmp_path / "old"
    old.write_bytes(b"c" * 1000)
    os.utime(old, (1000, 1000))  # a step may have copied it with its times
    checksums = scan_file(old)
    assert cache.take(old, checksums).read_bytes() == b"c" * 1000
    assert sum(cache.path(name).exists() for name in newer) == 1


def test_what_a_step_works_with_stays(tmp_path: Path) -> None:
    cache, given = FileCache(tmp_path / "cache", limit_bytes=1500), tmp_path / "work" / "input.txt"
    used = put(cache, b"a" * 1000)
    cache.copy_to(used, given, unasked)
    age(cache, used, 1000)
    put(cache, b"b" * 1000)
    put(cache, b"c" * 1000)
    assert not cache.path(used).exists()
    assert given.read_bytes() == b"a" * 1000


def test_a_file_that_is_taken_is_moved_and_not_read_again(tmp_path: Path) -> None:
    cache, made = FileCache(tmp_path / "cache"), tmp_path / "out.txt"
    made.write_text("bands")
    checksums, inode = scan_file(made), made.stat().st_ino
    taken = cache.take(made, checksums)
    assert (taken.read_text(), taken.stat().st_ino, made.exists()) == ("bands", inode, False)
    assert not os.access(taken, os.W_OK) or os.geteuid() == 0


def test_a_file_that_was_written_to_since_it_was_read_is_not_taken(tmp_path: Path) -> None:
    cache, made = FileCache(tmp_path / "cache"), tmp_path / "out.txt"
    made.write_text("bands")
    checksums = scan_file(made)
    made.write_text("other bands")
    with pytest.raises(FileChangedError):
        cache.take(made, checksums)
    assert made.exists()


def damaged(cache: FileCache, sha256: str, content: bytes) -> None:
    """As by a bad disk, or a process that writes where it should not: size and time of modification may be the same."""
    path, before = cache.path(sha256), cache.path(sha256).stat()
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("content", [b"bAnds", b""])
@pytest.mark.parametrize("same_process", [True, False])
def test_a_damaged_file_is_never_given_out(tmp_path: Path, content: bytes, same_process: bool) -> None:
    cache, given = FileCache(tmp_path / "cache"), tmp_path / "input.txt"
    name = put(cache, b"bands")
    damaged(cache, name, content)
    if not same_process:
        cache = FileCache(tmp_path / "cache")
    assert cache.is_damaged(name)
    assert cache.copy_to(name, given, written(b"bands"))
    assert (given.read_bytes(), cache.path(name).read_bytes()) == (b"bands", b"bands")
    damaged(cache, name, content)
    assert cache.get(name, written(b"bands")).read_bytes() == b"bands"
    damaged(cache, name, content)
    assert (cache.holds(name), cache.path(name).exists()) == (False, False)


def test_a_file_that_is_hashed_once_is_not_read_again_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileCache(tmp_path / "cache")
    name = put(cache, b"bands")
    read = []
    monkeypatch.setattr(file_cache, "file_sha256", lambda path: read.append(path) or name)
    for number in range(3):
        cache.copy_to(name, tmp_path / f"{number}.txt", unasked)
        cache.get(name, unasked)
    assert read == []
    other = FileCache(tmp_path / "cache")  # another process knows nothing of that
    for number in range(3, 6):
        other.copy_to(name, tmp_path / f"{number}.txt", unasked)
    assert read == [tmp_path / "3.txt"], "and reads what the step is given, not what it was copied from"


def test_what_a_step_is_given_shares_nothing_with_the_cache(tmp_path: Path) -> None:
    cache, given = FileCache(tmp_path / "cache"), tmp_path / "input.txt"
    name = put(cache, b"bands")
    cache.copy_to(name, given, unasked)
    given.chmod(0o600)
    given.write_bytes(b"others")
    cache.copy_to(name, tmp_path / "next.txt", unasked)
    assert (tmp_path / "next.txt").read_bytes() == b"bands"


@pytest.mark.parametrize("mapped", [False, True])
def test_what_a_step_still_writes_into_is_copied_and_not_moved(tmp_path: Path, mapped: bool) -> None:
    cache, made = FileCache(tmp_path / "cache"), tmp_path / "out.txt"
    made.write_bytes(b"bands")
    checksums = scan_file(made)
    with made.open("r+b") as stream:
        memory = mmap.mmap(stream.fileno(), 5) if mapped else None
        taken = cache.take(made, checksums)
        if memory:
            memory[0:1] = b"l"
            memory.close()
        else:
            stream.write(b"l")
            stream.flush()
    assert taken.read_bytes() == b"bands"


def test_where_the_system_copies_nothing_it_is_done_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileCache(tmp_path / "cache")
    name = put(cache, b"bands" * 1000)
    for answer in (lambda *_: 0, raising(OSError(errno.EXDEV, "not here"))):
        monkeypatch.setattr(os, "copy_file_range", answer, raising=False)
        cache.copy_to(name, tmp_path / "given.txt", unasked)
        assert (tmp_path / "given.txt").read_bytes() == b"bands" * 1000


def raising(error: Exception) -> Callable[..., int]:
    def answer(*_: object) -> int:
        raise error

    return answer


def test_bytes_are_on_the_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, made = FileCache(tmp_path / "cache"), tmp_path / "out.txt"
    flushed: set[int] = set()
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino) or really(handle))
    made.write_text("bands")
    taken = cache.take(made, scan_file(made))
    name = put(cache, b"others")
    for path in (taken, cache.path(name)):
        assert {path.stat().st_ino, path.parent.stat().st_ino} <= flushed


def test_a_full_disk_is_told_and_nothing_half_is_kept(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache")
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        cache.get("0" * 64, raising(OSError(errno.ENOSPC, "No space left on device")))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_large_file_that_the_embedded_crucible_stores_is_stored_once(
    tmp_path: Path, data: Path, command: Callable[..., Any]
) -> None:
    measured, bytes_of = tmp_path / "scan.bin", 40 << 20
    content = os.urandom(1 << 20) * 40
    measured.write_bytes(content)
    made = command("register", measured, "--project", "lab", "--data", data, "--json")
    assert made.returncode == 0, made.stderr
    mfid = json.loads(made.stdout)["mfid"]
    inodes = {path.stat().st_ino: path.stat().st_size for path in data.rglob("*") if path.is_file()}
    assert bytes_of < sum(inodes.values()) < 1.05 * bytes_of
    shown = json.loads(command("status", "--data", data, "--json").stdout)["disk"]
    assert (shown["cache"], shown["crucible"] > bytes_of, shown["records"] < 1 << 20) == (0, True, True)

    with measured.open("r+b") as file:  # as its owner may
        file.write(b"#" * (1 << 20))
    back = command("get", mfid, "-o", tmp_path / "back", "--data", data)
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "scan.bin").read_bytes() == content
    assert command("verify", mfid, "--bytes", "--data", data).returncode == 0
    (kept,) = [path for path in (data / "cache").glob("??/*") if path.stat().st_size == bytes_of]
    assert kept.stat().st_mode & 0o222 == 0, "nobody writes into what is shared"
