"""Samples as tasks: created, and associated with datasets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crucible_lineage.client.models import Sample
from crucible_lineage.errors import ConflictError, NotFoundError
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.api.repeatable import chosen_mfid
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "create_sample",
    "link_sample",
    "list_samples",
    "unlink_sample",
]


@api_task("create sample {sample_name}")
def create_sample(
    sample_name: str,
    project_id: str | None = None,
    *,
    sample_type: str | None = None,
    description: str | None = None,
    timestamp: str | datetime | None = None,
    public: bool = False,
    crucible: Crucible | None = None,
) -> str:
    """The MFID of a sample with these fields; tried again, it is the one that was made."""
    fields: dict[str, Any] = {name: value for name, value in locals().items() if name != "crucible"}
    mfid = chosen_mfid("sample", fields)
    client = session_for(crucible).client
    try:
        return client.samples.create(unique_id=mfid, **fields).unique_id
    except ConflictError:
        return client.samples.get(mfid).unique_id


@api_task("sample {sample_id} of {dsid}")
def link_sample(dsid: str, sample_id: str, *, crucible: Crucible | None = None) -> None:
    """The dataset is associated with the sample."""
    session_for(crucible).client.datasets.add_sample(dsid, sample_id)


@api_task("remove sample {sample_id} of {dsid}")
def unlink_sample(dsid: str, sample_id: str, *, crucible: Crucible | None = None) -> None:
    """The dataset is not associated with the sample. NotFoundError if one of them is not there."""
    client = session_for(crucible).client
    try:
        client.datasets.remove_sample(dsid, sample_id)
    except NotFoundError:
        client.datasets.get(dsid)
        client.samples.get(sample_id)  # both are there, so it is the link that is gone


@api_task("samples of {dsid}")
def list_samples(dsid: str, *, crucible: Crucible | None = None) -> list[Sample]:
    """The samples that the dataset is associated with."""
    return session_for(crucible).client.samples.list(dataset_mfid=dsid)
