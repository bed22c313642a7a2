"""Registration: what makes a dataset appear in Crucible exactly once, complete or visibly unfinished.

Every call can be repeated, by anyone, after a crash at any point. The order is what makes it safe: the record says
`incomplete` before the first byte is sent and `complete` after the last; only a complete record counts as done.
claim.py says what happens where two machines register at once, contents.py what is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from crucible_lineage.facts import DatasetFacts
from crucible_lineage.provenance.digest import result_of
from crucible_lineage.provenance.recipe import origin_of
from crucible_lineage.provenance.record import compact
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.claim import (
    PATIENCE_S,
    Claim,
    claim,
    complete,
    is_of_machine,
    require_held,
)
from crucible_lineage.registration.contents import SentContent, announce, fill, ingest, take_back, tidy
from crucible_lineage.registration.new_dataset import NewDataset
from crucible_lineage.registration.read import recipe_keyword, registered, require_not_withdrawn
from crucible_lineage.registration.server_ids import make_dataset, oldest_duplicate
from crucible_lineage.registration.trust import require_own, require_own_files, taken_unseen
from crucible_lineage.service import FREE_METADATA

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, IngestionRequest
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

ROUNDS = 5  # chosen: how often a registration that was taken over goes back to the beginning


def nothing(*_: object) -> None:
    """Ignore the call; for where nobody listens."""


@dataclass(frozen=True)
class RegistrationHooks:
    """What is called while a dataset is registered: when it is there and no other registration was seen, before it is
    marked complete, and with what was asked to be ingested when it is; or when another registration has completed it.
    """

    begun: Callable[[], None] = nothing
    before_complete: Callable[[], None] = nothing
    adopted: Callable[[], None] = nothing
    ingesting: Callable[[DatasetRef, Mapping[str, IngestionRequest]], None] = nothing


@dataclass(frozen=True)
class _Created:
    """The id under which a dataset is to be registered, whether it was made just now, and why not if refused."""

    mfid: str
    created: bool
    refusal: CrucibleError | None = None


def register_output(
    client: CrucibleClient,
    new: NewDataset,
    machine: str | None = None,
    *,
    patience_s: float | None = None,
    stages: RegistrationHooks = RegistrationHooks(),
) -> DatasetRef:
    """The dataset, registered: record, metadata, keywords, links, files, then marked complete. Ingestion is asked for.

    `machine` is the `machine_id` of the data folder. What another machine has begun for the same recipe is left alone
    while it moves, for `patience_s` at a time, and adopted when it is complete. IdTakenError if the id is taken
    by something else; every other error leaves an incomplete record that a repetition finishes.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    with client.service.first(FREE_METADATA):  # if it takes no record, no second dataset is left behind
        client.service.require_usable()
        found = _create(client, new)
        if found.created:
            announce(client, found.mfid, new)
        try:
            return _registered(client, new, found, machine, patience_s, stages)
        except RefusedError:
            if client.service.holds(FREE_METADATA) is False and found.created:
                with suppress(CrucibleError):  # what is raised says what matters
                    client.datasets.delete(found.mfid, "left over: this service takes no provenance records")
                client.service.require_usable()
            raise
        finally:
            client.files.withdraw(found.mfid)


def _registered(
    client: CrucibleClient,
    new: NewDataset,
    found: _Created,
    machine: str | None,
    patience_s: float,
    stages: RegistrationHooks,
) -> DatasetRef:
    mfid, created, refusal = found.mfid, found.created, found.refusal
    project = str(new.fields["project_id"])
    metadata = {**new.metadata, **(slots_to_json(new.slots) if new.slots else {})}
    if created:
        stages.begun()
    record, attached = compact(_with_result(new))
    put = SentContent()
    for left in reversed(range(ROUNDS)):
        try:
            held = claim(
                client, mfid, new.name, record, metadata,
                machine=machine, project=project, created=created, patience_s=patience_s,
            )  # fmt: skip
        except NotFoundError as missing:
            if not isinstance(refusal, (ConflictError, ForbiddenError)) or not left:
                raise refusal or missing from None  # it was refused for another reason than being there already
            again = _create(client, new)  # it may have been there a moment ago
            if again.refusal is not None:
                raise taken_unseen(client, mfid, f"registering {new.name!r}", project, again.refusal) from None
            mfid, created = again.mfid, again.created
            continue
        if not isinstance(held, Claim):
            return _adopted(client, new, held, put, machine, stages)
        if held.taken_over or not created:
            client.files.withdraw(mfid)  # what was opened ahead may be a file that others have removed since
        if not held.taken_over:
            stages.begun()
        try:
            dataset = _completed(client, new, held, attached, put, stages)
        except ForbiddenError as refusal:
            if not held.taken_over:
                raise
            raise _not_ours_to_finish(new, held, refusal) from refusal
        except _OvertakenError as error:
            if not left or (not held.taken_over and _is_held(client, held)):
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


