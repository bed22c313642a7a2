"""At a service that assigns ids itself: one dataset for one recipe all the same.

There a registration that dies after the creation and before the first metadata leaves a dataset that nothing tells
from others but what the creation carried: its project, name and time, the last of which follows from the recipe. Such
an empty twin is as good as a new one, whichever recipe it was meant for. The oldest is taken, so that two machines that
create at the same moment come to the same one; the deletion of the others is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crucible_lineage.attached import recipe_sha256
from crucible_lineage.errors import ConflictError, ForbiddenError, NotFoundError
from crucible_lineage.provenance import KEY, is_complete, read_record

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.models import Dataset

__all__ = ["oldest_twin"]


def oldest_twin(client: CrucibleClient, made: Dataset, fields: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """The MFID under which `record` is to be registered: that of `made`, which is new, or of an older twin.

    A dataset whose name is all that it has, since nobody knows when its files were taken, has no twins.
    """
    if "timestamp" not in fields:
        return made.unique_id
    twins = sorted([made, *_twins(client, made, fields, record)], key=_preference)
    for twin in twins[1:]:
        if read_record(twin.scientific_metadata) is None:
            with suppress(ConflictError, ForbiddenError, NotFoundError):  # asked for already, or for others to ask for
                client.datasets.delete(twin.unique_id, f"left over; registered as {twins[0].unique_id}")
    return twins[0].unique_id


def _preference(twin: Dataset) -> tuple[bool, str, str]:
    return not is_complete(read_record(twin.scientific_metadata)), twin.creation_time or "", twin.unique_id


def _twins(
    client: CrucibleClient, made: Dataset, fields: Mapping[str, Any], record: Mapping[str, Any]
) -> Iterator[Dataset]:
    """Other datasets of this project, name and time that are empty, or of this recipe."""
    wanted = _moment(fields["timestamp"])
    for listed in client.datasets.iter(project_id=fields["project_id"], dataset_name=fields["dataset_name"]):
        if listed.unique_id != made.unique_id and listed.timestamp and _moment(listed.timestamp) == wanted:
            with suppress(NotFoundError):
                twin = client.datasets.get(listed.unique_id, include_metadata=True, include_links=True)
                if _is_empty(twin) or _is_same(twin, record):
                    yield twin


def _is_empty(dataset: Dataset) -> bool:
    return not dataset.scientific_metadata and not dataset.links and not dataset.size


def _is_same(dataset: Dataset, record: Mapping[str, Any]) -> bool:
    found = read_record(dataset.scientific_metadata) if KEY in (dataset.scientific_metadata or {}) else None
    return found is not None and recipe_sha256(found) == recipe_sha256(record)


def _moment(timestamp: str) -> datetime | str:
    try:
        return datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
