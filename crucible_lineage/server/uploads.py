"""Uploads in two protocols, and the bytes of files, each behind a signed link.

A signed upload has parts, each verified as it arrives; a resumable one has a single file that grows.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from sqlite3 import Row
from typing import Annotated
from weakref import WeakValueDictionary

from pydantic import Base64Bytes, Field
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from crucible_lineage.server.call import Call, Service
from crucible_lineage.server.database import PREFIX, JsonObject, Transaction, now
from crucible_lineage.server.http import Count, FileName, Form, Json, Refusal, Sha256, delete, get, post, put
from crucible_lineage.server.records import Conditions, etag, file_record
from crucible_lineage.server.resources import CONTRIBUTOR, EDITOR, require
from crucible_lineage.server.storage import (
    FILES,
    LIFETIME_S,
    blocks,
    digest_of,
    file_of,
    find_same,
    register,
    replace_content,
)

# ruff: noqa: ARG001, S608 - a route declares each parameter that clients may send; SQL is built of constants

PART_BYTES = 64 << 20  # as the official client slices; with any other size it reads the file twice
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")

_growing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # held while a chunk is written


Crc32c = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{6}==$")]


class NewContent(Form):
    size: Count
    sha256_hash: Sha256


class NewUpload(NewContent):
    filename: FileName
    content: Base64Bytes | None = None  # of a small file; then nothing is left to be sent


class GivenFile(NewUpload):
    content: Base64Bytes
    ingest: bool = False
    ingestor: str | None = None


class AnnouncedPart(Form):
    part_number: Annotated[int, Field(ge=1, le=1_000_000)]
    crc32c: Crc32c


class PartsToSign(Form):
    parts: Annotated[list[AnnouncedPart], Field(min_length=1, max_length=32)]


class Completion(Form):
    upload_id: str
    sha256_hash: Sha256
    crc32c: Crc32c | None = None


@post("/datasets/{mfid}/upload/multipart/initiate", 201)
def initiate_signed(call: Call, mfid: str, body: NewUpload) -> Json:
    present, upload = _initiated(call, mfid, body, PART_BYTES)
    return present if upload is None else _state(call, upload)


@post("/datasets/{mfid}/upload/initiate", 201)
def initiate_resumable(call: Call, mfid: str, body: NewUpload) -> Json:
    present, upload = _initiated(call, mfid, body, body.size)
    if upload is None:
        return present
    path = f"/storage/resumable/{upload['id']}"
    uri = call.service.links.sign(call.base_url, path, size=str(body.size), lifetime_s=7 * 86_400)
    return {"upload_id": upload["id"], "resumable_uri": uri, "chunk_size_hint": 8 << 20, "existing_file": None}


@post("/files/{mfid}/upload/multipart/initiate", 201)
def initiate_replacement(call: Call, mfid: str, body: NewContent) -> Json:
    if_match = call.request.headers.get("if-match")
    with call.write() as db:
        file = file_of(db, call.caller, mfid, EDITOR)
        if if_match is None:
            raise Refusal(428, "Replacing a file needs the header If-Match with its etag, or *")
        if if_match not in ("*", etag(file)):
            raise Refusal(412, {"code": "etag_mismatch", "message": "The file has changed", "etag": etag(file)})
        if body.size == 0:
            raise Refusal(422, "A file cannot be replaced by an empty one")
        is_same = (file["size"], file["sha256"]) == (body.size, body.sha256_hash)
        if is_same and call.service.storage.holds(body.sha256_hash, body.size):
            return _existing(file)
        replaces = None if is_same else file["id"]
        upload = _begin(db, call, PART_BYTES, file["dataset_id"], file["filename"], body, replaces)
    return _state(call, upload)


@get("/datasets/{mfid}/upload/multipart/{upload_id}")
def upload_state(call: Call, mfid: str, upload_id: str, part_number_marker: int | None = None) -> Json:
    return _state(call, _upload_of(call, mfid, upload_id))


@post("/datasets/{mfid}/upload/multipart/{upload_id}/parts")
def sign_parts(call: Call, mfid: str, upload_id: str, body: PartsToSign) -> Json:
    upload = _upload_of(call, mfid, upload_id)
    if upload["state"] != "uploading":
        raise Refusal(409, f"The upload is {upload['state']}")
    if any(part.part_number > _part_count(upload) for part in body.parts):
        raise Refusal(422, f"The upload has {_part_count(upload)} parts")
    expires = datetime.now(UTC) + timedelta(seconds=LIFETIME_S)

    def signed(part: AnnouncedPart) -> JsonObject:
        offset = (part.part_number - 1) * int(upload["part_size"])
        length = min(int(upload["part_size"]), int(upload["size"]) - offset)  # of all parts but the last the same
        path = f"/storage/parts/{upload['id']}/{part.part_number}"
        return {
            "part_number": part.part_number,
            "url": call.service.links.sign(call.base_url, path, crc32c=part.crc32c, size=str(length)),
            "method": "PUT",
            "headers": {"x-goog-hash": f"crc32c={part.crc32c}", "Content-Length": str(length)},
            "offset": offset,
            "size": length,
            "expires_at": expires.isoformat(timespec="seconds"),
        }

    return {"parts": [signed(part) for part in body.parts]}


@delete("/datasets/{mfid}/upload/multipart/{upload_id}", 204)
def abort_signed(call: Call, mfid: str, upload_id: str) -> Response:
    upload = _upload_of(call, mfid, upload_id)
    with call.write() as db:
        db.execute("DELETE FROM upload WHERE id = ? AND state = 'uploading'", (upload["id"],))
    call.service.storage.discard_upload(upload_id)
    return Response(status_code=204)


def keep_given(db: Transaction, call: Call, dataset_id: int, body: NewUpload) -> Row:
    """Store a file whose bytes are given, or empty; return its row."""
    storage = call.service.storage
    with storage.draft("given") as draft:
        draft.write(body.content or b"")
        if (draft.size, draft.sha256) != (body.size, body.sha256_hash):
            raise Refusal(422, "The bytes given are not those of this size and sha256_hash")
        find_same(db, dataset_id, body.filename, body.size, body.sha256_hash)
    storage.keep(draft.path, draft.sha256)
    return register(db, dataset_id, body.filename, body.size, body.sha256_hash)


def _initiated(call: Call, mfid: str, body: NewUpload, part_size: int) -> tuple[Json, Row | None]:
    """Return the answer if the bytes are here undamaged, or given; else the upload to which they must be sent.

    They are here if the dataset has the file, or for a client that says so, if any dataset has them that it may read.
    """
    announced, storage = (body.filename, body.size, body.sha256_hash), call.service.storage
    known = Conditions(FILES, "NOT resource.hidden")
    known.limit_to(call.caller)
    known.add("file.sha256 = ?", body.sha256_hash)
    may_reuse, is_given = "crucible-reuse" in call.request.headers, body.content is not None or not body.size

    def origin(db: Transaction) -> tuple[int, str | None]:
        """Return the dataset, and the state to answer if its bytes need not be sent."""
        dataset = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        if find_same(db, dataset["id"], *announced) is not None:
            return dataset["id"], "completed"
        return dataset["id"], "reused" if is_given or (may_reuse and known.rows(db, "file.id", 1)) else None

    is_here = False
    if not is_given:
        with call.service.database.read() as db:
            _, state = origin(db)
        is_here = state is not None and storage.holds(body.sha256_hash, body.size)
    with call.write() as db:
        dataset_id, state = origin(db)  # the other file may have been deleted meanwhile, and its bytes with it
        if is_given:
            return {**_existing(keep_given(db, call, dataset_id, body)), "state": state}, None
        if is_here and state is not None:
            return {**_existing(register(db, dataset_id, *announced)), "state": state}, None
        return None, _begin(db, call, part_size, dataset_id, body.filename, body, None)


def _begin(
    db: Transaction, call: Call, size: int, dataset_id: int, filename: str, body: NewContent, replaces: int | None
) -> Row:
    """Return an upload session for these bytes: the open one of this user, even of another process, or a new one."""
    content = {"size": body.size, "sha256": body.sha256_hash, "part_size": size}
    place = {"dataset_id": dataset_id, "filename": filename, "replaces_id": replaces, "user_id": call.caller.id}
    announced = content | place
    same = " AND ".join(f"{name} IS ?" for name in announced)
    opened = f"SELECT * FROM upload WHERE {same} AND state = 'uploading' ORDER BY created DESC"
    row = db.first(opened, *announced.values())
    if row is None:
        db.add("upload", **announced, id=secrets.token_hex(16), created=now())
        row = db.first(opened, *announced.values())
    assert row is not None
    return row


def _upload_of(call: Call, mfid: str, upload_id: str) -> Row:
    """Return an upload of this dataset, to which the caller may add files."""
    with call.service.database.read() as db:
        dataset = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        row = db.first("SELECT * FROM upload WHERE id = ? AND dataset_id = ?", upload_id, dataset["id"])
    if row is None:
        raise Refusal(404, "Upload not found in this dataset; initiate it again")
    return row


def _part_count(upload: Row) -> int:
    return -(-int(upload["size"]) // int(upload["part_size"]))


def _state(call: Call, upload: Row) -> Json:
    """Return the state of a signed upload as its owner sees it."""
    numbers = range(1, _part_count(upload) + 1)
    present = [number for number in numbers if call.service.storage.part(upload["id"], number).exists()]
    return {
        "upload_id": upload["id"],
        "state": upload["state"],
        "part_size": upload["part_size"],
        "part_count": _part_count(upload),
        "parts": [{"part_number": number} for number in present],
        "existing_file": None,
        "next_part_number_marker": None,
    }


@post("/datasets/{mfid}/upload/multipart/complete")
@post("/datasets/{mfid}/upload/complete")
def complete(call: Call, mfid: str, body: Completion) -> Json:
    """Verify the parts, turn the upload into a file and return its record."""
    upload = _upload_of(call, mfid, body.upload_id)
    storage, announced = call.service.storage, (upload["size"], upload["sha256"])
    parts = [storage.part(upload["id"], number) for number in range(1, _part_count(upload) + 1)]
    if upload["state"] == "completed":
        return _finish(call, upload, None)
    if body.sha256_hash != upload["sha256"]:
        raise Refusal(422, "sha256_hash is not the one this upload was initiated with")
    if missing := sum(not part.exists() for part in parts):
        if storage.holds(upload["sha256"], upload["size"]):  # an earlier attempt gave them their final name
            return _finish(call, upload, None)
        raise Refusal(409, f"{missing} of {len(parts)} parts are missing; upload them again")
    if len(parts) == 1:  # it was flushed when it was received
        path, digest = parts[0], digest_of(parts[0])
    else:
        with storage.draft(upload["id"]) as joined:
            for block in chain.from_iterable(map(blocks, parts)):
                joined.write(block)
        path, digest = joined.path, joined
    if (digest.size, digest.sha256) != announced or body.crc32c not in (None, digest.crc32c):
        if digest.size >= upload["size"]:  # a resumable upload may go on
            storage.discard_upload(upload["id"])
        raise Refusal(
            422, f"{digest.size} of {upload['size']} bytes arrived, or their checksum is not the announced one; "
            "upload the parts again",
        )  # fmt: skip
    return _finish(call, upload, path)


def _finish(call: Call, upload: Row, draft: Path | None) -> Json:
    """Turn the upload into a file and return its record, atomically.

    `draft` holds the verified bytes, or is None if the store has them already. They get their final name inside the
    transaction that creates the record, so a record never lacks its bytes.
    """
    with call.write() as db:
        current = db.first("SELECT * FROM upload WHERE id = ?", upload["id"])
        if current is None:
            raise Refusal(409, "The upload was aborted")
        if current["state"] == "completed":
            if (row := db.first(f"{FILES} WHERE file.mfid = ?", current["file_mfid"])) is None:
                raise Refusal(404, "The uploaded file has been deleted since")
            return file_record(row)
        if upload["replaces_id"] is not None:
            row = replace_content(db, upload["replaces_id"], upload["size"], upload["sha256"])
        else:
            row = register(db, upload["dataset_id"], upload["filename"], upload["size"], upload["sha256"])
        db.execute("UPDATE upload SET state = 'completed', file_mfid = ? WHERE id = ?", (row["mfid"], upload["id"]))
        if draft is not None:
            call.service.storage.keep(draft, upload["sha256"])
        record = file_record(row)
    call.service.storage.discard_upload(upload["id"])
    return record


def _existing(row: Row) -> Json:
    return {"upload_id": None, "state": "completed", "parts": [], "existing_file": file_record(row)}


@put("/storage/parts/{upload_id}/{number}", is_open=True)
async def put_part(
    call: Call, upload_id: str, number: int, crc32c: str, size: str, expires: str, signature: str
) -> Response:
    service, request = _authorized_service(call), call.request
    if request.headers.get("x-goog-hash", "") not in ("", f"crc32c={crc32c}"):
        raise Refusal(400, "x-goog-hash is not the one that was signed")
    if _is_completed(service, upload_id):
        return Response(status_code=200)
    with service.storage.draft(upload_id) as draft:
        async for block in request.stream():
            draft.write(block)
            if draft.size > int(size):
                break
        if (draft.size, draft.crc32c) != (int(size), crc32c):
            raise Refusal(400, "The part's length or checksum is not the signed one")
    if not _is_completed(service, upload_id):
        draft.path.replace(service.storage.part(upload_id, number))
    return Response(status_code=200)


@put("/storage/resumable/{upload_id}", is_open=True)
async def put_chunk(call: Call, upload_id: str, size: str, expires: str, signature: str) -> Response:
    service, request = _authorized_service(call), call.request
    total = int(size)
    match = _CONTENT_RANGE.fullmatch(request.headers.get("content-range") or f"bytes 0-{total - 1}/{total}")
    if match is None or int(match[3]) != total:
        raise Refusal(400, "Content-Range must be bytes FIRST-LAST/TOTAL or bytes */TOTAL with the announced total")
    if _is_completed(service, upload_id):
        return Response(status_code=200)
    path = service.storage.part(upload_id, 1)
    if match[1] is not None:
        async with _growing.setdefault(upload_id, asyncio.Lock()):
            await _grow(request, path, int(match[1]), int(match[2]), total)
    received = path.stat().st_size if path.exists() else 0
    if received >= total:
        return Response(status_code=200)
    return Response(status_code=308, headers={"Range": f"bytes=0-{received - 1}"} if received else {})


async def _grow(request: Request, path: Path, first: int, last: int, total: int) -> None:
    """Write the chunk at its position in the growing file; bytes that are already there may be sent again."""
    path.parent.mkdir(exist_ok=True)
    size = path.stat().st_size if path.exists() else 0
    if first > size:
        raise Refusal(400, f"The chunk starts at {first}, but only {size} bytes have arrived")
    if not first <= last < total:
        raise Refusal(400, "Content-Range lies outside the file")
    position = first
    with path.open("r+b" if path.exists() else "xb") as file:
        file.seek(first)
        async for block in request.stream():
            position += len(block)
            if position > last + 1:
                raise Refusal(400, "The chunk is longer than its Content-Range")
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if position != last + 1:
        raise Refusal(400, "The chunk is shorter than its Content-Range")


@get("/storage/contents/{sha256}/{filename}", is_open=True)
def get_content(call: Call, sha256: str, filename: str, expires: str, signature: str) -> Response:
    path = _authorized_service(call).storage.folder.content(sha256)
    if not path.exists():
        raise Refusal(404, "This content is no longer stored")
    # Never shown by a browser: a page or picture with a script could act with the reader's rights.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "ETag": f'"{sha256}"'}
    response = FileResponse(path, media_type="application/octet-stream", filename=filename, headers=headers)
    response.chunk_size = 1 << 20  # measured: with the default of 64 KiB, thread switches dominate a download
    return response


def _authorized_service(call: Call) -> Service:
    """Return the service, if it signed the link for this path; 403 makes Crucible's clients ask for a new link."""
    path = call.request.scope["path"].removeprefix(PREFIX)
    if not call.service.links.accepts(path, dict(call.request.query_params)):
        raise Refusal(403, "The link has expired or was not made here; request a new one")
    return call.service


def _is_completed(service: Service, upload_id: str) -> bool:
    """Return whether another call completed the upload; 404 if it was aborted, or nobody finished it for a week."""
    with service.database.read() as db:
        if (row := db.first("SELECT state FROM upload WHERE id = ?", upload_id)) is None:
            raise Refusal(404, "The upload is not open")
        return bool(row["state"] == "completed")
