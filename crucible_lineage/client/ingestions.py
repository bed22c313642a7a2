"""Ingestion: requesting that the service reads metadata and previews from a file, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from crucible_lineage.client.filters import INGESTION_FILTERS, sent_filters
from crucible_lineage.client.http.connection import Calls, pages
from crucible_lineage.client.http.wire import parse, segment
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.errors import InputError, ServerError, UnreachableError
from crucible_lineage.times import utc

__all__ = ["IngestionCalls"]

FIRST_WAIT_S = 0.02  # chosen: about as long as reading a small file takes; doubles at each poll
LONGEST_WAIT_S = 5.0
CLOCKS_DIFFER = timedelta(minutes=2)  # chosen: the largest difference between the service's clock and ours


class IngestionCalls(Calls):
    """`client.ingestions`: requests that Crucible reads a file into metadata and thumbnails."""

    def request(
        self, file_mfid: str, ingestion_class: str | None = None, status: str = "requested"
    ) -> IngestionRequest:
        """Request the ingestion of a file; the status `not_requested` records that none is needed.

        Each call creates a request. After a lost answer, the client looks for that request before it repeats the call.
        """
        action = f"request ingestion of file {file_mfid}"
        since = datetime.now(UTC) - CLOCKS_DIFFER
        answer = self._connection.call(
            "POST",
            f"/files/{segment(file_mfid, 'file')}/ingest",
            action,
            mfid=file_mfid,
            params={"status": status, "ingestion_class": ingestion_class},
            find_effect=lambda: self._just_made(file_mfid, since),
        )
        return answer if isinstance(answer, IngestionRequest) else parse(IngestionRequest, answer, action)

    def get(self, request_id: int) -> IngestionRequest:
        """Return the current state of the request."""
        action = f"read ingestion request {request_id}"
        return parse(IngestionRequest, self._connection.get(f"/ingestion_requests/{int(request_id)}", action), action)

    def list(self, *, limit: int | None = None, **filters: object) -> list[IngestionRequest]:
        """Return ingestion requests, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: object) -> Iterator[IngestionRequest]:
        """Yield what `list` returns, reading each page when it is needed."""
        params = sent_filters(filters, INGESTION_FILTERS)
        return pages(
            self._connection, "/ingestion_requests", IngestionRequest, "list ingestion requests", params, limit
        )

    def wait(self, request_id: int, *, timeout_s: float = 300.0) -> IngestionRequest:
        """Wait until nobody works on the request any more, and return it; its status says how it ended.

        Polls at once, after 0.02 s, then less and less often, up to every 5 s. UnreachableError after `timeout_s`.
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
        """Return the newest request for the file that is open or was created since then."""
        candidates = [
            request
            for request in self.iter(file_mfid=file_mfid)
            if request.is_open or _is_after(request.time_created, since)
        ]
        return max(candidates, key=lambda request: request.id, default=None)

    def ingestors(self) -> tuple[str, ...]:
        """Return the names of the classes that can read files."""
        action = "list the ingestors"
        answer = self._connection.get("/ingestors", action)
        if not isinstance(answer, list):
            raise ServerError(f"could not {action}: Crucible's answer is not a list")
        return tuple(str(name) for name in answer)


def _is_after(created: str | None, since: datetime) -> bool:
    try:
        return utc(created or "") >= since
    except ValueError:
        return False


def _overdue(request: IngestionRequest, timeout_s: float) -> UnreachableError:
    return UnreachableError(
        f"ingestion request {request.id} is still {request.status!r} after {timeout_s:g} s\n"
        "the file is stored; ingestion may still finish: ask again later, or wait longer",
        mfid=request.file_mfid,
    )
