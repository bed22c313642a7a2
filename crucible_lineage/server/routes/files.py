"""Files of datasets, their thumbnails, and the ingestion of their contents."""

from __future__ import annotations

import base64
import binascii
import sqlite3
from typing import Annotated, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.catalogue.access import (
    CONTRIBUTOR,
    EDITOR,
    VIEWER,
    Caller,
    not_found,
    require,
    roles,
)
from crucible_lineage.server.catalogue.filters import Conditions
from crucible_lineage.server.catalogue.metadata import renew_metadata
from crucible_lineage.server.catalogue.records import file_record
from crucible_lineage.server.database import JsonObject, now
from crucible_lineage.server.files.sessions import LIFETIME_S
from crucible_lineage.server.files.storage import (
    FILES,
    STORE,
    FileName,
    Sha256,
    file_named,
    file_of,
    insert_file,
    release,
    update_size,
)
from crucible_lineage.server.http import (
    MAX_ROW_ID,
    Count,
    Form,
    Json,
    LenientBody,
    Limit,
    Moment,
    Name,
    Offset,
    Text,
    invalid,
    page,
    refuse,
)
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.ingest.ingestors import ingestor_names
from crucible_lineage.server.seals import require_rows

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


router = new_router()

Disposition = Literal["attachment", "inline"]
Backend = Annotated[str, Field(min_length=1, max_length=100)]


MAX_THUMBNAIL_BYTES = 32 << 20  # chosen: per dataset
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not


_REQUESTS = """SELECT ingestion_request.*, file.mfid AS file_mfid, file.dataset_id, resource.mfid AS dataset_mfid
    FROM ingestion_request JOIN file ON file.id = file_id JOIN resource ON resource.id = file.dataset_id"""


class _FileFields(BaseModel):
    size: Count | None = None
    access_note: Text | None = None
    sha256_hash: Sha256 | None = None
    storage_path: Text | None = None


class CataloguedFile(LenientBody, _FileFields):
    filename: FileName
    storage_backend: Backend


class FilePatch(Form, _FileFields):
    filename: FileName | None = None
    storage_backend: Backend | None = None


@router.get("/datasets/{mfid}/files")
def list_dataset_files(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "dataset")
        rows = db.execute(f"{FILES} WHERE dataset_id = ? ORDER BY file.id", (row["id"],))
        return [file_record(file) for file in rows]


@router.post("/datasets/{mfid}/files", status_code=201)
def catalogue_file(call: Call, mfid: str, body: CataloguedFile) -> Json:
    if body.storage_backend == STORE:
        raise refuse(422, "Files stored by the service are uploaded; catalogue only files that are stored elsewhere")
    with call.write() as db:
        row = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        if file_named(db, row["id"], body.filename) is not None:
            raise refuse(409, f"The dataset already has a file named {body.filename}")
        file = insert_file(
            db,
            row["id"],
            body.filename,
            backend=body.storage_backend,
            size=body.size,
            sha256=body.sha256_hash,
            storage_path=body.storage_path,
            access_note=body.access_note,
        )
        return file_record(file)


@router.get("/datasets/{mfid}/download_links")
def dataset_download_links(call: Call, mfid: str, disposition: Disposition = "attachment") -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "dataset")
        files = db.execute(f"{FILES} WHERE dataset_id = ? ORDER BY file.id", (row["id"],)).fetchall()
    if not files:
        raise refuse(404, "The dataset has no files")
    require_rows("file", files)
    return {file["mfid"]: _link(call, file, disposition) if file["backend"] == STORE else None for file in files}


@router.get("/files")
def list_files(call: Call, sha256_hash: str | None = None, limit: Limit = 100, offset: Offset = 0) -> Json:
    conditions = Conditions("NOT resource.hidden")
    conditions.limit_to(call.caller)
    if sha256_hash is not None:
        conditions.add("file.sha256 = ?", sha256_hash)
    with call.read() as db:
        rows, total = conditions.page(db, FILES, "file.id DESC", limit, offset)
    return page([file_record(row) for row in rows], limit, total, offset)


@router.get("/files/{mfid}")
def get_file(call: Call, mfid: str) -> Json:
    with call.read() as db:
        return file_record(file_of(db, call.caller, mfid, VIEWER))


