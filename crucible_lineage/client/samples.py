"""Samples: what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack

from crucible_lineage.client.bodies import SampleCreate
from crucible_lineage.client.dataset.links import LinkCalls
from crucible_lineage.client.filters import SampleFilters, sent_filters
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.paging import count_of, pages
from crucible_lineage.client.http.wire import parse, parse_all, segment, to_send
from crucible_lineage.client.models import Sample
from crucible_lineage.client.official import OfficialNames

__all__ = ["SampleCalls"]


class SampleCalls(OfficialNames):
    """`client.samples`: what is measured, and which sample was made from which."""

    subject = "samples"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._links = LinkCalls(connection, "/samples", "sample", Sample)

    def create(self, sample: SampleCreate | Mapping[str, object] | None = None, **fields: object) -> Sample:
        """The new sample. With a `unique_id` of your own a lost answer is repeated; without one it is an error."""
        new = to_send(SampleCreate, fields if sample is None else sample)
        what = f"create sample {new.sample_name or ''}".rstrip()
        answer = self._connection.call(
            "POST", "/samples", what, mfid=new.unique_id, body=new.body(), repeatable=new.unique_id is not None
        )
        return parse(Sample, answer, what)

    def get(self, mfid: str, *, include_metadata: bool = False, include_links: bool = False) -> Sample:
        """The sample; `scientific_metadata` and `links` are None unless they are asked for."""
        what = f"read sample {mfid}"
        params = {
            "include_metadata": include_metadata or None,
            "include_links": include_links or None,
            "include_datasets": False,
        }
        answer = self._connection.get(f"/samples/{segment(mfid, 'sample')}", what, mfid=mfid, params=params)
        return parse(Sample, answer, what)

    def list(self, *, limit: int | None = None, **filters: Unpack[SampleFilters]) -> list[Sample]:
        """Samples that fit all filters, newest first, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[SampleFilters]) -> Iterator[Sample]:
        """The same, page by page as they are taken."""
        params = {"include_datasets": False, **sent_filters(filters, SampleFilters)}
        return pages(self._connection, "/samples", Sample, "list samples", params, limit)

    def count(self, **filters: Unpack[SampleFilters]) -> int:
        """Count the samples that match all filters."""
        return count_of(self._connection, "/samples", "count samples", sent_filters(filters, SampleFilters))

    def search(self, q: str, *, limit: int = 20, project_id: str | None = None) -> Sequence[Sample]:
        """Samples whose name is like `q` (3 letters or more); best first, at most 50."""
        what = f"search samples for {q!r}"
        params = {"q": q, "limit": limit, "project_id": project_id}
        return parse_all(Sample, self._connection.get("/samples/search", what, params=params), what)

    def update(self, mfid: str, **fields: object) -> Sample:
        """The sample with `fields` (sample_name, sample_type, description, timestamp) changed."""
        what = f"change sample {mfid}"
        path = f"/samples/{segment(mfid, 'sample')}"
        return parse(Sample, self._connection.call("PATCH", path, what, mfid=mfid, body=fields), what)

    def link_parent_child(self, parent_id: str, child_id: str, relationship_type: str | None = None) -> None:
        """The child hangs below the parent; a relationship that is given replaces a stored one."""
        self._links.link(parent_id, child_id, relationship_type)

    def unlink(self, parent_id: str, child_id: str) -> None:
        """The link is gone."""
        self._links.unlink(parent_id, child_id)

    def list_parents(self, mfid: str, *, limit: int | None = None) -> Sequence[Sample]:
        """The samples that this one was made from."""
        return self._links.related(mfid, "parents", {}, limit)

    def list_children(self, mfid: str, *, limit: int | None = None) -> Sequence[Sample]:
        """The samples that were made from this one."""
        return self._links.related(mfid, "children", {}, limit)
