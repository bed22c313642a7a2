"""Registration: a dataset appears in Crucible exactly once, complete or visibly unfinished.

Every call can be repeated, by anyone, after a crash at any point. The order makes it safe: the record says
`incomplete` before the first byte is sent and `complete` after the last; only a complete record counts as done.
claim.py decides between machines that register at the same time.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.datasets import in_threads
from crucible_lineage.core.slots import slots_to_json
from crucible_lineage.errors import (
    ConflictError,
    CrucibleError,
    FileConflictError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    RefusedError,
    UnreachableError,
)
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.marks import equality_mark
from crucible_lineage.provenance.recipe import UsedDataset, result_of
from crucible_lineage.provenance.record import ATTACHED_NAME, compact, read_record
from crucible_lineage.refs import DERIVED, DatasetFacts, DatasetRef
from crucible_lineage.registration.claim import (
    PATIENCE_S,
    THIS_PROCESS,
    Claim,
    claim,
    complete,
    is_of_machine,
    require_claim,
    start_over,
    whole_metadata,
)
from crucible_lineage.registration.payload import LocalFile, NewDataset
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
    from crucible_lineage.client.uploads import UploadedFile
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

ROUNDS = 5  # chosen: how often a registration that was taken over starts again
MANY = 8  # chosen: so many files are worth threads
SMALL = 1 << 20  # bytes; chosen: sending them in vain costs no more than waiting for permission
MAX_CONFLICTS = 3  # chosen: an overtaken registration may send each file once more


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


@dataclass
class SentContent:
    """What this process has sent, by file name and thumbnail id, to be removed if another registration is faster.

    `earlier` are the files of unfinished attempts at this dataset: {name: whether it is a preview}; `is_linked` says
    that this process has created it, with its keywords and parents.
    """

    files: dict[str, str] = field(default_factory=dict)
    thumbnails: dict[int, str] = field(default_factory=dict)
    shown: int | None = None
    earlier: dict[str, bool] = field(default_factory=dict)
    is_linked: bool = False


def register_output(
    client: CrucibleClient,
    new: NewDataset,
    machine: str = THIS_PROCESS,
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
    machine: str,
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
    machine: str,
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


# The contents of a dataset


def fill(
    client: CrucibleClient, new: NewDataset, claimed: Claim, attached: bytes | None, sent: SentContent
) -> dict[str, str]:
    """Send the whole dataset except its completion. Return the id of each file, by name.

    Raises ConflictError or NotFoundError, also if another registration has taken over meanwhile.
    """
    mfid = claimed.mfid
    for other in claimed.others:
        sent.earlier |= _previews(other)
    if not claimed.is_alone:  # before the files, which are then checked one by one
        _start_over(client, new, claimed)
    uploaded: list[UploadedFile] = []
    with ExitStack() as stack:
        files = list(new.files)
        if attached is not None:  # the part of a record that is too long for metadata
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / ATTACHED_NAME
            path.write_bytes(attached)
            files.append(LocalFile.of(path, scan_file(path)))

        def send_files() -> None:
            upload = partial(_upload, client, claimed, sent)
            uploaded.extend(map(upload, files) if len(files) < MANY else in_threads(upload, files))

        datasets = client.datasets
        calls: list[Callable[[], object]] = []
        if not sent.is_linked:
            calls += [partial(datasets.add_keyword, mfid, keyword) for keyword in new.keywords]
            link = partial(datasets.link_parent_child, relationship_type=DERIVED)
            calls += [partial(link, parent, mfid) for parent in dict.fromkeys(new.parents)]
        calls += [partial(datasets.add_sample, mfid, sample) for sample in dict.fromkeys(new.samples)]
        if sum(file.ref.size for file in files) < SMALL:
            client.at_once(*calls, send_files)
        else:  # send large files only after the links have succeeded
            client.at_once(*calls)
            send_files()
    preview = next((file for file in new.files if file.ref.preview), None)
    if preview is not None:
        _show(client, claimed, preview, sent)
    return {file.ref.name: upload.file.mfid for file, upload in zip(files, uploaded, strict=True)}


def given_files(new: NewDataset) -> list[dict[str, object]] | None:
    """Return the files with their contents, as the embedded Crucible takes them with a new dataset.

    None if they are not all small, or if the dataset gets more than files afterwards.
    """
    from crucible_lineage.client.uploads import GIVEN_BYTES, Outgoing

    is_more = new.samples or new.waits_for_ingestion or any(file.ref.preview for file in new.files)
    if is_more or sum(file.ref.size for file in new.files) > GIVEN_BYTES:
        return None
    return [
        Outgoing(new.mfid, file.path, file.ref.name, file.checksums).given()
        | {"ingest": new.ingest and file.ref.is_data, "ingestor": new.ingestor}
        for file in new.files
    ]


def ingest(
    client: CrucibleClient, new: NewDataset, mfid: str, files: Mapping[str, str], *, may_exist: bool
) -> dict[str, IngestionRequest]:
    """Request the ingestion of each data file, once, and wait for it if the dataset says so.

    `files` are the ids of the files, by name; `may_exist` says that somebody may have requested it already.
    """
    if not new.ingest:
        return {}
    existing = {entry.file_mfid: entry for entry in client.ingestions.list(dataset_mfid=mfid)} if may_exist else {}
    requests = {}
    for file in new.files:
        if file.ref.is_data and (file_mfid := files.get(file.ref.name)):
            requests[file.ref.name] = existing.get(file_mfid) or client.ingestions.request(file_mfid, new.ingestor)
    for name, request in requests.items() if new.waits_for_ingestion else ():
        with suppress(UnreachableError):  # when time is up, the data are complete without it
            requests[name] = client.ingestions.wait(request.id, timeout_s=new.ingestion_timeout_s)
    return requests


def tidy(client: CrucibleClient, new: NewDataset, claimed: Claim, sent: SentContent) -> None:
    """Remove what unfinished attempts have left: files of other names, and pictures.

    Call this when the dataset is complete: nobody takes it over then. Earlier, the files might belong to a registration
    that has taken over.
    """
    if not claimed.taken_over:
        return
    earlier = sent.earlier
    previews = {file.ref.name: file.ref.preview for file in new.files}
    if earlier != previews or any(other.get("attached") for other in claimed.others):
        attached = claimed.record.document().get("attached")
        own = previews.keys() | ({str(attached.get("name"))} if isinstance(attached, Mapping) else set())
        for stored in client.files.list(claimed.mfid):
            if stored.filename in earlier.keys() | {ATTACHED_NAME} and stored.filename not in own:
                _quietly(client.files.delete, stored.mfid)
    if pictures := {name for name, preview in {**earlier, **previews}.items() if preview}:
        for picture in client.datasets.get_thumbnails(claimed.mfid):
            if picture.thumbnail_name in pictures and picture.id != sent.shown:
                _quietly(client.datasets.delete_thumbnail, claimed.mfid, picture.id)


def take_back(client: CrucibleClient, mfid: str, sent: SentContent, record: StepRecord | FilesRecord) -> None:
    """Remove what this process sent, except what belongs to the complete `record` of another registration."""
    previews = {file.name: file.preview for file in record.generated or ()}
    names = previews.keys() | ({record.attached.name} if record.attached else set())
    for name, file_mfid in sent.files.items():
        if name not in names:
            _quietly(client.files.delete, file_mfid)
    if sent.thumbnails:
        shown = [picture.thumbnail_name for picture in client.datasets.get_thumbnails(mfid)]
        for number, name in sent.thumbnails.items():
            if shown.count(name) > 1 or not previews.get(name):
                _quietly(client.datasets.delete_thumbnail, mfid, number)


def _previews(record: JsonMapping) -> dict[str, bool]:
    """Return the files of a record: {name: whether it is a preview}. Attached parts are not read."""
    listed = record.get("generated")
    files = [file for file in listed if isinstance(file, Mapping)] if isinstance(listed, list) else []
    return {str(file.get("name")): bool(file.get("preview")) for file in files}


def _upload(client: CrucibleClient, claimed: Claim, sent: SentContent, file: LocalFile) -> UploadedFile:
    """Upload a file, after removing any file of this name that an unfinished attempt at another result left.

    That is safe, since only files of complete records are ever used. The old file is not replaced: a replacement takes
    as long as the upload, and would hit a registration that took over meanwhile. Nor does it stay if it has the same
    bytes: the attempt that left it may be about to remove it.
    """
    upload = partial(client.files.upload, claimed.mfid, file.path, filename=file.ref.name, checksums=file.checksums)
    for _ in range(MAX_CONFLICTS):
        try:
            uploaded = upload()
        except FileConflictError as conflict:
            obstacle = conflict.file_mfid
        else:
            if not uploaded.existed or claimed.is_same:  # else the attempt that left it may be about to remove it
                break
            obstacle = uploaded.file.mfid
        require_claim(client, claimed)
        _quietly(client.files.delete, obstacle)
    else:
        uploaded = upload()
    if not uploaded.existed:
        sent.files[file.ref.name] = uploaded.file.mfid
    return uploaded


def _start_over(client: CrucibleClient, new: NewDataset, claimed: Claim) -> None:
    """Write this registration's metadata, and remove the pictures that were made from another result's files.

    Wait first for the ingestions of those files, which somebody else may have requested: each would add a picture.
    """
    if claimed.is_same:
        start_over(client, claimed)
        return
    for request in client.ingestions.list(dataset_mfid=claimed.mfid):
        if request.is_open:
            client.ingestions.wait(request.id, timeout_s=new.ingestion_timeout_s)
    start_over(client, claimed)
    data = {name for other in claimed.others for name, is_preview in _previews(other).items() if not is_preview}
    for picture in client.datasets.get_thumbnails(claimed.mfid):
        if picture.thumbnail_name in data:
            require_claim(client, claimed)
            _quietly(client.datasets.delete_thumbnail, claimed.mfid, picture.id)


def _show(client: CrucibleClient, claimed: Claim, preview: LocalFile, sent: SentContent) -> None:
    """Add the picture of the dataset; `tidy` removes the one of an earlier attempt."""
    name, content = preview.ref.name, base64.b64encode(preview.path.read_bytes()).decode()
    present = client.datasets.get_thumbnails(claimed.mfid) if claimed.taken_over and claimed.is_same else []
    same = [shown for shown in present if (shown.thumbnail_name, shown.thumbnail_b64str) == (name, content)]
    shown = same[0] if same else client.datasets.add_thumbnail(claimed.mfid, preview.path, name=name)
    sent.shown = shown.id
    if not same:
        sent.thumbnails[shown.id] = name


def _quietly(delete: Any, *arguments: Any) -> None:
    """Delete; do nothing if another process was faster."""
    try:
        delete(*arguments)
    except NotFoundError:
        return
