"""Registration: what makes a dataset appear in Crucible exactly once, complete or visibly unfinished.

Every call can be repeated, by anyone, after a crash at any point. The order is what makes it safe: the record says
`incomplete` before the first byte is sent and `complete` after the last; only a complete record counts as done.
claims.py says what happens where two machines register at once, filling.py what is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import ConflictError, CrucibleError, NotFoundError, PreconditionError, RefusedError
from crucible_lineage.provenance.attachment import compact_record, whole_record
from crucible_lineage.provenance.digest import result_of
from crucible_lineage.provenance.record import KEY, dataset_of_record, is_complete, read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.claim import (
    PATIENCE_S,
    Claim,
    claim,
    complete,
    machine_id,
    new_registrar,
    require_held,
)
from crucible_lineage.registration.contents import Elsewhere, LocalFile, NewDataset, Put, fill, take_back, tidy
from crucible_lineage.registration.server_ids import oldest_twin, recipe_keyword

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset

__all__ = [
    "Elsewhere",
    "LocalFile",
    "NewDataset",
    "find_by_recipe",
    "known_dataset",
    "look_up",
    "machine_id",
    "register_output",
    "samples_of",
]

ROUNDS = 5  # chosen: how often a registration that was taken over goes back to the beginning


def look_up(client: CrucibleClient, mfid: str) -> tuple[DatasetRef | None, Mapping[str, Any] | None]:
    """The dataset if it is complete, and its record if it has one: (None, None) if there is none. One call."""
    try:
        dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
    except NotFoundError:
        return None, None
    record = read_record(dataset.scientific_metadata)
    if record is None or not is_complete(record):
        return None, record
    record = whole_record(client, mfid, record)
    return known_dataset(dataset, record), record


def find_by_recipe(client: CrucibleClient, mfid: str) -> DatasetRef | None:
    """The complete dataset whose recipe gives this id, at a service that gave it another one; None if there is none."""
    for dataset in client.datasets.list(
        keyword=recipe_keyword(mfid), include_metadata=True, include_links=True, limit=None
    ):
        record = read_record(dataset.scientific_metadata)
        if record is not None and is_complete(record):
            return known_dataset(dataset, whole_record(client, dataset.unique_id, record))
    return None


def known_dataset(dataset: Dataset, record: Mapping[str, Any]) -> DatasetRef:
    """The dataset that Crucible and its complete record describe; `dataset` was read with its links."""
    found = dataset_of_record(dataset.unique_id, dataset.dataset_name or dataset.unique_id, record)
    return replace(found, samples=samples_of(dataset))


def samples_of(dataset: Dataset) -> tuple[str, ...]:
    """The samples that a dataset, read with its links, is associated with."""
    return tuple(sorted(link.unique_id for link in dataset.links or () if link.resource_type == "sample"))


def register_output(
    client: CrucibleClient, new: NewDataset, machine: str | None = None, *, patience_s: float | None = None
) -> DatasetRef:
    """The dataset, registered: record, metadata, keywords, links, files, ingestion, and then marked complete.

    `machine` is the `machine_id` of the data folder. What another machine has begun for the same recipe is left alone
    while it moves, for `patience_s` at a time, and adopted when it is complete. RecipeConflictError if the id is taken
    by another recipe; every other error leaves an incomplete record that a repetition finishes.
    """
    mfid, created, refusal = _create(client, new)
    record, attached = compact_record({**new.record, "result": result_of(new.metadata, new.record["generated"])})
    patience = PATIENCE_S if patience_s is None else patience_s
    put = Put()
    for left in reversed(range(ROUNDS)):
        ours = {**record, "registrar": new_registrar(machine)}
        try:
            held = claim(client, mfid, new.name, ours, new.metadata, created=created, patience_s=patience)
        except NotFoundError as missing:
            raise refusal or missing from None  # it was refused for another reason than being there already
        if not isinstance(held, Claim):
            return _adopted(client, held, put)
        if mfid != new.mfid:  # before anything else, so that whoever comes next finds it
            client.datasets.add_keyword(mfid, recipe_keyword(new.mfid))
        try:
            fill(client, new, held, attached, put)
        except (ConflictError, NotFoundError, PreconditionError):
            if not left or (held.found is None and _is_held(client, held)):
                raise
        else:
            if complete(client, held):
                tidy(client, new, held, put)
                samples = tuple(sorted(set(new.samples)))
                return DatasetRef(mfid, new.name, tuple(file.ref for file in new.files), samples)
        created = False
    raise ConflictError(
        f"registering {new.name!r}: others took over the registration of {mfid} {ROUNDS} times; "
        "run the same again when they are done",
        mfid=mfid,
    )


def _is_held(client: CrucibleClient, held: Claim) -> bool:
    try:
        require_held(client, held)
    except ConflictError:
        return False
    return True


def _create(client: CrucibleClient, new: NewDataset) -> tuple[str, bool, CrucibleError | None]:
    """The id under which the dataset is to be registered, whether it was made just now, and why not if refused."""
    try:
        made = client.datasets.create({**new.fields, "unique_id": new.mfid})
    except (ConflictError, RefusedError) as refusal:
        return new.mfid, False, refusal
    if made.dsid == new.mfid:
        return new.mfid, True, None
    mfid = oldest_twin(client, made.record, new)
    return mfid, mfid == made.dsid, None


def _adopted(client: CrucibleClient, dataset: Dataset, put: Put) -> DatasetRef:
    """The dataset as another registration has completed it, without what this one had put into it until then."""
    record = whole_record(client, dataset.unique_id, (dataset.scientific_metadata or {})[KEY])
    take_back(client, dataset.unique_id, put, record)
    return known_dataset(dataset, record)
