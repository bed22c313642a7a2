"""Scientific metadata and keywords as tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crucible_lineage.client.models import SearchHit
from crucible_lineage.tasks.api.calls import api_task, words
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "add_keywords",
    "get_keywords",
    "get_metadata",
    "replace_metadata",
    "search_metadata",
    "update_metadata",
]


@api_task("metadata of {dsid}")
def get_metadata(dsid: str, *, crucible: Crucible | None = None) -> dict[str, Any]:
    """The scientific metadata of the dataset; empty if it has none."""
    return session_for(crucible).client.metadata.get(dsid) or {}


@api_task("update metadata of {dsid}")
def update_metadata(dsid: str, metadata: Mapping[str, Any], *, crucible: Crucible | None = None) -> dict[str, Any]:
    """All scientific metadata of the dataset, after `metadata` was merged in: objects key by key, others replaced."""
    return session_for(crucible).client.metadata.merge(dsid, metadata)


@api_task("replace metadata of {dsid}")
def replace_metadata(dsid: str, metadata: Mapping[str, Any], *, crucible: Crucible | None = None) -> dict[str, Any]:
    """`metadata`, which is now all that the dataset has; of a result of a step, its provenance would be lost."""
    return session_for(crucible).client.metadata.replace(dsid, metadata)


@api_task("search metadata for {q}")
def search_metadata(q: str, limit: int = 20, *, crucible: Crucible | None = None) -> list[SearchHit]:
    """Resources of all kinds whose metadata holds all words of `q` in keys or values; best first, at most 50."""
    return session_for(crucible).client.metadata.search(q, limit=limit)


@api_task("keywords {keywords} of {dsid}")
def add_keywords(dsid: str, keywords: str | Sequence[str], *, crucible: Crucible | None = None) -> list[str]:
    """The keywords that were added; a text is one keyword. Adding one again changes nothing."""
    client = session_for(crucible).client
    return [client.datasets.add_keyword(dsid, keyword).keyword for keyword in words(keywords)]


@api_task("keywords of {dsid}")
def get_keywords(dsid: str, *, crucible: Crucible | None = None) -> list[str]:
    """The keywords of the dataset."""
    return [found.keyword for found in session_for(crucible).client.datasets.get_keywords(dsid)]
