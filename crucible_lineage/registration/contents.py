"""Fill the dataset of a registration. Every call can be repeated."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.checksums import scan_file
from crucible_lineage.errors import FileConflictError, NotFoundError, UnreachableError
from crucible_lineage.marks import Document
from crucible_lineage.provenance.record import ATTACHED_NAME
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.claim import Claim, require_held, start_over
from crucible_lineage.registration.new_dataset import ExternalLocation, LocalFile, NewDataset

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest
    from crucible_lineage.client.transfer.outgoing import UploadedFile
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

MANY, UPLOADS_AT_ONCE = 8, 4  # chosen: files that are worth threads; most of the time of a small one is waiting
SMALL = 1 << 20  # bytes; chosen: sent in vain, they cost no more than to wait whether they may be sent
MOST_CONFLICTS = 3  # chosen: an overtaken registration may send each file once more


@dataclass
class SentContent:
    """What this process has sent, by file name and thumbnail id, should another registration turn out to be faster.

    `theirs` are the files that unfinished attempts had for this dataset, and whether each was a preview.
    """

    files: dict[str, str] = field(default_factory=dict)
    thumbnails: dict[int, str] = field(default_factory=dict)
    shown: int | None = None
    theirs: dict[str, bool] = field(default_factory=dict)


def announce(client: CrucibleClient, mfid: str, new: NewDataset) -> None:
    """The service hears of the files of a dataset that was just created while it is claimed, if they are few and small.

    Their bytes are sent when it is.
    """
    files = [file for file in new.files if file.elsewhere is None]
    if len(files) < MANY and sum(file.ref.size for file in files) < SMALL:
        for file in files:
            client.files.announce(mfid, file.path, filename=file.ref.name, checksums=file.checksums)


def fill(
    client: CrucibleClient, new: NewDataset, held: Claim, attached: bytes | None, put: SentContent
) -> dict[str, str]:
    """Put everything there but the word that it is complete. Returns the id of each file, by name.

    Raises ConflictError, or NotFoundError, also where another registration has taken over meanwhile.
    """
    mfid = held.mfid
    for other in held.others:
        put.theirs |= _previews(other)
    if not held.is_alone:  # before the files, which then are looked at one by one
        _start_over(client, new, held)
    with _attached_file(attached) as beside:
        files = [*new.files, *beside]
        uploaded: list[UploadedFile] = []
        upload = [lambda: uploaded.extend(_uploaded(client, held, files, put))]
        is_small = sum(file.ref.size for file in files) < SMALL
        client.at_once(*_linking(client, mfid, new), *(upload if is_small else ()))
        if not is_small:  # nothing big is sent for what cannot be linked
            upload[0]()
    preview = next((file for file in new.files if file.ref.preview), None)
    if preview is not None:
        _show(client, held, preview, put)
    return {file.ref.name: sent.file.mfid for file, sent in zip(files, uploaded, strict=True)}


def ingest(
    client: CrucibleClient, new: NewDataset, mfid: str, files: Mapping[str, str], *, asked_before: bool
) -> dict[str, IngestionRequest]:
    """Ask for the ingestion of each data file, once, and wait for it if that is wanted.

    `files` are the ids of its files, by name; `asked_before` says that somebody may have asked already.
    """
    if not new.ingest:
        return {}
    asked = {entry.file_mfid: entry for entry in client.ingestions.list(dataset_mfid=mfid)} if asked_before else {}
    requests = {}
    for file in new.files:
        if file.ref.is_data and file.elsewhere is None and (file_mfid := files.get(file.ref.name)):
            requests[file.ref.name] = asked.get(file_mfid) or client.ingestions.request(file_mfid, new.ingestor)
    if new.waits_for_ingestion:
        return {name: _ended(client, new, request) for name, request in requests.items()}
    return requests


def _linking(client: CrucibleClient, mfid: str, new: NewDataset) -> Iterator[Callable[[], object]]:
    """Yield the calls that set what the dataset is found by, and its links."""
    for keyword in new.keywords:
        yield partial(client.datasets.add_keyword, mfid, keyword)
    for parent in dict.fromkeys(new.parents):
        yield partial(client.datasets.link_parent_child, parent, mfid, relationship_type="is_derived_from")
    for sample in dict.fromkeys(new.samples):
        yield partial(client.datasets.add_sample, mfid, sample)


def tidy(client: CrucibleClient, new: NewDataset, held: Claim, put: SentContent) -> None:
    """Remove what unfinished attempts have left: their files of other names, their picture.

    To be called when the dataset is complete, since nobody takes it over then, and what is taken away earlier might
    belong to whoever has.
    """
    if not held.taken_over:
        return
    theirs = put.theirs
    previews = {file.ref.name: file.ref.preview for file in new.files}
    if theirs != previews or any(other.get("attached") for other in held.others):
        wanted = previews.keys() | _attached_names(held.record.document())
        for stored in client.files.list(held.mfid):
            if stored.filename in theirs.keys() | {ATTACHED_NAME} and stored.filename not in wanted:
                _quietly(client.files.delete, stored.mfid)
    if pictures := {name for name, preview in {**theirs, **previews}.items() if preview}:
        for picture in client.datasets.get_thumbnails(held.mfid):
            if picture.thumbnail_name in pictures and picture.id != put.shown:
                _quietly(client.datasets.delete_thumbnail, held.mfid, picture.id)


def take_back(client: CrucibleClient, mfid: str, put: SentContent, record: StepRecord | FilesRecord) -> None:
    """Remove what this process has sent and does not belong to the complete `record` of another registration."""
    previews = {file.name: file.preview for file in record.generated or ()}
    names = previews.keys() | ({record.attached.name} if record.attached else set())
    for name, file_mfid in put.files.items():
        if name not in names:
            _quietly(client.files.delete, file_mfid)
    if put.thumbnails:
        shown = [picture.thumbnail_name for picture in client.datasets.get_thumbnails(mfid)]
        for number, name in put.thumbnails.items():
            if shown.count(name) > 1 or not previews.get(name):
                _quietly(client.datasets.delete_thumbnail, mfid, number)


def _previews(record: Document) -> dict[str, bool]:
    """Return the files that a record lists itself, and whether each is a preview."""
    listed = record.get("generated")
    files = [file for file in listed if isinstance(file, Mapping)] if isinstance(listed, list) else []
    return {str(file.get("name")): bool(file.get("preview")) for file in files}


def _attached_names(record: Document) -> set[str]:
    attached = record.get("attached")
    return {str(attached.get("name"))} if isinstance(attached, Mapping) else set()


@contextmanager
def _attached_file(content: bytes | None) -> Iterator[list[LocalFile]]:
    """Yield the file with the part of a long record that does not fit into metadata; most records have none."""
    if content is None:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ATTACHED_NAME
        path.write_bytes(content)
        yield [LocalFile.of(path, scan_file(path))]


def _uploaded(client: CrucibleClient, held: Claim, files: list[LocalFile], put: SentContent) -> list[UploadedFile]:
    """The files, uploaded in their order; many of them several at once."""
    if len(files) < MANY:
        return [_upload(client, held, file, put) for file in files]
    from concurrent.futures import ThreadPoolExecutor  # planning imports this module, and sends nothing

    pool = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="upload")
    try:
        return list(pool.map(lambda file: _upload(client, held, file, put), files))
    finally:
        pool.shutdown(cancel_futures=True)


def _upload(client: CrucibleClient, held: Claim, file: LocalFile, put: SentContent) -> UploadedFile:
    """The file, uploaded. What an unfinished attempt of other results has left under this name is taken away first.

    That is safe, since only what belongs to a complete record was ever given to anyone. It is not replaced: a
    replacement takes as long as the upload, and would hit whoever took over meanwhile. Nor is it kept if it has the
    same bytes: who left it may be about to take it away.
    """
    if file.elsewhere is not None:
        upload: Callable[[], UploadedFile] = partial(_catalogue, client, held.mfid, file.ref, file.elsewhere)
    else:
        upload = partial(client.files.upload, held.mfid, file.path, filename=file.ref.name, checksums=file.checksums)
    for _ in range(MOST_CONFLICTS):
        try:
            uploaded = upload()
        except FileConflictError as conflict:
            in_the_way = conflict.file_mfid
        else:
            if not uploaded.existed or _may_stay(held):
                break
            in_the_way = uploaded.file.mfid
        require_held(client, held)
        _quietly(client.files.delete, in_the_way)
    else:
        uploaded = upload()
    if not uploaded.existed:
        put.files[file.ref.name] = uploaded.file.mfid
    return uploaded


def _may_stay(held: Claim) -> bool:
    """Whether files that are there already, with the right bytes, may stay: not if another result's attempt left them.

    A request of that attempt to remove them may be on its way still.
    """
    return held.is_same


def _catalogue(client: CrucibleClient, mfid: str, ref: FileRef, place: ExternalLocation) -> UploadedFile:
    """The record of a file that stays elsewhere; FileConflictError if the dataset has another one of that name."""
    from crucible_lineage.client.transfer.outgoing import UploadedFile  # the client is there by now

    for stored in client.files.list(mfid):
        if stored.filename == ref.name:
            if (stored.sha256_hash, stored.storage_path) == (ref.sha256, place.address):
                return UploadedFile(stored, existed=True)
            raise FileConflictError(
                f"note {ref.name} in dataset {mfid}: it has another file of that name",
                filename=ref.name,
                file_mfid=stored.mfid,
                etag=stored.etag,
            )
    new = {"filename": ref.name, "storage_backend": place.storage, "size": ref.size, "sha256_hash": ref.sha256}
    return UploadedFile(client.datasets.add_remote_file(mfid, new, storage_path=place.address), existed=False)


def _start_over(client: CrucibleClient, new: NewDataset, held: Claim) -> None:
    """Write this registration's metadata, and remove the pictures that were made of another result's files.

    The ingestions of those, which somebody else may have asked for, are waited for first: each would add to that again.
    """
    if held.is_same:
        start_over(client, held)
        return
    for request in client.ingestions.list(dataset_mfid=held.mfid):
        if request.is_open:
            client.ingestions.wait(request.id, timeout_s=new.ingestion_timeout_s)
    start_over(client, held)
    read = {name for other in held.others for name, is_preview in _previews(other).items() if not is_preview}
    for picture in client.datasets.get_thumbnails(held.mfid):
        if picture.thumbnail_name in read:
            require_held(client, held)
            _quietly(client.datasets.delete_thumbnail, held.mfid, picture.id)


def _show(client: CrucibleClient, held: Claim, preview: LocalFile, put: SentContent) -> None:
    """The dataset shows this picture; one that an earlier attempt left there is gone when all is tidied up."""
    name, content = preview.ref.name, base64.b64encode(preview.path.read_bytes()).decode()
    present = client.datasets.get_thumbnails(held.mfid) if held.taken_over and held.is_same else []
    same = [shown for shown in present if (shown.thumbnail_name, shown.thumbnail_b64str) == (name, content)]
    shown = same[0] if same else client.datasets.add_thumbnail(held.mfid, preview.path, name=name)
    put.shown = shown.id
    if not same:
        put.thumbnails[shown.id] = name


def _ended(client: CrucibleClient, new: NewDataset, request: IngestionRequest) -> IngestionRequest:
    """The request once it has ended, or as it stands when the time is over: the data are whole without."""
    with suppress(UnreachableError):
        return client.ingestions.wait(request.id, timeout_s=new.ingestion_timeout_s)
    return request


def _quietly(delete: Any, *arguments: Any) -> None:
    """Done, also if another process was faster."""
    try:
        delete(*arguments)
    except NotFoundError:
        return
