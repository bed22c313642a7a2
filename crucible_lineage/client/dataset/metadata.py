"""Scientific metadata of any resource: one free JSON object each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse, parse_all, segment
from crucible_lineage.client.models import Metadata, SearchHit
from crucible_lineage.client.official import OfficialNames

__all__ = ["MetadataCalls"]


class MetadataCalls(OfficialNames):
    """`client.metadata`: the scientific metadata of datasets, samples, instruments and projects, by their MFID."""

    subject = "metadata"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, mfid: str) -> dict[str, Any] | None:
        """The metadata of a resource; None if it has none."""
        what = f"read the metadata of {mfid}"
        answer = self._connection.get(f"/resources/{segment(mfid, 'resource')}/metadata", what, mfid=mfid)
        return None if answer is None else parse(Metadata, answer, what).scientific_metadata

    def create(self, mfid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """`metadata`, which is now all that the resource has; ConflictError if it had some already."""
        return self._write("POST", mfid, metadata, None)

    def merge(self, mfid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """All metadata of the resource, after `metadata` was merged in: objects key by key, other values replaced."""
        return self._write("PATCH", mfid, metadata, None)

    def replace(self, mfid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """`metadata`, which is now all that the resource has."""
        return self._write("POST", mfid, metadata, {"overwrite": True})

    def search(self, q: str, *, limit: int = 20) -> list[SearchHit]:
        """Resources of all kinds whose metadata holds all words of `q` in keys or values; best first, at most 50."""
        what = f"search metadata for {q!r}"
        answer = self._connection.get("/resources/metadata/search", what, params={"q": q, "limit": limit})
        return parse_all(SearchHit, answer, what)

    def _write(
        self, method: str, mfid: str, metadata: Mapping[str, object], params: Mapping[str, object] | None
    ) -> dict[str, Any]:
        what = f"write the metadata of {mfid}"
        path = f"/resources/{segment(mfid, 'resource')}/metadata"
        answer = self._connection.call(method, path, what, mfid=mfid, params=params, body=metadata, repeatable=True)
        return parse(Metadata, answer, what).scientific_metadata
