"""Registration: a dataset appears in Crucible exactly once, complete or visibly unfinished.

Every call can be repeated, by anyone, after a crash at any point. The order makes it safe: the record says
`incomplete` before the first byte is sent and `complete` after the last; only a complete record counts as done.
claim.py decides between machines that register at the same time.
"""

from __future__ import annotations

import base64
import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from crucible_lineage.machine.process import in_threads
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
    from crucible_lineage.client.datasets import WholeDataset
    from crucible_lineage.client.models import Dataset, IngestionRequest
    from crucible_lineage.client.uploads import UploadedFile
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

log = logging.getLogger(__name__)

OWNER = "owner_orcid"
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
class Submission:
    """The registration of one dataset by this process, and what it has sent: removed if another one is faster.

    `record` and `metadata` are what is written, `attached` is the part of a record that is too long for metadata.
    `files` and `thumbnails` were sent, by file name and thumbnail id. `earlier` are the files of unfinished attempts at
    this dataset: {name: whether it is a preview}; `is_linked` says that this process has created it, with its keywords
    and parents.
    """

    client: CrucibleClient
    new: NewDataset
    machine: str
    stages: RegistrationHooks
    record: StepRecord | FilesRecord
    attached: bytes | None
    metadata: JsonMapping
    files: dict[str, str] = field(default_factory=dict)
    thumbnails: dict[int, str] = field(default_factory=dict)
    shown: int | None = None
    earlier: dict[str, bool] = field(default_factory=dict)
    is_linked: bool = False

    def whole(self) -> WholeDataset | None:
        """Return a small dataset as the embedded Crucible takes it by one call; None if it takes several."""
        new = self.new
        if self.attached is not None or (files := given_files(new)) is None:
            return None
        whole = {"scientific_metadata": whole_metadata(self.record, self.metadata, self.machine)}
        return {**new.fields, "unique_id": new.mfid}, {**whole, "keywords": new.keywords, "parents": new.parents}, files

    def register(self, patience_s: float) -> DatasetRef:
        """Create the dataset, claim it, fill it and complete it, or adopt it from the registration that did."""
        client, new = self.client, self.new
        refusal = self._create()
        if created := refusal is None:
            self.stages.begun()
        self.is_linked = created and client.is_embedded
        for rounds_left in reversed(range(ROUNDS)):
            own = Claim(new.mfid, self.record, self.metadata, self.machine, patience_s)
            try:
                claimed = claim(client, new, own, created=created)
            except NotFoundError as not_found:
                if not isinstance(refusal, (ConflictError, ForbiddenError)) or not rounds_left:
                    raise refusal or not_found from None  # the refusal was not about an existing dataset
                again = self._create()  # it may have existed a moment ago
                if again is not None:
                    raise hidden_id_error(client, new.mfid, f"registering {new.name!r}", new.project, again) from None
                created = True
                continue
            if not isinstance(claimed, Claim):
                return self._adopt(claimed)
            if (dataset := self._complete(claimed, is_last=not rounds_left)) is not None:
                return dataset
            created = False
        raise ConflictError(
            f"registering {new.name!r}: others took over the registration of {new.mfid} {ROUNDS} times; "
            "run the same command again when they are done",
            mfid=new.mfid,
        )

    def _create(self) -> CrucibleError | None:
        """Create the dataset under its id; return the refusal if that is in use, as the refusal may or may not say.

        Raises RefusedError if the service gives it another id.
        """
        client, new = self.client, self.new
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
            f"registering {new.name!r}: this Crucible cannot be used: it gave the id {made} to a dataset that was to "
            f"be {new.mfid}, and equal results must have equal ids; test it with: crucible-lineage doctor"
        )

    def _complete(self, claimed: Claim, *, is_last: bool) -> DatasetRef | None:
        """Fill the dataset, mark it complete, request its ingestion. Return None if another registration took over."""
        new, stages = self.new, self.stages
        if not claimed.taken_over:
            stages.begun()
        requests: Mapping[str, IngestionRequest] = {}
        try:
            try:
                files = self.fill(claimed)
                if new.waits_for_ingestion:  # before it is marked complete
                    requests = self.ingest(files, may_exist=claimed.taken_over)
            except (ConflictError, NotFoundError, PreconditionError):  # as after another registration has taken over
                if is_last or (not claimed.taken_over and self._holds(claimed)):
                    raise
                return None
            stages.before_complete()
            if not complete(self.client, claimed):
                return None
            self._tidy(claimed)
            requests = requests or self.ingest(files, may_exist=claimed.taken_over)
        except ForbiddenError as refusal:
            if not claimed.taken_over:
                raise
            reason = str(refusal).partition("\n")[0]
            raise ForbiddenError(
                f"registering {new.name!r}: dataset {new.mfid} was begun by another member and not finished, and this "
                f"account may not finish it ({reason}); its owner or an editor of the project can, by running the same "
                "pipeline; or make another result with --force STEP",
                status=refusal.status,
                detail=refusal.detail,
                mfid=new.mfid,
            ) from refusal
        dataset = new.ref(new.mfid)
        stages.ingesting(dataset, requests)
        return dataset

    def _holds(self, claimed: Claim) -> bool:
        """Return whether no other registration has taken over."""
        try:
            require_claim(self.client, claimed)
        except ConflictError:
            return False
        return True

    def _adopt(self, dataset: Dataset) -> DatasetRef:
        """Use the dataset as another registration completed it; remove what this registration added."""
        self.stages.adopted()
        client, new = self.client, self.new
        found = registered(client, dataset)
        require_not_withdrawn(found)
        assert found.record is not None  # since it is complete
        assert found.ref is not None
        self._take_back(found.record)
        require_own(client, dataset, new.project, found.record.recipe_sha256, f"registering {new.name!r}")
        listed = require_own_files(client, dataset, found.record)
        if is_of_machine(found.record.registrar, self.machine):  # it may have died before it requested the ingestion
            files = {file.filename: file.mfid for file in listed}
            self.stages.ingesting(found.ref, self.ingest(files, may_exist=True))
        return found.ref

    # The contents of the dataset

    def fill(self, claimed: Claim) -> dict[str, str]:
        """Send the whole dataset except its completion. Return the id of each file, by name.

        Raises ConflictError or NotFoundError, also if another registration has taken over meanwhile.
        """
        client, new, mfid = self.client, self.new, claimed.mfid
        for other in claimed.others:
            self.earlier |= _previews(other)
        if not claimed.is_alone:  # before the files, which are then checked one by one
            self._start_over(claimed)
        uploaded: list[UploadedFile] = []
        with ExitStack() as stack:
            files = list(new.files)
            if self.attached is not None:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / ATTACHED_NAME
                path.write_bytes(self.attached)
                files.append(LocalFile.of(path, scan_file(path)))

            def send_files() -> None:
                upload = partial(self._upload, claimed)
                uploaded.extend(map(upload, files) if len(files) < MANY else in_threads(upload, files))

            datasets = client.datasets
            calls: list[Callable[[], object]] = []
            if not self.is_linked:
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
            self._show(claimed, preview)
        return {file.ref.name: upload.file.mfid for file, upload in zip(files, uploaded, strict=True)}

    def ingest(self, files: Mapping[str, str], *, may_exist: bool) -> dict[str, IngestionRequest]:
        """Request the ingestion of each data file, once, and wait for it if the dataset says so.

        `files` are the ids of the files, by name; `may_exist` says that somebody may have requested it already.
        """
        new, ingestions = self.new, self.client.ingestions
        if not new.ingest:
            return {}
        existing = {entry.file_mfid: entry for entry in ingestions.list(dataset_mfid=new.mfid)} if may_exist else {}
        requests = {}
        for file in new.files:
            if file.ref.is_data and (file_mfid := files.get(file.ref.name)):
                requests[file.ref.name] = existing.get(file_mfid) or ingestions.request(file_mfid, new.ingestor)
        for name, request in requests.items() if new.waits_for_ingestion else ():
            with suppress(UnreachableError):  # when time is up, the data are complete without it
                requests[name] = ingestions.wait(request.id, timeout_s=new.ingestion_timeout_s)
        return requests

    def _tidy(self, claimed: Claim) -> None:
        """Remove what unfinished attempts have left: files of other names, and pictures.

        Call this when the dataset is complete: nobody takes it over then. Earlier, the files might belong to a
        registration that has taken over.
        """
        if not claimed.taken_over:
            return
        client, earlier = self.client, self.earlier
        previews = {file.ref.name: file.ref.preview for file in self.new.files}
        if earlier != previews or any(other.get("attached") for other in claimed.others):
            attached = claimed.record.attached
            own = previews.keys() | ({attached.name} if attached else set())
            for stored in client.files.list(claimed.mfid):
                if stored.filename in earlier.keys() | {ATTACHED_NAME} and stored.filename not in own:
                    _quietly(client.files.delete, stored.mfid)
        if pictures := {name for name, preview in {**earlier, **previews}.items() if preview}:
            for picture in client.datasets.get_thumbnails(claimed.mfid):
                if picture.thumbnail_name in pictures and picture.id != self.shown:
                    _quietly(client.datasets.delete_thumbnail, claimed.mfid, picture.id)

    def _take_back(self, record: StepRecord | FilesRecord) -> None:
        """Remove what was sent, except what belongs to the complete `record` of another registration."""
        client, mfid = self.client, self.new.mfid
        previews = {file.name: file.preview for file in record.generated or ()}
        names = previews.keys() | ({record.attached.name} if record.attached else set())
        for name, file_mfid in self.files.items():
            if name not in names:
                _quietly(client.files.delete, file_mfid)
        if self.thumbnails:
            shown = [picture.thumbnail_name for picture in client.datasets.get_thumbnails(mfid)]
            for number, name in self.thumbnails.items():
                if shown.count(name) > 1 or not previews.get(name):
                    _quietly(client.datasets.delete_thumbnail, mfid, number)

    def _upload(self, claimed: Claim, file: LocalFile) -> UploadedFile:
        """Upload a file, after removing any file of this name that an unfinished attempt at another result left.

        That is safe, since only files of complete records are ever used. The old file is not replaced: a replacement
        takes as long as the upload, and would hit a registration that took over meanwhile. Nor does it stay if it has
        the same bytes: the attempt that left it may be about to remove it.
        """
        client, name = self.client, file.ref.name
        upload = partial(client.files.upload, claimed.mfid, file.path, filename=name, checksums=file.checksums)
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
            self.files[name] = uploaded.file.mfid
        return uploaded

    def _start_over(self, claimed: Claim) -> None:
        """Write this registration's metadata, and remove the pictures that were made from another result's files.

        Wait first for the ingestions of those files, which somebody else may have requested: each would add a picture.
        """
        client = self.client
        if claimed.is_same:
            start_over(client, claimed)
            return
        for request in client.ingestions.list(dataset_mfid=claimed.mfid):
            if request.is_open:
                client.ingestions.wait(request.id, timeout_s=self.new.ingestion_timeout_s)
        start_over(client, claimed)
        data = {name for other in claimed.others for name, is_preview in _previews(other).items() if not is_preview}
        for picture in client.datasets.get_thumbnails(claimed.mfid):
            if picture.thumbnail_name in data:
                require_claim(client, claimed)
                _quietly(client.datasets.delete_thumbnail, claimed.mfid, picture.id)

    def _show(self, claimed: Claim, preview: LocalFile) -> None:
        """Add the picture of the dataset; `_tidy` removes the one of an earlier attempt."""
        datasets, mfid = self.client.datasets, claimed.mfid
        name, content = preview.ref.name, base64.b64encode(preview.path.read_bytes()).decode()
        present = datasets.get_thumbnails(mfid) if claimed.taken_over and claimed.is_same else []
        same = [shown for shown in present if (shown.thumbnail_name, shown.thumbnail_b64str) == (name, content)]
        shown = same[0] if same else datasets.add_thumbnail(mfid, preview.path, name=name)
        self.shown = shown.id
        if not same:
            self.thumbnails[shown.id] = name


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
    own = _submission(client, new, machine, stages)
    if client.is_embedded and (requests := _create_whole(client, [own])) is not None:
        stages.begun()
        stages.ingesting(new.ref(new.mfid), requests[new.mfid])
        return new.ref(new.mfid)
    return own.register(PATIENCE_S if patience_s is None else patience_s)


