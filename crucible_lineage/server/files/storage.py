"""The bytes on disk: verified contents under their SHA-256, and uploads on their way to become one.

Everything is written aside, checked and flushed to disk before it gets its final name, so that whatever a record points
to is whole. Names on disk come from checksums and random ids, never from what a user sent.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import google_crc32c

from crucible_lineage.server.instance import DataFolder

__all__ = ["ContentStore", "Draft", "TooLongError", "is_sha256"]

BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


class TooLongError(Exception):
    """More bytes came than were announced."""


@dataclass(frozen=True)
class Draft:
    """A draft that arrived: where it lies, how long it is and what its bytes add up to."""

    draft: Path
    size: int
    sha256: str
    crc32c: str


class ContentStore:
    """The `contents` and `uploads` of a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self._growing_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def content(self, sha256: str) -> Path:
        """Where the bytes with this checksum lie, or would lie."""
        return self.folder.contents / sha256[:2] / sha256[2:]

    def holds(self, sha256: str, size: int) -> bool:
        """Whether the bytes with this checksum are here, whole: they are read and hashed."""
        digest, path = hashlib.sha256(), self.content(sha256)
        try:
            if path.stat().st_size != size:
                return False
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    def keep(self, draft: Path, sha256: str) -> None:
        """Make a flushed, verified draft the content of that checksum, in place of whatever lay there."""
        target = self.content(sha256)
        target.parent.mkdir(exist_ok=True)
        try:
            draft.replace(target)
        except PermissionError:  # Windows: open for a download
            if not self.holds(sha256, draft.stat().st_size):
                raise
        _flush_folder(target.parent)

    def discard_draft(self, draft: Path) -> None:
        """The draft is gone, unless it is a part that a later attempt can use again."""
        if draft.suffix == ".draft":
            draft.unlink(missing_ok=True)

    def keep_empty(self, sha256: str) -> None:
        """Keep the content of no bytes at all."""
        path = self.content(sha256)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    def part(self, upload_id: str, number: int) -> Path:
        return self.folder.uploads / upload_id / f"{number}.part"

    def growing(self, upload_id: str) -> Path:
        """The single file of a resumable upload."""
        return self.folder.uploads / upload_id / "growing"

    def growing_lock(self, upload_id: str) -> asyncio.Lock:
        """Held while a chunk is written, so that two never mix."""
        return self._growing_locks.setdefault(upload_id, asyncio.Lock())

    def keep_part(self, received: Draft, upload_id: str, number: int) -> None:
        received.draft.replace(self.part(upload_id, number))

    def discard_upload(self, upload_id: str) -> None:
        shutil.rmtree(self.folder.uploads / upload_id, ignore_errors=True)

    async def receive(self, stream: AsyncIterator[bytes], upload_id: str, size: int) -> Draft:
        """The stream's bytes in a flushed draft beside the upload's parts; TooLongError beyond `size` bytes."""
        draft = self._draft(upload_id)
        sha256, crc32c, received = hashlib.sha256(), _crc32c(), 0
        try:
            with draft.open("xb") as file:
                async for block in stream:
                    received += len(block)
                    if received > size:
                        raise TooLongError
                    sha256.update(block)
                    crc32c.update(block)
                    file.write(block)
                _flush(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Draft(draft, received, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())

    def join(self, upload_id: str, numbers: list[int]) -> Draft:
        """The parts, one after the other, in one flushed draft; the parts stay."""
        return self._copy((self.part(upload_id, number) for number in numbers), upload_id)

    def take_growing(self, upload_id: str) -> Draft:
        """The resumable upload's bytes in a flushed draft. What was received stays."""
        path = self.growing(upload_id)
        return self._copy([path] if path.exists() else [], upload_id)

    def _copy(self, paths: Iterator[Path] | list[Path], upload_id: str) -> Draft:
        draft = self._draft(upload_id)
        sha256, crc32c, size = hashlib.sha256(), _crc32c(), 0
        try:
            with draft.open("xb") as file:
                for path in paths:
                    with path.open("rb") as source:
                        while block := source.read(BLOCK_BYTES):
                            size += len(block)
                            sha256.update(block)
                            crc32c.update(block)
                            file.write(block)
                _flush(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Draft(draft, size, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())

    def _draft(self, upload_id: str) -> Path:
        folder = self.folder.uploads / upload_id
        folder.mkdir(exist_ok=True)
        return folder / f"{secrets.token_hex(8)}.draft"


def _crc32c() -> Any:
    """A running checksum; the library has no types."""
    return google_crc32c.Checksum()  # type: ignore[no-untyped-call]


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Make a rename in `path` last. Windows has no such call and needs none."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
