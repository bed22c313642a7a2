"""One Prefect task for each step of Crucible's API, for flows that are written by hand.

Each takes and returns ids and plain values, may be repeated, and is retried after transient errors only. Which
Crucible is meant is said by `crucible`; without it, the environment decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from crucible_lineage.errors import ConflictError
from crucible_lineage.ids import new_mfid
from crucible_lineage.tasks.retries import is_transient
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

__all__ = [
    "add_keywords",
    "add_thumbnail",
    "create_dataset",
    "download_dataset",
    "link_parent_child",
    "link_sample",
    "request_ingestion",
    "update_metadata",
    "upload_file",
    "wait_for_ingestion",
]

_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,  # what is there already is Crucible's to know, not a cache's
    "retries": 3,
    "retry_delay_seconds": [1, 5, 20],
    "retry_condition_fn": is_transient,
}


@task(task_run_name="create-{dataset_name}", **_OPTIONS)
def create_dataset(
    dataset_name: str,
    project: str,
    *,
    mfid: str | None = None,
    measurement: str | None = None,
    data_type: str | None = None,
    crucible: CrucibleConnection | None = None,
) -> str:
    """The MFID of the new dataset. With an `mfid` of your own the task can be repeated: it finds what it made."""
    client = session_for(crucible).client
    chosen = mfid or new_mfid()
    fields = {"project_id": project, "measurement": measurement, "data_type": data_type}
    record = {name: value for name, value in fields.items() if value is not None}
    try:
        return client.datasets.create({"unique_id": chosen, "dataset_name": dataset_name, **record}).dsid
    except ConflictError:
        if mfid is None:
            raise
        return client.datasets.get(mfid).unique_id


@task(task_run_name="metadata-{mfid}", **_OPTIONS)
def update_metadata(mfid: str, metadata: dict[str, Any], *, crucible: CrucibleConnection | None = None) -> None:
    """The metadata is merged into the dataset's scientific metadata."""
    session_for(crucible).client.metadata.merge(mfid, metadata)


@task(task_run_name="keywords-{mfid}", **_OPTIONS)
def add_keywords(mfid: str, keywords: Sequence[str], *, crucible: CrucibleConnection | None = None) -> None:
    """The dataset carries these keywords."""
    client = session_for(crucible).client
    for keyword in keywords:
        client.datasets.add_keyword(mfid, keyword)


@task(task_run_name="upload-{mfid}-{path}", **_OPTIONS)
def upload_file(mfid: str, path: Path, *, crucible: CrucibleConnection | None = None) -> str:
    """The MFID of the file, uploaded unless the dataset has it. A name taken by other content is an error."""
    return session_for(crucible).client.files.upload(mfid, path).file.mfid


@task(task_run_name="ingest-{file_mfid}", **_OPTIONS)
def request_ingestion(
    file_mfid: str, ingestor: str | None = None, *, crucible: CrucibleConnection | None = None
) -> int:
    """The number of the ingestion request."""
    return session_for(crucible).client.ingestions.request(file_mfid, ingestor).id


@task(task_run_name="ingested-{request}", **_OPTIONS)
def wait_for_ingestion(request: int, timeout_s: float = 600.0, *, crucible: CrucibleConnection | None = None) -> str:
    """The status with which the ingestion ended."""
    return session_for(crucible).client.ingestions.wait(request, timeout_s=timeout_s).status


@task(task_run_name="link-{parent}-{child}", **_OPTIONS)
def link_parent_child(
    parent: str,
    child: str,
    relationship_type: str = "is_derived_from",
    *,
    crucible: CrucibleConnection | None = None,
) -> None:
    """The child is linked to the parent."""
    session_for(crucible).client.datasets.link_parent_child(parent, child, relationship_type=relationship_type)


@task(task_run_name="sample-{sample}-{mfid}", **_OPTIONS)
def link_sample(mfid: str, sample: str, *, crucible: CrucibleConnection | None = None) -> None:
    """The dataset is associated with the sample."""
    session_for(crucible).client.datasets.add_sample(mfid, sample)


@task(task_run_name="thumbnail-{mfid}-{path}", **_OPTIONS)
def add_thumbnail(mfid: str, path: Path, *, crucible: CrucibleConnection | None = None) -> None:
    """The dataset shows this picture; one of the same name is not added twice."""
    client = session_for(crucible).client
    if path.name not in {picture.thumbnail_name for picture in client.datasets.get_thumbnails(mfid)}:
        client.datasets.add_thumbnail(mfid, path, name=path.name)


@task(task_run_name="download-{mfid}", **_OPTIONS)
def download_dataset(mfid: str, folder: Path, *, crucible: CrucibleConnection | None = None) -> list[Path]:
    """The dataset's files, in the folder; hashes are checked."""
    return list(session_for(crucible).client.datasets.download(mfid, folder))
