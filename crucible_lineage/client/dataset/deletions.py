"""Deletion: asked for, reviewed, carried out; each step leaves a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from crucible_lineage.client.filters import DeletionFilters, sent_filters
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.paging import pages
from crucible_lineage.client.http.wire import parse, segment
from crucible_lineage.client.models import DeletedRecord, DeletionRequest
from crucible_lineage.client.official import OfficialNames

__all__ = ["DeletionCalls"]

ELEVATED = {"Crucible-Privilege-Mode": "elevated"}


class DeletionCalls(OfficialNames):
    """`client.deletions`. `elevated` uses the rights of an administrator; others are refused."""

    subject = "deletions"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def request(self, mfid: str, reason: str | None = None) -> DeletionRequest:
        """The request to delete a resource. It is hidden from lists from now on, and deleted only after a review."""
        what = f"request deletion of {mfid}"
        path = f"/resources/{segment(mfid, 'resource')}/delete"
        return parse(
            DeletionRequest, self._connection.call("POST", path, what, mfid=mfid, params={"reason": reason}), what
        )

    def get(self, request_id: int) -> DeletionRequest:
        """The request as it stands."""
        what = f"read deletion request {request_id}"
        return parse(DeletionRequest, self._connection.get(f"/deletion_requests/{int(request_id)}", what), what)

    def list(self, *, limit: int | None = None, **filters: Unpack[DeletionFilters]) -> list[DeletionRequest]:
        """Deletion requests, all or `limit` of them."""
        params = sent_filters(filters, DeletionFilters)
        what = "list deletion requests"
        return list(pages(self._connection, "/deletion_requests", DeletionRequest, what, params, limit))

    def approve(self, request_id: int, *, notes: str | None = None, elevated: bool = False) -> DeletionRequest:
        """The request, approved: the resource may be deleted now."""
        return self._review(request_id, "approved", notes, elevated)

    def reject(self, request_id: int, *, notes: str | None = None, elevated: bool = False) -> DeletionRequest:
        """The request, rejected: the resource is as it was before."""
        return self._review(request_id, "rejected", notes, elevated)

    def delete(self, mfid: str, *, force: bool = False, elevated: bool = False) -> None:
        """The resource is gone for good. Needs an approved request, or `force` from an administrator."""
        self._connection.call(
            "DELETE",
            f"/resources/{segment(mfid, 'resource')}",
            f"delete {mfid}",
            mfid=mfid,
            params={"force": True} if force else None,
            headers=ELEVATED if elevated else None,
        )

    def deleted(self, *, limit: int | None = None, resource_id: str | None = None) -> Iterator[DeletedRecord]:
        """The audit entries of what was deleted, newest first."""
        params = {"resource_id": resource_id}
        return pages(self._connection, "/deletion_audit", DeletedRecord, "list what was deleted", params, limit)

    def _review(self, request_id: int, status: str, notes: str | None, elevated: bool) -> DeletionRequest:
        what = f"have deletion request {request_id} {status}"
        answer = self._connection.call(
            "PATCH",
            f"/deletion_requests/{int(request_id)}",
            what,
            params={"status": status, "reviewer_notes": notes},
            headers=ELEVATED if elevated else None,
            repeatable=False,  # a second review is a conflict
        )
        return parse(DeletionRequest, answer, what)
