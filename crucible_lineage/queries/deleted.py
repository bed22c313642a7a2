"""Deleted datasets and requests for deletion, from Crucible's own list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crucible_lineage.client.models import DeletedRecord, DeletionRequest
from crucible_lineage.errors import ForbiddenError, NotFoundError, RefusedError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.session import Session

_NOT_LISTED = (ForbiddenError, NotFoundError, RefusedError)  # for this key, or by this service


@dataclass(frozen=True)
class Deletion:
    """A deleted dataset, or one with a pending or approved request for deletion."""

    mfid: str
    name: str
    project: str
    state: str
    time: str
    reason: str

    @property
    def text(self) -> str:
        """One line with the state, the time and the reason."""
        at = f" on {self.time[:19].replace('T', ' ')}" if self.time else ""
        named = f" ({self.name})" if self.name else ""
        return f"dataset {self.mfid}{named} {self.state}{at}{f': {self.reason}' if self.reason else ''}"

    def to_json(self) -> JsonObject:
        """Return the entry of `list --deleted --json`."""
        return {**vars(self), "name": self.name or None, "time": self.time or None, "reason": self.reason or None}


def deletion_of(session: Session, mfid: str) -> Deletion | None:
    """Return the deletion of a dataset, if this key can see it."""
    try:
        entries = list(session.client.deletions.deleted(resource_id=mfid))
    except _NOT_LISTED:
        return None
    return next((_deleted(entry) for entry in entries if entry.resource_id == mfid), None)


def deletions_in(session: Session, project: str) -> list[Deletion]:
    """Return the datasets of a project with a request for deletion, then the deleted ones, newest first."""
    found = [*_requested(session), *_deletions(session)]
    return [one for one in found if one.project.casefold() == project.casefold()]


def _requested(session: Session) -> Iterator[Deletion]:
    try:
        requests = session.client.deletions.list()
    except _NOT_LISTED:
        return
    for request in requests:
        if request.resource_type == "dataset" and request.status in ("pending", "approved"):
            state = "is to be deleted" if request.status == "approved" else "was asked to be deleted"
            yield Deletion(
                mfid=request.resource_id or "",
                name=request.resource_name or "",
                project=_project(request),
                state=state,
                time=request.request_time or "",
                reason=request.reason or "",
            )


def _deletions(session: Session) -> Iterator[Deletion]:
    try:
        yield from (_deleted(one) for one in session.client.deletions.deleted() if one.resource_type == "dataset")
    except _NOT_LISTED:
        return


def _deleted(entry: DeletedRecord) -> Deletion:
    return Deletion(
        mfid=entry.resource_id or "",
        name=entry.resource_name or "",
        project=_project(entry),
        state="was deleted",
        time=entry.deleted_at or "",
        reason=entry.reason or "",
    )


def _project(entry: DeletionRequest | DeletedRecord) -> str:
    return str((entry.model_extra or {}).get("project_id") or "")
