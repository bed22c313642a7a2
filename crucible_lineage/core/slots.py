"""Which results are current. In each slot that a result fills, the newest run that relied on it made it current.

A slot names what a result is of: pipeline, step, output, and the data (and variant) it is about. The slots that a
dataset fills are stored in its scientific metadata beside the provenance record, each with the run that last relied on
it and when. So all machines agree, ids never change, and returning to an earlier parameter makes its result current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from crucible_lineage.json_types import texts
from crucible_lineage.marks import SLOTS_KEY, moment_of, slots_in, slots_mark

MAX_SCOPE_CHARACTERS = 200  # a longer scope is shortened and identified by its hash


@dataclass(frozen=True)
class SlotClaim:
    """A dataset's claim to a slot: the run that relied on it last, when that began, and the file that declares it.

    `also` are other files that declare the same slot and still rely on the dataset. `was` are former names of the file:
    results made under those names do not become current again.
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

    def to_json(self) -> dict[str, object]:
        """Return the entry for the scientific metadata."""
        others = {"also": list(self.also), "was": list(self.was)} if self.also or self.was else {}
        return {"since": self.since, "run": self.run, "declared_in": self.declared_in, **others}

    @classmethod
    def from_json(cls, entry: Mapping[str, object]) -> SlotClaim:
        """Parse an entry of the scientific metadata. Unreadable fields are ignored."""
        also, was = texts(entry.get("also")), texts(entry.get("was"))
        return cls(str(entry["since"]), str(entry.get("run", "")), str(entry.get("declared_in", "")), also, was)


@dataclass(frozen=True)
class DatasetStatus:
    """The facts that decide whether a dataset is current: whether it is complete and derived, and the slots it fills.

    `replaces` is the dataset that it was made by hand to replace, which no run undoes. A dataset that
    is neither derived nor a replacement is measured data and fills none, whatever its metadata says. Claims count only
    within the dataset's own `project`.
    """

    mfid: str
    project: str
    complete: bool
    derived: bool
    slots: Mapping[str, SlotClaim]
    replaces: str | None = None

    @property
    def fills(self) -> Mapping[str, SlotClaim]:
        """The slots that count."""
        return self.slots if self.derived or self.replaces else {}


def pipeline_keyword(pipeline: str) -> str:
    """Return the keyword of all datasets that a pipeline or flow made or relied on."""
    return f"pipeline:{pipeline}"


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
