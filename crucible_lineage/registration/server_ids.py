"""At a service that assigns ids itself: one dataset for one recipe all the same.

There a registration that dies after the creation and before the first metadata leaves a dataset that nothing tells
from others but what the creation carried: its project, name and time, the last of which follows from the recipe. Such
an empty twin is as good as a new one, whichever recipe it was meant for. The oldest is taken, so that two machines that
create at the same moment come to the same one; the deletion of the others is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from crucible_lineage.errors import ConflictError, ForbiddenError, NotFoundError
from crucible_lineage.provenance.attachment import recipe_sha256
from crucible_lineage.provenance.record import is_complete, read_record

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.registration.contents import NewDataset

__all__ = ["oldest_twin", "recipe_keyword"]


def oldest_twin(client: CrucibleClient, made: Dataset, new: NewDataset) -> str:
    """The MFID under which `new` is to be registered: that of `made`, which was created for it, or of an older twin.

    A dataset whose name is all that it has, since nobody knows when its files were taken, has no empty twins.
    """
    twins = sorted([made, *_of_this_recipe(client, made, new), *_empty(client, made, new)], key=_preference)
    for twin in twins[1:]:
        if read_record(twin.scientific_metadata) is None:
            with suppress(ConflictError, ForbiddenError, NotFoundError):  # asked for already, or for others to ask for
                client.datasets.delete(twin.unique_id, f"left over; registered as {twins[0].unique_id}")
    return twins[0].unique_id


def recipe_keyword(mfid: str) -> str:
    """Where a service assigns ids itself, this keyword finds the record of the recipe that gives `mfid`."""
    return f"recipe:{mfid}"


def _preference(twin: Dataset) -> tuple[bool, str, str]:
    return not is_complete(read_record(twin.scientific_metadata)), twin.creation_time or "", twin.unique_id


def _of_this_recipe(client: CrucibleClient, made: Dataset, new: NewDataset) -> Iterator[Dataset]:
    for twin in client.datasets.iter(keyword=recipe_keyword(new.mfid), include_metadata=True):
        if twin.unique_id != made.unique_id and _is_same(twin, new):
            yield twin


def _empty(client: CrucibleClient, made: Dataset, new: NewDataset) -> Iterator[Dataset]:
    """Other datasets of this project, name and time that hold nothing, or nothing but a record of this recipe."""
    if "timestamp" not in new.fields:
        return
    wanted = _moment(new.fields["timestamp"])
    for listed in client.datasets.iter(project_id=new.fields["project_id"], dataset_name=new.name):
        if listed.unique_id == made.unique_id or listed.size or _moment(listed.timestamp or "") != wanted:
            continue
        with suppress(NotFoundError):
            twin = client.datasets.get(listed.unique_id, include_metadata=True, include_links=True)
            words = client.datasets.get_keywords(twin.unique_id) if not twin.scientific_metadata else ()
            if _is_same(twin, new) if twin.scientific_metadata else not (twin.links or words):
                yield twin


def _is_same(dataset: Dataset, new: NewDataset) -> bool:
    found = read_record(dataset.scientific_metadata)
    return found is not None and recipe_sha256(found) == recipe_sha256(new.record)


def _moment(timestamp: str) -> datetime | str:
    try:
        return datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
