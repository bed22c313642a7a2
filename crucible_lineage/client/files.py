"""Files of datasets: upload, list, download, and requests that the service reads them (ingestion)."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from mimetypes import guess_type
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from crucible_lineage.client.connection import Connection, is_switched_off, read_answer
from crucible_lineage.client.filters import ListedCalls, NumberedCalls
from crucible_lineage.client.models import FileRecord, IngestionRequest
from crucible_lineage.client.storage import Storage, Tries, storage_error
from crucible_lineage.client.uploads import Outgoing, SignedUpload, UploadedFile, upload_resumable
from crucible_lineage.client.wire import parse, segment
from crucible_lineage.errors import (
    ChecksumError,
    CrucibleError,
    ForbiddenError,
    InputError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.machine.checksums import FileChecksums, require_unchanged, scan_file
from crucible_lineage.machine.disk import draft_beside
from crucible_lineage.machine.process import traffic
from crucible_lineage.text.times import utc


class FileCalls(ListedCalls[FileRecord]):
    """`client.files`: upload to and download from Crucible's storage, each file checked by its SHA-256."""

    _collection, _model = "/files", FileRecord

    def __init__(self, connection: Connection, storage: Storage, state_folder: Path | None) -> None:
        self._connection = connection
        self._storage = storage
        self._state_folder = state_folder
        self._has_signed = True  # until the service says otherwise

    def upload(
        self,
        dataset_mfid: str,
        path: str | Path,
        *,
        filename: str | None = None,
        checksums: FileChecksums | None = None,
        replace: bool = False,
    ) -> UploadedFile:
        """Upload a file to the dataset and return its record; bytes that the service has are not sent.

        With `checksums` (from `scan_file`) the file is read once, otherwise twice. If the name exists with other
        content, raises FileConflictError, unless `replace` is True: then the record keeps its MFID and gets the new
        content. Raises FileChangedError, and stores nothing, if the file changes meanwhile.
        """
        path = Path(path)
        name = filename or path.name
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise InputError(f"not a file name: {name!r}\nfiles in a dataset have names without folders")
        if not path.is_file():
            raise InputError(f"there is no file {path}; nothing was sent")
        if checksums is not None:
            require_unchanged(path, checksums)
        outgoing = Outgoing(segment(dataset_mfid), path, name, checksums or scan_file(path))
        if outgoing.checksums.size and (replace or self._has_signed):  # no empty file is accepted in parts
            upload = SignedUpload(self._connection, self._storage, self._state_folder, outgoing, replace=replace)
            try:
                return upload.run()
            except ServerError as error:
                if replace or not is_switched_off(error):
                    raise
                self._has_signed = False
        return upload_resumable(self._connection, self._storage, outgoing)

    def list(  # type: ignore[override]  # the dataset is no filter
        self, dataset_mfid: str | None = None, *, limit: int | None = None, **filters: object
    ) -> list[FileRecord]:
        """Return the files of a dataset, or without one all that this key may read."""
        if dataset_mfid is None:
            return list(self.iter(limit=limit, **filters))
        path, action = f"/datasets/{segment(dataset_mfid)}/files", f"list the files of {dataset_mfid}"
        files = self._connection.records(FileRecord, path, action)
        digest = filters.get("sha256_hash")
        return [file for file in files if digest in (None, file.sha256_hash)][:limit]

    def get(self, file_mfid: str) -> FileRecord:
        """Return the record of a file."""
        path = f"/files/{segment(file_mfid, 'file')}"
        return self._connection.record(FileRecord, "GET", path, f"read file {file_mfid}")

    def delete(self, file_mfid: str) -> None:
        """Delete the file from its dataset."""
        path = f"/files/{segment(file_mfid, 'file')}"
        self._connection.call("DELETE", path, f"delete file {file_mfid}")

    def download(self, file: str | FileRecord, folder: str | Path) -> Path:
        """Download the file to `folder` and return its path, with its SHA-256 checked against the record.

        A file that exists with the right bytes is downloaded again; an interrupted download is continued.
        """
        record = self._downloadable(file)
        return self.fetch(record, local_path(Path(folder), record))

    def download_bytes(self, file: str | FileRecord) -> bytes:
        """Return the content of a file that fits into memory, checked against the record."""
        content = io.BytesIO()
        self._receive(self._downloadable(file), content)
        return content.getvalue()

    def fetch(self, file: FileRecord, target: Path, *, link: str | None = None) -> Path:
        """Download the file to `target` and return it; the first try uses the `link`, if one is given.

        The bytes go to a draft beside `target`, which is renamed once its SHA-256 is the recorded one. A draft of an
        interrupted call is continued. ChecksumError, and nothing is kept, if the bytes differ from the record.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = draft_beside(target, f".{(file.sha256_hash or file.mfid)[:16]}.part")
        try:
            with partial.open("r+b" if partial.exists() else "w+b") as draft:
                self._receive(file, draft, link)
        except BaseException:
            if partial.exists() and not partial.stat().st_size:
                partial.unlink()
            raise
        return partial.replace(target)

    def _receive(self, file: FileRecord, draft: BinaryIO, link: str | None = None) -> None:
        """Complete the draft of a file. Repeats that as calls are repeated, each time with a new link."""
        tries = Tries(self._connection, ForbiddenError)  # 403: the link has expired
        while True:
            url = link or self.download_link(file.mfid)
            try:
                return _download(self._storage, file, url, draft)
            except CrucibleError as error:
                self._connection.wait(tries.wait_s(error), error)
            link = None

    def download_link(self, file_mfid: str) -> str:
        """Return a link to the file's bytes, valid for about an hour for anyone who has it: do not log it."""
        action = f"get a download link for file {file_mfid}"
        path = f"/files/{segment(file_mfid, 'file')}/download_link"
        answer = self._connection.get(path, action)
        if not isinstance(answer, dict) or not isinstance(answer.get("url"), str):
            raise ServerError(f"could not {action}: Crucible's answer has no link", mfid=file_mfid)
        return str(answer["url"])

    def _downloadable(self, file: str | FileRecord) -> FileRecord:
        record = self.get(file) if isinstance(file, str) else file
        if not record.has_bytes:
            raise InputError(
                f"file {record.filename} ({record.mfid}) cannot be downloaded: Crucible has its record, not its bytes"
            )
        return record


