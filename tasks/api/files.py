"""Files of datasets as tasks: uploaded, added with their ingestion, listed, downloaded, or linked to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import FileRecord
from crucible_lineage.errors import InputError
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.api.ingestion import OnFailure, asked_once, ended
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "add_all",
    "add_files",
    "checked_files",
    "download_dataset",
    "get_download_links",
    "list_files",
    "upload_file",
]

Paths = str | Path | Sequence[str | Path]


@api_task("upload {path} to {dsid}")
def upload_file(
    dsid: str,
    path: str | Path,
    *,
    filename: str | None = None,
    replace: bool = False,
    crucible: Crucible | None = None,
) -> str:
    """The MFID of the file, which the dataset has now; nothing is sent that is there already.

    A name that is taken by other content is a FileConflictError, unless `replace` says that the content is to change.
    """
    client = session_for(crucible).client
    return client.files.upload(dsid, path, filename=filename, replace=replace).file.mfid


@api_task("add {files} to {dsid}")
def add_files(
    dsid: str,
    files: Paths,
    *,
    ingestor: str | None = None,
    wait_for_ingestion: bool = False,
    on_failed_ingestion: OnFailure = "fail",
    crucible: Crucible | None = None,
) -> list[FileRecord]:
    """The files, which the dataset has now, and of which ingestion was asked for once.

    With `wait_for_ingestion` it has ended; RunError if it failed, unless `on_failed_ingestion` is "warn". InputError,
    before anything is sent, if a file is missing or two have one name.
    """
    client = session_for(crucible).client
    return add_all(
        client,
        dsid,
        checked_files(files),
        ingestor=ingestor,
        wait=wait_for_ingestion,
        on_failed_ingestion=on_failed_ingestion,
    )


@api_task("files of {dsid}")
def list_files(dsid: str, *, crucible: Crucible | None = None) -> list[FileRecord]:
    """The files of the dataset."""
    return session_for(crucible).client.files.list(dsid)


@api_task("download {dsid} {include}")
def download_dataset(
    dsid: str,
    output_dir: str | Path = "crucible-downloads",
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    crucible: Crucible | None = None,
) -> list[Path]:
    """The dataset's files in `output_dir`/`dsid`, each checked against its record.

    `include` and `exclude` are patterns such as `*.dat`.
    """
    client = session_for(crucible).client
    return list(client.datasets.download(dsid, output_dir, include=include, exclude=exclude))


@api_task("links to the files of {dsid}", persist_result=False)
def get_download_links(dsid: str, *, crucible: Crucible | None = None) -> dict[str, str]:
    """Link by the file's MFID, good for about an hour for whoever has it: Prefect does not store this result."""
    return session_for(crucible).client.datasets.get_download_links(dsid)


def checked_files(files: Paths) -> list[Path]:
    """The paths, all of which are files with names of their own. InputError if not."""
    paths = [Path(path) for path in ([files] if isinstance(files, (str, Path)) else files)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(f"there is no file {', '.join(missing)}; nothing was sent")
    if twice := [name for name, count in Counter(path.name for path in paths).items() if count > 1]:
        raise InputError(f"two of the files are called {twice[0]!r}; a dataset's files have different names")
    return paths


def add_all(
    client: CrucibleClient,
    mfid: str,
    paths: Sequence[Path],
    *,
    ingestor: str | None,
    wait: bool,
    on_failed_ingestion: OnFailure,
) -> list[FileRecord]:
    """The files, uploaded, with one request each to ingest them."""
    records, requests = [], []
    for path in paths:
        records.append(client.files.upload(mfid, path).file)
        requests.append(asked_once(client, records[-1].mfid, ingestor))
    if wait:
        for request in requests:
            ended(client.ingestions.wait(request.id, timeout_s=600), on_failed_ingestion)
    return records
