"""The signed multipart upload: initiate, sign parts, send them to storage, complete.

initiate --existing_file--> done, nothing was sent
    |--session--> sign up to 32 parts -> PUT each -> complete
    '--409, the name is taken--> same content: done; other content: refused, or replaced if that was asked for
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.client.checksums import (
    FileChecksums,
    blocks,
    crc32c_text,
    part_checksums,
    require_unchanged,
)
from crucible_lineage.client.retry import Attempt, RetryPolicy, decide
from crucible_lineage.client.session import Session
from crucible_lineage.client.storage import Storage, storage_error
from crucible_lineage.client.wire import parse, quoted
from crucible_lineage.errors import (
    CrucibleError,
    FileChangedError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.models import FileRecord

__all__ = ["Outgoing", "Progress", "UploadSession", "is_switched_off", "open_session", "send_parts"]

PARTS_PER_SIGNING = 32  # the service's limit
WORKERS = 4  # measured on loopback: more add CPU, not speed
PART_RETRY = RetryPolicy(attempts=4, total_s=900.0, first_wait_s=1.0)
EXPIRY_MARGIN_S = 30.0

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes of the file; from several threads, but never at once."""


@dataclass(frozen=True)
class Outgoing:
    """A file on its way to a dataset."""

    dataset_mfid: str
    path: Path
    filename: str
    checksums: FileChecksums

    @property
    def what(self) -> str:
        """How errors call it."""
        return f"upload {self.filename} to dataset {self.dataset_mfid}"

    def body(self) -> dict[str, Any]:
        """What every way of uploading tells the service first."""
        return {"filename": self.filename, "size": self.checksums.size, "sha256_hash": self.checksums.sha256}


@dataclass(frozen=True)
class UploadSession:
    """An open session of the service, with the parts that it has."""

    upload_id: str
    part_size: int
    present: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Part:
    number: int
    offset: int
    size: int
    crc32c: int


@dataclass(frozen=True)
class _Link:
    """Where and how a part is sent. The URL is a secret."""

    url: str
    headers: Mapping[str, str]
    expires: datetime | None

    def __repr__(self) -> str:
        return f"_Link(expires={self.expires})"

    def is_stale(self) -> bool:
        return self.expires is not None and (self.expires - datetime.now(UTC)).total_seconds() < EXPIRY_MARGIN_S


def open_session(session: Session, outgoing: Outgoing) -> UploadSession | FileRecord:
    """A new session for the file, or the record of the file if the dataset has these bytes already."""
    answer = session.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/multipart/initiate",
        outgoing.what,
        mfid=outgoing.dataset_mfid,
        body=outgoing.body(),
        headers={"Idempotency-Key": uuid.uuid4().hex},
        repeatable=True,
        is_final=is_switched_off,
    )
    return session_of(answer, outgoing.what)


