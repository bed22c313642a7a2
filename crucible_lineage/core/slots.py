"""Which results are current. In each slot that a result fills, the newest run that relied on it made it current.

A slot names what a result is of: pipeline, step, output, and the data (and variant) it is about. The slots that a
dataset fills are stored in its scientific metadata beside the provenance record, each with the run that last relied on
it and when. So all machines agree, ids never change, and returning to an earlier parameter makes its result current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from crucible_lineage.marks import SLOTS_KEY, moment_of, order_of_claims, slots_in, slots_mark
from crucible_lineage.statements.statements import trial_key

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.core.mirror import Mirror

CURRENT, SUPERSEDED, INCOMPLETE, RAW = "current", "superseded", "incomplete", "raw"
CANDIDATE = "candidate"  # of a try that is not promoted
MAX_SCOPE_CHARACTERS = 200  # a longer scope is shortened and identified by its hash


@dataclass(frozen=True)
class SlotClaim:
    """A dataset's claim to a slot: the run that relied on it last, when that began, and the file that declares it.

    `also` are other files that declare the same slot and still rely on the dataset. `was` are former names of the file:
    results made under those names do not become current again. The claim of a `trial`, under a key of its own, counts
    from the promotion of that try on.
    """

    since: str
    run: str
    declared_in: str = ""
    also: tuple[str, ...] = ()
    was: tuple[str, ...] = ()
    trial: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The declarations that rely on it."""
        return (self.declared_in, *self.also)

    def to_json(self) -> dict[str, object]:
        """Return the entry for the scientific metadata."""
        others = {"also": list(self.also), "was": list(self.was)} if self.also or self.was else {}
        trial = {"try": self.trial} if self.trial else {}
        return {"since": self.since, "run": self.run, "declared_in": self.declared_in, **others, **trial}

    @classmethod
    def from_json(cls, entry: Mapping[str, object]) -> SlotClaim:
        """Parse an entry of the scientific metadata. Unreadable fields are ignored."""
        also, was = _texts(entry.get("also")), _texts(entry.get("was"))
        declared_in, trial = str(entry.get("declared_in", "")), str(entry.get("try") or "")
        return cls(str(entry["since"]), str(entry.get("run", "")), declared_in, also, was, trial)


@dataclass(frozen=True)
class DatasetStatus:
    """The facts that decide whether a dataset is current: whether it is complete and derived, and the slots it fills.

    `replaces` is the dataset that it was made to replace; it counts only for datasets that fill no slot. A dataset that
    is neither derived nor a replacement is measured data and fills none, whatever its metadata says. Claims count only
    within the dataset's own `project`. A candidate fills slots only once a try is promoted.
    """

    mfid: str
    project: str
    complete: bool
    derived: bool
    slots: Mapping[str, SlotClaim]
    replaces: str | None = None
    is_candidate: bool = False

    @property
    def fills(self) -> Mapping[str, SlotClaim]:
        """The slots that count."""
        return self.slots if self.derived or self.replaces else {}


def trial_slot(slot: str, trial: str) -> str:
    """Return the key under which a dataset claims a slot for a try, or for good if `trial` is empty."""
    return f"{slot}{_suffix(trial)}"


def _suffix(trial: str) -> str:
    return f" (try {trial})" if trial else ""


def pipeline_keyword(pipeline: str) -> str:
    """Return the keyword of all datasets that a pipeline or flow made or relied on."""
    return f"pipeline:{pipeline}"


def hold(mirror: Mirror, client: CrucibleClient, project: str, mfid: str, slots: Mapping[str, SlotClaim]) -> None:
    """Make a dataset current in these slots.

    Adds the keywords of the slots' pipelines, by which their runs find it, and updates the mirror, so that the next
    sync need not read the change back. Idempotent. Raises CrucibleError.
    """
    keywords = sorted({pipeline_keyword(slot.partition("/")[0]) for slot in slots})
    for keyword in keywords:
        if not mirror.is_member(project, keyword, mfid):
            client.datasets.add_keyword(mfid, keyword)
    after = slots_of(client.metadata.merge(mfid, slots_stated(slots)))
    mirror.note_held(project, keywords, mfid, after)  # including what others have written meanwhile


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