def _download(storage: Storage, file: FileRecord, url: str, draft: BinaryIO) -> None:
    """Download what the draft lacks. Empties it, and raises ChecksumError, for other bytes than recorded, or more."""
    action = f"download {file.filename}"
    digest, present = hashlib.sha256(), 0
    draft.seek(0)
    if not file.sha256_hash:
        draft.truncate()
    while block := draft.read(1 << 20):
        digest.update(block)
        present += len(block)
    headers = {"Range": f"bytes={present}-"} if present else {}
    with storage.stream(url, action, headers=headers) as response:
        if response.status_code == 200:
            digest, present = hashlib.sha256(), 0
            draft.seek(0)
            draft.truncate()
        traffic.count(present=present)
        if response.status_code in (200, 206):
            for block in response.iter_raw():  # without buffering, which would cost more than it saves
                present += len(block)
                if file.size is not None and present > file.size:
                    break
                draft.write(block)
                digest.update(block)
                traffic.count(received=len(block))
        elif response.status_code != 416:  # 416: the draft is complete or too long, as its checksum shows
            raise storage_error(read_answer(response, action), action)
    is_too_long = file.size is not None and present > file.size
    if not is_too_long and file.sha256_hash in (None, digest.hexdigest()):
        return
    draft.seek(0)
    draft.truncate()
    is_page = response.headers.get("content-type", "").startswith("text/html")
    if is_page and guess_type(file.filename)[0] != "text/html":  # the answer was lost
        raise UnreachableError(f"could not {action}: a web page came in its place; nothing was kept")
    fault = f"is longer than the recorded {file.size} bytes" if is_too_long else "has other bytes than recorded"
    raise ChecksumError(f"{file.filename} ({file.mfid}) {fault}; nothing was kept")


