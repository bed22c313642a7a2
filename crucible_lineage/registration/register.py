"""Registration: a dataset appears in Crucible exactly once, complete or visibly unfinished.

Every call can be repeated, by anyone, after a crash at any point. The order makes it safe: the record says
`incomplete` before the first byte is sent and `complete` after the last; only a complete record counts as done.
claim.py decides between machines that register at the same time, contents.py sends the contents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import slots_to_json
from crucible_lineage.errors import (
    ConflictError,
    CrucibleError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    RefusedError,
)
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.marks import equality_mark
from crucible_lineage.provenance.recipe import UsedDataset, result_of
from crucible_lineage.provenance.record import compact, read_record
from crucible_lineage.refs import DERIVED, DatasetFacts, DatasetRef
from crucible_lineage.registration.claim import (
    PATIENCE_S,
    Claim,
    claim,
    complete,
    is_of_machine,
    require_claim,
    whole_metadata,
)
from crucible_lineage.registration.contents import SentContent, fill, given_files, ingest, take_back, tidy
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.read import (
    hidden_id_error,
    registered,
    require_not_withdrawn,
    require_own,
    require_own_files,
)

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, IngestionRequest
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

ROUNDS = 5  # chosen: how often a registration that was taken over starts again


def nothing(*_: object) -> None:
    """Ignore the call: the default of optional callbacks."""


@dataclass(frozen=True)
class RegistrationHooks:
    """Callbacks of a registration.

    `begun`: the dataset exists, and no other registration of it was seen. `before_complete`: it is about to be marked
    complete. `ingesting`: it is complete, with its ingestion requests. `adopted`: another registration completed it.
    """

    begun: Callable[[], None] = nothing
    before_complete: Callable[[], None] = nothing
    adopted: Callable[[], None] = nothing
    ingesting: Callable[[DatasetRef, Mapping[str, IngestionRequest]], None] = nothing


def register_output(
    client: CrucibleClient,
    new: NewDataset,
    machine: str | None = None,
    *,
    patience_s: float | None = None,
    stages: RegistrationHooks = RegistrationHooks(),
) -> DatasetRef:
    """Register a dataset without secrets: record, metadata, keywords, links, files; then complete and ingest it.

    `machine` is the `machine_id` of the data folder. A registration of the same recipe by another machine is left alone
    while it progresses within `patience_s`, and adopted when it is complete. Raises IdTakenError if something else has
    the id; every other error leaves an incomplete record that a repetition finishes.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    mfid = new.mfid
    metadata = {**new.metadata, **(slots_to_json(new.slots) if new.slots else {})}
    record, attached = compact(_with_result(new))
    if client.is_embedded and attached is None and _register_whole(client, new, record, metadata, machine, stages):
        return new.ref(mfid)
    refusal = _create(client, new)
    if created := refusal is None:
        stages.begun()
    sent = SentContent(is_linked=created and client.is_embedded)
    for rounds_left in reversed(range(ROUNDS)):
        try:
            claimed = claim(client, new, record, metadata, machine=machine, created=created, patience_s=patience_s)
        except NotFoundError as not_found:
            if not isinstance(refusal, (ConflictError, ForbiddenError)) or not rounds_left:
                raise refusal or not_found from None  # the refusal was not about an existing dataset
            again = _create(client, new)  # it may have existed a moment ago
            if again is not None:
                raise hidden_id_error(client, mfid, f"registering {new.name!r}", new.project, again) from None
            created = True
            continue
        if not isinstance(claimed, Claim):
            return _adopt(client, new, claimed, sent, machine, stages)
        if not claimed.taken_over:
            stages.begun()
        try:
            dataset = _fill_and_complete(client, new, claimed, attached, sent, stages)
        except ForbiddenError as refusal:
            if not claimed.taken_over:
                raise
            raise _not_ours_to_finish(new, claimed, refusal) from refusal
        except _OvertakenError as error:
            if not rounds_left or (not claimed.taken_over and _is_claimed(client, claimed)):
                raise error.reason from None
        else:
            if dataset is not None:
                return dataset
        created = False
    raise ConflictError(
        f"registering {new.name!r}: others took over the registration of {mfid} {ROUNDS} times; "
        "run the same command again when they are done",
        mfid=mfid,
    )


def _register_whole(
    client: CrucibleClient,
    new: NewDataset,
    record: StepRecord | FilesRecord,
    metadata: JsonMapping,
    machine: str | None,
    stages: RegistrationHooks,
) -> bool:
    """Register a small dataset by one call, of which the embedded Crucible keeps all or nothing.

    Return whether it did; not if the dataset exists.
    """
    if (files := given_files(new)) is None:
        return False
    stages.before_complete()
    whole = {"scientific_metadata": whole_metadata(record, metadata, machine)}
    linked = {**whole, "keywords": new.keywords, "parents": new.parents}
    try:
        requests = client.datasets.create_whole({**new.fields, "unique_id": new.mfid}, linked, files)
    except (ConflictError, ForbiddenError, RefusedError):
        return False
    stages.begun()
    stages.ingesting(new.ref(new.mfid), requests)
    return True


