"""A file on its way to a dataset: the count of its bytes that have gone out, and what is remembered to go on later."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import FileRecord
from crucible_lineage.disk import private_folder
from crucible_lineage.errors import ServerError

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
            f"could not {outgoing.what}: Crucible reports these bytes as present, but its file {file.mfid} has others",
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


@dataclass(frozen=True)
class UnfinishedUpload:
    """A signed upload that may be unfinished. Which parts arrived, the service knows; `replaces` is a file's MFID."""

    upload_id: str
    part_size: int
    replaces: str | None = None


class UploadMemory:
    """One file in `folder` for each upload that is under way; without a folder nothing is remembered."""

    def __init__(self, folder: Path | None, api_url: str) -> None:
        self._folder = folder
        self._api_url = api_url

    @property
    def lasts(self) -> bool:
        """True if what is kept here can be read by another process."""
        return self._folder is not None

    def recall(self, outgoing: Outgoing) -> UnfinishedUpload | None:
        """The upload of this content to this place that was begun before, if there was one."""
        path = self._path(outgoing)
        if path is None:
            return None
        try:
            return UnfinishedUpload(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent, or not written by this version: begin anew
            return None

    def keep(self, outgoing: Outgoing, begun: UnfinishedUpload) -> None:
        """The upload can be recalled from now on."""
        path = self._path(outgoing)
        if path is None:
            return
        private_folder(path.parent)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(asdict(begun)), encoding="utf-8")
        aside.replace(path)

    def forget(self, outgoing: Outgoing) -> None:
        """The upload is finished, or gone."""
        path = self._path(outgoing)
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, outgoing: Outgoing) -> Path | None:
        if self._folder is None:
            return None
        place = [self._api_url, outgoing.dataset_mfid, outgoing.filename, outgoing.checksums.sha256]
        return self._folder / f"upload-{hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]}.json"
