"""The bytes themselves: parts and chunks in, contents out. A signed link is the permission; keys are not looked at."""

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
from __future__ import annotations

import mimetypes
import re
import sqlite3
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from crucible_lineage.server.call import Service
from crucible_lineage.server.files.sessions import part_length
from crucible_lineage.server.files.storage import Draft, TooLongError
from crucible_lineage.server.http import PREFIX, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")
_ACTIVE_TYPES = ("html", "svg", "xml", "javascript")  # never shown inline: they could act in the reader's name


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
    service = _permitted(request)
    if x_goog_hash not in ("", f"crc32c={crc32c}"):
        raise refuse(400, "x-goog-hash is not the one that was signed")
    upload = await run_in_threadpool(_open_session, service, upload_id)
    try:
        received = await service.storage.receive(request.stream(), upload_id, part_length(upload, number))
    except TooLongError:
        raise refuse(400, f"The part is longer than the {size} bytes that were signed") from None
    await run_in_threadpool(_keep_part, service, received, upload_id, number, crc32c, int(size))
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
    service = _permitted(request)
    total = int(size)
    matched = _CONTENT_RANGE.fullmatch(content_range or f"bytes 0-{total - 1}/{total}")
    if matched is None or int(matched[3]) != total:
        raise refuse(400, "Content-Range must be bytes FIRST-LAST/TOTAL or bytes */TOTAL with the announced total")
    upload = await run_in_threadpool(_session, service, upload_id)
    if upload is not None and upload["state"] == "completed":
        return Response(status_code=200)
    if upload is None or upload["state"] != "uploading":
        raise refuse(404, "The upload is not open")
    path = service.storage.growing(upload_id)
    if matched[1] is not None:
        async with service.storage.growing_lock(upload_id):
            await _grow(request, path, int(matched[1]), int(matched[2]), total)
    held = path.stat().st_size if path.exists() else 0
    if held >= total:
        return Response(status_code=200)
    return Response(status_code=308, headers={"Range": f"bytes=0-{held - 1}"} if held else {})


@router.get("/storage/contents/{sha256}/{filename}")
def get_content(
    request: Request,
    sha256: str,
    filename: str,
    expires: str,
    signature: str,
    disposition: Literal["attachment", "inline"] = "attachment",
) -> Response:
    service = _permitted(request)
    path = service.storage.content(sha256)
    if not path.exists():
        raise refuse(404, "This content is no longer kept")
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
    chunk_size = 1 << 20  # measured: with the default of 64 KiB a download spends its time in thread hops


def _permitted(request: Request) -> Service:
    """The service, if the link was signed by it for this path; 403 makes Crucible's clients ask for a new link."""
    service: Service = request.app.state.service
    path = request.scope["path"].removeprefix(PREFIX)
    if not service.links.accepts(path, dict(request.query_params)):
        raise refuse(403, "The link has expired or was not made here; ask for a new one")
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
    """The part counts, if it is what was signed."""
    try:
        if (received.size, received.crc32c) != (size, crc32c):
            raise refuse(400, "The part has another length or checksum than was signed")
        with service.database.write() as db:
            state = db.execute("SELECT state FROM upload WHERE id = ?", (upload_id,)).fetchone()
            if state is None or state[0] != "uploading":
                raise refuse(404, "The upload is not open")
            service.storage.keep_part(received, upload_id, number)
            db.execute(
                "INSERT OR REPLACE INTO upload_part VALUES (?, ?, ?, ?)", (upload_id, number, size, received.sha256)
            )
    finally:
        received.draft.unlink(missing_ok=True)


async def _grow(request: Request, path: Path, first: int, last: int, total: int) -> None:
    """The chunk's bytes stand at their place in the growing file; bytes already held may come again."""
    path.parent.mkdir(exist_ok=True)
    held = path.stat().st_size if path.exists() else 0
    if first > held:
        raise refuse(400, f"The chunk starts at {first}, but only {held} bytes are held")
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