def register_together(
    client: CrucibleClient, datasets: Sequence[NewDataset], machine: str
) -> dict[str, dict[str, IngestionRequest]] | None:
    """Register small datasets by one call, parents first.

    Return the ingestion requests of each, by id; None if they have to be registered one at a time.
    """
    return _create_whole(client, (_submission(client, new, machine, RegistrationHooks()) for new in datasets))


def _create_whole(
    client: CrucibleClient, submissions: Iterable[Submission]
) -> dict[str, dict[str, IngestionRequest]] | None:
    """Send small datasets by one call, of which the embedded Crucible keeps all or nothing: nothing if one exists."""
    prepared, wholes = list[Submission](), list["WholeDataset"]()
    for submission in submissions:
        if (whole := submission.whole()) is None:
            return None
        prepared.append(submission)
        wholes.append(whole)
    for submission in prepared:
        submission.stages.before_complete()
    try:
        return client.datasets.create_whole(wholes)
    except (ConflictError, ForbiddenError, RefusedError):
        return None


def _submission(client: CrucibleClient, new: NewDataset, machine: str, stages: RegistrationHooks) -> Submission:
    """Return what is to be sent of a dataset."""
    new = _with_possible_owner(client, new)
    result = result_of(new.metadata, (file.to_json() for file in new.record.files))
    record = new.record.with_result(result, DatasetFacts.of_fields(new.fields, new.keywords, {}).known())
    metadata = {**new.metadata, **(slots_to_json(new.slots) if new.slots else {})}
    return Submission(client, new, machine, stages, *compact(record), metadata)


