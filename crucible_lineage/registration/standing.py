"""A result that is there already, relied on once more: made current in its places, linked to parents it would be of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import Filled, Standing, later_than, places_stated
from crucible_lineage.errors import NotFoundError
from crucible_lineage.provenance.record import read_record
from crucible_lineage.statements import equals

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["add_equal_parents", "make_current", "take_over"]


def make_current(client: CrucibleClient, mfid: str, places: Mapping[str, Filled]) -> None:
    """State that the dataset holds in these places."""
    client.metadata.merge(mfid, places_stated(places))


def take_over(client: CrucibleClient, mfid: str, old: Standing) -> None:
    """The dataset, which a person made in the stead of a current one, holds in all its places. Doing it twice is once.

    It bears the keywords of the pipelines that these places are of, by which their runs find it.
    """
    since = later_than(datetime.now(UTC), (filled.since for filled in old.places.values()))
    places = {key: Filled(since, "", filled.declared_in) for key, filled in old.places.items()}
    for pipeline in sorted({key.partition("/")[0] for key in places}):
        client.datasets.add_keyword(mfid, f"pipeline:{pipeline}")
    if places:
        make_current(client, mfid, places)


def add_equal_parents(client: CrucibleClient, mfid: str, parents: Mapping[str, str]) -> None:
    """The dataset is a child of these too, each with the one that it was made of and whose bytes and origin it has.

    The links come first, so that a record never names a parent that is not linked for good.
    """
    for parent in parents:
        client.datasets.link_parent_child(parent, mfid, relationship_type="is_derived_from")
    if read_record(client.metadata.merge(mfid, equals(parents))) is None:
        raise NotFoundError(f"dataset {mfid} has lost its provenance record; run `crucible-lineage verify {mfid}`")
