"""Uploads in three protocols, and the bytes of files, each behind a signed link."""

from __future__ import annotations

import mimetypes
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Header, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from crucible_lineage.server.call import AuthenticatedCall, Call, Service
from crucible_lineage.server.catalogue.access import CONTRIBUTOR, EDITOR, require
from crucible_lineage.server.catalogue.records import etag, file_record
from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.files.sessions import (
    LIFETIME_S,
    begin,
    completed,
    existing,
    finish,
    part_count,
    part_length,
    state_of,
)
from crucible_lineage.server.files.storage import (
    STORE,
    Draft,
    NewContent,
    NewUpload,
    Sha256,
    TooLongError,
    file_of,
    is_readable,
    register,
    same_content,
)
from crucible_lineage.server.http import Form, Json, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.instance import PREFIX

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not


router = new_router()

Reuse = Annotated[Literal["readable"] | None, Header()]  # accept bytes of any dataset that the caller may read
Crc32c = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{6}==$")]
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")
_ACTIVE_TYPES = ("html", "svg", "xml", "javascript")  # never shown inline: they could act with the reader's rights


class AnnouncedPart(Form):
    part_number: Annotated[int, Field(ge=1, le=1_000_000)]
    crc32c: Crc32c


class PartsToSign(Form):
    parts: Annotated[list[AnnouncedPart], Field(min_length=1, max_length=32)]


class Completion(Form):
    upload_id: str
    sha256_hash: Sha256
    crc32c: Crc32c | None = None


@router.post("/datasets/{mfid}/upload/multipart/initiate", status_code=201)
def initiate_signed(
    call: Call,
    mfid: str,
    body: NewUpload,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    crucible_reuse_content: Reuse = None,
) -> Json:
    if (answer := _answer_without_upload(call, mfid, body, crucible_reuse_content)) is not None:
        return answer
    with call.write() as db:
        dataset = _require_free_name(db, call, mfid, body)
        if body.size == 0:
            return _deduplicated(_empty_file(db, call, dataset["id"], body))
        upload = begin(
            db, call.caller.id, "signed", dataset["id"], body.filename, body, idempotency_key=idempotency_key
        )
        return state_of(db, upload)


