"""Fill the dataset of a registration. Every call can be repeated."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.datasets import in_threads
from crucible_lineage.errors import FileConflictError, NotFoundError, UnreachableError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.provenance.record import ATTACHED_NAME
from crucible_lineage.refs import DERIVED
from crucible_lineage.registration.claim import Claim, require_claim, start_over
from crucible_lineage.registration.payload import LocalFile, NewDataset

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest
    from crucible_lineage.client.signed import UploadedFile
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

MANY = 8  # chosen: so many files are worth threads
SMALL = 1 << 20  # bytes; chosen: sending them in vain costs no more than waiting for permission
MAX_CONFLICTS = 3  # chosen: an overtaken registration may send each file once more


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
    from crucible_lineage.client.signed import GIVEN_BYTES, Outgoing

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
