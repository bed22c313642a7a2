"""Samples: what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

from crucible_lineage.client.aliases import also_called
from crucible_lineage.client.dataset.links import LinkCalls
from crucible_lineage.client.filters import SampleFilters, sent_filters
from crucible_lineage.client.http.connection import Session
from crucible_lineage.client.http.paging import count_of, pages
from crucible_lineage.client.http.wire import parse, parse_all, segment, to_send
from crucible_lineage.client.models import Sample, SampleCreate

__all__ = ["SampleCalls"]

KINSHIP = {
    "parent_id": "parent_mfid",
    "child_id": "child_mfid",
    "parent_sample_id": "parent_mfid",
    "child_sample_id": "child_mfid",
}


class SampleCalls:
    """`client.samples`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._links = LinkCalls(session, "/samples", "sample", Sample)

    def create(self, sample: SampleCreate | Mapping[str, Any] | None = None, **fields: Any) -> Sample:
        """The new sample. With a `unique_id` of your own a lost answer is repeated; without one it is an error."""
        new = to_send(SampleCreate, fields if sample is None else sample)
        what = f"create sample {new.sample_name or ''}".rstrip()
        answer = self._session.call(
            "POST", "/samples", what, mfid=new.unique_id, body=new.body(), repeatable=new.unique_id is not None
        )
        return parse(Sample, answer, what)

    @also_called(sample_mfid="mfid", sample_id="mfid")
    def get(self, mfid: str, *, include_metadata: bool = False, include_links: bool = False) -> Sample:
        """The sample; `scientific_metadata` and `links` are None unless they are asked for."""
        what = f"read sample {mfid}"
        params = {
            "include_metadata": include_metadata or None,
            "include_links": include_links or None,
            "include_datasets": False,
        }
        answer = self._session.get(f"/samples/{segment(mfid, 'sample')}", what, mfid=mfid, params=params)
        return parse(Sample, answer, what)

    def list(self, *, limit: int | None = None, **filters: Unpack[SampleFilters]) -> list[Sample]:
        """Samples that fit all filters, newest first, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[SampleFilters]) -> Iterator[Sample]:
        """The same, page by page as they are taken."""
        params = {"include_datasets": False, **sent_filters(filters, SampleFilters)}
        return pages(self._session, "/samples", Sample, "list samples", params, limit)

    def count(self, **filters: Unpack[SampleFilters]) -> int:
        """How many samples fit all filters."""
        return count_of(self._session, "/samples", "count samples", sent_filters(filters, SampleFilters))

    def search(self, q: str, *, limit: int = 20, project_id: str | None = None) -> Sequence[Sample]:
        """Samples whose name is like `q` (3 letters or more); best first, at most 50."""
        what = f"search samples for {q!r}"
        params = {"q": q, "limit": limit, "project_id": project_id}
        return parse_all(Sample, self._session.get("/samples/search", what, params=params), what)

    def update(self, mfid: str, **fields: Any) -> Sample:
        """The sample with `fields` (sample_name, sample_type, description, timestamp) changed."""
        what = f"change sample {mfid}"
        path = f"/samples/{segment(mfid, 'sample')}"
        return parse(Sample, self._session.call("PATCH", path, what, mfid=mfid, body=fields), what)

    @also_called(**KINSHIP)
    def link_parent_child(self, parent_mfid: str, child_mfid: str, relationship_type: str | None = None) -> None:
        """The child hangs below the parent; a relationship that is given replaces a stored one."""
        self._links.link(parent_mfid, child_mfid, relationship_type)

    @also_called(**KINSHIP)
    def unlink(self, parent_mfid: str, child_mfid: str) -> None:
        """The link is gone."""
        self._links.unlink(parent_mfid, child_mfid)

    def list_parents(self, mfid: str, *, limit: int | None = None) -> Sequence[Sample]:
        """The samples that this one was made from."""
        return self._links.related(mfid, "parents", {}, limit)

    def list_children(self, mfid: str, *, limit: int | None = None) -> Sequence[Sample]:
        """The samples that were made from this one."""
        return self._links.related(mfid, "children", {}, limit)
