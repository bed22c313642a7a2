"""The signed multipart upload: initiate, sign parts, send them to storage, complete.

initiate --existing_file--> done, nothing was sent
    |--session--> sign up to 32 parts -> PUT each -> complete
    '--409, the name is taken--> same content: done; other content: refused, or replaced if that was asked for
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crucible_lineage.checksums import crc32c_text, require_unchanged
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse, quoted
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.outgoing import REUSE, Meter, Outgoing, Progress
from crucible_lineage.client.transfer.parts import PartSender, parts_of
from crucible_lineage.client.transfer.storage import Storage
from crucible_lineage.errors import CrucibleError, NotFoundError, ServerError

__all__ = [
    "UploadSession",
    "abort",
    "is_switched_off",
    "open_replacement",
    "open_session",
    "resumed_session",
    "send_parts",
]


@dataclass(frozen=True)
class UploadSession:
    """An open session of the service, with the parts that it has."""

    upload_id: str
    part_size: int
    present: frozenset[int] = frozenset()


def open_session(connection: Connection, outgoing: Outgoing) -> UploadSession | FileRecord:
    """A new session for the file, or the record of the file if the dataset has these bytes already."""
    answer = connection.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/multipart/initiate",
        outgoing.what,
        mfid=outgoing.dataset_mfid,
        body=outgoing.body(),
        headers={"Idempotency-Key": uuid.uuid4().hex, **REUSE},
        repeatable=True,
        is_final=is_switched_off,
    )
    return session_of(answer, outgoing.what)


def open_replacement(connection: Connection, outgoing: Outgoing, file_mfid: str, etag: str | None) -> UploadSession:
    """A session whose completion replaces the content of a file; PreconditionError if its etag is another one now."""
    answer = connection.call(
        "POST",
        f"/files/{file_mfid}/upload/multipart/initiate",
        f"replace {outgoing.filename} in dataset {outgoing.dataset_mfid}",
        mfid=file_mfid,
        body={"size": outgoing.checksums.size, "sha256_hash": outgoing.checksums.sha256},
        headers={"Idempotency-Key": uuid.uuid4().hex, "If-Match": etag or "*"},
        repeatable=True,
        is_final=is_switched_off,
    )
    opened = session_of(answer, outgoing.what)
    if isinstance(opened, FileRecord):
        raise ServerError(f"could not {outgoing.what}: Crucible answered a replacement with an existing file")
    return opened


def resumed_session(connection: Connection, outgoing: Outgoing, upload_id: str, part_size: int) -> UploadSession | None:
    """A session that was begun earlier, with the parts that the service has of it; None if it is gone."""
    numbers: set[int] = set()
    marker: Any = None
    while True:
        try:
            answer = connection.get(
                f"{_path(outgoing)}/{quoted(upload_id)}",
                outgoing.what,
                mfid=outgoing.dataset_mfid,
                params={"part_number_marker": marker},
            )
        except NotFoundError:
            return None
        if answer.get("state", "uploading") != "uploading":
            return None
        numbers.update(_numbers(answer))
        marker = answer.get("next_part_number_marker")
        if marker is None:
            return UploadSession(upload_id, part_size, frozenset(numbers))


def send_parts(
    connection: Connection,
    storage: Storage,
    outgoing: Outgoing,
    opened: UploadSession,
    progress: Progress | None = None,
) -> FileRecord:
    """The record of the file, after all parts that are missing were sent and the whole was accepted."""
    missing = [part for part in parts_of(outgoing, opened.part_size) if part.number not in opened.present]
    meter = Meter(outgoing.checksums.size, progress)
    meter.add(outgoing.checksums.size - sum(part.size for part in missing))
    PartSender(connection, storage, outgoing, f"{_path(outgoing)}/{quoted(opened.upload_id)}", meter).send(missing)
    require_unchanged(outgoing.path, outgoing.checksums)
    answer = connection.call(
        "POST",
        f"{_path(outgoing)}/complete",
        outgoing.what,
        mfid=outgoing.dataset_mfid,
        body={
            "upload_id": opened.upload_id,
            "sha256_hash": outgoing.checksums.sha256,
            "crc32c": crc32c_text(outgoing.checksums.crc32c),
        },
        repeatable=True,
        read_s=connection.timeouts.complete_s,
    )
    return parse(FileRecord, answer, outgoing.what)


def abort(connection: Connection, outgoing: Outgoing, upload_id: str) -> None:
    """The session is closed if the service can be told so; if not, it expires there."""
    try:
        connection.call("DELETE", f"{_path(outgoing)}/{quoted(upload_id)}", outgoing.what, repeatable=False)
    except CrucibleError:
        return


def is_switched_off(error: CrucibleError) -> bool:
    """True if the service says that it takes no signed uploads at all: 503 with these words."""
    return error.status == 503 and "multipart uploads are disabled" in str(error).lower()


def session_of(answer: Any, what: str) -> UploadSession | FileRecord:
    """Parse the answer of `initiate`."""
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        return parse(FileRecord, answer["existing_file"], what)
    try:
        opened = UploadSession(str(answer["upload_id"]), int(answer["part_size"]), frozenset(_numbers(answer)))
    except (KeyError, TypeError, ValueError) as cause:
        raise ServerError(f"could not {what}: Crucible opened no upload session") from cause
    if opened.part_size <= 0:
        raise ServerError(f"could not {what}: Crucible asks for parts of {opened.part_size} bytes")
    return opened


def _numbers(answer: Mapping[str, Any]) -> Iterable[int]:
    return (int(part["part_number"]) for part in answer.get("parts") or ())


def _path(outgoing: Outgoing) -> str:
    return f"/datasets/{outgoing.dataset_mfid}/upload/multipart"