@router.patch("/files/{mfid}")
def change_file(call: Call, mfid: str, body: FilePatch) -> Json:
    changes: JsonObject = body.model_dump(exclude_unset=True)
    with call.write() as db:
        file = file_of(db, call.caller, mfid, EDITOR)
        if file["backend"] == STORE and changes.keys() - {"filename", "access_note"}:
            raise refuse(422, "Location, size and checksum of a file stored by the service cannot be set")
        if changes.get("storage_backend") == STORE:
            raise refuse(422, "A file is stored by the service only after an upload")
        if any(changes.get(name, "") is None for name in ("filename", "storage_backend")):
            raise refuse(422, "filename and storage_backend cannot be null")
        columns = {"storage_backend": "backend", "sha256_hash": "sha256"}
        values = {columns.get(name, name): value for name, value in changes.items()}
        try:
            for name, value in values.items():
                db.execute(f"UPDATE file SET {name} = ? WHERE id = ?", (value, file["id"]))
        except sqlite3.IntegrityError:
            raise refuse(409, f"The dataset already has a file named {changes['filename']}") from None
        update_size(db, file["dataset_id"])
        renew_metadata(db, file["dataset_id"])
        return file_record(file_of(db, call.caller, mfid, EDITOR))


@router.delete("/files/{mfid}", status_code=204)
def delete_file(call: Call, mfid: str) -> Response:
    with call.write() as db:
        file = file_of(db, call.caller, mfid, EDITOR)
        release(db, file["id"])
        db.execute("DELETE FROM file WHERE id = ?", (file["id"],))
        update_size(db, file["dataset_id"])
        renew_metadata(db, file["dataset_id"])
    return Response(status_code=204)


@router.get("/files/{mfid}/download_link")
def file_download_link(call: Call, mfid: str, disposition: Disposition = "attachment") -> Json:
    with call.read() as db:
        file = file_of(db, call.caller, mfid, VIEWER)
    if file["backend"] != STORE:
        raise refuse(
            409,
            {
                "code": "storage_location_invalid",
                "reason": "outside_store",
                "message": f"The file is stored in {file['backend']}, which the service does not serve",
            },
        )
    return {"url": _link(call, file, disposition), "expires_in": LIFETIME_S}


def _link(call: AuthenticatedCall, file: sqlite3.Row, disposition: Disposition) -> str:
    """Return a link to the content, not the file: it gives the same bytes after the file was replaced."""
    path = f"/storage/contents/{file['sha256']}/{file['filename']}"
    return call.service.links.sign(call.base_url, path, disposition=disposition)


class NewThumbnail(Form):
    thumbnail_name: Name
    thumbnail_b64str: str


class ThumbnailPatch(Form):
    thumbnail_name: Name | None = None
    thumbnail_b64str: str | None = None


@router.get("/datasets/{mfid}/thumbnails")
def list_thumbnails(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "dataset")
        rows = db.execute("SELECT * FROM thumbnail WHERE dataset_id = ? ORDER BY id", (row["id"],)).fetchall()
        require_rows("thumbnail", rows)
        return [_thumbnail_record(thumbnail) for thumbnail in rows]


@router.post("/datasets/{mfid}/thumbnails", status_code=201)
def add_thumbnail(call: Call, mfid: str, body: NewThumbnail) -> Json:
    image, mime_type = _decode_image(body.thumbnail_b64str)
    with call.write() as db:
        row = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        _refuse_too_many(db, row["id"], len(image))
        added = db.execute(
            "INSERT INTO thumbnail (dataset_id, name, mime_type, image) VALUES (?, ?, ?, ?) RETURNING *",
            (row["id"], body.thumbnail_name, mime_type, image),
        ).fetchone()
        return _thumbnail_record(added)


@router.patch("/datasets/{mfid}/thumbnails/{number}")
def change_thumbnail(call: Call, mfid: str, number: int, body: ThumbnailPatch) -> Json:
    with call.write() as db:
        thumbnail = _find_thumbnail(db, require(db, call.caller, mfid, EDITOR, "dataset")["id"], number)
        image, mime_type = thumbnail["image"], thumbnail["mime_type"]
        if body.thumbnail_b64str is not None:
            image, mime_type = _decode_image(body.thumbnail_b64str)
            _refuse_too_many(db, thumbnail["dataset_id"], len(image) - len(thumbnail["image"]))
        changed = db.execute(
            "UPDATE thumbnail SET name = ?, mime_type = ?, image = ?, file_id = NULL WHERE id = ? RETURNING *",
            (body.thumbnail_name or thumbnail["name"], mime_type, image, number),
        ).fetchone()
        return _thumbnail_record(changed)


@router.delete("/datasets/{mfid}/thumbnails/{number}")
def delete_thumbnail(call: Call, mfid: str, number: int) -> Json:
    with call.write() as db:
        _find_thumbnail(db, require(db, call.caller, mfid, EDITOR, "dataset")["id"], number)
        db.execute("DELETE FROM thumbnail WHERE id = ?", (number,))
        return {"detail": f"Thumbnail {number} deleted"}


def _find_thumbnail(db: sqlite3.Connection, dataset_id: int, number: int) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if 0 < number <= MAX_ROW_ID:
        row = db.execute("SELECT * FROM thumbnail WHERE id = ? AND dataset_id = ?", (number, dataset_id)).fetchone()
    if row is None:
        raise not_found("thumbnail")
    require_rows("thumbnail", [row])
    return row


