"""Which results hold now. A result fills slots; the newest run that relied on one for a slot made it current there.

A slot is what a result is of: pipeline, step, output, and the data (and variant) it is about. The slots that a
dataset fills lie in its scientific metadata beside the provenance record, each with the run that last relied on it and
when. So all machines agree, ids never change, and going back to an earlier parameter makes the earlier result current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from crucible_lineage.marks import SLOTS_KEY, holds, slots_in

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.core.mirror import Mirror

CURRENT, SUPERSEDED, INCOMPLETE, RAW = "current", "superseded", "incomplete", "raw"
CANDIDATE = "candidate"  # of a campaign that is not promoted
MOST_CHARACTERS = 200  # of a scope; a longer one is told by its hash


@dataclass(frozen=True)
class SlotClaim:
    """That a dataset fills a slot: which run relied on it last, begun when, for the declaration in which file.

    `also` are other files that declare the same and rely on it still, `was` are former names of the file: what was made
    for these before is not current again. What a `campaign` made counts once that is promoted, since that moment.
    """

    since: str
    run: str
    declared_in: str = ""
    also: tuple[str, ...] = ()
    was: tuple[str, ...] = ()
    campaign: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The declarations that rely on it."""
        return (self.declared_in, *self.also)

    def to_json(self) -> dict[str, object]:
        """Return what is written into the scientific metadata."""
        others = {"also": list(self.also), "was": list(self.was)} if self.also or self.was else {}
        of = {"campaign": self.campaign} if self.campaign else {}
        return {"since": self.since, "run": self.run, "declared_in": self.declared_in, **others, **of}

    @classmethod
    def from_json(cls, entry: Mapping[str, object]) -> SlotClaim:
        """Return what such an entry says; what is not understood of it is left out."""
        also, was = _texts(entry.get("also")), _texts(entry.get("was"))
        declared_in, campaign = str(entry.get("declared_in", "")), str(entry.get("campaign") or "")
        return cls(str(entry["since"]), str(entry.get("run", "")), declared_in, also, was, campaign)