def slot(pipeline: str, step: str, output: str, scope: str) -> str:
    """Return the key of a slot. `scope` names the data and the variant that it is about."""
    if len(scope) > MAX_SCOPE_CHARACTERS:
        scope = f"{scope[:80]}... {hashlib.sha256(scope.encode()).hexdigest()[:16]}"
    return f"{pipeline}/{step}/{output}/{scope}"


def slots_of(scientific_metadata: Mapping[str, object] | None) -> dict[str, SlotClaim]:
    """Return the slots that a dataset fills. Unreadable entries are ignored."""
    claims = {}
    for key, entry in slots_in(scientific_metadata).items():
        if isinstance(entry, Mapping) and isinstance(entry.get("since"), str):
            claims[str(key)] = SlotClaim.from_json(entry)
    return claims


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def slots_to_json(slots: Mapping[str, SlotClaim]) -> dict[str, object]:
    """Return the slots as metadata for a registration."""
    return {SLOTS_KEY: {key: claim.to_json() for key, claim in slots.items()}}


def slots_stated(slots: Mapping[str, SlotClaim]) -> dict[str, object]:
    """Return the metadata that makes a registered dataset fill these slots."""
    return slots_mark({key: claim.to_json() for key, claim in slots.items()})


def later_than(moment: datetime, others: Iterable[str]) -> str:
    """Return the moment, or one just after the latest of the others: clocks differ, and the newest run wins."""
    latest = max((other for text in others if (other := moment_of(text))), default=moment - timedelta(microseconds=1))
    return max(moment, latest + timedelta(microseconds=1)).astimezone(UTC).isoformat(timespec="microseconds")


_Tried = dict[tuple[str, str, str], tuple[str, str]]  # by project, try and slot: when, and the dataset


def _tried_last(statuses: Iterable[DatasetStatus]) -> _Tried:
    """Return the dataset that each try relied on last in each slot."""
    found: _Tried = {}
    for status in statuses:
        for key, claim in status.slots.items():
            if claim.trial and status.complete and status.derived:
                at = status.project.casefold(), claim.trial, key.removesuffix(_suffix(claim.trial))
                before, own = found.get(at, ("", "")), (claim.since, status.mfid)
                found[at] = max(before, own, key=lambda one: (order_of_claims(one[0]), one[1]))
    return found


def _counting(status: DatasetStatus, promoted: Mapping[str, str], tried: _Tried) -> DatasetStatus:
    """Return the status with the claims that count: not those of tries, unless promoted, from that moment on."""
    claims = {key: claim for key, claim in status.slots.items() if claim.trial}
    if not claims:
        return status
    slots, is_candidate = {key: claim for key, claim in status.slots.items() if not claim.trial}, False
    for key, claim in claims.items():
        slot = key.removesuffix(_suffix(claim.trial))
        moment = promoted.get(trial_key(status.project, claim.trial))
        _, last = tried.get((status.project.casefold(), claim.trial, slot), ("", ""))
        if moment is None or last != status.mfid:
            is_candidate = True
        elif slot not in slots or order_of_claims(slots[slot].since) < order_of_claims(moment):
            slots[slot] = replace(claim, since=moment, trial="")
    return replace(status, slots=slots, is_candidate=is_candidate)


