"""Results on their way to Crucible: which wait, for what, and which may be taken up next."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from crucible_lineage.errors import CrucibleError
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.made import Made

__all__ = ["UnderWay"]


@dataclass
class UnderWay:
    """What is known of results on their way, by name of the result or id of the dataset.

    Who uses it holds the lock of `changed`, and tells it of changes that others wait for.
    """

    waiting: dict[str, Made] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)  # dataset that waits -> the result that it is part of
    running: set[str] = field(default_factory=set)
    not_before: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    overtaken: set[str] = field(default_factory=set)
    lacking: dict[str, str] = field(default_factory=dict)  # result -> what Crucible does not have, as it says
    from_before: set[str] = field(default_factory=set)  # made by an earlier run: Crucible may have other parents by now
    delivered: list[str] = field(default_factory=list)  # datasets from before that are at Crucible now
    adopted: dict[str, DatasetRef] = field(default_factory=dict)  # what is there with other bytes than were made here
    theirs: set[str] = field(default_factory=set)  # what is there as another machine has registered it
    dropped: list[str] = field(default_factory=list)  # what was made here and is no result, so that it is made again
    refusal: CrucibleError | None = None  # the service has refused for good, whatever is sent
    stopped: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, made: Made) -> None:
        """It waits from now on."""
        self.waiting[made.name] = made
        self.where |= dict.fromkeys((new.mfid for new in made.datasets), made.name)

    def leave(self, made: Made) -> None:
        """It waits no more."""
        self.waiting.pop(made.name, None)
        for new in made.datasets:
            self.where.pop(new.mfid, None)

    def arrive(self, made: Made) -> None:
        """It is at Crucible, and what lacked it there may be tried again."""
        self.leave(made)
        arrived = set(made.mfids)
        self.lacking = {
            name: error for name, error in self.lacking.items()
            if name in self.waiting and not self.waiting[name].parents & arrived
        }  # fmt: skip

    def next(self, now: float) -> tuple[Made | None, float | None]:
        """The oldest result that may be taken up now; else for how long to wait, None for a change of things."""
        soonest: float | None = None
        not_to_take = {*self.running, *self.refused, *self.lacking}
        for name, made in self.waiting.items():
            if name in not_to_take or not self.blocking(made) <= self.begun:
                continue
            left_s = self.not_before.get(name, 0.0) - now
            if left_s <= 0:
                return made, None
            soonest = left_s if soonest is None else min(soonest, left_s)
        return None, soonest

    def blocking(self, made: Made) -> set[str]:
        """Its parents that wait here as well."""
        where = self.where
        return {parent for parent in made.parents if where.get(parent, made.name) != made.name}

    def with_descendants(self, made: Made) -> list[Made]:
        """It, and all that waits and was made from it, at any remove, but for what is being delivered."""
        found, more = {made.name: made}, True
        while more:
            ids = {mfid for one in found.values() for mfid in one.mfids}
            children = {name: other for name, other in self.waiting.items()
                        if other.parents & ids and name not in {*found, *self.running}}  # fmt: skip
            found, more = found | children, bool(children)
        return list(found.values())

    def can_go_on(self) -> bool:
        """True if something is being delivered, or will be tried again."""
        if self.running or not (self.refused or self.lacking):
            return True
        stuck = self.stuck()
        return any(not {new.mfid for new in made.datasets} <= stuck for made in self.waiting.values())

    def stuck(self) -> set[str]:
        """Datasets of results that are refused, or that wait for one of these."""
        found: set[str] = set()
        stuck = {*self.refused, *self.lacking}
        while stuck:
            found |= {new.mfid for name in stuck if name in self.waiting
                      for new in self.waiting[name].datasets}  # fmt: skip
            stuck = {
                name for name, made in self.waiting.items()
                if made.parents & found and not {new.mfid for new in made.datasets} <= found
            }  # fmt: skip
        return found