class _OvertakenError(Exception):
    """A call failed as it does where another registration has taken over."""

    def __init__(self, reason: CrucibleError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _completed(
    client: CrucibleClient,
    new: NewDataset,
    held: Claim,
    attached: bytes | None,
    put: SentContent,
    stages: RegistrationHooks,
) -> DatasetRef | None:
    """Fill the dataset, mark it complete, and ask for its ingestion. Returns None if another one has taken over."""
    mfid = held.mfid
    requests: Mapping[str, IngestionRequest] = {}
    try:
        if mfid != new.mfid:  # before anything else, so that whoever comes next finds it
            client.datasets.add_keyword(mfid, recipe_keyword(new.mfid))
        files = fill(client, new, held, attached, put)
        if new.waits_for_ingestion:  # then nobody is to take it for complete before
            requests = ingest(client, new, mfid, files, asked_before=held.taken_over)
    except (ConflictError, NotFoundError, PreconditionError) as error:
        raise _OvertakenError(error) from error
    stages.before_complete()
    if not complete(client, held):
        return None
    tidy(client, new, held, put)
    requests = requests or ingest(client, new, mfid, files, asked_before=held.taken_over)
    refs = tuple(file.ref for file in new.files)
    samples, origin = tuple(sorted(set(new.samples))), origin_of(new.record.recipe)
    dataset = DatasetRef(mfid, new.name, refs, samples, origin, new.parents, taken=new.taken)
    stages.ingesting(dataset, requests)
    return dataset


def _with_result(new: NewDataset) -> StepRecord | FilesRecord:
    """The record with the hashes of what is registered; one that was registered elsewhere before has them."""
    if new.record.result is not None:
        return new.record
    result = result_of(new.metadata, (file.to_json() for file in new.record.files))
    return new.record.with_result(result, DatasetFacts.of_fields(new.fields, new.keywords, {}).known())


def _not_ours_to_finish(new: NewDataset, held: Claim, refusal: ForbiddenError) -> ForbiddenError:
    reason = str(refusal).partition("\n")[0]
    return ForbiddenError(
        f"registering {new.name!r}: dataset {held.mfid} was begun by another member and not finished, and this account "
        f"may not finish it ({reason}); its owner or an editor of the project does by running the same; "
        "or make another one with --force STEP",
        status=refusal.status,
        detail=refusal.detail,
        mfid=held.mfid,
    )


def _is_held(client: CrucibleClient, held: Claim) -> bool:
    try:
        require_held(client, held)
    except ConflictError:
        return False
    return True


def _create(client: CrucibleClient, new: NewDataset) -> _Created:
    try:
        made = make_dataset(client, new.mfid, new.fields)
    except (ConflictError, ForbiddenError, RefusedError) as refusal:
        return _Created(new.mfid, False, refusal)
    if made.dsid == new.mfid:
        return _Created(new.mfid, True)
    mfid = oldest_duplicate(client, made.record, new)
    return _Created(mfid, mfid == made.dsid)


def _adopted(
    client: CrucibleClient,
    new: NewDataset,
    dataset: Dataset,
    put: SentContent,
    machine: str | None,
    stages: RegistrationHooks,
) -> DatasetRef:
    """Take a dataset as another registration has completed it, without what this one has put into it."""
    stages.adopted()
    found = registered(client, dataset)
    require_not_withdrawn(found)
    assert found.record is not None  # since it is complete
    assert found.ref is not None
    put.files |= {file.filename: file.mfid for file in client.files.linked_ahead(found.mfid)}
    take_back(client, found.mfid, put, found.record)
    what, project = f"registering {new.name!r}", str(new.fields["project_id"])
    require_own(client, dataset, project, found.record.recipe_sha256, what)
    listed = require_own_files(client, dataset, found.record)
    if is_of_machine(found.record.registrar, machine):  # which may have died before it asked for the ingestion
        files = {file.filename: file.mfid for file in listed}
        stages.ingesting(found.ref, ingest(client, new, found.mfid, files, asked_before=True))
    return found.ref
