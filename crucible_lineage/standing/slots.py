"""Which results of a project fill its slots, before statements count, and the one writer that makes them current.

In each slot, the newest run that relied on a result made it current. What people stated is considered by `standings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, later_than, pipeline_keyword, slots_of, slots_stated
from crucible_lineage.core.tables import Snapshot
from crucible_lineage.lineage.model import CURRENT, INCOMPLETE, RAW, SUPERSEDED
from crucible_lineage.marks import order_of_claims

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.core.mirror import Mirror


class Currency:
    """Which datasets fill the slots of projects or pipelines of which all datasets are given, hidden ones, too."""

    def __init__(self, statuses: Iterable[DatasetStatus]) -> None:
        self._statuses = {status.mfid: status for status in statuses}
        self._claimants: dict[tuple[str, str], list[DatasetStatus]] = {}
        self._claims: dict[tuple[str, str], list[SlotClaim]] = {}
        self._successors: dict[str, set[str]] = {}
        for status in self._statuses.values():
            for key, claim in status.fills.items():
                self._claims.setdefault((status.project.casefold(), key), []).append(claim)
            if not status.complete:
                continue
            for key in status.fills:
                self._claimants.setdefault((status.project.casefold(), key), []).append(status)
            replaced = self._statuses.get(status.replaces or "")
            if status.replaces and (replaced is None or replaced.project.casefold() == status.project.casefold()):
                self._successors.setdefault(status.replaces, set()).add(status.mfid)

    def current(self, key: str, project: str) -> tuple[str, ...]:
        """Return the current datasets of a slot: for each declaration of it, those that its newest run relied on."""
        claimants = self._claimants.get((project.casefold(), key), ())
        return tuple(sorted(status.mfid for status in claimants if self._is_current(status, key)))

    def by_declaration(self, key: str, project: str) -> dict[str, list[str]]:
        """Return the current datasets of a slot by the file that declares it."""
        found: dict[str, list[str]] = {}
        for status in self._claimants.get((project.casefold(), key), ()):
            for file in status.slots[key].files:
                if self._is_current_for(status, key, file):
                    found.setdefault(file, []).append(status.mfid)
        return {file: sorted(mfids) for file, mfids in found.items()}

    def latest_for(self, mfid: str, key: str) -> tuple[str, ...]:
        """Return the files, former names included, whose runs have not relied on another dataset in the slot since."""
        status = self._statuses.get(mfid)
        if status is None or key not in status.slots:
            return ()
        names = (*status.slots[key].files, *status.slots[key].was)
        return tuple(name for name in names if self._is_current_for(status, key, name))

    def claims(self, key: str, project: str) -> Sequence[SlotClaim]:
        """Return all claims to a slot: past ones, and those of incomplete datasets, too."""
        return self._claims.get((project.casefold(), key), ())

    def all_slots(self) -> Iterable[tuple[str, str]]:
        """Return the project (in lower case) and key of each slot that a complete dataset fills."""
        return self._claimants.keys()

    def slots(self, mfid: str) -> Mapping[str, SlotClaim]:
        """Return the slots that a dataset fills or has filled."""
        return self._statuses[mfid].slots if mfid in self._statuses else {}

    def state(self, mfid: str) -> str:
        """Return what slots and replacements alone say of a dataset; RAW also for an unknown one."""
        status = self._statuses.get(mfid)
        if status is None:
            return RAW
        if not status.complete:
            return INCOMPLETE
        if any(self._is_current(status, key) for key in status.fills):
            return CURRENT
        if status.fills or mfid in self._successors:
            return SUPERSEDED
        return CURRENT if status.derived else RAW

    def superseded_by(self, mfid: str) -> tuple[str, ...]:
        """Return the datasets that are current instead; none if the dataset is not superseded."""
        if self.state(mfid) != SUPERSEDED:
            return ()
        status = self._statuses[mfid]
        if status.fills:
            return tuple(dict.fromkeys(other for key in status.fills for other in self.current(key, status.project)))
        seen = {mfid}
        while (following := max(self._successors.get(mfid, ()), default="")) and following not in seen:
            seen.add(following)
            mfid = following
        last = self._statuses.get(mfid)  # without slots, it is the last of its chain, or one of a circle
        return (self.superseded_by(mfid) if last and last.fills else ()) or (mfid,)

    def replacements(self, mfid: str) -> set[str]:
        """Return the datasets that were made by hand to replace this one, or one of those: no run undoes that."""
        found, left = set[str](), [mfid]
        while left:
            new = self._successors.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    def _is_current(self, status: DatasetStatus, key: str) -> bool:
        return any(self._is_current_for(status, key, file) for file in status.slots[key].files)

    def _is_current_for(self, status: DatasetStatus, key: str, file: str) -> bool:
        """Return whether no run of the declaration in this file has relied on another dataset since."""
        claimants = self._claimants.get((status.project.casefold(), key), ())
        if len(claimants) == 1 and claimants[0] is status:  # the usual case
            return True
        claims = (claimant.slots[key] for claimant in claimants)
        moments = (claim.since for claim in claims if file in (*claim.files, *claim.was))
        return status.slots[key].since == max(moments, key=order_of_claims)


_currencies: WeakKeyDictionary[Snapshot, Currency] = WeakKeyDictionary()


def currency_of(*copies: Snapshot, beside: Iterable[DatasetStatus] = ()) -> Currency:
    """Return what fills the slots of these projects, of which all datasets are in the copies or given `beside` them.

    Without a copy, of the pipeline whose datasets are given.
    """
    beside = list(beside)
    if len(copies) == 1 and not beside:
        if (found := _currencies.get(copies[0])) is None:
            found = _currencies[copies[0]] = Currency(_statuses(copies))
        return found
    return Currency([*_statuses(copies), *beside])


def _statuses(copies: Iterable[Snapshot]) -> Iterable[DatasetStatus]:
    return (summary.status for copy in copies for summary in copy.summaries.values())


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
        found = currency.by_declaration(key, project)
        return {mfid for file, mfids in found.items() if self.file in (None, file) for mfid in mfids}

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
