"""Files: list, read, catalogue, change, delete, and links to download them."""

# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import sqlite3
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import Field

from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.catalogue.access import CONTRIBUTOR, EDITOR, READABLE, VIEWER, require
from crucible_lineage.server.catalogue.bodies import Count, Text
from crucible_lineage.server.catalogue.filters import Where
from crucible_lineage.server.catalogue.metadata import renew_metadata
from crucible_lineage.server.catalogue.records import file_record
from crucible_lineage.server.files.contents import (
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
from crucible_lineage.server.files.links import LIFETIME_S
from crucible_lineage.server.http import Form, Json, Limit, Loose, Offset, page, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.seals import require_rows

router = new_router()

Disposition = Literal["attachment", "inline"]
Backend = Annotated[str, Field(min_length=1, max_length=100)]


class CataloguedFile(Loose):
    filename: FileName
    storage_backend: Backend
    size: Count | None = None
    access_note: Text | None = None
    sha256_hash: Sha256 | None = None
    storage_path: Text | None = None


class FilePatch(Form):
    filename: FileName | None = None
    storage_path: Text | None = None
    storage_backend: Backend | None = None
    access_note: Text | None = None
    size: Count | None = None
    sha256_hash: Sha256 | None = None


@router.get("/datasets/{mfid}/files")
def list_dataset_files(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "dataset")
        found = db.execute(f"{FILES} WHERE dataset_id = ? ORDER BY file.id", (row["id"],))
        return [file_record(file) for file in found]


@router.post("/datasets/{mfid}/files", status_code=201)
def catalogue_file(call: Call, mfid: str, body: CataloguedFile) -> Json:
    if body.storage_backend == STORE:
        raise refuse(422, "Files kept by the service are uploaded; catalogue only files that lie elsewhere")
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
        found = db.execute(f"{FILES} WHERE dataset_id = ? ORDER BY file.id", (row["id"],)).fetchall()
    if not found:
        raise refuse(404, "The dataset has no files")
    require_rows("file", found)
    return {file["mfid"]: _link(call, file, disposition) if file["backend"] == STORE else None for file in found}


@router.get("/files")
def list_files(call: Call, sha256_hash: str | None = None, limit: Limit = 100, offset: Offset = 0) -> Json:
    found = Where("NOT resource.hidden", user=call.caller.id)
    if not call.caller.elevated:
        found.add(READABLE)
    if sha256_hash is not None:
        found.add("file.sha256 = ?", sha256_hash)
    with call.read() as db:
        total = db.execute(
            f"SELECT COUNT(*) FROM file JOIN resource ON resource.id = file.dataset_id WHERE {found}",
            found.values,
        ).fetchone()[0]
        rows = db.execute(
            f"{FILES} WHERE {found} ORDER BY file.id DESC LIMIT {limit} OFFSET {offset}", found.values
        ).fetchall()
    return page([file_record(row) for row in rows], limit, total, offset)


@router.get("/files/{mfid}")
def get_file(call: Call, mfid: str) -> Json:
    with call.read() as db:
        return file_record(file_of(db, call.caller, mfid, VIEWER))


@router.patch("/files/{mfid}")
def change_file(call: Call, mfid: str, body: FilePatch) -> Json:
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    with call.write() as db:
        file = file_of(db, call.caller, mfid, EDITOR)
        if file["backend"] == STORE and given.keys() - {"filename", "access_note"}:
            raise refuse(422, "Location, size and checksum of a file kept by the service cannot be set")
        if given.get("storage_backend") == STORE:
            raise refuse(422, "A file becomes kept by the service by being uploaded")
        if any(given.get(name, "") is None for name in ("filename", "storage_backend")):
            raise refuse(422, "filename and storage_backend cannot be null")
        columns = {"storage_backend": "backend", "sha256_hash": "sha256"}
        values = {columns.get(name, name): value for name, value in given.items()}
        try:
            for name, value in values.items():
                db.execute(f"UPDATE file SET {name} = ? WHERE id = ?", (value, file["id"]))
        except sqlite3.IntegrityError:
            raise refuse(409, f"The dataset already has a file named {given['filename']}") from None
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
                "message": f"The file lies in {file['backend']}, which the service does not serve",
            },
        )
    return {"url": _link(call, file, disposition), "expires_in": LIFETIME_S}


def _link(call: AuthenticatedCall, file: sqlite3.Row, disposition: Disposition) -> str:
    """Names the content, not the file: a link keeps giving the same bytes after the file was replaced."""
    path = f"/storage/contents/{file['sha256']}/{file['filename']}"
    return call.service.links.sign(call.base_url, path, disposition=disposition)
