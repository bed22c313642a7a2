"""What deliverers work with and whom they tell, and a delivery without deliverers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crucible_lineage.errors import TRANSIENT, CrucibleError
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.made import Made
from crucible_lineage.registration.new_dataset import NewDataset
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.register import Stages, nothing, register_output

if TYPE_CHECKING:  # importing either costs time that planning should not pay
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest

__all__ = ["Delivered", "Desk", "Trouble", "deliver_now", "registered_at"]


@dataclass(frozen=True)
class Delivered:
    """A dataset that is at Crucible now: under which id it was made here, and as what it is there."""

    mfid: str
    ref: DatasetRef


@dataclass(frozen=True)
class Trouble:
    """Why something waits: the error, whether it is refused, so that trying again does not help, and so is all else.

    `log` is a file with more about it.
    """

    made: Made
    error: str
    refused: bool
    stops: bool = False
    log: str = ""


@dataclass(frozen=True)
class Desk:
    """What deliverers work with: the outbox, the service, and whom they tell.

    `turn` gives the lock of a result, `delivered` and `ingesting` hear of what has arrived, `arrived` of the results of
    steps that were delivered whole; `told_fault` says what to tell of an error that nobody has foreseen, and in which
    file its traceback is.
    """

    outbox: Outbox
    client: CrucibleClient
    machine: str
    turn: Callable[[str], FileLock]
    delivered: Callable[[Sequence[Delivered]], None] = nothing
    ingesting: Callable[[DatasetRef, Mapping[str, IngestionRequest]], None] = nothing
    troubled: Callable[[Trouble], None] = nothing
    arrived: Callable[[Made], None] = nothing
    told_fault: Callable[[BaseException], tuple[str, str]] = lambda error: (repr(error), "")

    def tell(self, trouble: Trouble) -> None:
        """It is written down with what waits, and told."""
        with suppress(OSError):  # a full disk keeps the note from being written; it is told all the same
            self.outbox.failed(trouble.made, trouble.error, refused=trouble.refused)
        self.troubled(trouble)


def deliver_now(desk: Desk, made: Made) -> list[Delivered]:
    """The outputs of one step, registered one after the other; raises what keeps one from being so.

    For who hands on to other machines, and has delivered all parents before. What waits then says why.
    """
    try:
        found = [Delivered(new.mfid, registered_at(desk, new, Stages())) for new in made.datasets]
    except CrucibleError as error:
        with suppress(OSError):
            desk.outbox.failed(made, str(error), refused=not isinstance(error, TRANSIENT))
        raise
    desk.delivered(found)
    desk.outbox.delivered(made)
    return found


def registered_at(desk: Desk, new: NewDataset, stages: Stages) -> DatasetRef:
    """The dataset, registered; whoever follows ingestions hears of its own."""
    return register_output(desk.client, new, desk.machine, stages=replace(stages, ingesting=desk.ingesting))
