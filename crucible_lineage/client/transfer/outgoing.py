"""A file on its way to a dataset, and the count of its bytes that have gone out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import FileRecord
from crucible_lineage.errors import ServerError

__all__ = ["Mark", "Meter", "Outgoing", "Progress", "UploadedFile", "complete", "existing"]

REUSE = {
    "Crucible-Reuse-Content": "readable"
}  # bytes that the service keeps for any dataset of ours are not sent again
Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes of the file; from several threads, but never at once."""


@dataclass(frozen=True)
class UploadedFile:
    """A file that the dataset has. `existed`: it had these bytes under this name before, so nothing was sent."""

    file: FileRecord
    existed: bool


@dataclass(frozen=True)
class Outgoing:
    """A file on its way to a dataset."""

    dataset_mfid: str
    path: Path
    filename: str
    checksums: FileChecksums

    @property
    def what(self) -> str:
        """Return the name that errors use."""
        return f"upload {self.filename} to dataset {self.dataset_mfid}"

    def body(self) -> dict[str, Any]:
        """Return the fields that every way of uploading sends first."""
        return {"filename": self.filename, "size": self.checksums.size, "sha256_hash": self.checksums.sha256}


class Meter:
    """Counts bytes that went out and tells the caller; bytes of a failed try are taken back."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._sent = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        if self._progress is None or not count:
            return
        with self._lock:
            self._sent += count
            self._progress(self._sent, self._total)

    def mark(self) -> Mark:
        return Mark(self)


class Mark:
    """The bytes of one try."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count
        self._meter.add(count)

    def undo(self) -> None:
        self._meter.add(-self._count)


def existing(outgoing: Outgoing, file: FileRecord) -> UploadedFile:
    """The file that the service says it has, if its checksum bears that out."""
    if file.sha256_hash not in (None, outgoing.checksums.sha256):
        raise ServerError(
            f"could not {outgoing.what}: Crucible says it has these bytes, but its file {file.mfid} has others",
            mfid=file.mfid,
        )
    return UploadedFile(file, existed=not file.reused_content)


def complete(connection: Connection, outgoing: Outgoing, upload_id: str) -> FileRecord:
    """The record of a file that went by the resumable or the token route, once the service has checked it."""
    answer = connection.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/complete",
        outgoing.what,
        mfid=outgoing.dataset_mfid,
        body={"upload_id": upload_id, "sha256_hash": outgoing.checksums.sha256},
        repeatable=True,
        read_s=connection.timeouts.complete_s,
    )
    return parse(FileRecord, answer, outgoing.what)
