"""Thumbnails: small pictures that stand for a dataset."""

from __future__ import annotations

import base64
import binascii
import sqlite3
from typing import Annotated

from pydantic import Field

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import CONTRIBUTOR, EDITOR, VIEWER, not_found, require
from crucible_lineage.server.http import MAX_ROW_ID, Form, Json, invalid, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.seals import require_rows

router = new_router()

Name = Annotated[str, Field(min_length=1, max_length=500)]
MAX_THUMBNAIL_BYTES = 32 << 20  # chosen: of one dataset
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


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
        found = db.execute("SELECT * FROM thumbnail WHERE dataset_id = ? ORDER BY id", (row["id"],)).fetchall()
        require_rows("thumbnail", found)
        return [_record(thumbnail) for thumbnail in found]


@router.post("/datasets/{mfid}/thumbnails", status_code=201)
def add_thumbnail(call: Call, mfid: str, body: NewThumbnail) -> Json:
    image, mime_type = _decoded(body.thumbnail_b64str)
    with call.write() as db:
        row = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        _refuse_too_many(db, row["id"], len(image))
        added = db.execute(
            "INSERT INTO thumbnail (dataset_id, name, mime_type, image) VALUES (?, ?, ?, ?) RETURNING *",
            (row["id"], body.thumbnail_name, mime_type, image),
        ).fetchone()
        return _record(added)


@router.patch("/datasets/{mfid}/thumbnails/{number}")
def change_thumbnail(call: Call, mfid: str, number: int, body: ThumbnailPatch) -> Json:
    with call.write() as db:
        thumbnail = _find(db, require(db, call.caller, mfid, EDITOR, "dataset")["id"], number)
        image, mime_type = thumbnail["image"], thumbnail["mime_type"]
        if body.thumbnail_b64str is not None:
            image, mime_type = _decoded(body.thumbnail_b64str)
            _refuse_too_many(db, thumbnail["dataset_id"], len(image) - len(thumbnail["image"]))
        changed = db.execute(
            "UPDATE thumbnail SET name = ?, mime_type = ?, image = ?, file_id = NULL WHERE id = ? RETURNING *",
            (body.thumbnail_name or thumbnail["name"], mime_type, image, number),
        ).fetchone()
        return _record(changed)


@router.delete("/datasets/{mfid}/thumbnails/{number}")
def delete_thumbnail(call: Call, mfid: str, number: int) -> Json:
    with call.write() as db:
        _find(db, require(db, call.caller, mfid, EDITOR, "dataset")["id"], number)
        db.execute("DELETE FROM thumbnail WHERE id = ?", (number,))
        return {"detail": f"Thumbnail {number} deleted"}


def _find(db: sqlite3.Connection, dataset_id: int, number: int) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if 0 < number <= MAX_ROW_ID:
        row = db.execute("SELECT * FROM thumbnail WHERE id = ? AND dataset_id = ?", (number, dataset_id)).fetchone()
    if row is None:
        raise not_found("thumbnail")
    require_rows("thumbnail", [row])
    return row


def _refuse_too_many(db: sqlite3.Connection, dataset_id: int, more_bytes: int) -> None:
    """413 where all thumbnails of the dataset, which are listed in one answer, would become too large."""
    (held,) = db.execute(
        "SELECT COALESCE(SUM(length(image)), 0) FROM thumbnail WHERE dataset_id = ?", (dataset_id,)
    ).fetchone()
    if held + more_bytes > MAX_THUMBNAIL_BYTES:
        raise refuse(413, f"The thumbnails of one dataset may have {MAX_THUMBNAIL_BYTES >> 20} MB; upload it as a file")


def _decoded(text: str) -> tuple[bytes, str]:
    """The image's bytes and type."""
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


def _record(row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "dataset_id": row["dataset_id"],
        "thumbnail_name": row["name"],
        "thumbnail_b64str": base64.b64encode(row["image"]).decode(),
        "mime_type": row["mime_type"],
    }
