"""Reuse of an existing result: making it current in its slots, and linking it to parents with equal contents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, hold, later_than
from crucible_lineage.errors import NotFoundError
from crucible_lineage.marks import equality_mark
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.core.mirror import Mirror


def take_over(client: CrucibleClient, mirror: Mirror, mfid: str, old: DatasetStatus) -> None:
    """Make a dataset current in all slots of the one that it replaces by hand."""
    since = later_than(datetime.now(UTC), (claim.since for claim in old.slots.values()))
    slots = {key: SlotClaim(since, "", claim.declared_in) for key, claim in old.slots.items()}
    if slots:
        hold(mirror, client, old.project, mfid, slots)


def new_parents(dataset: DatasetRef, used: Sequence[UsedDataset], own: Collection[str] = ()) -> dict[str, str]:
    """Return {parent it would be made from now: parent it was made from} for parents that differ and are not linked.

    A step that does not change its own result may get that as an input. `own` are all results of its execution.
    """
    if len(dataset.parents) != len(used):
        return {}
    noted = {*dataset.parents, *dataset.equals, dataset.mfid, *own}
    pairs = zip(used, dataset.parents, strict=True)
    return {part.dataset.mfid: was for part, was in pairs if part.dataset.mfid not in noted}


def add_equal_parents(client: CrucibleClient, mfid: str, parents: Mapping[str, str]) -> None:
    """Link a dataset to further parents: {parent: the parent it was made from, with the same bytes and origin}.

    The links come first, so that a record never names a parent that is not linked.
    """
    for parent in parents:
        client.datasets.link_parent_child(parent, mfid, relationship_type="is_derived_from")
    if read_record(client.metadata.merge(mfid, equality_mark(parents))) is None:
        raise NotFoundError(f"dataset {mfid} has lost its provenance record; run `crucible-lineage verify {mfid}`")
