"""What a step needs of whoever delivers its result later: in this process, or in that of its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from crucible_lineage.errors import TRANSIENT

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.registration.made import Made

__all__ = ["DeliveredByRun", "DeliversLater"]

Found = TypeVar("Found")


class DeliversLater(Protocol):
    """Whoever delivers what is made, while what comes next starts from it."""

    def is_worth_a_look(self, mfid: str, /) -> bool:
        """True if the service may have this result by now, though the plan did not find it there."""

    def look(self, ask: Callable[[CrucibleClient], Found | None], /) -> Found | None:
        """What `ask` finds at the service; None if it is away, which keeps no step from being made."""

    def add(self, made: Made, /) -> None:
        """It waits in the outbox, and is delivered as soon as may be."""

    def took(self, seconds: float, /) -> None:
        """A step took so long."""


class DeliveredByRun:
    """Of a step in another process than its run, on the same machine and data folder: the run looks into the outbox
    when the step has ended. `may_be_there` says whether the service is to be asked first; `connect` gives a client
    that gives up soon.
    """

    def __init__(self, may_be_there: bool, connect: Callable[[], CrucibleClient]) -> None:
        self._may_be_there = may_be_there
        self._connect = connect

    def is_worth_a_look(self, mfid: str, /) -> bool:  # noqa: ARG002 (the run has looked)
        """As the run says."""
        return self._may_be_there

    def look(self, ask: Callable[[CrucibleClient], Found | None], /) -> Found | None:
        """What is there; None if the service is away."""
        try:
            with self._connect() as client:
                return ask(client)
        except TRANSIENT:
            return None

    def add(self, made: Made, /) -> None:
        """The run finds it."""

    def took(self, seconds: float, /) -> None:
        """The run is told with the outcome."""
