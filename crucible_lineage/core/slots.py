"""Which results hold now. A result fills places; the newest run that relied on one for a place made it current there.

A place is what a result is of: pipeline, step, output, and the data (and variant) it is about. The places that a
dataset fills lie in its scientific metadata beside the provenance record, each with the run that last relied on it and
when. So all machines agree, ids never change, and going back to an earlier parameter makes the earlier result current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from crucible_lineage.statements import PLACES_KEY, holds, places_in

__all__ = [
    "CURRENT",
    "INCOMPLETE",
    "RAW",
    "SUPERSEDED",
    "Currency",
    "Filled",
    "Standing",
    "later_than",
    "place",
    "places_of",
    "places_stated",
    "places_to_json",
]

CURRENT, SUPERSEDED, INCOMPLETE, RAW = "current", "superseded", "incomplete", "raw"
MOST_CHARACTERS = 200  # of a scope; a longer one is told by its hash


@dataclass(frozen=True)
class Filled:
    """That a dataset fills a place: which run relied on it last, begun when, for the declaration in which file.

    `also` are other files that declare the same and rely on it still, `was` are former names of the file: what was made
    for these before is not current again.
    """

    since: str
    run: str
    declared_in: str = ""
    also: tuple[str, ...] = ()
    was: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The declarations that rely on it."""
        return (self.declared_in, *self.also)


@dataclass(frozen=True)
class Standing:
    """What there is to know of a dataset to tell whether it holds: is it complete, made of others, and what it fills.

    `replaces` is the dataset that it was made to replace; it counts only for those that fill no place. What is neither
    derived nor a replacement is measured data and fills none, whatever is written on it. All of this counts in its own
    `project`: what lies elsewhere may say what it likes.
    """

    mfid: str
    project: str
    complete: bool
    derived: bool
    places: Mapping[str, Filled]
    replaces: str | None = None

    @property
    def fills(self) -> Mapping[str, Filled]:
        """The places that count."""
        return self.places if self.derived or self.replaces else {}


def place(pipeline: str, step: str, output: str, scope: str) -> str:
    """The key of a place. `scope` says which data and which variant it is about."""
    if len(scope) > MOST_CHARACTERS:
        scope = f"{scope[:80]}... {hashlib.sha256(scope.encode()).hexdigest()[:16]}"
    return f"{pipeline}/{step}/{output}/{scope}"


def places_of(scientific_metadata: Mapping[str, object] | None) -> dict[str, Filled]:
    """The places that a dataset fills; what is not understood is left out."""
    found = {}
    for key, entry in places_in(scientific_metadata).items():
        if isinstance(entry, Mapping) and isinstance(entry.get("since"), str):
            also, was = _texts(entry.get("also")), _texts(entry.get("was"))
            file = str(entry.get("declared_in", ""))
            found[str(key)] = Filled(entry["since"], str(entry.get("run", "")), file, also, was)
    return found


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def places_to_json(places: Mapping[str, Filled]) -> dict[str, object]:
    """What is written into the scientific metadata when a dataset is registered."""
    return {PLACES_KEY: {key: _filled_to_json(one) for key, one in places.items()}}


def places_stated(places: Mapping[str, Filled]) -> dict[str, object]:
    """What is written into the scientific metadata of a dataset that fills these places from now on."""
    return holds({key: _filled_to_json(one) for key, one in places.items()})


def _filled_to_json(one: Filled) -> dict[str, object]:
    others = {"also": list(one.also), "was": list(one.was)} if one.also or one.was else {}
    return {"since": one.since, "run": one.run, "declared_in": one.declared_in, **others}


def later_than(moment: datetime, others: Iterable[str]) -> str:
    """That moment, or one just after the latest of the others: clocks differ, and the newest run has the last word."""
    latest = max((found for text in others if (found := _moment(text))), default=moment - timedelta(microseconds=1))
    return max(moment, latest + timedelta(microseconds=1)).astimezone(UTC).isoformat(timespec="microseconds")


class Currency:
    """Of many datasets, which hold now."""

    def __init__(self, standings: Iterable[Standing]) -> None:
        self._standings = {one.mfid: one for one in standings}
        self._holders: dict[tuple[str, str], list[Standing]] = {}
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
        """The datasets that hold in a place: those that the newest run relied on, of each declaration that has it."""
        holders = self._holders.get((project.casefold(), key), ())
        return tuple(sorted(one.mfid for one in holders if self._holds(one, key)))

    def by_declaration(self, key: str, project: str) -> dict[str, list[str]]:
        """The datasets that hold in a place, for each of the files that declare it."""
        found: dict[str, list[str]] = {}
        for one in self._holders.get((project.casefold(), key), ()):
            for file in one.places[key].files:
                if self._holds_for(one, key, file):
                    found.setdefault(file, []).append(one.mfid)
        return {file: sorted(mfids) for file, mfids in found.items()}

    def latest_for(self, mfid: str, key: str) -> tuple[str, ...]:
        """The files, former names included, whose runs have relied on nothing else in a place since."""
        one = self._standings.get(mfid)
        if one is None or key not in one.places:
            return ()
        names = (*one.places[key].files, *one.places[key].was)
        return tuple(name for name in names if self._holds_for(one, key, name))

    def filled(self, key: str, project: str) -> list[Filled]:
        """By whom a place is or was filled."""
        return [one.places[key] for one in self._holders.get((project.casefold(), key), ())]

    def all_places(self) -> Iterable[tuple[str, str]]:
        """The project (in small letters) and key of all places that a complete dataset fills."""
        return self._holders.keys()

    def places(self, mfid: str) -> Mapping[str, Filled]:
        """The places that a dataset fills or has filled."""
        return self._standings[mfid].places if mfid in self._standings else {}

    def state(self, mfid: str) -> str:
        """CURRENT, SUPERSEDED, INCOMPLETE or RAW; RAW also for a dataset of which nothing is known."""
        one = self._standings.get(mfid)
        if one is None:
            return RAW
        if not one.complete:
            return INCOMPLETE
        if one.fills:
            return CURRENT if any(self._holds(one, key) for key in one.fills) else SUPERSEDED
        if mfid in self._successors:
            return SUPERSEDED
        return CURRENT if one.derived else RAW

    def superseded_by(self, mfid: str) -> tuple[str, ...]:
        """The datasets that hold in its stead; none if it is not superseded."""
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

    def _holds(self, one: Standing, key: str) -> bool:
        return any(self._holds_for(one, key, file) for file in one.places[key].files)

    def _holds_for(self, one: Standing, key: str, file: str) -> bool:
        """True if no run of the declaration in this file has relied on another dataset since."""
        rivals = (other.places[key] for other in self._holders.get((one.project.casefold(), key), ()))
        same = (other.since for other in rivals if file in (*other.files, *other.was))
        return one.places[key].since == max(same, key=_moment_or_text)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment_or_text(text: str) -> tuple[bool, object]:
    moment = _moment(text)
    return (moment is not None, moment or text)
