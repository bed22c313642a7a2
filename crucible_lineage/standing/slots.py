"""The one writer of slots: it decides what a run claims, makes datasets current, and keeps the mirror in step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim, later_than, pipeline_keyword, slots_of, slots_stated
from crucible_lineage.standing.currency import Currency, currency_of

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
    mirror.note_slots(project, keywords, mfid, after)  # including what others have written meanwhile


def make_current_now(
    mirror: Mirror, client: CrucibleClient, project: str, mfid: str, claims: Mapping[str, SlotClaim]
) -> None:
    """Make a dataset current in these slots from now on, after all that any run has made current in them."""
    if claims:
        currency = currency_of(mirror.snapshot(project))
        earlier = (claim for key in claims for claim in currency.claims(key, project))
        since = later_than(datetime.now(UTC), [claim.since for claim in (*claims.values(), *earlier)])
        make_current(mirror, client, project, mfid, {key: replace(claim, since=since) for key, claim in claims.items()})


@dataclass(frozen=True)
class ClaimingRun:
    """A run of a pipeline or flow as it claims slots of a project: its id, its begin, and the file that declares it.

    Without a file, results take over the slots of recorded ones. Other names in a slot belong to other declarations if
    a file of that name is in `folder`; else they are former names of this one.
    """

    id: str
    begun: datetime
    file: str | None
    folder: Path | None = None

    def current(self, currency: Currency, project: str, key: str) -> set[str]:
        """Return the datasets that are current in a slot for this declaration."""
        found = currency.current(key, project)
        return {mfid for mfid in found if self.file is None or self.file in currency.slots(mfid)[key].files}

    def claim(self, currency: Currency, project: str, key: str, mfid: str = "") -> SlotClaim:
        """Return this run's claim to a slot for a dataset, new or not, later than the claims of earlier runs.

        The processes of a run claim a slot as of the same moment.
        """
        claims = currency.claims(key, project)
        own = [claim.since for claim in claims if claim.run == self.id]
        since = max(own) if own else later_than(self.begun, (claim.since for claim in claims))
        before = currency.slots(mfid).get(key, SlotClaim("", ""))
        if self.file is None:
            declared_in = max(claims, key=lambda claim: claim.since, default=before).declared_in
            return SlotClaim(since, self.id, declared_in, before.also, before.was)
        others = set(currency.latest_for(mfid, key)) - {"", self.file}
        also = {name for name in others if self.folder and (self.folder / name).is_file()}
        return SlotClaim(since, self.id, self.file, tuple(sorted(also)), tuple(sorted(others - also)))

    def make_current(
        self, mirror: Mirror, client: CrucibleClient, currency: Currency, project: str, mfid: str, keys: Iterable[str]
    ) -> list[str]:
        """Make a dataset current in these slots, but for those in which a person has replaced it. Return them."""
        by_hand = currency.replacements(mfid)
        made = [key for key in keys if by_hand.isdisjoint(currency.current(key, project))]
        if made:
            claims = {key: self.claim(currency, project, key, mfid) for key in made}
            make_current(mirror, client, project, mfid, claims)
        return made