@router.post("/files/{mfid}/upload/multipart/initiate", status_code=201)
def initiate_replacement(
    call: Call,
    mfid: str,
    body: NewContent,
    if_match: Annotated[str | None, Header()] = None,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Json:
    with call.write() as db:
        file = file_of(db, call.caller, mfid, EDITOR)
        if if_match is None:
            raise refuse(428, "Replacing a file needs the header If-Match with its etag, or *")
        if if_match not in ("*", etag(file)):
            raise refuse(412, {"code": "etag_mismatch", "message": "The file has changed", "etag": etag(file)})
        if file["backend"] != STORE:
            raise refuse(422, "Only files stored by the service can be replaced")
        is_same = same_content(file, body.size, body.sha256_hash)
        if is_same and call.service.storage.holds(body.sha256_hash, body.size):
            return _deduplicated(file)
        if body.size == 0:
            raise refuse(422, "A file cannot be replaced by an empty one")
        other = db.execute(
            "SELECT 1 FROM upload WHERE replaces_id = ? AND state = 'uploading' AND (sha256 <> ? OR user_id <> ?)"
            " AND EXISTS (SELECT 1 FROM upload_part WHERE upload_id = upload.id)",
            (file["id"], body.sha256_hash, call.caller.id),
        ).fetchone()
        if other:
            raise refuse(409, {"code": "replace_in_progress", "message": "Another replacement is under way"})
        upload = begin(
            db, call.caller.id, "signed", file["dataset_id"], file["filename"], body,
            idempotency_key=idempotency_key, replaces_id=None if is_same else file["id"],
        )  # fmt: skip
        return state_of(db, upload)


@router.get("/datasets/{mfid}/upload/multipart/{upload_id}")
def upload_state(call: Call, mfid: str, upload_id: str, part_number_marker: int | None = None) -> Json:
    with call.read() as db:
        return state_of(db, _session_of(db, call, mfid, upload_id, "signed"))


@router.post("/datasets/{mfid}/upload/multipart/complete")
def complete_signed(call: Call, mfid: str, body: Completion) -> Json:
    with call.read() as db:
        upload = _session_of(db, call, mfid, body.upload_id, "signed")
        if upload["state"] == "completed":
            return completed(db, upload)
        parts = db.execute(
            "SELECT number, sha256 FROM upload_part WHERE upload_id = ? ORDER BY number", (upload["id"],)
        ).fetchall()
    if body.sha256_hash != upload["sha256"]:
        raise refuse(422, "sha256_hash is not the one this upload was initiated with")
    if len(parts) < part_count(upload):
        raise refuse(409, f"{part_count(upload) - len(parts)} of {part_count(upload)} parts are missing")
    return finish(call.service.database, call.service.storage, upload, _verify_parts(call, upload, parts, body.crc32c))


@router.post("/datasets/{mfid}/upload/multipart/{upload_id}/parts")
def sign_parts(call: Call, mfid: str, upload_id: str, body: PartsToSign) -> Json:
    with call.read() as db:
        upload = _session_of(db, call, mfid, upload_id, "signed")
    if upload["state"] != "uploading":
        raise refuse(409, f"The upload is {upload['state']}")
    if any(part.part_number > part_count(upload) for part in body.parts):
        raise refuse(422, f"The upload has {part_count(upload)} parts")
    return {"parts": [_signed_part(call, upload, part) for part in body.parts]}


@router.delete("/datasets/{mfid}/upload/multipart/{upload_id}", status_code=204)
def abort_signed(call: Call, mfid: str, upload_id: str) -> Response:
    with call.write() as db:
        upload = _session_of(db, call, mfid, upload_id, "signed")
        if upload["state"] != "completed":
            db.execute("UPDATE upload SET state = 'aborted' WHERE id = ?", (upload_id,))
            db.execute("DELETE FROM upload_part WHERE upload_id = ?", (upload_id,))
    call.service.storage.discard_upload(upload_id)
    return Response(status_code=204)


@router.post("/datasets/{mfid}/upload/initiate", status_code=201)
def initiate_resumable(call: Call, mfid: str, body: NewUpload, crucible_reuse_content: Reuse = None) -> Json:
    if (answer := _answer_without_upload(call, mfid, body, crucible_reuse_content)) is not None:
        return answer
    with call.write() as db:
        dataset = _require_free_name(db, call, mfid, body)
        if body.size == 0:
            return _deduplicated(_empty_file(db, call, dataset["id"], body))
        upload = begin(db, call.caller.id, "resumable", dataset["id"], body.filename, body)
    uri = call.service.links.sign(
        call.base_url, f"/storage/resumable/{upload['id']}", size=str(body.size), lifetime_s=7 * 86_400
    )
    return {
        "upload_id": upload["id"],
        "resumable_uri": uri,
        "chunk_size_hint": 8 << 20,
        "existing_file": None,
    }


@router.post("/datasets/{mfid}/upload/initiate/multipart", status_code=201)
def initiate_with_token(call: Call, mfid: str, body: NewUpload) -> Json:
    """Register an empty file, the only use that the official client makes of this route here."""
    with call.write() as db:
        dataset = _require_free_name(db, call, mfid, body)
        if body.size:
            raise refuse(422, "Uploads with storage tokens are not supported here; use the signed multipart upload")
        return _deduplicated(_empty_file(db, call, dataset["id"], body))


@router.post("/datasets/{mfid}/upload/complete")
def complete_resumable(call: Call, mfid: str, body: Completion) -> Json:
    with call.read() as db:
        upload = _session_of(db, call, mfid, body.upload_id, "resumable")
        if upload["state"] == "completed":
            return completed(db, upload)
    growing = call.service.storage.growing(upload["id"])
    received = call.service.storage.join([growing] if growing.exists() else [], upload["id"])
    if (received.size, received.sha256) != (upload["size"], body.sha256_hash) or body.sha256_hash != upload["sha256"]:
        received.draft.unlink()
        if received.size == upload["size"]:
            call.service.storage.discard_upload(upload["id"])
        raise refuse(
            422, f"{received.size} of {upload['size']} bytes arrived, or their SHA-256 is not the announced one"
        )
    return finish(call.service.database, call.service.storage, upload, received)


def _session_of(
    db: sqlite3.Connection, call: AuthenticatedCall, mfid: str, upload_id: str, kind: Literal["signed", "resumable"]
) -> sqlite3.Row:
    """Return an upload of this dataset, to which the caller may add files."""
    dataset = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM upload WHERE id = ? AND dataset_id = ? AND kind = ?", (upload_id, dataset["id"], kind)
    ).fetchone()
    if row is None:
        raise refuse(404, "Upload not found in this dataset; initiate it again")
    return row


def _answer_without_upload(call: AuthenticatedCall, mfid: str, body: NewUpload, reuse: str | None) -> Json | None:
    """Return the response to an upload whose bytes the server has and may use, or None if they must be sent."""
    if (present := _undamaged_file(call, mfid, body)) is not None:
        return _deduplicated(present)
    if reuse is not None and (reused := _reuse_content(call, mfid, body)) is not None:
        return _deduplicated(reused, reused_content=True)
    return None


