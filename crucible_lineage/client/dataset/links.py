"""Parent and child links between records of one kind; datasets and samples have the same routes."""

from __future__ import annotations

from typing import Generic, TypeVar

from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.paging import pages
from crucible_lineage.client.http.wire import Params, segment
from crucible_lineage.client.models import Received
from crucible_lineage.errors import InputError, nearest

__all__ = ["LinkCalls"]

Record = TypeVar("Record", bound=Received)
RELATIONSHIPS = ("is_derived_from", "is_part_of")


class LinkCalls(Generic[Record]):
    """The link routes under `/datasets` or `/samples`."""

    def __init__(self, connection: Connection, collection: str, kind: str, model: type[Record]) -> None:
        self._connection = connection
        self._collection = collection
        self._kind = kind
        self._model = model

    def link(self, parent_mfid: str, child_mfid: str, relationship_type: str | None) -> None:
        """The child hangs below the parent; a relationship that is given replaces a stored one."""
        if relationship_type not in (None, *RELATIONSHIPS):
            hint = nearest(relationship_type, RELATIONSHIPS)
            raise InputError(f"there is no relationship {relationship_type!r}; {hint}")
        what = f"link {child_mfid} as a child of {parent_mfid}"
        params = {"relationship_type": relationship_type} if relationship_type else None
        path = self._path(parent_mfid, child_mfid)
        self._connection.call("POST", path, what, mfid=child_mfid, params=params, repeatable=True)

    def unlink(self, parent_mfid: str, child_mfid: str) -> None:
        """The link is gone."""
        what = f"unlink {child_mfid} from its parent {parent_mfid}"
        self._connection.call("DELETE", self._path(parent_mfid, child_mfid), what, mfid=child_mfid)

    def related(self, mfid: str, side: str, params: Params, limit: int | None) -> list[Record]:
        """The records on one side, `parents` or `children`."""
        path = f"{self._collection}/{segment(mfid, self._kind)}/{side}"
        return list(pages(self._connection, path, self._model, f"list the {side} of {mfid}", params, limit))

    def _path(self, parent_mfid: str, child_mfid: str) -> str:
        parent, child = segment(parent_mfid, self._kind), segment(child_mfid, self._kind)
        return f"{self._collection}/{parent}/children/{child}"
