"""The one writer of slots: it makes a registered dataset current, and keeps the mirror in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim, later_than, pipeline_keyword, slots_of, slots_stated
from crucible_lineage.standing.currency import currency_of

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.core.mirror import Mirror


def make_current(
    mirror: Mirror, client: CrucibleClient, project: str, mfid: str, slots: Mapping[str, SlotClaim]
) -> None:
    """Make a dataset current in these slots, by these claims. All that fills a slot after registration comes here.

    Adds the keywords of the slots' pipelines, by which their runs find it, and updates the mirror, so that the next
    sync need not read the change back. Idempotent. Raises CrucibleError.
    """
    keywords = sorted({pipeline_keyword(slot.partition("/")[0]) for slot in slots})
    for keyword in keywords:
        if not mirror.is_member(project, keyword, mfid):
            client.datasets.add_keyword(mfid, keyword)
    after = slots_of(client.metadata.merge(mfid, slots_stated(slots)))
    mirror.note_held(project, keywords, mfid, after)  # including what others have written meanwhile


def make_current_now(
    mirror: Mirror, client: CrucibleClient, project: str, mfid: str, claims: Mapping[str, SlotClaim]
) -> None:
    """Make a dataset current in these slots from now on, after all that any run has made current in them."""
    if claims:
        currency = currency_of(mirror.snapshot(project))
        known = (one for key in claims for one in currency.claims(key, project))
        since = later_than(datetime.now(UTC), [one.since for one in (*claims.values(), *known)])
        make_current(mirror, client, project, mfid, {key: replace(one, since=since) for key, one in claims.items()})


def is_replaced_by_hand(current_datasets: Iterable[str], mfid: str, replaced: Callable[[str], str | None]) -> bool:
    """Return whether one of the current datasets was made by hand to replace this result: no run undoes that.

    `replaced` returns the dataset that another one replaces by hand, None for the result of a step.
    """
    for current in current_datasets:
        seen: set[str] = set()
        dataset: str | None = current
        while dataset and dataset not in seen:
            seen.add(dataset)
            if (dataset := replaced(dataset)) == mfid:
                return True
    return False
