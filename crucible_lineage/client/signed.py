"""The signed multipart upload: initiate, sign parts, send them to storage, complete.

initiate --existing_file--> done, nothing was sent
    |--session--> sign up to 32 parts -> PUT each -> complete
    '--409, the name exists--> same content: done; other content: refused, or replaced on request
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.client.connection import Connection
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.storage import Storage, storage_error, storage_wait_s
from crucible_lineage.client.wire import parse, quoted
from crucible_lineage.errors import (
    TRANSIENT,
    CrucibleError,
    FileChangedError,
    ForbiddenError,
    NotFoundError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.checksums import FileChecksums, blocks, crc32c_text, part_checksums, require_unchanged
from crucible_lineage.machine.disk import private_folder, replacing
from crucible_lineage.machine.process import traffic
from crucible_lineage.text.times import utc


@dataclass(frozen=True)
class UploadSession:
    """An open session at the service, with the parts that have arrived. `replaces` is a file's MFID."""

    upload_id: str
    part_size: int
    present: frozenset[int] = frozenset()
    replaces: str | None = None


def open_session(connection: Connection, outgoing: Outgoing) -> UploadSession | UploadedFile:
    """Open a session for the file; return the file if the dataset has these bytes already, or now has them.

    The embedded Crucible adds what it stores already, in a dataset that this key may read, and takes small files at
    once.
    """
    is_given = connection.is_embedded and outgoing.checksums.size <= GIVEN_BYTES
    answer = connection.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/multipart/initiate",
        outgoing.action,
        body=outgoing.given() if is_given else outgoing.body(),
        headers={"Idempotency-Key": uuid.uuid4().hex, "Crucible-Reuse": "true"},
        repeatable=True,
        is_final=is_switched_off,
    )
    return parse_session(answer, outgoing)


def open_replacement(connection: Connection, outgoing: Outgoing, file_mfid: str, etag: str | None) -> UploadSession:
    """Open a session that replaces a file's content. Raises PreconditionError if its etag has changed."""
    answer = connection.call(
        "POST",
        f"/files/{file_mfid}/upload/multipart/initiate",
        f"replace {outgoing.filename} in dataset {outgoing.dataset_mfid}",
        body={"size": outgoing.checksums.size, "sha256_hash": outgoing.checksums.sha256},
        headers={"Idempotency-Key": uuid.uuid4().hex, "If-Match": etag or "*"},
        repeatable=True,
        is_final=is_switched_off,
    )
    session = parse_session(answer, outgoing)
    if isinstance(session, UploadedFile):
        raise ServerError(f"could not {outgoing.action}: Crucible answered a replacement with an existing file")
    return session


def resume_session(connection: Connection, outgoing: Outgoing, session: UploadSession) -> UploadSession | None:
    """Return an earlier session with the parts that have arrived; None if it no longer exists."""
    numbers: set[int] = set()
    marker: Any = None
    while True:
        try:
            answer = connection.get(
                f"{_path(outgoing)}/{quoted(session.upload_id)}",
                outgoing.action,
                params={"part_number_marker": marker},
            )
        except NotFoundError:
            return None
        if answer.get("state", "uploading") != "uploading":
            return None
        numbers.update(_numbers(answer))
        marker = answer.get("next_part_number_marker")
        if marker is None:
            return replace(session, present=frozenset(numbers))


def send_parts(connection: Connection, storage: Storage, outgoing: Outgoing, session: UploadSession) -> FileRecord:
    """Send all missing parts, complete the upload and return the record of the file."""
    missing = [part for part in parts_of(outgoing, session.part_size) if part.number not in session.present]
    PartSender(connection, storage, outgoing, f"{_path(outgoing)}/{quoted(session.upload_id)}").send(missing)
    require_unchanged(outgoing.path, outgoing.checksums)
    checksum = crc32c_text(outgoing.checksums.crc32c)
    return complete(connection, outgoing, f"{_path(outgoing)}/complete", session.upload_id, crc32c=checksum)


def abort(connection: Connection, outgoing: Outgoing, upload_id: str) -> None:
    """Close the session if the service can be reached; if not, it expires."""
    try:
        connection.call("DELETE", f"{_path(outgoing)}/{quoted(upload_id)}", outgoing.action, repeatable=False)
    except CrucibleError:
        return


