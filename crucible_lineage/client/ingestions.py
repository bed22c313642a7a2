"""Ingestion: asking the service to read metadata, samples and previews out of a file, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Unpack

from crucible_lineage.client.filters import IngestionFilters, sent_filters
from crucible_lineage.client.http.connection import Connection, pages
from crucible_lineage.client.http.wire import parse, segment
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.errors import InputError, ServerError, UnreachableError

__all__ = ["IngestionCalls"]

FIRST_WAIT_S = 0.02  # chosen: small files are read in about that time, and five questions later it is a second
LONGEST_WAIT_S = 5.0
CLOCKS_DIFFER = timedelta(minutes=2)  # chosen: the service's clock and ours, at most


class IngestionCalls(OfficialNames):
    """`client.ingestions`: Crucible reads a file, on request, into metadata and thumbnails."""

    subject = "ingestions"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def request(
        self, file_mfid: str, ingestion_class: str | None = None, status: str = "requested"
    ) -> IngestionRequest:
        """A new request for the file; `not_requested` as status notes that none is wanted.

        Each call makes one more request; after a lost answer the one that it made is looked for before it is repeated.
        """
        what = f"request ingestion of file {file_mfid}"
        since = datetime.now(UTC) - CLOCKS_DIFFER
        answer = self._connection.call(
            "POST",
            f"/files/{segment(file_mfid, 'file')}/ingest",
            what,
            mfid=file_mfid,
            params={"status": status, "ingestion_class": ingestion_class},
            look=lambda: self._just_made(file_mfid, since),
        )
        return answer if isinstance(answer, IngestionRequest) else parse(IngestionRequest, answer, what)

    def get(self, request_id: int) -> IngestionRequest:
        """The request as it stands."""
        what = f"read ingestion request {request_id}"
        return parse(IngestionRequest, self._connection.get(f"/ingestion_requests/{int(request_id)}", what), what)

    def list(self, *, limit: int | None = None, **filters: Unpack[IngestionFilters]) -> list[IngestionRequest]:
        """Ingestion requests, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[IngestionFilters]) -> Iterator[IngestionRequest]:
        """The same, page by page as they are taken."""
        params = sent_filters(filters, IngestionFilters)
        return pages(
            self._connection, "/ingestion_requests", IngestionRequest, "list ingestion requests", params, limit
        )

    def wait(self, request_id: int, *, timeout_s: float = 300.0) -> IngestionRequest:
        """The request once nobody works on it any more, however that ended: look at its status.

        Asks at once, after 0.02 s, then ever more rarely, up to every 5 s. UnreachableError when `timeout_s` is over.
        """
        if timeout_s <= 0:
            raise InputError(f"the time to wait for ingestion must be positive, not {timeout_s} s")
        end = time.monotonic() + timeout_s
        wait_s = FIRST_WAIT_S
        while (request := self.get(request_id)).is_open:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise _overdue(request, timeout_s)
            self._connection.sleep(min(wait_s, left_s))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        return request

    def _just_made(self, file_mfid: str, since: datetime) -> IngestionRequest | None:
        """The newest request for the file that is open, or was made since then."""
        found = [one for one in self.iter(file_mfid=file_mfid) if one.is_open or _is_after(one.time_created, since)]
        return max(found, key=lambda one: one.id, default=None)

    def ingestors(self) -> tuple[str, ...]:
        """The names of the classes that can read files."""
        what = "list the ingestors"
        answer = self._connection.get("/ingestors", what)
        if not isinstance(answer, list):
            raise ServerError(f"could not {what}: Crucible's answer holds no list")
        return tuple(str(name) for name in answer)


def _is_after(created: str | None, since: datetime) -> bool:
    try:
        return created is not None and datetime.fromisoformat(created) >= since
    except (TypeError, ValueError):  # no time, or one without zone
        return False


def _overdue(request: IngestionRequest, timeout_s: float) -> UnreachableError:
    return UnreachableError(
        f"ingestion request {request.id} is still {request.status!r} after {timeout_s:g} s\n"
        "the file is stored; ingestion may still finish: ask again later, or wait longer",
        mfid=request.file_mfid,
    )
