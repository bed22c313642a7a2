"""Delivery without threads: its context, immediate delivery, and the final check of a run's results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from crucible_lineage.core.journal import ResultRow
from crucible_lineage.core.slots import SlotClaim, slots_of
from crucible_lineage.dataclass import dataclass, replace
from crucible_lineage.errors import (
    TRANSIENT,
    ChecksumError,
    CrucibleError,
    FileChangedError,
    ForbiddenError,
    NotFoundError,
)
from crucible_lineage.json_types import JsonObject
from crucible_lineage.provenance.recipe import generated_sha256
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.read import whole_record
from crucible_lineage.registration.register import RegistrationHooks, nothing, register_output, register_together

if TYPE_CHECKING:  # importing either costs time that planning should not pay
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

DROPPED = "dropped"  # invalid: damaged, or made from bytes that are not those at Crucible; to be made again

CLOCKS_DIFFER = timedelta(minutes=10)  # chosen: the largest difference between the clocks of machine and service


@dataclass(frozen=True)
class DeliveryContext:
    """The outbox, the service and the callbacks of a delivery. `turn` returns the lock of a result.

    `note` receives the datasets at Crucible by the id made here, `ingesting` the ingestion requests;
    `describe_fault` returns the message and the log file for an unexpected error.
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

    def register_together(self, datasets: Sequence[NewDataset]) -> bool:
        """Register small datasets by one call, all or none. Return whether it did."""
        if (requests := register_together(self.client, datasets, self.machine)) is None:
            return False
        for new in datasets:
            self.ingesting(new.ref(new.mfid), requests[new.mfid])
        return True


Deliver = Callable[[ResultRow], object]
"""Queues a payload for delivery in the background, while dependent steps already run."""


def deliver_now(context: DeliveryContext, row: ResultRow) -> dict[str, DatasetRef]:
    """Register the outputs of one step, one after the other; raises the error of the first that fails.

    For runs whose next steps are on other machines, with all parents already delivered.
    """
    if (payload := context.outbox.opened(row)) is None:
        raise FileChangedError(f"the result of {row.step} was damaged in the outbox and set aside; run it again")
    try:
        refs = {new.mfid: context.register(new, RegistrationHooks()) for new in payload.datasets}
    except CrucibleError as error:
        with suppress(OSError):
            context.outbox.failed(row.name, str(error), refused=not isinstance(error, TRANSIENT))
        raise
    context.note(refs)
    context.outbox.delivered(row.name)
    return refs


def confirmed(
    client: CrucibleClient, project: str, keyword: str, since: datetime, expected: Collection[DatasetRef]
) -> tuple[dict[str, str], dict[str, tuple[str, Mapping[str, SlotClaim]]]]:
    """Check that datasets are at Crucible, complete, with the files that they were made with.

    Returns the others with reasons, by id, and all that was modified since the run began: {MFID: (when, its slots)}.

    One listing of what was modified `since` then; datasets that it does not show are read by id.
    """
    reasons, listed = dict[str, str](), dict[str, tuple[str, Mapping[str, SlotClaim]]]()
    left = {ref.mfid: ref for ref in expected}
    try:
        filters: JsonObject = {
            "project_id": project,
            "keyword": keyword,
            "modification_time_gte": since - CLOCKS_DIFFER,
        }
        for current in client.datasets.iter(**filters, include_metadata=True):
            listed[current.unique_id] = (current.modification_time or "", slots_of(current.scientific_metadata))
            if ref := left.pop(current.unique_id, None):
                reasons[ref.mfid] = _fault(client, read_record(current.scientific_metadata), ref)
        for mfid, ref in left.items():
            try:
                dataset = client.datasets.get(mfid, include_metadata=True)
            except (ForbiddenError, NotFoundError):
                reasons[mfid] = "is not there"
                continue
            reasons[mfid] = _fault(client, read_record(dataset.scientific_metadata), ref)
    except TRANSIENT as error:
        return {ref.mfid: f"could not be checked: {error}" for ref in expected}, {}
    return {mfid: reason for mfid, reason in reasons.items() if reason}, listed


def _fault(client: CrucibleClient, record: StepRecord | FilesRecord | None, ref: DatasetRef) -> str:
    if record is None:
        return "has no provenance record"
    if not record.is_complete:
        return "is incomplete"
    digest = record.result and record.result.generated_sha256
    if not record.is_whole and digest == generated_sha256(file.to_json() for file in ref.files):
        return ""
    try:
        recorded = whole_record(client, ref.mfid, record).files
    except ChecksumError as error:
        return str(error)
    ours, theirs = ({(file.name, file.sha256) for file in files if not file.log} for files in (ref.files, recorded))
    return "" if ours == theirs else "has other files"  # logs may differ
