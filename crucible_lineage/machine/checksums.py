"""Checksums that uploads need, from one reading of a file: SHA-256, and CRC32C of the file and of each part."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.errors import FileChangedError
from crucible_lineage.json_types import JsonMapping, JsonObject

BLOCK_BYTES = 1 << 20  # measured: larger blocks cost page faults, smaller ones system calls
PART_SIZE_BYTES = 64 << 20  # of Crucible's signed uploads, unless the server chooses another


@dataclass(frozen=True)
class FileChecksums:
    """Checksums from one reading. `mtime_ns` belongs to the bytes read; CRCs are unsigned 32-bit numbers.

    `part_crc32c` are those of its parts of PART_SIZE_BYTES.
    """

    size: int
    mtime_ns: int
    sha256: str
    crc32c: int
    part_crc32c: tuple[int, ...]

    def to_json(self) -> JsonObject:
        """Return the JSON for the local store."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: JsonMapping) -> FileChecksums:
        """Return the checksums that were stored."""
        return cls(**{**stored, "part_crc32c": tuple(stored["part_crc32c"])})

    def parts(self, part_size: int) -> tuple[int, ...] | None:
        """Return CRC32C of each part of `part_size` bytes, or None if that takes another reading."""
        if part_size == PART_SIZE_BYTES:
            return self.part_crc32c
        if part_size >= self.size:
            return (self.crc32c,)
        return None


class Scan:
    """Checksums of a stream of blocks of any length."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._parts: list[int] = []
        self._size = self._crc = 0
        self._part_size = self._part_crc = 0  # of the part that has begun

    def update(self, block: bytes) -> None:
        """Add the next block."""
        self._digest.update(block)
        while (room := PART_SIZE_BYTES - self._part_size) < len(block):
            self._extend(block[:room])
            block = block[room:]
        self._extend(block)

    def checksums(self, mtime_ns: int) -> FileChecksums:
        """Return the checksums of all blocks."""
        parts = [*self._parts, *([self._part_crc] if self._part_size or not self._parts else [])]
        return FileChecksums(
            size=self._size,
            mtime_ns=mtime_ns,
            sha256=self._digest.hexdigest(),
            crc32c=self._crc,
            part_crc32c=tuple(parts),
        )

    def _extend(self, block: bytes) -> None:
        import google_crc32c  # a fully fresh run reads no file

        self._size += len(block)
        self._crc = google_crc32c.extend(self._crc, block)
        self._part_size += len(block)
        self._part_crc = google_crc32c.extend(self._part_crc, block)
        if self._part_size == PART_SIZE_BYTES:
            self._parts.append(self._part_crc)
            self._part_size = self._part_crc = 0


def scan_file(path: Path) -> FileChecksums:
    """Return all checksums of a file, from one reading. Raises FileChangedError if it changes meanwhile."""
    before = path.stat()
    scan = Scan()
    for block in blocks(path, 0, None):
        scan.update(block)
    checksums = scan.checksums(before.st_mtime_ns)
    require_unchanged(path, checksums)
    return checksums


FileStamp = tuple[int, int, int]  # size in bytes, modification time in ns, inode


def stamp(path: Path) -> FileStamp:
    """Return size, modification time and inode: while these are unchanged, an earlier hash is trusted."""
    info = path.stat()
    return info.st_size, info.st_mtime_ns, info.st_ino


def stamp_if_present(path: Path) -> FileStamp | None:
    """Return the same; None if there is no such file."""
    try:
        return stamp(path)
    except OSError:
        return None


def file_sha256(path: Path, size: int | None = None) -> str:
    """Return SHA-256 of a file's first `size` bytes, or of all, as 64 lowercase hex digits."""
    digest = hashlib.sha256()
    for block in blocks(path, 0, size):
        digest.update(block)
    return digest.hexdigest()


def part_checksums(path: Path, size: int, part_size: int) -> tuple[int, ...]:
    """Read a file for CRC32C of each part, with a part size that the scan did not foresee."""
    import google_crc32c

    return tuple(
        functools.reduce(google_crc32c.extend, blocks(path, offset, min(part_size, size - offset)), 0)
        for offset in range(0, size, part_size)
    )


def require_unchanged(path: Path, checksums: FileChecksums) -> None:
    """Raise FileChangedError unless the file has the scanned bytes; they are read again only if its time changed."""
    try:
        current = path.stat()
    except FileNotFoundError as cause:
        raise FileChangedError(f"{path} disappeared while it was read; nothing was stored") from cause
    if current.st_size == checksums.size and (
        current.st_mtime_ns == checksums.mtime_ns or file_sha256(path) == checksums.sha256
    ):
        return
    raise FileChangedError(
        f"{path} changed since it was read: {checksums.size} bytes then, {current.st_size} now\n"
        "wait until nothing writes to it, then start again"
    )


def blocks(path: Path, offset: int, size: int | None) -> Iterator[bytes]:
    """Yield `size` or all bytes of a file from `offset` on, in blocks."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        position = 0
        while size is None or position < size:
            block = file.read(BLOCK_BYTES if size is None else min(BLOCK_BYTES, size - position))
            if not block:
                return
            position += len(block)
            yield block


def crc32c_text(crc: int) -> str:
    """Return a CRC32C as storage headers write it: four bytes, high one first, in base64."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


SEAL = 8  # characters of the checksum


def sealed(value: object, *key: str) -> str:
    """Return the value as JSON after a checksum over it and its key, which reveals damage of it or of an index."""
    text = json.dumps(value)
    return f"{_seal(text, key)}{text}"


def unsealed(text: str, *key: str) -> Any:
    """Return the value that was sealed with this key, or None if the checksum differs."""
    content = text[SEAL:]
    return json.loads(content) if _seal(content, key) == text[:SEAL] else None


def _seal(text: str, key: tuple[str, ...]) -> str:
    start = zlib.crc32("\0".join(key).encode("utf-8", "surrogatepass"))
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass'), start):08x}"