class Currency:
    """Which of many datasets are current. `promoted` has the moment of promotion of each promoted try."""

    def __init__(self, statuses: Iterable[DatasetStatus], promoted: Mapping[str, str] = MappingProxyType({})) -> None:
        listed = list(statuses)
        self._tried = _tried_last(listed)
        self._statuses = {status.mfid: _counting(status, promoted, self._tried) for status in listed}
        self._claimants: dict[tuple[str, str], list[DatasetStatus]] = {}
        self._successors: dict[str, str] = {}
        for status in self._statuses.values():
            if not status.complete:
                continue
            for key in status.fills:
                self._claimants.setdefault((status.project.casefold(), key), []).append(status)
            replaced = self._statuses.get(status.replaces or "")
            if status.replaces and (replaced is None or replaced.project.casefold() == status.project.casefold()):
                self._successors[status.replaces] = max(status.mfid, self._successors.get(status.replaces, ""))

    def current(self, key: str, project: str) -> tuple[str, ...]:
        """Return the current datasets of a slot: for each declaration of it, those that its newest run relied on."""
        claimants = self._claimants.get((project.casefold(), key), ())
        return tuple(sorted(status.mfid for status in claimants if self._holds(status, key)))

    def by_declaration(self, key: str, project: str) -> dict[str, list[str]]:
        """Return the current datasets of a slot by the file that declares it."""
        found: dict[str, list[str]] = {}
        for status in self._claimants.get((project.casefold(), key), ()):
            for file in status.slots[key].files:
                if self._holds_for(status, key, file):
                    found.setdefault(file, []).append(status.mfid)
        return {file: sorted(mfids) for file, mfids in found.items()}

    def latest_for(self, mfid: str, key: str) -> tuple[str, ...]:
        """Return the files, former names included, whose runs have not relied on another dataset in the slot since."""
        status = self._statuses.get(mfid)
        if status is None or key not in status.slots:
            return ()
        names = (*status.slots[key].files, *status.slots[key].was)
        return tuple(name for name in names if self._holds_for(status, key, name))

    def claims(self, key: str, project: str) -> list[SlotClaim]:
        """Return all claims to a slot, past ones included."""
        return [status.slots[key] for status in self._claimants.get((project.casefold(), key), ())]

    def tried(self, key: str, trial: str, project: str) -> tuple[str, str]:
        """Return when a try relied on a dataset in a slot last, and on which; empty if it did not."""
        return self._tried.get((project.casefold(), trial, key), ("", ""))

    def candidates(self, trial: str, project: str) -> dict[str, str]:
        """Return the dataset that a try relied on last in each slot."""
        own = project.casefold(), trial
        return {slot: mfid for (*of, slot), (_, mfid) in sorted(self._tried.items()) if tuple(of) == own}

    def all_slots(self) -> Iterable[tuple[str, str]]:
        """Return the project (in lower case) and key of each slot that a complete dataset fills."""
        return self._claimants.keys()

    def slots(self, mfid: str) -> Mapping[str, SlotClaim]:
        """Return the slots that a dataset fills or has filled."""
        return self._statuses[mfid].slots if mfid in self._statuses else {}

    def state(self, mfid: str) -> str:
        """Return CURRENT, CANDIDATE, SUPERSEDED, INCOMPLETE or RAW; RAW also for an unknown dataset."""
        status = self._statuses.get(mfid)
        if status is None:
            return RAW
        if not status.complete:
            return INCOMPLETE
        if status.fills and any(self._holds(status, key) for key in status.fills):
            return CURRENT
        if status.is_candidate:
            return CANDIDATE
        if status.fills:
            return SUPERSEDED
        if mfid in self._successors:
            return SUPERSEDED
        return CURRENT if status.derived else RAW

    def superseded_by(self, mfid: str) -> tuple[str, ...]:
        """Return the datasets that are current instead; none if the dataset is not superseded."""
        if self.state(mfid) != SUPERSEDED:
            return ()
        status = self._statuses[mfid]
        if status.fills:
            return tuple(dict.fromkeys(other for key in status.fills for other in self.current(key, status.project)))
        return self._replacement(mfid)

    def _replacement(self, mfid: str) -> tuple[str, ...]:
        seen = {mfid}
        while (following := self._successors.get(mfid)) and following not in seen:
            seen.add(following)
            mfid = following
        return self.superseded_by(mfid) or (mfid,)

    def _holds(self, status: DatasetStatus, key: str) -> bool:
        return any(self._holds_for(status, key, file) for file in status.slots[key].files)

    def _holds_for(self, status: DatasetStatus, key: str, file: str) -> bool:
        """Return whether no run of the declaration in this file has relied on another dataset since."""
        claimants = self._claimants.get((status.project.casefold(), key), ())
        if len(claimants) == 1 and claimants[0] is status:  # the usual case
            return True
        claims = (claimant.slots[key] for claimant in claimants)
        moments = (claim.since for claim in claims if file in (*claim.files, *claim.was))
        return status.slots[key].since == max(moments, key=order_of_claims)
