"""The cache keeps files by their hash, within its size, and gives out none that is not what its name says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crucible_lineage.checksums import scan_file
from crucible_lineage.errors import ChecksumError, FileChangedError, InputError
from crucible_lineage.hashing import stamp
from crucible_lineage.local.file_cache import FileCache, limit_from_environment


def put(cache: FileCache, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    cache.get(sha256, written(content))
    return sha256


def written(content: bytes) -> Callable[[Path], str]:
    def fetch(target: Path) -> str:
        target.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    return fetch


def age(cache: FileCache, sha256: str, seconds: int) -> None:
    os.utime(cache.path(sha256), (seconds, seconds))


def test_what_was_not_used_for_longest_goes_when_there_is_no_room(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, limit_bytes=2500)
    first, second = put(cache, b"a" * 1000), put(cache, b"b" * 1000)
    age(cache, first, 1000)
    age(cache, second, 2000)
    cache.get(first, lambda target: pytest.fail("it is there"))  # used now
    third = put(cache, b"c" * 1000)
    assert [cache.path(name).exists() for name in (first, second, third)] == [True, False, True]


def test_using_a_file_does_not_make_it_look_changed(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    name = put(cache, b"a")
    before = stamp(cache.path(name))
    cache.get(name, lambda target: pytest.fail("it is there"))
    assert stamp(cache.path(name)) == before


def test_what_a_step_works_with_stays(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit_bytes=1500)
    used = put(cache, b"a" * 1000)
    cache.place(used, tmp_path / "work" / "input.txt")
    age(cache, used, 1000)
    put(cache, b"b" * 1000)
    put(cache, b"c" * 1000)
    assert cache.path(used).exists()


def test_bytes_that_are_not_what_was_asked_for_are_not_kept(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    with pytest.raises(ChecksumError):
        cache.get("0" * 64, written(b"other"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


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
    assert not cache.path(checksums.sha256).exists()


@pytest.mark.parametrize("text", ["much", "-1"])
def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_CACHE_GB", text)
    with pytest.raises(InputError, match="in gigabytes"):
        limit_from_environment()