def _with_possible_owner(client: CrucibleClient, new: NewDataset) -> NewDataset:
    """Return the dataset with its owner, or with the account of the key if that may not register for others."""
    owner = new.fields.get(OWNER)
    if owner is None or new.record.recipe.get("kind") == "statement":  # which is that of its author, or none
        return new
    if owner != new.record.agent.unique_id:
        if client.account.creates_for_others:
            return new
        _warn_of_owner(str(owner))
    inherited = {name: values for name, values in (new.record.inherited or {}).items() if name != OWNER}
    fields = {name: value for name, value in new.fields.items() if name != OWNER}
    return replace(new, fields=fields, record=new.record.model_copy(update={"inherited": inherited or None}))


@lru_cache  # once for each owner
def _warn_of_owner(owner: str) -> None:
    log.warning("datasets belong to the account of this key, since it may not register for %s", owner)


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


def given_files(new: NewDataset) -> list[dict[str, object]] | None:
    """Return the files with their contents, as the embedded Crucible takes them with a new dataset.

    None unless they are small, and the dataset gets nothing else afterwards.
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


def _previews(record: JsonMapping) -> dict[str, bool]:
    """Return the files of a record: {name: whether it is a preview}. Attached parts are not read."""
    listed = record.get("generated")
    files = [file for file in listed if isinstance(file, Mapping)] if isinstance(listed, list) else []
    return {str(file.get("name")): bool(file.get("preview")) for file in files}


def _quietly(delete: Any, *arguments: Any) -> None:
    """Delete; do nothing if another process was faster."""
    try:
        delete(*arguments)
    except NotFoundError:
        return