def _undamaged_file(call: AuthenticatedCall, mfid: str, body: NewUpload) -> sqlite3.Row | None:
    """Return the dataset's file of this name and content; None if it is damaged and should be sent again."""
    with call.read() as db:
        dataset = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        file = existing(db, dataset["id"], body.filename, body)
    is_intact = file is not None and call.service.storage.holds(file["sha256"], file["size"])
    return file if is_intact else None


def _reuse_content(call: AuthenticatedCall, mfid: str, body: NewUpload) -> sqlite3.Row | None:
    """Add a file to the dataset whose bytes are stored for another one that the caller may read; else None."""
    with call.read() as db:
        present = existing(db, require(db, call.caller, mfid, CONTRIBUTOR, "dataset")["id"], body.filename, body)
        is_stored = present is None and is_readable(db, call.caller, body.size, body.sha256_hash)
    if not is_stored or not call.service.storage.holds(body.sha256_hash, body.size):
        return None
    with call.write() as db:
        dataset = _require_free_name(db, call, mfid, body)
        if not is_readable(db, call.caller, body.size, body.sha256_hash):  # deleted meanwhile
            return None
        return register(db, dataset["id"], body.filename, body.size, body.sha256_hash)


def _require_free_name(db: sqlite3.Connection, call: AuthenticatedCall, mfid: str, body: NewUpload) -> sqlite3.Row:
    """Return the dataset's row; refuse if the caller may not add to it, or the name has other content."""
    dataset = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
    existing(db, dataset["id"], body.filename, body)
    return dataset


def _verify_parts(
    call: AuthenticatedCall, upload: sqlite3.Row, parts: list[sqlite3.Row], crc32c: str | None
) -> Draft | None:
    """Join all parts into one draft and compare checksums; None if the store has the bytes already."""
    storage = call.service.storage
    if len(parts) == 1:
        if parts[0]["sha256"] != upload["sha256"]:
            raise _refuse_parts(call, upload)
        return _single_part(call, upload)
    received = storage.join((storage.part(upload["id"], part["number"]) for part in parts), upload["id"])
    if received.sha256 != upload["sha256"] or received.size != upload["size"] or crc32c not in (None, received.crc32c):
        received.draft.unlink()
        raise _refuse_parts(call, upload)
    return received


def _single_part(call: AuthenticatedCall, upload: sqlite3.Row) -> Draft | None:
    """Return the only part without copying it: it was verified and flushed when it was received."""
    part = call.service.storage.part(upload["id"], 1)
    if not part.exists():
        if call.service.storage.holds(upload["sha256"], upload["size"]):
            return None  # an earlier attempt gave it its final name
        raise _refuse_parts(call, upload)
    return Draft(part, upload["size"], upload["sha256"], "")


def _refuse_parts(call: AuthenticatedCall, upload: sqlite3.Row) -> Exception:
    """Drop parts whose bytes are not the announced ones, and return the error that asks for them again."""
    with call.write() as db:
        db.execute("DELETE FROM upload_part WHERE upload_id = ?", (upload["id"],))
    return refuse(422, "The checksum of the received bytes is not the announced one; upload the parts again")


def _signed_part(call: AuthenticatedCall, upload: sqlite3.Row, part: AnnouncedPart) -> JsonObject:
    number, length = part.part_number, part_length(upload, part.part_number)
    path = f"/storage/parts/{upload['id']}/{number}"
    expires = datetime.now(UTC) + timedelta(seconds=LIFETIME_S)
    return {
        "part_number": number,
        "url": call.service.links.sign(call.base_url, path, crc32c=part.crc32c, size=str(length)),
        "method": "PUT",
        "headers": {"x-goog-hash": f"crc32c={part.crc32c}", "Content-Length": str(length)},
        "offset": (number - 1) * upload["part_size"],
        "size": length,
        "expires_at": expires.isoformat(timespec="seconds"),
    }


def _empty_file(db: sqlite3.Connection, call: AuthenticatedCall, dataset_id: int, body: NewUpload) -> sqlite3.Row:
    if body.sha256_hash != EMPTY_SHA256:
        raise refuse(422, "sha256_hash is not that of an empty file")
    call.service.storage.keep_empty(EMPTY_SHA256)
    return register(db, dataset_id, body.filename, 0, EMPTY_SHA256)


def _deduplicated(row: sqlite3.Row, **extra: object) -> Json:
    return {"upload_id": None, "state": "completed", "parts": [], "existing_file": {**file_record(row), **extra}}


@router.put("/storage/parts/{upload_id}/{number}")
async def put_part(
    request: Request,
    upload_id: str,
    number: int,
    crc32c: str,
    size: str,
    expires: str,
    signature: str,
    x_goog_hash: Annotated[str, Header()] = "",
) -> Response:
    service = _authorized_service(request)
    if x_goog_hash not in ("", f"crc32c={crc32c}"):
        raise refuse(400, "x-goog-hash is not the one that was signed")
    upload = _open_session(service, upload_id)
    try:
        received = await service.storage.receive(request.stream(), upload_id, part_length(upload, number))
    except TooLongError:
        raise refuse(400, f"The part is longer than the {size} bytes that were signed") from None
    _keep_part(service, received, upload_id, number, crc32c, int(size))
    return Response(status_code=200)