def is_switched_off(error: CrucibleError) -> bool:
    """Return whether the service refuses all signed uploads: 503 with these words."""
    return error.status == 503 and "multipart uploads are disabled" in str(error).lower()


def parse_session(answer: Any, outgoing: Outgoing) -> UploadSession | UploadedFile:
    """Parse the answer of `initiate`."""
    action = outgoing.action
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        file = parse(FileRecord, answer["existing_file"], action)
        return existing(outgoing, file, existed=answer.get("state") != "reused")
    try:
        session = UploadSession(str(answer["upload_id"]), int(answer["part_size"]), frozenset(_numbers(answer)))
    except (KeyError, TypeError, ValueError) as cause:
        raise ServerError(f"could not {action}: Crucible opened no upload session") from cause
    if session.part_size <= 0:
        raise ServerError(f"could not {action}: Crucible asks for parts of {session.part_size} bytes")
    return session


def _numbers(answer: JsonMapping) -> Iterable[int]:
    return (int(part["part_number"]) for part in answer.get("parts") or ())


def _path(outgoing: Outgoing) -> str:
    return f"/datasets/{outgoing.dataset_mfid}/upload/multipart"


GIVEN_BYTES = 64 << 10  # chosen: encoding so much costs less than three more calls
CONCURRENT_PARTS = 4  # measured on loopback: more add CPU, not speed
EXPIRY_MARGIN_S = 30.0
PARTS_PER_SIGNING = 32  # the service's limit


@dataclass(frozen=True)
class UploadPart:
    number: int
    offset: int
    size: int
    crc32c: int


@dataclass(frozen=True)
class _Link:
    """The link for a part and the headers to send. The URL is a secret."""

    url: str
    headers: Mapping[str, str]
    expires: datetime | None

    def __repr__(self) -> str:
        return f"_Link(expires={self.expires})"

    def is_stale(self) -> bool:
        return self.expires is not None and (self.expires - datetime.now(UTC)).total_seconds() < EXPIRY_MARGIN_S


class PartSender:
    """Signs and sends the parts of one session, whose routes begin with `path`."""

    def __init__(self, connection: Connection, storage: Storage, outgoing: Outgoing, path: str) -> None:
        self._connection = connection
        self._storage = storage
        self._outgoing = outgoing
        self._path = path
        self._stopped = threading.Event()

    def send(self, parts: list[UploadPart]) -> None:
        """Send all `parts` to storage. The first failure stops the others at their next block."""
        for start in range(0, len(parts), PARTS_PER_SIGNING):
            self._send_batch(parts[start : start + PARTS_PER_SIGNING])

    def _send_batch(self, parts: list[UploadPart]) -> None:
        links = self._sign(parts)
        if len(parts) == 1:
            return self._send_part(parts[0], links[parts[0].number])
        with ThreadPoolExecutor(CONCURRENT_PARTS, thread_name_prefix="upload") as pool:
            running = [pool.submit(copy_context().run, self._send_part, part, links[part.number]) for part in parts]
            try:
                for future in running:
                    future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        return None

    def _send_part(self, part: UploadPart, link: _Link) -> None:
        action = f"send part {part.number} of {self._outgoing.filename}"
        waited_s = 0.0
        for number in itertools.count(1):
            if link.is_stale():
                link = self._sign([part])[part.number]
            error = self._try(part, link, action)
            if error is None:
                return
            # 403 means that the link must be signed again, so it is as transient as any 5xx.
            transient = (*TRANSIENT, ForbiddenError)
            wait_s = storage_wait_s(error, number, waited_s, self._connection.policy, transient)
            if wait_s is None or self._stopped.wait(wait_s):
                raise error
            waited_s += wait_s
            if error.status == 403:
                link = self._sign([part])[part.number]

    def _try(self, part: UploadPart, link: _Link, action: str) -> CrucibleError | None:
        """Send the part once; return None if storage has it, else the error."""
        try:
            response = self._storage.put(
                link.url, action, headers=link.headers, content=self._content(part), size=part.size
            )
        except UnreachableError as error:
            return error
        if response.status_code == 200:
            return None
        require_unchanged(self._outgoing.path, self._outgoing.checksums)
        return storage_error(response, action)

    def _content(self, part: UploadPart) -> Iterator[bytes]:
        sent = 0
        try:
            for block in blocks(self._outgoing.path, part.offset, part.size):
                if self._stopped.is_set():
                    raise UnreachableError(f"part {part.number} was cancelled because another one failed")
                yield block
                sent += len(block)
                traffic.send(len(block))
        except FileNotFoundError as cause:
            raise FileChangedError(f"{self._outgoing.path} was deleted after it was read") from cause
        if sent < part.size:
            raise FileChangedError(f"{self._outgoing.path} became shorter while it was being sent")

    def _sign(self, parts: list[UploadPart]) -> dict[int, _Link]:
        action = f"get links for {self._outgoing.filename}"
        to_sign = [{"part_number": part.number, "crc32c": crc32c_text(part.crc32c)} for part in parts]
        answer = self._connection.call(
            "POST",
            f"{self._path}/parts",
            action,
            body={"parts": to_sign},
            repeatable=True,
        )
        try:
            links = {int(item["part_number"]): _link(item) for item in answer["parts"]}
        except (KeyError, TypeError, ValueError):
            links = {}
        if not links.keys() >= {part.number for part in parts}:
            raise ServerError(f"could not {action}: Crucible did not sign all {len(parts)} parts")
        return links


