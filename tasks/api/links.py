"""Parents and children as tasks: linked, unlinked, listed."""

from __future__ import annotations

from typing import Literal

from crucible_lineage.client.models import Dataset
from crucible_lineage.errors import NotFoundError
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "Relationship",
    "link_parent_child",
    "list_children",
    "list_parents",
    "unlink",
]

Relationship = Literal["is_derived_from", "is_part_of"]
"""What the child is to its parent."""


@api_task("link {parent_id} to {child_id}")
def link_parent_child(
    parent_id: str,
    child_id: str,
    relationship_type: Relationship | None = "is_derived_from",
    *,
    crucible: Crucible | None = None,
) -> None:
    """The child hangs below the parent; None as relationship leaves a stored one as it is."""
    session_for(crucible).client.datasets.link_parent_child(parent_id, child_id, relationship_type)


@api_task("unlink {parent_id} from {child_id}")
def unlink(parent_id: str, child_id: str, *, crucible: Crucible | None = None) -> None:
    """There is no link between these datasets. NotFoundError if one of them is not there."""
    client = session_for(crucible).client
    try:
        client.datasets.unlink(parent_id, child_id)
    except NotFoundError:
        client.datasets.get(child_id)
        client.datasets.get(parent_id)  # both are there, so it is the link that is gone


@api_task("parents of {dsid}")
def list_parents(
    dsid: str, *, relationship_type: Relationship | None = None, crucible: Crucible | None = None
) -> list[Dataset]:
    """The datasets that this one was made from."""
    return list(session_for(crucible).client.datasets.list_parents(dsid, relationship_type=relationship_type))


@api_task("children of {dsid}")
def list_children(
    dsid: str, *, relationship_type: Relationship | None = None, crucible: Crucible | None = None
) -> list[Dataset]:
    """The datasets that were made from this one."""
    return list(session_for(crucible).client.datasets.list_children(dsid, relationship_type=relationship_type))
