"""Deleted datasets and requests for deletion, from Crucible's own list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from crucible_lineage.client.models import DeletedRecord, DeletionRequest
from crucible_lineage.errors import ForbiddenError, NotFoundError, RefusedError
from crucible_lineage.session import Session
from crucible_lineage.text.times import time_shown

NOT_LISTED = (ForbiddenError, NotFoundError, RefusedError)  # for this key, or by this service


@dataclass(frozen=True)
class Deletion:
    """A deleted dataset, or one with a pending or approved request for deletion."""

    mfid: str
    name: str = ""
    project: str = ""
    state: str = "was deleted"
    time: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """One line with the state, the time and the reason."""
        at = f" on {time_shown(self.time)}" if self.time else ""
        named = f" ({self.name})" if self.name else ""
        return f"dataset {self.mfid}{named} {self.state}{at}{f': {self.reason}' if self.reason else ''}"


def deletion_of(session: Session, mfid: str) -> Deletion | None:
    """Return the deletion of a dataset, if this key can see it."""
    try:
        found = [one for one in session.client.deletions.deleted(resource_id=mfid) if one.resource_id == mfid]
    except NOT_LISTED:
        return None
    if not found:
        return None
    name, time, reason = (text or "" for text in (found[0].resource_name, found[0].deleted_at, found[0].reason))
    return Deletion(mfid, name, _project(found[0]), time=time, reason=reason)


def request_text(status: str | None) -> str:
    """Return what a request for deletion with this status means for its dataset."""
    return "is to be deleted" if status == "approved" else "was asked to be deleted"


def deletion_requests(session: Session) -> Iterator[DeletionRequest]:
    """Yield the pending and approved requests for the deletion of datasets, as far as this key can see them."""
    with suppress(*NOT_LISTED):
        for request in session.client.deletions.list():
            if request.resource_type == "dataset" and request.status in ("pending", "approved"):
                yield request


def deleted_in(session: Session, project: str) -> list[DeletedRecord]:
    """Return the deleted datasets of a project, as far as this key can see them."""
    try:
        deleted = list(session.client.deletions.deleted())
    except NOT_LISTED:
        return []
    return [one for one in deleted if one.resource_type == "dataset" and _project(one).casefold() == project.casefold()]


def _project(entry: DeletionRequest | DeletedRecord) -> str:
    return str((entry.model_extra or {}).get("project_id") or "")
