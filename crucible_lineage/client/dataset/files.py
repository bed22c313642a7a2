"""Files of datasets: upload, list, download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crucible_lineage.checksums import FileChecksums, require_unchanged, scan_file
from crucible_lineage.client.filters import FILE_FILTERS, sent_filters
from crucible_lineage.client.http.connection import Calls, Connection, pages
from crucible_lineage.client.http.wire import parse, parse_all, segment
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.download import Progress as DownloadProgress
from crucible_lineage.client.transfer.download import fetch, fetch_bytes, local_path
from crucible_lineage.client.transfer.outgoing import Outgoing, Progress, UploadedFile, UploadMemory
from crucible_lineage.client.transfer.storage import Storage
from crucible_lineage.client.transfer.uploads import Uploader
from crucible_lineage.errors import InputError, ServerError

__all__ = ["FileCalls"]


class FileCalls(Calls):
    """`client.files`: upload to and download from Crucible's storage, each file checked by its SHA-256."""

    def __init__(self, connection: Connection, storage: Storage, memory: UploadMemory) -> None:
        self._connection = connection
        self._uploader = Uploader(connection, storage, memory)
        self.storage = storage

    def upload(
        self,
        dataset_mfid: str,
        path: str | Path,
        *,
        filename: str | None = None,
        checksums: FileChecksums | None = None,
        progress: Progress | None = None,
        replace: bool = False,
    ) -> UploadedFile:
        """Upload a file to the dataset and return its record; bytes that the service has are not sent.

        With `checksums` (from `scan_file`) the file is read once, otherwise twice. If the name exists with other
        content, raises FileConflictError, unless `replace` is True: then the record keeps its MFID and gets the new
        content. Raises FileChangedError, and stores nothing, if the file changes meanwhile.
        """
        outgoing = _outgoing(dataset_mfid, Path(path), filename, checksums)
        return self._uploader.upload(outgoing, replace=replace, progress=progress)

    def list(self, dataset_mfid: str | None = None, *, limit: int | None = None, **filters: object) -> list[FileRecord]:
        """Return the files of a dataset, or without one all that this key may read."""
        if dataset_mfid is None:
            return list(self.iter(limit=limit, **filters))
        action = f"list the files of {dataset_mfid}"
        answer = self._connection.get(f"/datasets/{segment(dataset_mfid)}/files", action, mfid=dataset_mfid)
        digest = filters.get("sha256_hash")
        return [file for file in parse_all(FileRecord, answer, action) if digest in (None, file.sha256_hash)][:limit]

    def iter(self, *, limit: int | None = None, **filters: object) -> Iterator[FileRecord]:
        """Yield all files that this key may read; each page is read when it is needed."""
        return pages(self._connection, "/files", FileRecord, "list files", sent_filters(filters, FILE_FILTERS), limit)

    def get(self, file_mfid: str) -> FileRecord:
        """Return the record of a file."""
        action = f"read file {file_mfid}"
        answer = self._connection.get(f"/files/{segment(file_mfid, 'file')}", action, mfid=file_mfid)
        return parse(FileRecord, answer, action)

    def update(self, file_mfid: str, **fields: object) -> FileRecord:
        """Change `fields` (filename, access_note, ...) of the record and return it."""
        action = f"change file {file_mfid}"
        path = f"/files/{segment(file_mfid, 'file')}"
        return parse(FileRecord, self._connection.call("PATCH", path, action, mfid=file_mfid, body=fields), action)

    def delete(self, file_mfid: str) -> None:
        """Delete the file from its dataset."""
        path = f"/files/{segment(file_mfid, 'file')}"
        self._connection.call("DELETE", path, f"delete file {file_mfid}", mfid=file_mfid)

    def download(self, file: str | FileRecord, folder: str | Path, *, progress: DownloadProgress | None = None) -> Path:
        """Download the file to `folder` and return its path, with its SHA-256 checked against the record.

        A file that exists with the right bytes is downloaded again; an interrupted download is continued.
        """
        record = self._downloadable(file)
        target = local_path(Path(folder), record)
        return fetch(self.storage, record, self.download_link(record.mfid), target, progress)

    def download_bytes(self, file: str | FileRecord) -> bytes:
        """Return the content of a file that fits into memory, checked against the record."""
        record = self._downloadable(file)
        return fetch_bytes(self.storage, record, self.download_link(record.mfid))

    def download_link(self, file_mfid: str) -> str:
        """Return a link to the file's bytes, valid for about an hour for anyone who has it: do not log it."""
        action = f"get a download link for file {file_mfid}"
        path = f"/files/{segment(file_mfid, 'file')}/download_link"
        answer = self._connection.get(path, action, mfid=file_mfid)
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


def _outgoing(dataset_mfid: str, path: Path, filename: str | None, checksums: FileChecksums | None) -> Outgoing:
    name = filename or path.name
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise InputError(f"not a file name: {name!r}\nfiles in a dataset have names without folders")
    if not path.is_file():
        raise InputError(f"there is no file {path}; nothing was sent")
    if checksums is None:
        checksums = scan_file(path)
    else:
        require_unchanged(path, checksums)
    return Outgoing(segment(dataset_mfid), path, name, checksums)
