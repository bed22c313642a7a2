"""A result that is there already, relied on once more: made current in its slots, linked to parents it would be of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, hold, later_than
from crucible_lineage.errors import NotFoundError
from crucible_lineage.marks import equality_mark
from crucible_lineage.provenance.record import read_record

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.core.mirror import Mirror


def take_over(client: CrucibleClient, mirror: Mirror, mfid: str, old: DatasetStatus) -> None:
    """Make a dataset, which a person made in place of a current one, hold in all of its slots."""
    since = later_than(datetime.now(UTC), (filled.since for filled in old.slots.values()))
    slots = {key: SlotClaim(since, "", filled.declared_in) for key, filled in old.slots.items()}
    if slots:
        hold(mirror, client, old.project, mfid, slots)


def add_equal_parents(client: CrucibleClient, mfid: str, parents: Mapping[str, str]) -> None:
    """The dataset is a child of these too, each with the one that it was made of and whose bytes and origin it has.

    The links come first, so that a record never names a parent that is not linked for good.
    """
    for parent in parents:
        client.datasets.link_parent_child(parent, mfid, relationship_type="is_derived_from")
    if read_record(client.metadata.merge(mfid, equality_mark(parents))) is None:
        raise NotFoundError(f"dataset {mfid} has lost its provenance record; run `crucible-lineage verify {mfid}`")
