"""Datasets as tasks: created, found, counted, changed, and their deletion asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.filters import DatasetFilters
from crucible_lineage.client.models import Dataset
from crucible_lineage.errors import ConflictError
from crucible_lineage.tasks.api.calls import api_task, words
from crucible_lineage.tasks.api.files import add_all, checked_files
from crucible_lineage.tasks.api.ingestion import OnFailure
from crucible_lineage.tasks.api.repeatable import chosen_mfid
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "DatasetChanges",
    "count_datasets",
    "create_dataset",
    "delete_dataset",
    "get_dataset",
    "list_datasets",
    "search_datasets",
    "update_dataset",
]


class DatasetChanges(TypedDict, total=False):
    """The fields of a dataset that can be changed; what is not given stays as it is."""

    dataset_name: str | None
    measurement: str | None
    data_type: str | None
    data_format: str | None
    session_name: str | None
    timestamp: str | datetime | None
    size: int
    public: bool
    project_id: str
    project_mfid: str
    instrument_id: str
    instrument_mfid: str


@api_task("create {dataset_name}")
def create_dataset(
    dataset_name: str,
    project_id: str | None = None,
    *,
    measurement: str | None = None,
    data_type: str | None = None,
    data_format: str | None = None,
    session_name: str | None = None,
    timestamp: str | datetime | None = None,
    public: bool = False,
    owner_orcid: str | None = None,
    instrument_name: str | None = None,
    instrument_id: str | None = None,
    dsid: str | None = None,
    scientific_metadata: Mapping[str, Any] | None = None,
    keywords: str | Sequence[str] = (),
    files: str | Path | Sequence[str | Path] = (),
    parents: str | Sequence[str] = (),
    samples: str | Sequence[str] = (),
    ingestor: str | None = None,
    wait_for_ingestion: bool = False,
    on_failed_ingestion: OnFailure = "fail",
    crucible: Crucible | None = None,
) -> str:
    """The MFID of a dataset with these fields and contents, of which ingestion was asked for each of the `files`.

    It can be repeated: the MFID follows from the flow run, the task and its arguments (or is `dsid`), so that a task or
    a flow that is tried again finds and completes what it made. Nothing is undone if a later part fails. InputError,
    before anything is created, if a file is missing; ConflictError if `dsid` is another dataset.
    """
    given = {name: value for name, value in locals().items() if name not in ("dsid", "crucible")}
    paths = checked_files(files)
    fields = {
        "unique_id": dsid or chosen_mfid("dataset", given),
        "dataset_name": dataset_name,
        "project_id": project_id,
        "measurement": measurement,
        "data_type": data_type,
        "data_format": data_format,
        "session_name": session_name,
        "timestamp": timestamp,
        "public": public,
        "owner_orcid": owner_orcid,
        "instrument_name": instrument_name,
        "instrument_id": instrument_id,
    }
    client = session_for(crucible).client
    mfid = _created(client, {name: value for name, value in fields.items() if value is not None})
    if scientific_metadata:
        client.metadata.merge(mfid, scientific_metadata)
    for keyword in words(keywords):
        client.datasets.add_keyword(mfid, keyword)
    for parent in words(parents):
        client.datasets.link_parent_child(parent, mfid, relationship_type="is_derived_from")
    for sample in words(samples):
        client.datasets.add_sample(mfid, sample)
    add_all(client, mfid, paths, ingestor=ingestor, wait=wait_for_ingestion, on_failed_ingestion=on_failed_ingestion)
    return mfid


@api_task("get {dsid}")
def get_dataset(
    dsid: str, include_metadata: bool = False, include_links: bool = False, *, crucible: Crucible | None = None
) -> Dataset:
    """The dataset; its `scientific_metadata` and `links` are None unless they are asked for."""
    return session_for(crucible).client.datasets.get(
        dsid, include_metadata=include_metadata, include_links=include_links
    )


@api_task("list datasets")
def list_datasets(
    *, limit: int | None = None, crucible: Crucible | None = None, **filters: Unpack[DatasetFilters]
) -> list[Dataset]:
    """The datasets that fit all filters, newest first unless sorted otherwise, all or `limit` of them."""
    return session_for(crucible).client.datasets.list(limit=limit, **filters)


@api_task("search {q}")
def search_datasets(
    q: str, limit: int = 20, *, project_id: str | None = None, crucible: Crucible | None = None
) -> list[Dataset]:
    """Datasets whose name is like `q` (3 letters or more); best first, at most 50."""
    return list(session_for(crucible).client.datasets.search(q, limit=limit, project_id=project_id))


@api_task("count datasets")
def count_datasets(*, crucible: Crucible | None = None, **filters: Unpack[DatasetFilters]) -> int:
    """Count the datasets that match all filters."""
    return session_for(crucible).client.datasets.count(**filters)


@api_task("update {dsid}")
def update_dataset(dsid: str, *, crucible: Crucible | None = None, **fields: Unpack[DatasetChanges]) -> Dataset:
    """The dataset, with these fields changed."""
    return session_for(crucible).client.datasets.update(dsid, **fields)


@api_task("delete {dsid}")
def delete_dataset(dsid: str, reason: str | None = None, *, crucible: Crucible | None = None) -> int:
    """The number of the request to delete the dataset: it is hidden from lists, and deleted after a review.

    Asked for again, it is the request that is open.
    """
    client = session_for(crucible).client
    try:
        return client.datasets.delete(dsid, reason).id
    except ConflictError:
        open_request = client.datasets.get(dsid).deletion_request
        if open_request is None:
            raise
        return open_request.id


def _created(client: CrucibleClient, fields: Mapping[str, object]) -> str:
    """The MFID of the dataset. One that is there with the same name and project was made by an earlier try."""
    mfid = str(fields["unique_id"])
    try:
        return client.datasets.create(fields).dsid
    except ConflictError:
        found = client.datasets.get(mfid)
        same = found.dataset_name == fields["dataset_name"] and fields.get("project_id") in (None, found.project_id)
        if not same:
            raise
        return mfid