def local_path(folder: Path, file: FileRecord) -> Path:
    """Return the path of a file in `folder`, with the folders of its storage path.

    Raises InputError for a name that leads out of it.
    """
    _, _, rest = (file.storage_path or "").partition("/")  # bucket/dataset/folders/name
    dataset, _, stored = rest.partition("/")
    has_name = stored.endswith(file.filename) and not stored.startswith("_files/")
    name = stored if file.has_bytes and dataset == file.dataset_mfid and has_name else file.filename
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or windows.drive or "\0" in name:
        raise InputError(f"file {file.mfid} is called {name!r}, which leads out of {folder}; nothing was written")
    return folder.joinpath(*parts)


def is_selected(name: str, include: str | Sequence[str] | None, exclude: str | Sequence[str] | None) -> bool:
    """Return whether a pattern of `include` matches, if any is given, and none of `exclude`. A str is one pattern."""
    included, excluded = ([given] if isinstance(given, str) else given for given in (include, exclude))
    is_included = included is None or any(fnmatch(name, pattern) for pattern in included)
    return is_included and not any(fnmatch(name, pattern) for pattern in excluded or ())


FIRST_WAIT_S = 0.02  # chosen: about as long as reading a small file takes; doubles at each poll
LONGEST_WAIT_S = 5.0
CLOCKS_DIFFER = timedelta(minutes=2)  # chosen: the largest difference between the service's clock and ours


class IngestionCalls(NumberedCalls[IngestionRequest]):
    """`client.ingestions`: requests that Crucible reads a file into metadata and thumbnails."""

    _collection, _model = "/ingestion_requests", IngestionRequest

    def request(
        self, file_mfid: str, ingestion_class: str | None = None, status: str = "requested"
    ) -> IngestionRequest:
        """Request the ingestion of a file; the status `not_requested` records that none is needed.

        Each call creates a request. After a lost answer, the client looks for that request before it repeats the call.
        """
        action = f"request ingestion of file {file_mfid}"
        since = datetime.now(UTC) - CLOCKS_DIFFER

        def find_effect() -> IngestionRequest | None:
            """Return the newest request for the file that is open or was created since then."""
            made = [
                request
                for request in self.iter(file_mfid=file_mfid)
                if request.is_open or (request.time_created and utc(request.time_created) >= since)
            ]
            return max(made, key=lambda request: request.id, default=None)

        answer = self._connection.call(
            "POST",
            f"/files/{segment(file_mfid, 'file')}/ingest",
            action,
            params={"status": status, "ingestion_class": ingestion_class},
            find_effect=find_effect,
        )
        return answer if isinstance(answer, IngestionRequest) else parse(IngestionRequest, answer, action)

    def wait(self, request_id: int, *, timeout_s: float = 300.0) -> IngestionRequest:
        """Wait until nobody works on the request any more, and return it; its status says how it ended.

        Polls at once, after 0.02 s, then less and less often, up to every 5 s. UnreachableError after `timeout_s`.
        """
        if timeout_s <= 0:
            raise InputError(f"the time to wait for ingestion must be positive, not {timeout_s} s")
        end = time.monotonic() + timeout_s
        wait_s = FIRST_WAIT_S
        while (request := self.get(request_id)).is_open:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise UnreachableError(
                    f"ingestion request {request.id} is still {request.status!r} after {timeout_s:g} s\n"
                    "the file is stored; ingestion may still finish: ask again later, or wait longer",
                    mfid=request.file_mfid,
                )
            self._connection.sleep(min(wait_s, left_s))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        return request

    def ingestors(self) -> tuple[str, ...]:
        """Return the names of the classes that can read files."""
        action = "list the ingestors"
        answer = self._connection.get("/ingestors", action)
        if not isinstance(answer, list):
            raise ServerError(f"could not {action}: Crucible's answer is not a list")
        return tuple(str(name) for name in answer)