def _refuse_too_many(db: sqlite3.Connection, dataset_id: int, more_bytes: int) -> None:
    """413 if all thumbnails of the dataset, which are listed in one response, would become too large."""
    (used_bytes,) = db.execute(
        "SELECT COALESCE(SUM(length(image)), 0) FROM thumbnail WHERE dataset_id = ?", (dataset_id,)
    ).fetchone()
    if used_bytes + more_bytes > MAX_THUMBNAIL_BYTES:
        raise refuse(413, f"The thumbnails of one dataset may have {MAX_THUMBNAIL_BYTES >> 20} MB; upload it as a file")


def _decode_image(text: str) -> tuple[bytes, str]:
    """Return the image's bytes and media type."""
    try:
        image = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("body", "thumbnail_b64str", "is not base64") from None
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return image, "image/webp"
    for signature, mime_type in _SIGNATURES:
        if image.startswith(signature):
            return image, mime_type
    if image.lstrip()[:5] in (b"<?xml", b"<svg ") and b"<svg" in image[:1000]:
        return image, "image/svg+xml"
    raise invalid("body", "thumbnail_b64str", "is not an image: PNG, JPEG, GIF, WebP, TIFF, BMP or SVG")


def _thumbnail_record(row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "dataset_id": row["dataset_id"],
        "thumbnail_name": row["name"],
        "thumbnail_b64str": base64.b64encode(row["image"]).decode(),
        "mime_type": row["mime_type"],
    }


class RequestPatch(Form):
    id: int | None = None
    status: Annotated[str, Field(min_length=1, max_length=50)]
    ingestion_class: Text | None = None
    ingestion_githash: Text | None = None
    time_completed: Moment | None = None
    error_message: Text | None = None


@router.post("/files/{mfid}/ingest", status_code=201)
def request_ingestion(
    call: Call,
    mfid: str,
    status: Literal["requested", "not_requested"] = "requested",
    ingestion_class: Annotated[str | None, Field(max_length=200)] = None,
) -> Json:
    with call.write() as db:
        file = file_of(db, call.caller, mfid, CONTRIBUTOR)
        number = db.execute(
            "INSERT INTO ingestion_request (file_id, status, ingestion_class, time_created) VALUES (?, ?, ?, ?)",
            (file["id"], status, ingestion_class, now()),
        ).lastrowid
        record = _request_record(db.execute(f"{_REQUESTS} WHERE ingestion_request.id = ?", (number,)).fetchone())
    if status == "requested":
        call.service.wake_worker()
    return record


@router.get("/ingestion_requests")
def list_requests(
    call: Call,
    dataset_mfid: str | None = None,
    file_mfid: str | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    conditions = Conditions("1")
    conditions.limit_to(call.caller)
    if dataset_mfid is not None:
        conditions.add("resource.mfid = ?", dataset_mfid)
    if file_mfid is not None:
        conditions.add("file.mfid = ?", file_mfid)
    with call.read() as db:
        rows, total = conditions.page(db, _REQUESTS, "ingestion_request.id DESC", limit, offset)
    return page([_request_record(row) for row in rows], limit, total, offset)


@router.get("/ingestion_requests/{number}")
def get_request(call: Call, number: int) -> Json:
    with call.read() as db:
        return _request_record(_find_request(db, call.caller, number))


@router.patch("/ingestion_requests/{number}")
def change_request(call: Call, number: int, body: RequestPatch) -> Json:
    """Change a request, as workers outside this server do."""
    changes = body.model_dump(exclude_unset=True)
    changes.pop("id", None)
    with call.write() as db:
        row = _find_request(db, call.caller, number)
        require(db, call.caller, row["dataset_mfid"], EDITOR, "dataset")
        for name, value in changes.items():
            db.execute(f"UPDATE ingestion_request SET {name} = ? WHERE id = ?", (value, number))
        record = _request_record(_find_request(db, call.caller, number))
    if body.status == "requested":
        call.service.wake_worker()
    return record


@router.get("/ingestors")
def list_ingestors(call: Call) -> Json:
    return ingestor_names()


def _find_request(db: sqlite3.Connection, caller: Caller, number: int) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if 0 < number <= MAX_ROW_ID:
        row = db.execute(f"{_REQUESTS} WHERE ingestion_request.id = ?", (number,)).fetchone()
    if row is None or roles(db, caller, [row["dataset_id"]])[row["dataset_id"]] < VIEWER:
        raise not_found("ingestion request")
    return row


def _request_record(row: sqlite3.Row) -> Json:
    names = ("id", "status", "file_mfid", "dataset_mfid", "ingestion_class", "ingestion_githash", "time_created")
    return {name: row[name] for name in (*names, "time_completed", "error_message")}
