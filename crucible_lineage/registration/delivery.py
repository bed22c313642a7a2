"""A delivery: what it works with, what becomes of it, one without a deliverer, and a last look at what a run made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from crucible_lineage.core.slots import SlotClaim, slots_of
from crucible_lineage.errors import TRANSIENT, CrucibleError, FileChangedError, ForbiddenError, NotFoundError
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.new_dataset import NewDataset
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import Label, Payload
from crucible_lineage.registration.register import RegistrationHooks, nothing, register_output

if TYPE_CHECKING:  # importing either costs time that planning should not pay
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

DELIVERED = "delivered"  # at Crucible, with the bytes that were made here
ADOPTED = "adopted"  # at Crucible as another registration completed it, with other bytes or another id
DROPPED = "dropped"  # no result: made from bytes that are not those at Crucible, or damaged; to be made again
REFUSED = "refused"  # sending the same again does not help
WAITS = "waits"  # could not be sent now

CLOCKS_DIFFER = timedelta(minutes=10)  # chosen: this machine's clock is as far from the service's at most
Found = TypeVar("Found")


@dataclass(frozen=True)
class Delivery:
    """What became of a payload: the outcome, its datasets as they are at Crucible by the id made here, or the error.

    `payload` is whole where it was delivered, else its label. `is_ours` is False where another process or machine was
    faster; `stops` says that the service refuses whatever is sent; `log` is a file with more about the error.
    """

    payload: Label | Payload
    outcome: str
    refs: Mapping[str, DatasetRef] = field(default_factory=dict)
    error: str = ""
    log: str = ""
    is_ours: bool = True
    stops: bool = False


@dataclass(frozen=True)
class DeliveryContext:
    """What a delivery works with: the outbox, the service, the lock of a result.

    `note` is given what is at Crucible, by the id made here; `ingesting` what was asked to be ingested;
    `describe_fault` gives the message and the log file of an error that nobody has foreseen.
    """

    outbox: Outbox
    client: CrucibleClient
    machine: str
    turn: Callable[[str], FileLock]
    note: Callable[[Mapping[str, DatasetRef]], None] = nothing
    ingesting: Callable[[DatasetRef, Mapping[str, IngestionRequest]], None] = nothing
    describe_fault: Callable[[BaseException], tuple[str, str]] = lambda error: (repr(error), "")

    def register(self, new: NewDataset, stages: RegistrationHooks) -> DatasetRef:
        """Register one dataset of a payload."""
        stages = replace(stages, ingesting=self.ingesting)
        return register_output(self.client, new, self.machine, stages=stages)


class DeliversLater(Protocol):
    """Whoever delivers what a step made, while what comes next starts from it."""

    def is_worth_a_look(self, mfid: str, /) -> bool:
        """Whether the service may have this result by now, though the plan did not find it there."""

    def look(self, ask: Callable[[CrucibleClient], Found | None], /) -> Found | None:
        """Ask the service; None if it is away, which keeps no step from being made."""

    def add(self, label: Label, /) -> None:
        """Deliver a payload as soon as may be."""

    def took(self, seconds: float, /) -> None:
        """Record how long a step took."""


def deliver_now(context: DeliveryContext, label: Label) -> dict[str, DatasetRef]:
    """Register the outputs of one step, one after the other; raises what keeps one from being registered.

    For who hands on to other machines, and has delivered all parents before.
    """
    if (payload := context.outbox.opened(label)) is None:
        raise FileChangedError(f"the result of {label.step} was damaged in the outbox, and set aside; run it again")
    context.outbox.sending(label)
    try:
        refs = {new.mfid: context.register(new, RegistrationHooks()) for new in payload.datasets}
    except CrucibleError as error:
        with suppress(OSError):
            context.outbox.failed(label, str(error), refused=not isinstance(error, TRANSIENT))
        raise
    context.note(refs)
    context.outbox.delivered(label)
    return refs


@dataclass(frozen=True)
class Confirmation:
    """What a last look at Crucible has shown: why datasets are not there as they were made, by id, and what was listed.

    `listed` are all that were modified since the run began: {MFID: (when, the slots that it fills)}.
    """

    lacking: Mapping[str, str]
    listed: Mapping[str, tuple[str, Mapping[str, SlotClaim]]]


def confirmed(
    client: CrucibleClient, project: str, keyword: str, since: datetime, wanted: Collection[DatasetRef]
) -> Confirmation:
    """Look whether datasets are at Crucible, complete, with the files that they were made with.

    One listing of what was modified `since` then; what it does not show is asked for by its id.
    """
    reasons, listed = dict[str, str](), dict[str, tuple[str, Mapping[str, SlotClaim]]]()
    left = {ref.mfid: ref for ref in wanted}
    try:
        filters: Any = {"project_id": project, "keyword": keyword, "modification_time_gte": since - CLOCKS_DIFFER}
        for one in client.datasets.iter(**filters, include_metadata=True):
            listed[one.unique_id] = (one.modification_time or "", slots_of(one.scientific_metadata))
            if ref := left.pop(one.unique_id, None):
                reasons[ref.mfid] = _why_not_as_made(read_record(one.scientific_metadata), ref)
        for mfid, ref in left.items():
            try:
                dataset = client.datasets.get(mfid, include_metadata=True)
            except (ForbiddenError, NotFoundError):
                reasons[mfid] = "is not there"
                continue
            reasons[mfid] = _why_not_as_made(read_record(dataset.scientific_metadata), ref)
    except TRANSIENT as error:
        return Confirmation({ref.mfid: f"could not be looked at: {error}" for ref in wanted}, {})
    return Confirmation({mfid: reason for mfid, reason in reasons.items() if reason}, listed)


def _why_not_as_made(record: StepRecord | FilesRecord | None, ref: DatasetRef) -> str:
    if record is None:
        return "has no provenance record"
    if not record.is_complete:
        return "is incomplete"
    there = {(file.name, file.sha256) for file in record.generated or () if not file.log}  # what is printed may differ
    return "" if there == {(file.name, file.sha256) for file in ref.files if not file.log} else "has other files"


class DeliveredByRun:
    """For a step in another process than its run, on the same machine and data folder: the run delivers.

    `may_be_there` says whether the service is to be asked first; `connect` gives a client that gives up soon.
    """

    def __init__(self, may_be_there: bool, connect: Callable[[], CrucibleClient]) -> None:
        self._may_be_there = may_be_there
        self._connect = connect

    def is_worth_a_look(self, mfid: str, /) -> bool:  # noqa: ARG002 (the run has looked)
        """As the run says."""
        return self._may_be_there

    def look(self, ask: Callable[[CrucibleClient], Found | None], /) -> Found | None:
        """Ask the service; None if it is away."""
        try:
            with self._connect() as client:
                return ask(client)
        except TRANSIENT:
            return None

    def add(self, label: Label, /) -> None:
        """Do nothing: the run finds it in the outbox."""

    def took(self, seconds: float, /) -> None:
        """Do nothing: the outcome says it."""