@router.put("/storage/resumable/{upload_id}")
async def put_chunk(
    request: Request,
    upload_id: str,
    size: str,
    expires: str,
    signature: str,
    content_range: Annotated[str, Header()] = "",
) -> Response:
    service = _authorized_service(request)
    total = int(size)
    match = _CONTENT_RANGE.fullmatch(content_range or f"bytes 0-{total - 1}/{total}")
    if match is None or int(match[3]) != total:
        raise refuse(400, "Content-Range must be bytes FIRST-LAST/TOTAL or bytes */TOTAL with the announced total")
    upload = await run_in_threadpool(_session, service, upload_id)
    if upload is not None and upload["state"] == "completed":
        return Response(status_code=200)
    if upload is None or upload["state"] != "uploading":
        raise refuse(404, "The upload is not open")
    path = service.storage.growing(upload_id)
    if match[1] is not None:
        async with service.storage.growing_lock(upload_id):
            await _grow(request, path, int(match[1]), int(match[2]), total)
    received = path.stat().st_size if path.exists() else 0
    if received >= total:
        return Response(status_code=200)
    return Response(status_code=308, headers={"Range": f"bytes=0-{received - 1}"} if received else {})


@router.get("/storage/contents/{sha256}/{filename}")
def get_content(
    request: Request,
    sha256: str,
    filename: str,
    expires: str,
    signature: str,
    disposition: Literal["attachment", "inline"] = "attachment",
) -> Response:
    service = _authorized_service(request)
    path = service.storage.folder.content(sha256)
    if not path.exists():
        raise refuse(404, "This content is no longer stored")
    media_type = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    if any(word in media_type for word in _ACTIVE_TYPES):
        media_type, disposition = "application/octet-stream", "attachment"
    return _Content(
        path,
        media_type=media_type,
        filename=filename,
        content_disposition_type=disposition,
        headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "ETag": f'"{sha256}"'},
    )


class _Content(FileResponse):
    chunk_size = 1 << 20  # measured: with the default of 64 KiB, thread switches dominate a download


def _authorized_service(request: Request) -> Service:
    """Return the service, if it signed the link for this path; 403 makes Crucible's clients ask for a new link."""
    service: Service = request.app.state.service
    path = request.scope["path"].removeprefix(PREFIX)
    if not service.links.accepts(path, dict(request.query_params)):
        raise refuse(403, "The link has expired or was not made here; request a new one")
    return service


def _session(service: Service, upload_id: str) -> sqlite3.Row | None:
    with service.database.read() as db:
        row: sqlite3.Row | None = db.execute("SELECT * FROM upload WHERE id = ?", (upload_id,)).fetchone()
        return row


def _open_session(service: Service, upload_id: str) -> sqlite3.Row:
    upload = _session(service, upload_id)
    if upload is None or upload["state"] != "uploading":
        raise refuse(404, "The upload is not open")
    return upload


def _keep_part(service: Service, received: Draft, upload_id: str, number: int, crc32c: str, size: int) -> None:
    """Record the part, if it is what was signed."""
    try:
        if (received.size, received.crc32c) != (size, crc32c):
            raise refuse(400, "The part's length or checksum is not the signed one")
        with service.database.write() as db:
            state = db.execute("SELECT state FROM upload WHERE id = ?", (upload_id,)).fetchone()
            if state is None or state[0] != "uploading":
                raise refuse(404, "The upload is not open")
            received.draft.replace(service.storage.part(upload_id, number))
            db.execute(
                "INSERT OR REPLACE INTO upload_part VALUES (?, ?, ?, ?)", (upload_id, number, size, received.sha256)
            )
    finally:
        received.draft.unlink(missing_ok=True)


async def _grow(request: Request, path: Path, first: int, last: int, total: int) -> None:
    """Write the chunk at its position in the growing file; bytes that are already there may be sent again."""
    path.parent.mkdir(exist_ok=True)
    size = path.stat().st_size if path.exists() else 0
    if first > size:
        raise refuse(400, f"The chunk starts at {first}, but only {size} bytes have arrived")
    if not first <= last < total:
        raise refuse(400, "Content-Range lies outside the file")
    position = first
    with path.open("r+b" if path.exists() else "xb") as file:
        file.seek(first)
        async for block in request.stream():
            position += len(block)
            if position > last + 1:
                raise refuse(400, "The chunk is longer than its Content-Range")
            file.write(block)
    if position != last + 1:
        raise refuse(400, "The chunk is shorter than its Content-Range")