@dataclass(frozen=True)
class DatasetStatus:
    """What there is to know of a dataset to tell whether it holds: is it complete, made of others, and what it fills.

    `replaces` is the dataset that it was made to replace; it counts only for those that fill no slot. What is neither
    derived nor a replacement is measured data and fills none, whatever is written on it. All of this counts in its own
    `project`: what lies elsewhere may say what it likes. A candidate fills some slot only once a campaign is promoted.
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


def _promoted(one: DatasetStatus, promoted: Mapping[str, str]) -> DatasetStatus:
    """Return what there is to know of a dataset, where what campaigns made counts only if they are promoted."""
    if not any(filled.campaign for filled in one.slots.values()):
        return one
    counting = {
        key: replace(filled, since=promoted[filled.campaign]) if filled.campaign else filled
        for key, filled in one.slots.items()
        if not filled.campaign or filled.campaign in promoted
    }
    return replace(one, slots=counting, is_candidate=len(counting) < len(one.slots))


def pipeline_keyword(pipeline: str) -> str:
    """Return the keyword that all datasets made or relied on by a pipeline or flow carry."""
    return f"pipeline:{pipeline}"


def hold(mirror: Mirror, client: CrucibleClient, project: str, mfid: str, slots: Mapping[str, SlotClaim]) -> None:
    """Make a dataset hold in these slots from now on.

    It gets the keywords of the slots' pipelines, by which their runs find it. The mirror is told, so that nobody reads
    back what was written. Raises CrucibleError; calling it again is harmless.
    """
    keywords = sorted({pipeline_keyword(slot.partition("/")[0]) for slot in slots})
    for keyword in keywords:
        if not mirror.is_member(project, keyword, mfid):
            client.datasets.add_keyword(mfid, keyword)
    after = slots_of(client.metadata.merge(mfid, slots_stated(slots)))
    mirror.note_held(project, keywords, mfid, after)  # what others have written meanwhile, too


def is_replaced_by_hand(holding: Iterable[str], mfid: str, replaced: Callable[[str], str | None]) -> bool:
    """Return whether what a person made in place of just this result holds: no run undoes that.

    `replaced` gives the dataset that another one was made to replace by hand, None for what a step has made.
    """
    for one in holding:
        seen: set[str] = set()
        holder: str | None = one
        while holder and holder not in seen:
            seen.add(holder)
            if (holder := replaced(holder)) == mfid:
                return True
    return False


def slot(pipeline: str, step: str, output: str, scope: str) -> str:
    """The key of a slot. `scope` says which data and which variant it is about."""
    if len(scope) > MOST_CHARACTERS:
        scope = f"{scope[:80]}... {hashlib.sha256(scope.encode()).hexdigest()[:16]}"
    return f"{pipeline}/{step}/{output}/{scope}"


def slots_of(scientific_metadata: Mapping[str, object] | None) -> dict[str, SlotClaim]:
    """The slots that a dataset fills; what is not understood is left out."""
    found = {}
    for key, entry in slots_in(scientific_metadata).items():
        if isinstance(entry, Mapping) and isinstance(entry.get("since"), str):
            found[str(key)] = SlotClaim.from_json(entry)
    return found


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def slots_to_json(slots: Mapping[str, SlotClaim]) -> dict[str, object]:
    """Return the metadata that a dataset is registered with."""
    return {SLOTS_KEY: {key: one.to_json() for key, one in slots.items()}}


def slots_stated(slots: Mapping[str, SlotClaim]) -> dict[str, object]:
    """Return the metadata of a dataset that fills these slots from now on."""
    return holds({key: one.to_json() for key, one in slots.items()})


def later_than(moment: datetime, others: Iterable[str]) -> str:
    """That moment, or one just after the latest of the others: clocks differ, and the newest run has the last word."""
    latest = max((found for text in others if (found := _moment(text))), default=moment - timedelta(microseconds=1))
    return max(moment, latest + timedelta(microseconds=1)).astimezone(UTC).isoformat(timespec="microseconds")


class Currency:
    """Of many datasets, which hold now. `promoted` are campaigns, each with the moment since when it is promoted."""

    def __init__(self, standings: Iterable[DatasetStatus], promoted: Mapping[str, str] = MappingProxyType({})) -> None:
        self._standings = {one.mfid: _promoted(one, promoted) for one in standings}
        self._holders: dict[tuple[str, str], list[DatasetStatus]] = {}
        self._successors: dict[str, str] = {}
        for one in self._standings.values():
            if not one.complete:
                continue
            for key in one.fills:
                self._holders.setdefault((one.project.casefold(), key), []).append(one)
            replaced = self._standings.get(one.replaces or "")
            if one.replaces and (replaced is None or replaced.project.casefold() == one.project.casefold()):
                self._successors[one.replaces] = max(one.mfid, self._successors.get(one.replaces, ""))

    def current(self, key: str, project: str) -> tuple[str, ...]:
        """The datasets that hold in a slot: those that the newest run relied on, of each declaration that has it."""
        holders = self._holders.get((project.casefold(), key), ())
        return tuple(sorted(one.mfid for one in holders if self._holds(one, key)))

    def by_declaration(self, key: str, project: str) -> dict[str, list[str]]:
        """The datasets that hold in a slot, for each of the files that declare it."""
        found: dict[str, list[str]] = {}
        for one in self._holders.get((project.casefold(), key), ()):
            for file in one.slots[key].files:
                if self._holds_for(one, key, file):
                    found.setdefault(file, []).append(one.mfid)
        return {file: sorted(mfids) for file, mfids in found.items()}

    def latest_for(self, mfid: str, key: str) -> tuple[str, ...]:
        """The files, former names included, whose runs have relied on nothing else in a slot since."""
        one = self._standings.get(mfid)
        if one is None or key not in one.slots:
            return ()
        names = (*one.slots[key].files, *one.slots[key].was)
        return tuple(name for name in names if self._holds_for(one, key, name))

    def filled(self, key: str, project: str) -> list[SlotClaim]:
        """By whom a slot is or was filled."""
        return [one.slots[key] for one in self._holders.get((project.casefold(), key), ())]

    def all_slots(self) -> Iterable[tuple[str, str]]:
        """The project (in small letters) and key of all slots that a complete dataset fills."""
        return self._holders.keys()

    def slots(self, mfid: str) -> Mapping[str, SlotClaim]:
        """The slots that a dataset fills or has filled."""
        return self._standings[mfid].slots if mfid in self._standings else {}

    def state(self, mfid: str) -> str:
        """CURRENT, CANDIDATE, SUPERSEDED, INCOMPLETE or RAW; RAW also for a dataset of which nothing is known."""
        one = self._standings.get(mfid)
        if one is None:
            return RAW
        if not one.complete:
            return INCOMPLETE
        if one.fills and any(self._holds(one, key) for key in one.fills):
            return CURRENT
        if one.is_candidate:
            return CANDIDATE
        if one.fills:
            return SUPERSEDED
        if mfid in self._successors:
            return SUPERSEDED
        return CURRENT if one.derived else RAW

    def superseded_by(self, mfid: str) -> tuple[str, ...]:
        """The datasets that hold in its place; none if it is not superseded."""
        if self.state(mfid) != SUPERSEDED:
            return ()
        one = self._standings[mfid]
        if one.fills:
            return tuple(dict.fromkeys(other for key in one.fills for other in self.current(key, one.project)))
        return self._in_its_stead(mfid)

    def _in_its_stead(self, mfid: str) -> tuple[str, ...]:
        seen = {mfid}
        while (following := self._successors.get(mfid)) and following not in seen:
            seen.add(following)
            mfid = following
        return self.superseded_by(mfid) or (mfid,)

    def _holds(self, one: DatasetStatus, key: str) -> bool:
        return any(self._holds_for(one, key, file) for file in one.slots[key].files)

    def _holds_for(self, one: DatasetStatus, key: str, file: str) -> bool:
        """True if no run of the declaration in this file has relied on another dataset since."""
        holders = self._holders.get((one.project.casefold(), key), ())
        if len(holders) == 1 and holders[0] is one:  # as nearly all
            return True
        rivals = (other.slots[key] for other in holders)
        same = (other.since for other in rivals if file in (*other.files, *other.was))
        return one.slots[key].since == max(same, key=_moment_or_text)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment_or_text(text: str) -> tuple[bool, object]:
    moment = _moment(text)
    return (moment is not None, moment or text)
