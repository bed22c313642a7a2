"""Tasks that upload, list, download and ingest the files of datasets, and set thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.contents import Picture, picture_body
from crucible_lineage.client.models import FileRecord, IngestionRequest, Thumbnail
from crucible_lineage.errors import InputError, RunError
from crucible_lineage.tasks.recording import run_logger
from crucible_lineage.tasks.sessions import Crucible, api_task, session_for

Paths = str | Path | Sequence[str | Path]


OnFailure = Literal["fail", "warn"]
"""Whether a failed ingestion fails the task or is a warning in its log."""

GOOD = ("complete", "not_requested")


@api_task("upload {path} to {dsid}")
def upload_file(
    dsid: str, path: str | Path, *, filename: str | None = None, replace: bool = False, crucible: Crucible | None = None
) -> str:
    """Upload a file to the dataset and return its MFID. A file that the dataset already has is not sent again.

    Raises FileConflictError if the dataset has other content under that name, unless `replace` is set.
    """
    client = session_for(crucible).client
    return client.files.upload(dsid, path, filename=filename, replace=replace).file.mfid


@api_task("add files to {dsid}")
def add_files(
    dsid: str,
    files: Paths,
    *,
    ingestor: str | None = None,
    wait_for_ingestion: bool = False,
    on_failed_ingestion: OnFailure = "fail",
    crucible: Crucible | None = None,
) -> list[FileRecord]:
    """Upload files to the dataset and request ingestion of each once.

    With `wait_for_ingestion`, wait until it has ended; raises RunError if it failed, unless `on_failed_ingestion` is
    "warn". Raises InputError, before anything is sent, if a file is missing or two have the same name.
    """
    client, records, requests = session_for(crucible).client, [], []
    for path in checked_files(files):
        records.append(client.files.upload(dsid, path).file)
        requests.append(request_once(client, records[-1].mfid, ingestor))
    if wait_for_ingestion:
        for request in requests:
            check_ended(client.ingestions.wait(request.id, timeout_s=600), on_failed_ingestion)
    return records


@api_task("files of {dsid}")
def list_files(dsid: str, *, crucible: Crucible | None = None) -> list[FileRecord]:
    """List the files of the dataset."""
    return session_for(crucible).client.files.list(dsid)


@api_task("download {dsid}")
def download_dataset(
    dsid: str,
    output_dir: str | Path = "crucible-downloads",
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    crucible: Crucible | None = None,
) -> list[Path]:
    """Download the dataset's files to `output_dir`/`dsid`, each checked against its record.

    `include` and `exclude` are patterns such as `*.dat`.
    """
    client = session_for(crucible).client
    return list(client.datasets.download(dsid, output_dir, include=include, exclude=exclude))


@api_task("links to the files of {dsid}", persist_result=False)
def get_download_links(dsid: str, *, crucible: Crucible | None = None) -> dict[str, str]:
    """Return download links by file MFID. Anyone can use them for about an hour, so Prefect does not store them."""
    return session_for(crucible).client.datasets.get_download_links(dsid)


def checked_files(files: Paths) -> list[Path]:
    """Return the paths as a list. Raises InputError if one is no file, or two have the same name."""
    paths = [Path(path) for path in ([files] if isinstance(files, (str, Path)) else files)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(f"there is no file {', '.join(missing)}; nothing was sent")
    if duplicates := [name for name, count in Counter(path.name for path in paths).items() if count > 1]:
        raise InputError(f"two of the files are called {duplicates[0]!r}; a dataset's files have different names")
    return paths


@api_task("thumbnail of {dsid}")
def add_thumbnail(
    dsid: str, thumbnail: Picture, thumbnail_name: str | None = None, *, crucible: Crucible | None = None
) -> int:
    """Set the thumbnail of that name to a picture (image file, image bytes, or figure) and return its number.

    A thumbnail of the same name is replaced.
    """
    client = session_for(crucible).client
    body = picture_body(thumbnail, thumbnail_name, f"{dsid}_thumbnail.png")
    name, content = body["thumbnail_name"], body["thumbnail_b64str"]
    for existing in client.datasets.get_thumbnails(dsid):
        if existing.thumbnail_name == name:
            if existing.thumbnail_b64str == content:
                return existing.id
            client.datasets.delete_thumbnail(dsid, existing.id)
    picture = Path(thumbnail) if isinstance(thumbnail, str) else thumbnail
    return client.datasets.add_thumbnail(dsid, picture, name=name).id


@api_task("thumbnails of {dsid}")
def get_thumbnails(dsid: str, *, crucible: Crucible | None = None) -> list[Thumbnail]:
    """Return the thumbnails of the dataset, with their pictures in base64."""
    return session_for(crucible).client.datasets.get_thumbnails(dsid)


@api_task("ingest {file_mfid}")
def request_ingestion(
    file_mfid: str, ingestor: str | None = None, *, again: bool = False, crucible: Crucible | None = None
) -> int:
    """Request ingestion of a file and return the request's number: an existing one, or with `again` a new one.

    A failed request is never returned.
    """
    client = session_for(crucible).client
    if again:
        return client.ingestions.request(file_mfid, ingestor).id
    return request_once(client, file_mfid, ingestor).id


@api_task("ingested {request}")
def wait_for_ingestion(
    request: int, timeout_s: float = 600.0, *, on_failure: OnFailure = "fail", crucible: Crucible | None = None
) -> str:
    """Wait for an ingestion and return its final status. Raises RunError if it failed, or if the requested ingestor did
    not read the file, unless `on_failure` is "warn".
    """
    result = session_for(crucible).client.ingestions.wait(request, timeout_s=timeout_s)
    check_ended(result, on_failure)
    return result.status


def request_once(client: CrucibleClient, file_mfid: str, ingestor: str | None) -> IngestionRequest:
    """Return the file's ingestion request for that class that is open or has succeeded, else a new one."""
    for existing in client.ingestions.list(file_mfid=file_mfid):
        if (existing.is_open or existing.status in GOOD) and ingestor in (None, existing.ingestion_class):
            return existing
    return client.ingestions.request(file_mfid, ingestor)


def check_ended(request: IngestionRequest, on_failure: OnFailure) -> None:
    """Raise RunError, or warn, if the ingestion has failed."""
    by_other_ingestor = request.error_message and request.ingestion_class  # not by the requested ingestor
    if request.status in GOOD and not by_other_ingestor:
        return
    reason = f": {request.error_message}" if request.error_message else ""
    outcome = "was not done as requested" if request.status in GOOD else f"ended as {request.status!r}"
    message = (
        f"ingestion request {request.id} of file {request.file_mfid} {outcome}{reason}\n"
        'the file is stored; name an ingestor that reads it, or accept this as a warning with "warn"'
    )
    if on_failure == "fail":
        raise RunError(message)
    run_logger().warning(message)
