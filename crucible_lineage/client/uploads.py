"""The choice of an upload protocol, and the continuation of an upload that another process began.

auto: empty file -> resumable
      signed     -> resumable if the service has switched it off
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import httpx

from crucible_lineage.client.connection import Connection
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.signed import (
    Outgoing,
    UploadedFile,
    UploadMemory,
    UploadSession,
    abort,
    complete,
    existing,
    is_switched_off,
    open_replacement,
    open_session,
    resume_session,
    send_parts,
)
from crucible_lineage.client.storage import Storage, storage_error, storage_wait_s
from crucible_lineage.client.wire import parse
from crucible_lineage.errors import (
    TRANSIENT,
    ChecksumError,
    ConflictError,
    CrucibleError,
    FileChangedError,
    FileConflictError,
    NotFoundError,
    ServerError,
)
from crucible_lineage.machine.checksums import blocks, crc32c_text, require_unchanged
from crucible_lineage.machine.process import traffic

SESSION_TRIES = 3


class Uploader:
    """Sends files of one client, by the protocols that the service accepts."""

    def __init__(self, connection: Connection, storage: Storage, memory: UploadMemory) -> None:
        self._connection = connection
        self._storage = storage
        self._memory = memory
        self._has_signed = True  # until the service says otherwise

    def upload(self, outgoing: Outgoing, *, replace: bool) -> UploadedFile:
        """Upload the file and return its record: in signed parts, else in one piece."""
        if outgoing.checksums.size and (replace or self._has_signed):  # no empty file is accepted in parts
            try:
                return self._upload_signed(outgoing, replace)
            except ServerError as error:
                if replace or not is_switched_off(error):
                    raise
                self._has_signed = False
        return upload_resumable(self._connection, self._storage, outgoing)

    def _upload_signed(self, outgoing: Outgoing, replace: bool) -> UploadedFile:
        for _ in range(SESSION_TRIES - 1):
            try:
                return self._upload_in_session(outgoing, replace)
            except FileConflictError:
                raise
            except (NotFoundError, ConflictError):
                # Another process was uploading the same content, and finished or aborted the session that both
                # had got. The next attempt finds out which.
                self._memory.forget(outgoing)
        return self._upload_in_session(outgoing, replace)

    def _upload_in_session(self, outgoing: Outgoing, replace: bool) -> UploadedFile:
        session = self._resume(outgoing, replace) or self._open(outgoing, replace)
        if isinstance(session, UploadedFile):
            return session
        try:
            file = send_parts(self._connection, self._storage, outgoing, session)
        except (NotFoundError, ConflictError):
            raise  # do not close the session: another process finished it, or is using it
        except BaseException as error:
            self._give_up(outgoing, session, error)
            raise
        self._memory.forget(outgoing)
        return UploadedFile(file, existed=False)

    def _resume(self, outgoing: Outgoing, replace: bool) -> UploadSession | None:
        """Return the session that an earlier process began for this content, if the service still has it."""
        unfinished = self._memory.recall(outgoing)
        if unfinished is None or (unfinished.replaces is not None and not replace):
            return None
        session = resume_session(self._connection, outgoing, unfinished)
        if session is None:
            self._memory.forget(outgoing)
        return session

    def _open(self, outgoing: Outgoing, replace: bool) -> UploadSession | UploadedFile:
        """Open and remember a session; return the file if the dataset has it."""
        replaces = None
        try:
            session = open_session(self._connection, outgoing)
        except ConflictError as error:
            present = self._same_or_conflict(outgoing, error, replace)
            if isinstance(present, UploadedFile):
                return present
            replaces = present.file_mfid
            session = open_replacement(self._connection, outgoing, present.file_mfid, present.etag)
        if isinstance(session, UploadedFile):
            return session
        if outgoing.checksums.size > session.part_size:  # a single part is sent again completely
            self._memory.keep(outgoing, UploadSession(session.upload_id, session.part_size, replaces=replaces))
        return session

    def _same_or_conflict(
        self, outgoing: Outgoing, error: ConflictError, replace: bool
    ) -> UploadedFile | FileConflictError:
        """Return the file of that name if its bytes are the same, else the conflict; raise it unless `replace`."""
        detail = error.detail if isinstance(error.detail, dict) else {}
        if error.code != "filename_exists" or not isinstance(detail.get("file_mfid"), str):
            raise error
        present = self._connection.record(FileRecord, "GET", f"/files/{detail['file_mfid']}", outgoing.action)
        if (present.sha256_hash, present.size) == (outgoing.checksums.sha256, outgoing.checksums.size):
            return UploadedFile(present, existed=True)
        conflict = FileConflictError(
            f"could not {outgoing.action}: it has a file of that name with other content ({present.mfid})\n"
            "give the file another name, or upload it with replace=True",
            filename=outgoing.filename,
            file_mfid=present.mfid,
            etag=detail.get("etag") or present.etag,
            status=error.status,
            detail=error.detail,
            code=error.code,
            mfid=outgoing.dataset_mfid,
        )
        if not replace:
            raise conflict from error
        return conflict

    def _give_up(self, outgoing: Outgoing, session: UploadSession, error: BaseException) -> None:
        """Close the session, unless it is remembered and a later attempt may finish it."""
        is_transient = isinstance(error, TRANSIENT) or not isinstance(error, Exception)
        if not (self._memory.lasts and is_transient):
            abort(self._connection, outgoing, session.upload_id)
            self._memory.forget(outgoing)


SMALLEST_CHUNK = 32 << 20  # as in the official client
CHUNK_UNIT = 256 << 10  # storage accepts multiples of this
CHUNK_READ_S = 120.0


def upload_resumable(connection: Connection, storage: Storage, outgoing: Outgoing) -> UploadedFile:
    """Upload the file and return its record. Raises FileChangedError if it changes meanwhile."""
    answer = connection.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/initiate",
        outgoing.action,
        body=outgoing.body(),
        repeatable=True,
    )
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        return existing(outgoing, parse(FileRecord, answer["existing_file"], outgoing.action))
    try:
        upload_id, url = str(answer["upload_id"]), str(answer["resumable_uri"])
    except (KeyError, TypeError) as cause:
        raise ServerError(f"could not {outgoing.action}: Crucible opened no upload session") from cause
    if outgoing.checksums.size:
        hint = answer.get("chunk_size_hint") or 0
        chunk_size = max(int(hint), SMALLEST_CHUNK) // CHUNK_UNIT * CHUNK_UNIT
        _Chunks(storage, outgoing, url, chunk_size).send(connection)
    require_unchanged(outgoing.path, outgoing.checksums)
    path = f"/datasets/{outgoing.dataset_mfid}/upload/complete"
    return UploadedFile(complete(connection, outgoing, path, upload_id), existed=False)


class _Chunks:
    """Sends a file to one link, in chunks."""

    def __init__(self, storage: Storage, outgoing: Outgoing, url: str, chunk_size: int) -> None:
        self._storage = storage
        self._outgoing = outgoing
        self._action = f"send {outgoing.filename}"
        self._url = url
        self._chunk_size = chunk_size

    def send(self, connection: Connection) -> None:
        """Send all bytes. After a failure, ask storage how many it has and continue there."""
        offset: int | None = 0
        failures, waited_s = itertools.count(1), 0.0
        failed = False
        while offset is not None:
            try:
                received = self._position() if failed else self._send_chunk(offset)
            except CrucibleError as error:
                wait_s = storage_wait_s(error, next(failures), waited_s, connection.policy)
                if wait_s is None:
                    raise
                connection.wait(wait_s, error)
                waited_s += wait_s
                failed = True
                continue
            if not failed:
                failures, waited_s = itertools.count(1), 0.0
            failed = False
            offset = received

    def _position(self) -> int | None:
        """Ask storage how many bytes it has; None if it has all of them."""
        headers = {"Content-Range": f"bytes */{self._outgoing.checksums.size}"}
        response = self._storage.put(self._url, self._action, headers=headers)
        return self._received(response, without_range=0)

    def _send_chunk(self, offset: int) -> int | None:
        """Send one more chunk. Returns how many bytes storage then has; None if it has all of them."""
        size = self._outgoing.checksums.size
        length = min(self._chunk_size, size - offset)
        response = self._storage.put(
            self._url,
            self._action,
            headers={"Content-Range": f"bytes {offset}-{offset + length - 1}/{size}"},
            content=self._content(offset, length),
            size=length,
            read_s=CHUNK_READ_S,
        )
        received = self._received(response, without_range=offset + length)
        if received is not None and received <= offset:
            raise ServerError(
                f"could not {self._action}: storage accepted no byte of a chunk", status=response.status_code
            )
        return received

    def _received(self, response: httpx.Response, *, without_range: int) -> int | None:
        """Return how many bytes have arrived, by the answer's Range header; None if all have."""
        if response.status_code in (200, 201):
            self._check(response)
            return None
        if response.status_code != 308:
            raise storage_error(response, self._action)
        match = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("range", ""))
        return int(match[1]) + 1 if match else without_range

    def _check(self, response: httpx.Response) -> None:
        """Compare storage's checksum of the file, if it sends one, with ours."""
        try:
            stored = json.loads(response.content).get("crc32c")
        except (ValueError, AttributeError, RecursionError):
            return
        if stored not in (None, crc32c_text(self._outgoing.checksums.crc32c)):
            raise ChecksumError(f"could not {self._outgoing.action}: storage has other bytes than were sent")

    def _content(self, offset: int, length: int) -> Iterator[bytes]:
        sent = 0
        for block in blocks(self._outgoing.path, offset, length):
            yield block
            sent += len(block)
            traffic.send(len(block))
        if sent < length:
            raise FileChangedError(f"{self._outgoing.path} became shorter while it was being sent")