class _OvertakenError(Exception):
    """A call failed the way it does after another registration has taken over."""

    def __init__(self, reason: CrucibleError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _fill_and_complete(
    client: CrucibleClient,
    new: NewDataset,
    claimed: Claim,
    attached: bytes | None,
    sent: SentContent,
    stages: RegistrationHooks,
) -> DatasetRef | None:
    """Fill the dataset, mark it complete, request its ingestion. Return None if another registration took over."""
    mfid = claimed.mfid
    requests: Mapping[str, IngestionRequest] = {}
    try:
        files = fill(client, new, claimed, attached, sent)
        if new.waits_for_ingestion:  # before it is marked complete
            requests = ingest(client, new, mfid, files, may_exist=claimed.taken_over)
    except (ConflictError, NotFoundError, PreconditionError) as error:
        raise _OvertakenError(error) from error
    stages.before_complete()
    if not complete(client, claimed):
        return None
    tidy(client, new, claimed, sent)
    requests = requests or ingest(client, new, mfid, files, may_exist=claimed.taken_over)
    dataset = new.ref(mfid)
    stages.ingesting(dataset, requests)
    return dataset


def _with_result(new: NewDataset) -> StepRecord | FilesRecord:
    """Return the record with the hashes of the result; a record copied from another Crucible has them."""
    if new.record.result is not None:
        return new.record
    result = result_of(new.metadata, (file.to_json() for file in new.record.files))
    return new.record.with_result(result, DatasetFacts.of_fields(new.fields, new.keywords, {}).known())


def _not_ours_to_finish(new: NewDataset, claimed: Claim, refusal: ForbiddenError) -> ForbiddenError:
    reason = str(refusal).partition("\n")[0]
    return ForbiddenError(
        f"registering {new.name!r}: dataset {claimed.mfid} was begun by another member and not finished, and this "
        f"account may not finish it ({reason}); its owner or an editor of the project can, by running the same "
        "pipeline; or make another result with --force STEP",
        status=refusal.status,
        detail=refusal.detail,
        mfid=claimed.mfid,
    )


def _is_claimed(client: CrucibleClient, claimed: Claim) -> bool:
    try:
        require_claim(client, claimed)
    except ConflictError:
        return False
    return True


def _create(client: CrucibleClient, new: NewDataset) -> CrucibleError | None:
    """Create the dataset under its id; return the refusal if that is in use, as the refusal may or may not say.

    Raises RefusedError if the service gives it another id.
    """
    try:
        linked = {"keywords": new.keywords, "parents": new.parents} if client.is_embedded else {}
        made = client.datasets.create({**new.fields, "unique_id": new.mfid}, linked=linked).dsid
    except (ConflictError, ForbiddenError, RefusedError) as refusal:
        return refusal
    if made == new.mfid:
        return None
    with suppress(CrucibleError):  # the error below is the one that matters
        client.datasets.delete(made, f"left over: it was to be {new.mfid}")
    raise RefusedError(
        f"registering {new.name!r}: this Crucible cannot be used: it gave the id {made} to a dataset that was to be "
        f"{new.mfid}, and equal results must have equal ids; test it with: crucible-lineage doctor"
    )


def _adopt(
    client: CrucibleClient,
    new: NewDataset,
    dataset: Dataset,
    sent: SentContent,
    machine: str | None,
    stages: RegistrationHooks,
) -> DatasetRef:
    """Use the dataset as another registration completed it; remove what this registration added."""
    stages.adopted()
    found = registered(client, dataset)
    require_not_withdrawn(found)
    assert found.record is not None  # since it is complete
    assert found.ref is not None
    take_back(client, found.mfid, sent, found.record)
    action = f"registering {new.name!r}"
    require_own(client, dataset, new.project, found.record.recipe_sha256, action)
    listed = require_own_files(client, dataset, found.record)
    if is_of_machine(found.record.registrar, machine):  # it may have died before it requested the ingestion
        files = {file.filename: file.mfid for file in listed}
        stages.ingesting(found.ref, ingest(client, new, found.mfid, files, may_exist=True))
    return found.ref


def new_parents(dataset: DatasetRef, used: Sequence[UsedDataset], own: Collection[str] = ()) -> dict[str, str]:
    """Return {parent it would be made from now: parent it was made from} for parents that differ and are not linked.

    A step that does not change its own result may get that as an input. `own` are all results of its execution.
    """
    if len(dataset.parents) != len(used):
        return {}
    noted = {*dataset.parents, *dataset.equals, dataset.mfid, *own}
    pairs = zip(used, dataset.parents, strict=True)
    return {part.dataset.mfid: was for part, was in pairs if part.dataset.mfid not in noted}


def add_equal_parents(client: CrucibleClient, mfid: str, parents: Mapping[str, str]) -> None:
    """Link a dataset to further parents: {parent: the parent it was made from, with the same bytes and origin}.

    The links come first, so that a record never names a parent that is not linked.
    """
    for parent in parents:
        client.datasets.link_parent_child(parent, mfid, relationship_type=DERIVED)
    if read_record(client.metadata.merge(mfid, equality_mark(parents))) is None:
        raise NotFoundError(f"dataset {mfid} has lost its provenance record; run `crucible-lineage verify {mfid}`")
