"""The resumable upload: one link, to which the file goes in chunks; storage says how far it has come.

It needs no signing of parts and takes empty files, but sends one chunk after the other.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import httpx

from crucible_lineage.checksums import blocks, crc32c_text, require_unchanged
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.outgoing import REUSE, Meter, Outgoing, Progress, UploadedFile, complete, existing
from crucible_lineage.client.transfer.storage import Storage, storage_error, storage_wait_s
from crucible_lineage.errors import ChecksumError, CrucibleError, FileChangedError, ServerError, UnreachableError
from crucible_lineage.traffic import traffic

__all__ = ["upload_resumable"]

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
