"""Files of datasets: upload, list, download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from crucible_lineage.checksums import FileChecksums, require_unchanged, scan_file
from crucible_lineage.client.filters import FileFilters, sent_filters
from crucible_lineage.client.http.connection import Connection, pages
from crucible_lineage.client.http.wire import parse, parse_all, segment
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.client.transfer.download import Progress as DownloadProgress
from crucible_lineage.client.transfer.download import fetch, fetch_bytes, local_path
from crucible_lineage.client.transfer.outgoing import Outgoing, Progress, UploadedFile, UploadMemory
from crucible_lineage.client.transfer.storage import Storage
from crucible_lineage.client.transfer.uploads import Ahead, Protocol, Uploader
from crucible_lineage.errors import InputError, NotFoundError, ServerError
from crucible_lineage.service import FILES_BY_HASH, ServiceProfile

__all__ = ["FileCalls"]


class FileCalls(OfficialNames):
    """`client.files`: bytes to Crucible's storage and back, each checked by its SHA-256."""

    subject = "files"

    def __init__(
        self, connection: Connection, storage: Storage, memory: UploadMemory, ahead: Ahead, service: ServiceProfile
    ) -> None:
        self._connection = connection
        self._service = service
        self._uploader = Uploader(connection, storage, memory, ahead, service)
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
        protocol: Protocol = "auto",
    ) -> UploadedFile:
        """The file's record, after the dataset has its bytes; nothing is sent that is there already.

        With `checksums` (from `scan_file`) the file is read once, without it twice. A name that is taken by other
        content is a FileConflictError, unless `replace` is True: then the record keeps its MFID and gets the new
        content. FileChangedError if the file changes meanwhile; nothing of it is stored then.
        """
        outgoing = _outgoing(dataset_mfid, Path(path), filename, checksums)
        return self._uploader.upload(outgoing, protocol, replace=replace, progress=progress)

    def announce(self, dataset_mfid: str, path: str | Path, *, filename: str, checksums: FileChecksums) -> None:
        """Where answers take long, the service is told already of a file that `upload` is to be called for soon.

        Nothing of its bytes is sent. `withdraw` if that is not called after all.
        """
        self._uploader.announce(_outgoing(dataset_mfid, Path(path), filename, checksums))

    def withdraw(self, dataset_mfid: str) -> None:
        """The service waits no more for files of this dataset that were announced and not uploaded."""
        self._uploader.withdraw(segment(dataset_mfid))

    def linked_ahead(self, dataset_mfid: str) -> Sequence[FileRecord]:
        """Withdraw, and return the files that announcing has put into the dataset, as their bytes were there."""
        return self._uploader.linked_ahead(segment(dataset_mfid))

    def list(
        self, dataset_mfid: str | None = None, *, limit: int | None = None, **filters: Unpack[FileFilters]
    ) -> list[FileRecord]:
        """The files of a dataset, or without one all that this key may read."""
        if dataset_mfid is None:
            return list(self.iter(limit=limit, **filters))
        what = f"list the files of {dataset_mfid}"
        answer = self._connection.get(f"/datasets/{segment(dataset_mfid)}/files", what, mfid=dataset_mfid)
        digest = filters.get("sha256_hash")
        return [file for file in parse_all(FileRecord, answer, what) if digest in (None, file.sha256_hash)][:limit]

    def iter(self, *, limit: int | None = None, **filters: Unpack[FileFilters]) -> Iterator[FileRecord]:
        """All files that this key may read, page by page as they are taken.

        NotFoundError if the service lists no files over all datasets.
        """
        return self._listed(sent_filters(filters, FileFilters), limit)

    def _listed(self, params: dict[str, Any], limit: int | None) -> Iterator[FileRecord]:
        if self._service.holds(FILES_BY_HASH) is False:
            raise NotFoundError("could not list files: this Crucible lists none over all datasets", status=404)
        try:
            yield from pages(self._connection, "/files", FileRecord, "list files", params, limit)
        except NotFoundError as error:
            self._service.note(FILES_BY_HASH, False, f"GET /files: {error.status}")
            raise

    def get(self, file_mfid: str) -> FileRecord:
        """The record of a file."""
        what = f"read file {file_mfid}"
        answer = self._connection.get(f"/files/{segment(file_mfid, 'file')}", what, mfid=file_mfid)
        return parse(FileRecord, answer, what)

    def update(self, file_mfid: str, **fields: object) -> FileRecord:
        """The record with `fields` (filename, access_note, ...) changed."""
        what = f"change file {file_mfid}"
        path = f"/files/{segment(file_mfid, 'file')}"
        return parse(FileRecord, self._connection.call("PATCH", path, what, mfid=file_mfid, body=fields), what)

    def delete(self, file_mfid: str) -> None:
        """The file is gone from its dataset."""
        path = f"/files/{segment(file_mfid, 'file')}"
        self._connection.call("DELETE", path, f"delete file {file_mfid}", mfid=file_mfid)

    def download(self, file: str | FileRecord, folder: str | Path, *, progress: DownloadProgress | None = None) -> Path:
        """The path in `folder` where the file is now, with its SHA-256 checked against the record.

        A file that is there already with the right bytes is fetched again; an interrupted download is continued.
        """
        record = self._downloadable(file)
        target = local_path(Path(folder), record)
        return fetch(self.storage, record, self.download_link(record.mfid), target, progress)

    def download_bytes(self, file: str | FileRecord) -> bytes:
        """The content of a file that fits into memory, checked against the record."""
        record = self._downloadable(file)
        return fetch_bytes(self.storage, record, self.download_link(record.mfid))

    def download_link(self, file_mfid: str) -> str:
        """A link to the file's bytes, good for about an hour for anybody who has it: keep it out of logs."""
        what = f"get a download link for file {file_mfid}"
        path = f"/files/{segment(file_mfid, 'file')}/download_link"
        answer = self._connection.get(path, what, mfid=file_mfid)
        if not isinstance(answer, dict) or not isinstance(answer.get("url"), str):
            raise ServerError(f"could not {what}: Crucible's answer holds none", mfid=file_mfid)
        return str(answer["url"])

    def _downloadable(self, file: str | FileRecord) -> FileRecord:
        record = self.get(file) if isinstance(file, str) else file
        if record.storage_path is None or (record.storage_backend or "gcs") != "gcs":
            raise InputError(
                f"file {record.filename} ({record.mfid}) cannot be downloaded: Crucible holds its record, not its bytes"
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
