"""Which way a file takes to a dataset, and going on with an upload that another process began.

auto: empty file -> resumable
      signed     -> if the service has switched it off: resumable
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Literal

import httpx

from crucible_lineage.checksums import blocks, crc32c_text, require_unchanged
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.outgoing import (
    REUSE,
    Meter,
    Outgoing,
    Progress,
    UnfinishedUpload,
    UploadedFile,
    UploadMemory,
    complete,
    existing,
)
from crucible_lineage.client.transfer.signed import (
    UploadSession,
    abort,
    is_switched_off,
    open_replacement,
    open_session,
    resumed_session,
    send_parts,
)
from crucible_lineage.client.transfer.storage import Storage, storage_error, storage_wait_s
from crucible_lineage.errors import (
    ChecksumError,
    ConflictError,
    CrucibleError,
    FileChangedError,
    FileConflictError,
    InputError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.service import SIGNED, ServiceProfile
from crucible_lineage.traffic import traffic

Protocol = Literal["auto", "signed", "resumable"]
Opened = UploadSession | UploadedFile
Ahead = Callable[[Callable[[], Opened]], Callable[[], Opened]]
"""Makes a call already, if answers take long; gives what gives its outcome."""

SESSION_TRIES = 3


class Uploader:
    """Sends files of one client, as the service is known to take them."""

    def __init__(
        self, connection: Connection, storage: Storage, memory: UploadMemory, ahead: Ahead, service: ServiceProfile
    ) -> None:
        self._connection = connection
        self._storage = storage
        self._memory = memory
        self._ahead = ahead
        self._announced: dict[Outgoing, Callable[[], Opened]] = {}
        self._service = service

    def announce(self, outgoing: Outgoing) -> None:
        """The session for a file of a new dataset is being opened, where answers take long."""
        if self._choice(outgoing, replace=False) != "signed":
            return
        opening = partial(self._opened, outgoing, False)
        if (under_way := self._ahead(opening)) is not opening:
            self._announced[outgoing] = under_way

    def withdraw(self, dataset_mfid: str) -> None:
        """Sessions that were opened ahead for files of this dataset are being closed; nobody waits for that."""
        for outgoing, opening in self._unused(dataset_mfid):
            self._ahead(partial(self._closed, outgoing, opening))

    def linked_ahead(self, dataset_mfid: str) -> list[FileRecord]:
        """Withdraw, and return the files that the dataset got by that: those whose bytes the service had already."""
        found = []
        for outgoing, opening in self._unused(dataset_mfid):
            with suppress(CrucibleError):
                opened = self._closed(outgoing, opening)
                if isinstance(opened, UploadedFile) and not opened.existed:
                    found.append(opened.file)
        return found

    def _unused(self, dataset_mfid: str) -> Iterator[tuple[Outgoing, Callable[[], Opened]]]:
        there = list(self._announced)  # in one go: other threads announce and withdraw meanwhile
        for outgoing in [one for one in there if one.dataset_mfid == dataset_mfid]:
            if opening := self._announced.pop(outgoing, None):
                yield outgoing, opening

    def _closed(self, outgoing: Outgoing, opening: Callable[[], Opened]) -> Opened:
        opened = opening()
        if isinstance(opened, UploadSession):
            abort(self._connection, outgoing, opened.upload_id)
            self._memory.forget(outgoing)
        return opened

    def upload(
        self, outgoing: Outgoing, protocol: Protocol, *, replace: bool, progress: Progress | None
    ) -> UploadedFile:
        """The file, after the dataset has its bytes."""
        uploaded = self._uploaded(outgoing, protocol, replace, progress)
        traffic.end_file()
        return uploaded

    def _uploaded(
        self, outgoing: Outgoing, protocol: Protocol, replace: bool, progress: Progress | None
    ) -> UploadedFile:
        if protocol == "auto":
            protocol = self._choice(outgoing, replace)
            try:
                return self._by(protocol, outgoing, replace, progress)
            except ServerError as error:
                if protocol != "signed" or replace or not is_switched_off(error):
                    raise
                refusal = error
            self._service.note(SIGNED, False, str(refusal))
            protocol = self._choice(outgoing, replace)
        return self._by(protocol, outgoing, replace, progress)

    def _choice(self, outgoing: Outgoing, replace: bool) -> Protocol:
        if outgoing.checksums.size == 0:
            return "resumable"
        return "signed" if replace or self._service.holds(SIGNED) is not False else "resumable"

    def _by(self, protocol: Protocol, outgoing: Outgoing, replace: bool, progress: Progress | None) -> UploadedFile:
        if protocol == "resumable":
            return upload_resumable(self._connection, self._storage, outgoing, progress)
        if protocol != "signed":
            raise InputError(f"there is no upload protocol {protocol!r}; choose auto, signed or resumable")
        if outgoing.checksums.size == 0:
            raise InputError(f"{outgoing.path} is empty, and signed uploads take no empty file; use protocol auto")
        return self._signed(outgoing, replace, progress)

    def _signed(self, outgoing: Outgoing, replace: bool, progress: Progress | None) -> UploadedFile:
        for _ in range(SESSION_TRIES - 1):
            try:
                return self._through_session(outgoing, replace, progress)
            except FileConflictError:
                raise
            except (NotFoundError, ConflictError):
                # Another process had the same content under way, and finished or gave up the session that both
                # were given. Asked again, the service says which.
                self._memory.forget(outgoing)
        return self._through_session(outgoing, replace, progress)

    def _through_session(self, outgoing: Outgoing, replace: bool, progress: Progress | None) -> UploadedFile:
        announced = self._announced.pop(outgoing, None)
        opened = announced() if announced else self._resumed(outgoing, replace) or self._opened(outgoing, replace)
        if isinstance(opened, UploadedFile):
            return opened
        try:
            file = send_parts(self._connection, self._storage, outgoing, opened, progress)
        except (NotFoundError, ConflictError):
            raise  # the session is not ours to close: another process finished it, or has it under way
        except BaseException as error:
            self._give_up(outgoing, opened, error)
            raise
        self._memory.forget(outgoing)
        return UploadedFile(file, existed=False)

    def _resumed(self, outgoing: Outgoing, replace: bool) -> UploadSession | None:
        """The session that an earlier process began for this content, if the service still has it open."""
        begun = self._memory.recall(outgoing)
        if begun is None or (begun.replaces is not None and not replace):
            return None
        opened = resumed_session(self._connection, outgoing, begun.upload_id, begun.part_size)
        if opened is None:
            self._memory.forget(outgoing)
        return opened

    def _opened(self, outgoing: Outgoing, replace: bool) -> UploadSession | UploadedFile:
        """A new session, remembered; or the file, if the dataset has it."""
        replaces = None
        try:
            opened = open_session(self._connection, outgoing)
        except ConflictError as error:
            taken = self._holder(outgoing, error, replace)
            if isinstance(taken, UploadedFile):
                return taken
            replaces = taken.file_mfid
            opened = open_replacement(self._connection, outgoing, taken.file_mfid, taken.etag)
        if isinstance(opened, FileRecord):
            return existing(outgoing, opened)
        if outgoing.checksums.size > opened.part_size:  # one of a single part is sent again whole
            self._memory.keep(outgoing, UnfinishedUpload(opened.upload_id, opened.part_size, replaces))
        return opened

    def _holder(self, outgoing: Outgoing, error: ConflictError, replace: bool) -> UploadedFile | FileConflictError:
        """Return the file of that name if its bytes are the same, else the conflict, unless it is to be replaced."""
        detail = error.detail if isinstance(error.detail, dict) else {}
        if error.code != "filename_exists" or not isinstance(detail.get("file_mfid"), str):
            raise error
        answer = self._connection.get(f"/files/{detail['file_mfid']}", outgoing.what, mfid=detail["file_mfid"])
        taken = parse(FileRecord, answer, outgoing.what)
        if (taken.sha256_hash, taken.size) == (outgoing.checksums.sha256, outgoing.checksums.size):
            return UploadedFile(taken, existed=True)
        conflict = FileConflictError(
            f"could not {outgoing.what}: it has a file of that name with other content ({taken.mfid})\n"
            "give the file another name, or upload it with replace=True",
            filename=outgoing.filename,
            file_mfid=taken.mfid,
            etag=detail.get("etag") or taken.etag,
            status=error.status,
            detail=error.detail,
            code=error.code,
            mfid=outgoing.dataset_mfid,
        )
        if not replace:
            raise conflict from error
        return conflict

    def _give_up(self, outgoing: Outgoing, opened: UploadSession, error: BaseException) -> None:
        """The session is closed, unless it is remembered and trying again later may finish it."""
        passing = isinstance(error, UnreachableError | ServerError | RateLimitedError) or not isinstance(
            error, Exception
        )
        if not (self._memory.lasts and passing):
            abort(self._connection, outgoing, opened.upload_id)
            self._memory.forget(outgoing)


SMALLEST_CHUNK = 32 << 20  # as the service's official client
CHUNK_UNIT = 256 << 10  # storage takes multiples of this
CHUNK_READ_S = 120.0


def upload_resumable(
    connection: Connection, storage: Storage, outgoing: Outgoing, progress: Progress | None = None
) -> UploadedFile:
    """The file, after the dataset has its bytes; FileChangedError if it changes meanwhile."""
    answer = connection.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/initiate",
        outgoing.what,
        mfid=outgoing.dataset_mfid,
        body=outgoing.body(),
        headers=REUSE,
        repeatable=True,
    )
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        return existing(outgoing, parse(FileRecord, answer["existing_file"], outgoing.what))
    try:
        upload_id, url = str(answer["upload_id"]), str(answer["resumable_uri"])
    except (KeyError, TypeError) as cause:
        raise ServerError(f"could not {outgoing.what}: Crucible opened no upload session") from cause
    if outgoing.checksums.size:
        hint = answer.get("chunk_size_hint") or 0
        chunk_size = max(int(hint), SMALLEST_CHUNK) // CHUNK_UNIT * CHUNK_UNIT
        _Chunks(storage, outgoing, url, chunk_size, Meter(outgoing.checksums.size, progress)).send(connection)
    require_unchanged(outgoing.path, outgoing.checksums)
    return UploadedFile(complete(connection, outgoing, upload_id), existed=False)


class _Chunks:
    """Sends a file to one link."""

    def __init__(self, storage: Storage, outgoing: Outgoing, url: str, chunk_size: int, meter: Meter) -> None:
        self._storage = storage
        self._outgoing = outgoing
        self._what = f"send {outgoing.filename}"
        self._url = url
        self._chunk_size = chunk_size
        self._meter = meter

    def send(self, connection: Connection) -> None:
        """Storage has all bytes. After each failure it is asked how many it has, and the next chunk begins there."""
        size = self._outgoing.checksums.size
        offset: int | None = 0
        failures, waited_s = itertools.count(1), 0.0
        failed = False
        while offset is not None:
            try:
                reached = self._position() if failed else self._advanced(offset)
            except CrucibleError as error:
                transient = isinstance(error, UnreachableError | ServerError) or error.status in (408, 429)
                wait_s = storage_wait_s(error, transient, next(failures), waited_s, connection.retry)
                if wait_s is None:
                    raise
                connection.sleep(wait_s)
                waited_s += wait_s
                failed = True
                continue
            self._meter.add((size if reached is None else reached) - offset)
            if not failed:
                failures, waited_s = itertools.count(1), 0.0
            failed = False
            offset = reached

    def _position(self) -> int | None:
        """Ask storage how many bytes it has; None if it has all of them."""
        headers = {"Content-Range": f"bytes */{self._outgoing.checksums.size}"}
        response = self._storage.put(self._url, self._what, headers=headers)
        return self._reached(response, without_range=0)

    def _advanced(self, offset: int) -> int | None:
        """Send one more chunk. Returns how many bytes storage has then; None if it has all of them."""
        size = self._outgoing.checksums.size
        length = min(self._chunk_size, size - offset)
        response = self._storage.put(
            self._url,
            self._what,
            headers={"Content-Range": f"bytes {offset}-{offset + length - 1}/{size}"},
            content=self._content(offset, length),
            size=length,
            read_s=CHUNK_READ_S,
        )
        reached = self._reached(response, without_range=offset + length)
        if reached is not None and reached <= offset:
            raise ServerError(f"could not {self._what}: storage took nothing of a chunk", status=response.status_code)
        return reached

    def _reached(self, response: httpx.Response, *, without_range: int) -> int | None:
        """Read how many bytes are there from an answer: a Range header, none, or the word that all are."""
        if response.status_code in (200, 201):
            self._check(response)
            return None
        if response.status_code != 308:
            raise storage_error(response, self._what)
        held = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("range", ""))
        return int(held[1]) + 1 if held else without_range

    def _check(self, response: httpx.Response) -> None:
        """Storage's own checksum of the whole, where it gives one, is ours."""
        try:
            stored = json.loads(response.content).get("crc32c")
        except (ValueError, AttributeError, RecursionError):
            return
        if stored not in (None, crc32c_text(self._outgoing.checksums.crc32c)):
            raise ChecksumError(f"could not {self._outgoing.what}: storage has other bytes than were sent")

    def _content(self, offset: int, length: int) -> Iterator[bytes]:
        sent = 0
        for block in blocks(self._outgoing.path, offset, length):
            yield block
            sent += len(block)
            traffic.send(len(block))
        if sent < length:
            raise FileChangedError(f"{self._outgoing.path} became shorter while it was being sent")
