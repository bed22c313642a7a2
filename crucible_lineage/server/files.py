"""Files of datasets, their thumbnails, and the ingestion of their contents."""

from __future__ import annotations

import base64
import re
from sqlite3 import Row
from typing import Annotated, Literal

from pydantic import Base64Bytes, Field
from starlette.responses import Response

from crucible_lineage.server.call import Call
from crucible_lineage.server.database import Transaction, now
from crucible_lineage.server.http import Form, Json, Name, Number, Page, Refusal, delete, get, invalid, post
from crucible_lineage.server.ingest import ingestor_names
from crucible_lineage.server.records import Conditions, file_record
from crucible_lineage.server.resources import CONTRIBUTOR, EDITOR, VIEWER, change, not_found, role_on, rows_of
from crucible_lineage.server.storage import FILES, LIFETIME_S, file_of, files_of, release

_SIGNATURES = {
    "image/png": rb"\x89PNG\r\n\x1a\n", "image/jpeg": rb"\xff\xd8\xff", "image/gif": rb"GIF8", "image/bmp": rb"BM",
    "image/tiff": rb"II\*\x00|MM\x00\*", "image/webp": rb"(?s)RIFF....WEBP",
    "image/svg+xml": rb"(?s)\s*(?=<\?xml|<svg ).{0,1000}?<svg",
}  # fmt: skip


_REQUESTS = """SELECT ingestion_request.*, file.mfid AS file_mfid, file.dataset_id, resource.mfid AS dataset_mfid
    FROM ingestion_request JOIN file ON file.id = file_id JOIN resource ON resource.id = file.dataset_id"""


@get("/datasets/{mfid}/files", of="dataset")
def list_dataset_files(db: Transaction, row: Row) -> Json:
    return [file_record(file) for file in files_of(db, row["id"])]


@get("/datasets/{mfid}/download_links", of="dataset")
def dataset_download_links(call: Call, db: Transaction, row: Row) -> Json:
    if not (files := files_of(db, row["id"])):
        raise Refusal(404, "The dataset has no files")
    return {file["mfid"]: _link(call, file) for file in files}


@get("/files")
def list_files(call: Call, db: Transaction, query: Page, sha256_hash: str | None = None) -> Json:
    conditions = Conditions(FILES, "NOT resource.hidden")
    conditions.limit_to(call.caller)
    conditions.equal({"file.sha256": sha256_hash})
    return conditions.page(db, "file.id DESC", query, lambda rows: list(map(file_record, rows)))


@get("/files/{mfid}", of="file")
def get_file(row: Row) -> Json:
    return file_record(row)


@delete("/files/{mfid}", 204, of="file", role=EDITOR)
def delete_file(db: Transaction, row: Row) -> Response:
    release(db, row["id"])
    db.execute("DELETE FROM file WHERE id = ?", (row["id"],))
    change(db, row["dataset_id"])
    return Response(status_code=204)


@get("/files/{mfid}/download_link", of="file")
def file_download_link(call: Call, row: Row) -> Json:
    return {"url": _link(call, row), "expires_in": LIFETIME_S}


def _link(call: Call, file: Row) -> str:
    """Return a link to the content, not the file: it gives the same bytes after the file was replaced."""
    return call.service.links.sign(call.base_url, f"/storage/contents/{file['sha256']}/{file['filename']}")


class NewThumbnail(Form):
    thumbnail_name: Name
    thumbnail_b64str: Base64Bytes


@get("/datasets/{mfid}/thumbnails", of="dataset")
def list_thumbnails(db: Transaction, row: Row) -> Json:
    rows = db.execute("SELECT * FROM thumbnail WHERE dataset_id = ? ORDER BY id", (row["id"],))
    return [_thumbnail_record(thumbnail) for thumbnail in rows]


@post("/datasets/{mfid}/thumbnails", 201, of="dataset", role=CONTRIBUTOR)
def add_thumbnail(db: Transaction, row: Row, body: NewThumbnail) -> Json:
    image = body.thumbnail_b64str
    types = [media_type for media_type, signature in _SIGNATURES.items() if re.match(signature, image)]
    if not types:
        raise invalid("body", "thumbnail_b64str", "is not an image: PNG, JPEG, GIF, WebP, TIFF, BMP or SVG")
    number = db.add("thumbnail", dataset_id=row["id"], name=body.thumbnail_name, mime_type=types[0], image=image)
    return _thumbnail_record(*rows_of(db, "thumbnail", [number]))


@delete("/datasets/{mfid}/thumbnails/{number}", of="dataset", role=EDITOR)
def delete_thumbnail(db: Transaction, row: Row, number: Number) -> Json:
    if not db.execute("DELETE FROM thumbnail WHERE id = ? AND dataset_id = ?", (number, row["id"])).rowcount:
        raise not_found("thumbnail")
    return {"detail": f"Thumbnail {number} deleted"}


def _thumbnail_record(row: Row) -> Json:
    return {
        "id": row["id"],
        "dataset_id": row["dataset_id"],
        "thumbnail_name": row["name"],
        "thumbnail_b64str": base64.b64encode(row["image"]).decode(),
        "mime_type": row["mime_type"],
    }


@post("/files/{mfid}/ingest", 201)
def request_ingestion(
    call: Call,
    mfid: str,
    status: Literal["requested", "not_requested"] = "requested",
    ingestion_class: Annotated[str, Field(max_length=200)] | None = None,
) -> Json:
    with call.write() as db:
        file = file_of(db, call.caller, mfid, CONTRIBUTOR)
        record = new_request(db, file["id"], status, ingestion_class)
    call.service.wake()
    return record


def new_request(db: Transaction, file_id: int, status: str, ingestion_class: str | None) -> Json:
    asked = {"file_id": file_id, "status": status, "ingestion_class": ingestion_class, "time_created": now()}
    row = db.first(f"{_REQUESTS} WHERE ingestion_request.id = ?", db.add("ingestion_request", **asked))
    return row and _request_record(row)


@get("/ingestion_requests")
def list_requests(
    call: Call, db: Transaction, query: Page, dataset_mfid: str | None = None, file_mfid: str | None = None
) -> Json:
    conditions = Conditions(_REQUESTS)
    conditions.limit_to(call.caller)
    conditions.equal({"resource.mfid": dataset_mfid, "file.mfid": file_mfid})
    return conditions.page(db, "ingestion_request.id DESC", query, lambda rows: list(map(_request_record, rows)))


@get("/ingestion_requests/{number}")
def get_request(call: Call, db: Transaction, number: Number) -> Json:
    row = db.first(f"{_REQUESTS} WHERE ingestion_request.id = ?", number)
    if row is None or role_on(db, call.caller, row["dataset_id"]) < VIEWER:
        raise not_found("ingestion request")
    return _request_record(row)


@get("/ingestors")
def list_ingestors() -> Json:
    return ingestor_names()


def _request_record(row: Row) -> Json:
    names = ("id", "status", "file_mfid", "dataset_mfid", "ingestion_class", "ingestion_githash", "time_created")
    return {name: row[name] for name in (*names, "time_completed", "error_message")}
