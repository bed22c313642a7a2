"""One dataset per recipe at a service that assigns ids itself.

There a registration that dies between the creation and the first metadata leaves an empty dataset, identified only by
its project, name and time, the last of which follows from the recipe. Such an empty duplicate is as good as a new
dataset, whichever recipe it was meant for. The oldest is used, so that two machines that create at the same moment
agree; deletion of the others is requested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from crucible_lineage.errors import ConflictError, CrucibleError, ForbiddenError, NotFoundError, RefusedError
from crucible_lineage.ids import has_derived_id
from crucible_lineage.json_types import JsonObject
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import recipe_keyword
from crucible_lineage.service import DERIVED_IDS, TAKEN_IDS
from crucible_lineage.times import utc

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.dataset.datasets import CreatedDataset
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.registration.new_dataset import NewDataset


def make_dataset(client: CrucibleClient, mfid: str, fields: Mapping[str, object]) -> CreatedDataset:
    """Create a dataset with the id `mfid`, or with another one if the service does not accept it.

    Raises ConflictError if the id is taken, or ForbiddenError or RefusedError, which may mean the same.
    """
    service = client.service
    derived = has_derived_id(mfid)
    if derived and service.holds(DERIVED_IDS) is False:
        return client.datasets.create(fields)
    if service.holds(TAKEN_IDS) is False:
        with suppress(NotFoundError):
            client.datasets.get(mfid)
            raise ConflictError(f"could not create dataset {mfid}: it exists already", status=409, mfid=mfid)
    try:
        created = client.datasets.create({**fields, "unique_id": mfid})
    except RefusedError as refusal:
        if not derived or service.holds(DERIVED_IDS) is not None:
            raise
        try:
            created = client.datasets.create(fields)
        except CrucibleError:
            raise refusal from None
        service.note(DERIVED_IDS, False, str(refusal))
        return created
    if created.dsid != mfid:
        service.note(DERIVED_IDS, False, f"{created.dsid} was given to a dataset that was to be {mfid}")
    elif derived:
        service.note(DERIVED_IDS, True, f"{mfid} was kept")
    return created


def oldest_duplicate(client: CrucibleClient, made: Dataset, new: NewDataset) -> str:
    """Return the MFID to register `new` under: that of `made`, created for it, or of an older duplicate.

    Without a timestamp, empty duplicates cannot be recognized, since the name alone is not enough.
    """
    duplicates = sorted([made, *_of_this_recipe(client, made, new), *_empty(client, made, new)], key=_preference)
    for duplicate in duplicates[1:]:
        if read_record(duplicate.scientific_metadata) is None:
            with suppress(ConflictError, ForbiddenError, NotFoundError):  # requested already, or for others to request
                client.datasets.delete(duplicate.unique_id, f"left over; registered as {duplicates[0].unique_id}")
    return duplicates[0].unique_id


def _preference(duplicate: Dataset) -> tuple[bool, str, str]:
    record = read_record(duplicate.scientific_metadata)
    return record is None or not record.is_complete, duplicate.creation_time or "", duplicate.unique_id


def _of_this_recipe(client: CrucibleClient, made: Dataset, new: NewDataset) -> Iterator[Dataset]:
    filters: JsonObject = {"keyword": recipe_keyword(new.mfid), "project_id": new.fields["project_id"]}
    for duplicate in client.datasets.iter(**filters, include_metadata=True):
        if duplicate.unique_id != made.unique_id and _is_same(duplicate, new):
            yield duplicate


def _empty(client: CrucibleClient, made: Dataset, new: NewDataset) -> Iterator[Dataset]:
    """Yield other datasets of this project, name and time that are empty except for a record of this recipe."""
    if "timestamp" not in new.fields:
        return
    expected = _comparable_time(new.fields["timestamp"])
    for listed in client.datasets.iter(project_id=new.fields["project_id"], dataset_name=new.name):
        if listed.unique_id == made.unique_id or listed.size or _comparable_time(listed.timestamp or "") != expected:
            continue
        with suppress(NotFoundError):
            duplicate = client.datasets.get(listed.unique_id, include_metadata=True, include_links=True)
            keywords = client.datasets.get_keywords(duplicate.unique_id) if not duplicate.scientific_metadata else ()
            if _is_same(duplicate, new) if duplicate.scientific_metadata else not (duplicate.links or keywords):
                yield duplicate


def _is_same(dataset: Dataset, new: NewDataset) -> bool:
    record = read_record(dataset.scientific_metadata)
    return record is not None and record.recipe_sha256 == new.record.recipe_sha256


def _comparable_time(timestamp: str) -> datetime | str:
    try:
        return utc(timestamp)
    except ValueError:
        return timestamp
