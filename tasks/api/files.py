"""Files of datasets as tasks: uploaded, listed, downloaded, linked to, ingested; and thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.dataset.contents import Picture, picture_body
from crucible_lineage.client.models import FileRecord, IngestionRequest, Thumbnail
from crucible_lineage.errors import InputError, RunError
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "OnFailure", "add_all", "add_files", "add_thumbnail", "checked_files", "download_dataset", "get_download_links",
    "get_thumbnails", "list_files", "request_ingestion", "upload_file", "wait_for_ingestion",
]  # fmt: skip


Paths = str | Path | Sequence[str | Path]


OnFailure = Literal["fail", "warn"]
"""What an ingestion that failed is: a failure of the task, or a warning in its log."""

GOOD = ("complete", "not_requested")


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


@api_task("thumbnail {thumbnail_name} of {dsid}")
def add_thumbnail(
    dsid: str, thumbnail: Picture, thumbnail_name: str | None = None, *, crucible: Crucible | None = None
) -> int:
    """The number of the thumbnail of that name, which shows this picture: an image file, image bytes, or a figure.

    One of the same name is not added twice; if it shows something else, it shows this from now on.
    """
    client = session_for(crucible).client
    body = picture_body(thumbnail, thumbnail_name, f"{dsid}_thumbnail.png")
    name, content = body["thumbnail_name"], body["thumbnail_b64str"]
    for known in client.datasets.get_thumbnails(dsid):
        if known.thumbnail_name == name:
            same = known.thumbnail_b64str == content
            return known.id if same else client.datasets.update_thumbnail(dsid, known.id, picture=thumbnail).id
    picture = Path(thumbnail) if isinstance(thumbnail, str) else thumbnail
    return client.datasets.add_thumbnail(dsid, picture, name=name).id


@api_task("thumbnails of {dsid}")
def get_thumbnails(dsid: str, *, crucible: Crucible | None = None) -> list[Thumbnail]:
    """The thumbnails of the dataset, with their pictures in base64."""
    return session_for(crucible).client.datasets.get_thumbnails(dsid)


@api_task("ingest {file_mfid}")
def request_ingestion(
    file_mfid: str, ingestor: str | None = None, *, again: bool = False, crucible: Crucible | None = None
) -> int:
    """The number of the request to ingest the file: the one that is there for it, or with `again` a new one.

    A request that failed is never taken for one that is there.
    """
    client = session_for(crucible).client
    if again:
        return client.ingestions.request(file_mfid, ingestor).id
    return asked_once(client, file_mfid, ingestor).id


@api_task("ingested {request}")
def wait_for_ingestion(
    request: int, timeout_s: float = 600.0, *, on_failure: OnFailure = "fail", crucible: Crucible | None = None
) -> str:
    """The status with which the ingestion ended. RunError if it failed, or if the ingestor that was asked for did not
    read the file, unless `on_failure` is "warn".
    """
    found = session_for(crucible).client.ingestions.wait(request, timeout_s=timeout_s)
    ended(found, on_failure)
    return found.status


def asked_once(client: CrucibleClient, file_mfid: str, ingestor: str | None) -> IngestionRequest:
    """The request to ingest the file with that class: one that waits, works or has succeeded, else a new one."""
    for known in client.ingestions.list(file_mfid=file_mfid):
        if (known.is_open or known.status in GOOD) and ingestor in (None, known.ingestion_class):
            return known
    return client.ingestions.request(file_mfid, ingestor)


def ended(request: IngestionRequest, on_failure: OnFailure) -> None:
    """RunError, or a warning, if the ingestion has failed."""
    is_otherwise = request.error_message and request.ingestion_class  # not by the ingestor that was asked for
    if request.status in GOOD and not is_otherwise:
        return
    reason = f": {request.error_message}" if request.error_message else ""
    ended_as = "did not go as was asked" if request.status in GOOD else f"ended as {request.status!r}"
    told = (
        f"ingestion request {request.id} of file {request.file_mfid} {ended_as}{reason}\n"
        'the file is stored; name an ingestor that reads it, or take this as a warning with "warn"'
    )
    if on_failure == "fail":
        raise RunError(told)
    try:
        get_run_logger().warning(told)
    except MissingContextError:  # called as a plain function
        get_logger(__name__).warning(told)
