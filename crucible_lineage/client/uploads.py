"""Uploads in two protocols: in signed parts, which another process can continue, or in one piece.

```text
initiate --existing_file--> done, nothing was sent
    |--session--> sign up to 32 parts -> PUT each -> complete
    '--409, the name exists--> same content: done; other content: refused, or replaced on request
```
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crucible_lineage.client.connection import COMPLETE_S, Connection
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.storage import Storage, Tries, storage_error
from crucible_lineage.client.wire import parse, quoted
from crucible_lineage.errors import (
    TRANSIENT,
    ChecksumError,
    ConflictError,
    CrucibleError,
    FileChangedError,
    FileConflictError,
    ForbiddenError,
    NotFoundError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.machine.checksums import FileChecksums, blocks, crc32c_text, part_checksums, require_unchanged
from crucible_lineage.machine.disk import private_folder, replacing
from crucible_lineage.machine.process import PARTS_AT_ONCE, in_threads, traffic

GIVEN_BYTES = 64 << 10  # chosen: encoding so much costs less than three more calls
SESSION_TRIES = 3
PARTS_PER_SIGNING = 32  # the service's limit
SMALLEST_CHUNK = 32 << 20  # as in the official client
CHUNK_UNIT = 256 << 10  # storage accepts multiples of this
CHUNK_READ_S = 120.0


@dataclass(frozen=True)
class UploadedFile:
    """A file of the dataset. `existed`: the dataset had these bytes under this name before."""

    file: FileRecord
    existed: bool


@dataclass(frozen=True)
class Outgoing:
    """A file to upload to a dataset."""

    dataset_mfid: str
    path: Path
    filename: str
    checksums: FileChecksums

    @property
    def action(self) -> str:
        """The action as errors name it."""
        return f"upload {self.filename} to dataset {self.dataset_mfid}"

    def body(self) -> dict[str, object]:
        """Return the fields that every protocol sends first."""
        return {"filename": self.filename, "size": self.checksums.size, "sha256_hash": self.checksums.sha256}

    def given(self) -> dict[str, object]:
        """Return these fields with the content, as the embedded Crucible takes a small file."""
        content = self.path.read_bytes()
        require_unchanged(self.path, self.checksums)
        return {**self.body(), "content": base64.b64encode(content).decode()}

    def content(self, offset: int, size: int, stopped: threading.Event | None = None) -> Iterator[bytes]:
        """Yield bytes of the file. Raises FileChangedError if it has fewer, UnreachableError once `stopped` is set."""
        sent = 0
        try:
            for block in blocks(self.path, offset, size):
                if stopped is not None and stopped.is_set():
                    raise UnreachableError(f"{self.filename} was not sent further because another part failed")
                yield block
                sent += len(block)
                traffic.count(sent=len(block))
        except FileNotFoundError as cause:
            raise FileChangedError(f"{self.path} was deleted after it was read") from cause
        if sent < size:
            raise FileChangedError(f"{self.path} became shorter while it was being sent")


@dataclass(frozen=True)
class UploadSession:
    """An open session at the service, with the parts that have arrived. `replaces` is a file's MFID."""

    upload_id: str
    part_size: int
    present: frozenset[int] = frozenset()
    replaces: str | None = None


@dataclass(frozen=True)
class UploadPart:
    number: int
    offset: int
    size: int
    crc32c: int