def parts_of(outgoing: Outgoing, part_size: int) -> list[UploadPart]:
    """Split the file into parts; it is read again only if the scan did not prepare checksums for this part size."""
    size = outgoing.checksums.size
    crcs = outgoing.checksums.parts(part_size) or part_checksums(outgoing.path, size, part_size)
    return [
        UploadPart(index + 1, index * part_size, min(part_size, size - index * part_size), crc)
        for index, crc in enumerate(crcs)
    ]


def _link(item: JsonMapping) -> _Link:
    expires = item.get("expires_at")
    return _Link(str(item["url"]), dict(item.get("headers") or {}), utc(expires) if expires else None)


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


def existing(outgoing: Outgoing, file: FileRecord, *, existed: bool = True) -> UploadedFile:
    """Return the file that the service says it has, if its checksum agrees."""
    if file.sha256_hash not in (None, outgoing.checksums.sha256):
        raise ServerError(
            f"could not {outgoing.action}: Crucible says it has these bytes, but its file {file.mfid} has others",
            mfid=file.mfid,
        )
    return UploadedFile(file, existed)


def complete(connection: Connection, outgoing: Outgoing, path: str, upload_id: str, **checksums: str) -> FileRecord:
    """Complete an upload by a POST to `path`: the service checks the file and returns its record."""
    return connection.record(
        FileRecord,
        "POST",
        path,
        outgoing.action,
        body={"upload_id": upload_id, "sha256_hash": outgoing.checksums.sha256, **checksums},
        repeatable=True,
        read_s=connection.timeouts.complete_s,
    )


class UploadMemory:
    """Remembers each unfinished upload in a file in `folder`; without a folder it remembers nothing."""

    def __init__(self, folder: Path | None, api_url: str) -> None:
        self._folder = folder
        self._api_url = api_url

    @property
    def lasts(self) -> bool:
        """Whether another process can read what is remembered."""
        return self._folder is not None

    def recall(self, outgoing: Outgoing) -> UploadSession | None:
        """Return the unfinished upload of this content to this dataset, if there is one."""
        path = self._path(outgoing)
        if path is None:
            return None
        try:
            return UploadSession(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent, or of another version: start again
            return None

    def keep(self, outgoing: Outgoing, session: UploadSession) -> None:
        """Remember the upload."""
        path = self._path(outgoing)
        if path is None:
            return
        private_folder(path.parent)
        with replacing(path) as draft:
            kept = {name: value for name, value in vars(session).items() if name != "present"}  # the service knows them
            draft.write_text(json.dumps(kept), encoding="utf-8")

    def forget(self, outgoing: Outgoing) -> None:
        """Forget the upload, which is finished or aborted."""
        path = self._path(outgoing)
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, outgoing: Outgoing) -> Path | None:
        if self._folder is None:
            return None
        target = [self._api_url, outgoing.dataset_mfid, outgoing.filename, outgoing.checksums.sha256]
        return self._folder / f"upload-{hashlib.sha256(json.dumps(target).encode()).hexdigest()[:32]}.json"