def open_replacement(session: Session, outgoing: Outgoing, file_mfid: str, etag: str | None) -> UploadSession:
    """A session whose completion replaces the content of a file; PreconditionError if its etag is another one now."""
    answer = session.call(
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


def resumed_session(session: Session, outgoing: Outgoing, upload_id: str, part_size: int) -> UploadSession | None:
    """A session that was begun earlier, with the parts that the service has of it; None if it is gone."""
    numbers: set[int] = set()
    marker: Any = None
    while True:
        try:
            answer = session.get(
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
    session: Session, storage: Storage, outgoing: Outgoing, opened: UploadSession, progress: Progress | None = None
) -> FileRecord:
    """The record of the file, after all parts that are missing were sent and the whole was accepted."""
    parts = _parts(outgoing, opened.part_size)
    missing = [part for part in parts if part.number not in opened.present]
    meter = _Meter(outgoing.checksums.size, progress)
    meter.add(outgoing.checksums.size - sum(part.size for part in missing))
    sender = _Sender(session, storage, outgoing, opened.upload_id, meter)
    for start in range(0, len(missing), PARTS_PER_SIGNING):
        sender.send(missing[start : start + PARTS_PER_SIGNING])
    require_unchanged(outgoing.path, outgoing.checksums)
    answer = session.call(
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
        read_s=session.timeouts.complete_s,
    )
    return parse(FileRecord, answer, outgoing.what)


def abort(session: Session, outgoing: Outgoing, upload_id: str) -> None:
    """The session is closed if the service can be told so; if not, it expires there."""
    try:
        session.call("DELETE", f"{_path(outgoing)}/{quoted(upload_id)}", outgoing.what, repeatable=False)
    except CrucibleError:
        return


def is_switched_off(error: CrucibleError) -> bool:
    """True if the service says that it takes no signed uploads at all: 503 with these words."""
    return error.status == 503 and "multipart uploads are disabled" in str(error).lower()


def session_of(answer: Any, what: str) -> UploadSession | FileRecord:
    """What `initiate` answered."""
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        return parse(FileRecord, answer["existing_file"], what)
    try:
        opened = UploadSession(str(answer["upload_id"]), int(answer["part_size"]), frozenset(_numbers(answer)))
    except (KeyError, TypeError, ValueError) as cause:
        raise ServerError(f"could not {what}: Crucible opened no upload session") from cause
    if opened.part_size <= 0:
        raise ServerError(f"could not {what}: Crucible asks for parts of {opened.part_size} bytes")
    return opened


class _Sender:
    """Signs and sends parts of one session, several at a time."""

    def __init__(self, session: Session, storage: Storage, outgoing: Outgoing, upload_id: str, meter: _Meter) -> None:
        self._session = session
        self._storage = storage
        self._outgoing = outgoing
        self._upload_id = upload_id
        self._meter = meter
        self._stopped = threading.Event()

    def send(self, parts: list[_Part]) -> None:
        """All `parts` are in storage. The first failure stops the others at their next block."""
        links = self._sign(parts)
        if len(parts) == 1:
            return self._send_part(parts[0], links[parts[0].number])
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="upload") as pool:
            running = [pool.submit(self._send_part, part, links[part.number]) for part in parts]
            try:
                for future in running:
                    future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        return None

    def _send_part(self, part: _Part, link: _Link) -> None:
        what = f"send part {part.number} of {self._outgoing.filename}"
        started = time.monotonic()
        for number in range(1, PART_RETRY.attempts + 1):
            if link.is_stale():
                link = self._sign([part])[part.number]
            error = self._try(part, link, what)
            if error is None:
                return
            wait_s = _part_wait_s(error, number, time.monotonic() - started)
            if wait_s is None or self._stopped.is_set():
                raise error
            self._session.sleep(wait_s)
            if error.status == 403:
                link = self._sign([part])[part.number]

    def _try(self, part: _Part, link: _Link, what: str) -> CrucibleError | None:
        """One PUT of the part: None if storage has it now."""
        before = self._meter.mark()
        content = self._content(part, before)
        try:
            response = self._storage.put(link.url, what, headers=link.headers, content=content, size=part.size)
        except UnreachableError as error:
            before.undo()
            return error
        if response.status_code == 200:
            return None
        before.undo()
        require_unchanged(self._outgoing.path, self._outgoing.checksums)
        return storage_error(response, what)

    def _content(self, part: _Part, mark: _Mark) -> Iterator[bytes]:
        sent = 0
        for block in blocks(self._outgoing.path, part.offset, part.size):
            if self._stopped.is_set():
                raise UnreachableError(f"part {part.number} was given up because another one failed")
            yield block
            sent += len(block)
            mark.add(len(block))
        if sent < part.size:
            raise FileChangedError(f"{self._outgoing.path} became shorter while it was being sent")

    def _sign(self, parts: list[_Part]) -> dict[int, _Link]:
        what = f"get links for {self._outgoing.filename}"
        wanted = [{"part_number": part.number, "crc32c": crc32c_text(part.crc32c)} for part in parts]
        answer = self._session.call(
            "POST",
            f"{_path(self._outgoing)}/{quoted(self._upload_id)}/parts",
            what,
            mfid=self._outgoing.dataset_mfid,
            body={"parts": wanted},
            repeatable=True,
        )
        try:
            links = {int(item["part_number"]): _link(item) for item in answer["parts"]}
        except (KeyError, TypeError, ValueError):
            links = {}
        if not links.keys() >= {part.number for part in parts}:
            raise ServerError(f"could not {what}: Crucible signed not all of {len(parts)} parts")
        return links


class _Meter:
    """Counts bytes that went out and tells the caller; bytes of a failed try are taken back."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._sent = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        if self._progress is None or not count:
            return
        with self._lock:
            self._sent += count
            self._progress(self._sent, self._total)

    def mark(self) -> _Mark:
        return _Mark(self)


class _Mark:
    """The bytes of one try."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count
        self._meter.add(count)

    def undo(self) -> None:
        self._meter.add(-self._count)


def _part_wait_s(error: CrucibleError, number: int, elapsed_s: float) -> float | None:
    """403 means that the link is to be signed anew, so it counts as transient here; so does any 5xx."""
    transient = isinstance(error, ForbiddenError | ServerError | UnreachableError | RateLimitedError)
    status = 503 if transient and error.status is not None else error.status
    return decide(Attempt(number, elapsed_s, repeatable=transient, status=status), PART_RETRY)


def _parts(outgoing: Outgoing, part_size: int) -> list[_Part]:
    """How the file is cut; its bytes are read again only if the scan did not foresee this part size."""
    size = outgoing.checksums.size
    crcs = outgoing.checksums.parts(part_size) or part_checksums(outgoing.path, size, part_size)
    return [
        _Part(index + 1, index * part_size, min(part_size, size - index * part_size), crc)
        for index, crc in enumerate(crcs)
    ]


def _link(item: Mapping[str, Any]) -> _Link:
    expires = item.get("expires_at")
    moment = datetime.fromisoformat(expires) if expires else None
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _Link(str(item["url"]), dict(item.get("headers") or {}), moment)


def _numbers(answer: Mapping[str, Any]) -> Iterable[int]:
    return (int(part["part_number"]) for part in answer.get("parts") or ())


def _path(outgoing: Outgoing) -> str:
    return f"/datasets/{outgoing.dataset_mfid}/upload/multipart"
