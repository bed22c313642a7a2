"""Datasets that were registered and are not there any more: which are gone for certain, and which a project lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from crucible_lineage.client.models import DeletedRecord
from crucible_lineage.errors import ForbiddenError, NotFoundError, RefusedError
from crucible_lineage.ids import has_derived_id
from crucible_lineage.lineage import Finding
from crucible_lineage.session import Session

__all__ = ["certainly_gone", "gone_datasets"]


def certainly_gone(session: Session, mfids: Collection[str]) -> set[str]:
    """Those of `mfids`, which Crucible answers are not there, that are not just invisible to this key.

    Crucible gives both the same answer. It is certain where the key sees everything, where the deletion is on record,
    and where this data folder has known the dataset.
    """
    if not mfids or session.client.account.profile().authorization.get("effective_privilege_mode") == "elevated":
        return set(mfids)
    return {mfid for mfid in mfids if session.mirror.known(mfid) or _is_on_record(session, mfid)}


def gone_datasets(session: Session, project: str, present: Collection[str]) -> Iterator[Finding]:
    """Findings about what Crucible's list of deletions, and the runs from this data folder, know and Crucible lacks."""
    deleted = _deleted(session, project)
    suspects = {mfid: entry.resource_name for mfid, entry in deleted.items() if has_derived_id(mfid)}
    known = (session.mirror.known(mfid) for mfid in sorted(session.journal.datasets(project)))
    suspects |= {dataset.mfid: dataset.name for dataset in known if dataset}
    for mfid, name in sorted(suspects.items()):
        if mfid in present or (mfid in deleted and _was_reviewed(deleted[mfid])) or _exists(session, mfid):
            continue
        message = (
            f"{name or mfid} was registered and is gone, and no reviewed deletion says why; "
            "running what made it registers it again under the same id"
        )
        yield Finding("missing-dataset", "error", (mfid,), message, "crucible-lineage run PIPELINE --refresh")


def _deleted(session: Session, project: str) -> dict[str, DeletedRecord]:
    """The deletions in a project that this key may know of."""
    try:
        entries = list(session.client.deletions.deleted())
    except (ForbiddenError, NotFoundError, RefusedError):
        return {}
    of_project = [entry for entry in entries if (entry.model_extra or {}).get("project_id") == project]
    return {str(entry.resource_id): entry for entry in of_project if entry.resource_type == "dataset"}


def _is_on_record(session: Session, mfid: str) -> bool:
    try:
        return any(True for _ in session.client.deletions.deleted(resource_id=mfid))
    except (ForbiddenError, NotFoundError, RefusedError):
        return False


def _was_reviewed(entry: DeletedRecord) -> bool:
    return (entry.model_extra or {}).get("review_time") is not None


def _exists(session: Session, mfid: str) -> bool:
    try:
        session.client.datasets.get(mfid)
    except NotFoundError:
        return False
    except ForbiddenError:
        return True
    return True
