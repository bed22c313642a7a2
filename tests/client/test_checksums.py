"""Checksums of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import google_crc32c
import pytest

from crucible_lineage.client import scan_file
from crucible_lineage.errors import FileChangedError
from crucible_lineage.machine.checksums import require_unchanged


def test_one_scan_finds_all_checksums(movie: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crucible_lineage.machine.checksums.PART_SIZE_BYTES", 1 << 20)
    content = movie.read_bytes()
    found = scan_file(movie)
    assert found.size == len(content)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.crc32c == google_crc32c.value(content)
    assert found.part_crc32c == tuple(
        google_crc32c.value(content[i : i + (1 << 20)]) for i in range(0, 7 << 19, 1 << 20)
    )


def test_its_bytes_decide_whether_a_file_changed_and_not_its_time(spectrum: Path) -> None:
    scanned = scan_file(spectrum)
    require_unchanged(spectrum, scanned)
    os.utime(spectrum, ns=(scanned.mtime_ns + 1000, scanned.mtime_ns + 1000))
    require_unchanged(spectrum, scanned)
    spectrum.write_bytes(b"x" * scanned.size)
    with pytest.raises(FileChangedError, match="changed since it was read"):
        require_unchanged(spectrum, scanned)
    spectrum.unlink()
    with pytest.raises(FileChangedError, match="disappeared"):
        require_unchanged(spectrum, scanned)