@dataclass(frozen=True)
class _Link:
    """The link for a part and the headers to send. The URL is a secret."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class SignedUpload:
    """The upload of a file in signed parts.

    With a `state_folder`, its session is remembered there until it is finished or aborted.
    """

    def __init__(
        self, connection: Connection, storage: Storage, state_folder: Path | None, outgoing: Outgoing, *, replace: bool
    ) -> None:
        self._connection = connection
        self._storage = storage
        self._outgoing = outgoing
        self._replace = replace
        self._path = f"/datasets/{outgoing.dataset_mfid}/upload/multipart"
        self._stopped = threading.Event()
        target = [connection.api_url, outgoing.dataset_mfid, outgoing.filename, outgoing.checksums.sha256]
        digest = hashlib.sha256(json.dumps(target).encode()).hexdigest()
        self._memory = state_folder and state_folder / f"upload-{digest[:32]}.json"

    def run(self) -> UploadedFile:
        """Upload the file and return its record."""
        for _ in range(SESSION_TRIES - 1):
            try:
                return self._run_in_session()
            except FileConflictError:
                raise
            except (NotFoundError, ConflictError):
                # Another process was uploading the same content, and finished or aborted the session that both
                # had got. The next attempt finds out which.
                self._forget()
        return self._run_in_session()

    def _run_in_session(self) -> UploadedFile:
        session = self._resume() or self._open()
        if isinstance(session, UploadedFile):
            return session
        path = f"{self._path}/{quoted(session.upload_id)}"
        try:
            file = self._send(session, path)
        except (NotFoundError, ConflictError):
            raise  # do not close the session: another process finished it, or is using it
        except BaseException as error:
            is_transient = isinstance(error, TRANSIENT) or not isinstance(error, Exception)
            if self._memory is None or not is_transient:  # no later attempt finishes it
                with suppress(CrucibleError):  # then it expires
                    self._connection.call("DELETE", path, self._outgoing.action, repeatable=False)
                self._forget()
            raise
        self._forget()
        return UploadedFile(file, existed=False)

    def _forget(self) -> None:
        if self._memory is not None:
            self._memory.unlink(missing_ok=True)

    def _resume(self) -> UploadSession | None:
        """Return the session that an earlier process began for this content, if the service still has it."""
        if self._memory is None:
            return None
        try:
            session = UploadSession(**json.loads(self._memory.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent, or of another version: start again
            return None
        if session.replaces is not None and not self._replace:
            return None
        numbers: set[int] = set()
        marker: Any = None
        path = f"{self._path}/{quoted(session.upload_id)}"
        while True:
            try:
                answer = self._connection.get(path, self._outgoing.action, {"part_number_marker": marker})
            except NotFoundError:
                answer = {"state": "expired"}
            if answer.get("state", "uploading") != "uploading":
                self._forget()
                return None
            numbers.update(int(part["part_number"]) for part in answer.get("parts") or ())
            marker = answer.get("next_part_number_marker")
            if marker is None:
                return replace(session, present=frozenset(numbers))

    def _open(self) -> UploadSession | UploadedFile:
        """Open and remember a session; return the file if the dataset has these bytes already, or now has them.

        The embedded Crucible adds what it stores already, in a dataset that this key may read, and takes small files at
        once.
        """
        outgoing, replaces = self._outgoing, None
        is_given = self._connection.is_embedded and outgoing.checksums.size <= GIVEN_BYTES
        try:
            body = outgoing.given() if is_given else outgoing.body()
            session = self._initiate(f"{self._path}/initiate", body, {"Crucible-Reuse": "true"})
        except ConflictError as error:
            present = self._same_or_conflict(error)
            if isinstance(present, UploadedFile):
                return present
            if not self._replace:
                raise present from error
            replaces, body = present.file_mfid, outgoing.body()
            del body["filename"]
            path, headers = f"/files/{replaces}/upload/multipart/initiate", {"If-Match": present.etag or "*"}
            session = self._initiate(path, body, headers)
        if isinstance(session, UploadedFile):
            return session
        if self._memory is not None and outgoing.checksums.size > session.part_size:  # a single part is sent again
            private_folder(self._memory.parent)
            with replacing(self._memory) as draft:  # without the parts, which the service knows
                kept = {"upload_id": session.upload_id, "part_size": session.part_size, "replaces": replaces}
                draft.write_text(json.dumps(kept), encoding="utf-8")
        return session

    def _initiate(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> UploadSession | UploadedFile:
        action = self._outgoing.action
        headers = {"Idempotency-Key": uuid.uuid4().hex, **headers}
        answer = self._connection.call("POST", path, action, body=body, headers=headers, repeatable=True)
        if isinstance(answer, dict) and answer.get("existing_file") is not None:
            return _existing(self._outgoing, answer, existed=answer.get("state") != "reused")
        try:
            present = frozenset(int(part["part_number"]) for part in answer.get("parts") or ())
            session = UploadSession(str(answer["upload_id"]), int(answer["part_size"]), present)
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            raise ServerError(f"could not {action}: Crucible opened no upload session") from cause
        if session.part_size <= 0:
            raise ServerError(f"could not {action}: Crucible asks for parts of {session.part_size} bytes")
        return session

    def _same_or_conflict(self, error: ConflictError) -> UploadedFile | FileConflictError:
        """Return the dataset's file of that name if its bytes are the same, else the conflict."""
        outgoing = self._outgoing
        detail = error.detail if isinstance(error.detail, dict) else {}
        if error.code != "filename_exists" or not isinstance(detail.get("file_mfid"), str):
            raise error
        present = self._connection.record(FileRecord, "GET", f"/files/{detail['file_mfid']}", outgoing.action)
        if (present.sha256_hash, present.size) == (outgoing.checksums.sha256, outgoing.checksums.size):
            return UploadedFile(present, existed=True)
        return FileConflictError(
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

    def _send(self, session: UploadSession, path: str) -> FileRecord:
        """Send all missing parts, complete the upload and return the record of the file.

        The file is read again only if the scan did not prepare checksums for this part size.
        """
        outgoing, size, part_size = self._outgoing, self._outgoing.checksums.size, session.part_size
        crcs = outgoing.checksums.parts(part_size) or part_checksums(outgoing.path, size, part_size)
        missing = [
            UploadPart(number, start, min(part_size, size - start), crc)
            for number, start, crc in zip(itertools.count(1), range(0, size, part_size), crcs, strict=False)
            if number not in session.present
        ]
        self._stopped.clear()
        for start in range(0, len(missing), PARTS_PER_SIGNING):
            self._send_batch(path, missing[start : start + PARTS_PER_SIGNING])
        require_unchanged(outgoing.path, outgoing.checksums)
        checksum = crc32c_text(outgoing.checksums.crc32c)
        return _complete(self._connection, outgoing, f"{self._path}/complete", session.upload_id, crc32c=checksum)

    def _send_batch(self, path: str, parts: list[UploadPart]) -> None:
        """Send these parts to storage. The first failure stops the others at their next block."""
        links = self._sign(path, parts)
        in_threads(lambda part: self._send_part(path, part, links[part.number]), parts, PARTS_AT_ONCE, self._stopped)

    def _send_part(self, path: str, part: UploadPart, link: _Link) -> None:
        outgoing = self._outgoing
        action = f"send part {part.number} of {outgoing.filename}"
        tries = Tries(self._connection, ForbiddenError)  # 403: the link has expired
        while True:
            content = outgoing.content(part.offset, part.size, self._stopped)
            try:
                response = self._storage.put(link.url, action, headers=link.headers, content=content, size=part.size)
            except UnreachableError as unreachable:
                error: CrucibleError = unreachable
            else:
                if response.status_code == 200:
                    return
                require_unchanged(outgoing.path, outgoing.checksums)
                error = storage_error(response, action)
            if self._stopped.wait(tries.wait_s(error)):
                raise error
            if error.status == 403:
                link = self._sign(path, [part])[part.number]

    def _sign(self, path: str, parts: list[UploadPart]) -> dict[int, _Link]:
        action = f"get links for {self._outgoing.filename}"
        to_sign = [{"part_number": part.number, "crc32c": crc32c_text(part.crc32c)} for part in parts]
        answer = self._connection.call("POST", f"{path}/parts", action, body={"parts": to_sign}, repeatable=True)
        links = {}
        with suppress(KeyError, TypeError, ValueError):
            for item in answer["parts"]:
                links[int(item["part_number"])] = _Link(str(item["url"]), dict(item.get("headers") or {}))
        if not links.keys() >= {part.number for part in parts}:
            raise ServerError(f"could not {action}: Crucible did not sign all {len(parts)} parts")
        return links


def upload_resumable(connection: Connection, storage: Storage, outgoing: Outgoing) -> UploadedFile:
    """Upload the file in one piece and return its record. Raises FileChangedError if it changes meanwhile."""
    action, path = outgoing.action, f"/datasets/{outgoing.dataset_mfid}/upload"
    answer = connection.call("POST", f"{path}/initiate", action, body=outgoing.body(), repeatable=True)
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        return _existing(outgoing, answer)
    try:
        upload_id, url = str(answer["upload_id"]), str(answer["resumable_uri"])
    except (KeyError, TypeError) as cause:
        raise ServerError(f"could not {action}: Crucible opened no upload session") from cause
    hint = answer.get("chunk_size_hint") or 0
    chunk_size = max(int(hint), SMALLEST_CHUNK) // CHUNK_UNIT * CHUNK_UNIT
    offset: int | None = 0 if outgoing.checksums.size else None
    tries, has_failed = Tries(connection), False
    while offset is not None:
        length = 0 if has_failed else min(chunk_size, outgoing.checksums.size - offset)
        try:
            offset = _put_chunk(storage, outgoing, url, offset, length)
        except CrucibleError as error:  # ask storage how many bytes it has, and continue there
            connection.wait(tries.wait_s(error), error)
            has_failed = True
        else:
            tries, has_failed = tries if has_failed else Tries(connection), False
    require_unchanged(outgoing.path, outgoing.checksums)
    return UploadedFile(_complete(connection, outgoing, f"{path}/complete", upload_id), existed=False)


def _put_chunk(storage: Storage, outgoing: Outgoing, url: str, offset: int, length: int) -> int | None:
    """Send these bytes, or none to ask. Return how many storage then has, by its Range header; None if it has all."""
    action, size = f"send {outgoing.filename}", outgoing.checksums.size
    span = f"{offset}-{offset + length - 1}" if length else "*"
    content = outgoing.content(offset, length) if length else b""
    headers = {"Content-Range": f"bytes {span}/{size}"}
    response = storage.put(url, action, headers=headers, content=content, size=length, read_s=CHUNK_READ_S)
    if response.status_code in (200, 201):
        stored = None
        with suppress(ValueError, AttributeError, RecursionError):  # it sends no checksum
            stored = json.loads(response.content).get("crc32c")
        if stored not in (None, crc32c_text(outgoing.checksums.crc32c)):
            raise ChecksumError(f"could not {outgoing.action}: storage has other bytes than were sent")
        return None
    if response.status_code != 308:
        raise storage_error(response, action)
    match = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("range", ""))
    if match is None:
        return offset + length if length else 0
    received = int(match[1]) + 1
    if length and received <= offset:
        raise ServerError(f"could not {action}: storage accepted no byte of a chunk", status=response.status_code)
    return received


def _existing(outgoing: Outgoing, answer: Mapping[str, Any], *, existed: bool = True) -> UploadedFile:
    """Return the file that the service says it has, if its checksum agrees."""
    file = parse(FileRecord, answer["existing_file"], outgoing.action)
    if file.sha256_hash not in (None, outgoing.checksums.sha256):
        raise ServerError(
            f"could not {outgoing.action}: Crucible says it has these bytes, but its file {file.mfid} has others",
            mfid=file.mfid,
        )
    return UploadedFile(file, existed)


def _complete(connection: Connection, outgoing: Outgoing, path: str, upload_id: str, **checksums: str) -> FileRecord:
    """Complete an upload by a POST to `path`: the service checks the file and returns its record."""
    body = {"upload_id": upload_id, "sha256_hash": outgoing.checksums.sha256, **checksums}
    return connection.record(FileRecord, "POST", path, outgoing.action, body=body, repeatable=True, read_s=COMPLETE_S)
