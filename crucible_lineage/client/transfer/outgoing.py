"""A file that is being uploaded: its progress, and what is remembered to continue later."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import FileRecord
from crucible_lineage.disk import private_folder, replacing
from crucible_lineage.errors import ServerError

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the size of the file; by several threads, but never concurrently."""


@dataclass(frozen=True)
class UploadedFile:
    """A file of the dataset. `existed`: it had these bytes under this name before, so nothing was sent."""

    file: FileRecord
    existed: bool


@dataclass(frozen=True)
class Outgoing:
    """A file to upload to a dataset."""

    dataset_mfid: str
    path: Path
    filename: str
    checksums: FileChecksums

    @property
    def action(self) -> str:
        """The action as errors name it."""
        return f"upload {self.filename} to dataset {self.dataset_mfid}"

    def body(self) -> dict[str, object]:
        """Return the fields that every protocol sends first."""
        return {"filename": self.filename, "size": self.checksums.size, "sha256_hash": self.checksums.sha256}


class Meter:
    """Counts sent bytes and reports them; bytes of a failed try are subtracted."""

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
    """Return the file that the service says it has, if its checksum agrees."""
    if file.sha256_hash not in (None, outgoing.checksums.sha256):
        raise ServerError(
            f"could not {outgoing.action}: Crucible says it has these bytes, but its file {file.mfid} has others",
            mfid=file.mfid,
        )
    return UploadedFile(file, existed=True)


def complete(connection: Connection, outgoing: Outgoing, upload_id: str) -> FileRecord:
    """Complete a resumable upload: the service checks the file and returns its record."""
    answer = connection.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/complete",
        outgoing.action,
        mfid=outgoing.dataset_mfid,
        body={"upload_id": upload_id, "sha256_hash": outgoing.checksums.sha256},
        repeatable=True,
        read_s=connection.timeouts.complete_s,
    )
    return parse(FileRecord, answer, outgoing.action)


@dataclass(frozen=True)
class UnfinishedUpload:
    """A signed upload that may be unfinished; the service knows which parts arrived. `replaces` is a file's MFID."""

    upload_id: str
    part_size: int
    replaces: str | None = None


class UploadMemory:
    """Remembers each unfinished upload in a file in `folder`; without a folder it remembers nothing."""

    def __init__(self, folder: Path | None, api_url: str) -> None:
        self._folder = folder
        self._api_url = api_url

    @property
    def lasts(self) -> bool:
        """Whether another process can read what is remembered."""
        return self._folder is not None

    def recall(self, outgoing: Outgoing) -> UnfinishedUpload | None:
        """Return the unfinished upload of this content to this dataset, if there is one."""
        path = self._path(outgoing)
        if path is None:
            return None
        try:
            return UnfinishedUpload(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent, or of another version: start again
            return None

    def keep(self, outgoing: Outgoing, upload: UnfinishedUpload) -> None:
        """Remember the upload."""
        path = self._path(outgoing)
        if path is None:
            return
        private_folder(path.parent)
        with replacing(path) as draft:
            draft.write_text(json.dumps(asdict(upload)), encoding="utf-8")

    def forget(self, outgoing: Outgoing) -> None:
        """Forget the upload, which is finished or aborted."""
        path = self._path(outgoing)
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, outgoing: Outgoing) -> Path | None:
        if self._folder is None:
            return None
        target = [self._api_url, outgoing.dataset_mfid, outgoing.filename, outgoing.checksums.sha256]
        return self._folder / f"upload-{hashlib.sha256(json.dumps(target).encode()).hexdigest()[:32]}.json"
