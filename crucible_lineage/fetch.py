"""The lineage of a dataset, fetched from Crucible: its graph, and the record of each dataset in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage import LineageGraph
from crucible_lineage.session import Session

__all__ = ["fetch_lineage"]


def fetch_lineage(session: Session, mfid: str, *, thumbnails: bool = False) -> LineageGraph:
    """The connected lineage of a dataset or sample, with records (and pictures, if asked for).

    InputError if there is no such resource.
    """
    if not is_mfid(mfid):
        raise InputError(f"{mfid!r} is no MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    try:
        graph = LineageGraph.from_api(session.client.graphs.get(mfid, recursive=True))
    except NotFoundError as error:
        raise InputError(f"there is no dataset or sample {mfid} here ({session.settings.describe()})") from error
    datasets = [node for node in graph.nodes.values() if node.kind == "dataset"]
    records = _records(session, {node.id for node in datasets}, {node.project for node in datasets if node.project})
    if thumbnails:
        records = {key: {**record, "thumbnail": _picture(session, key)} for key, record in records.items()}
    return graph.with_records(records)


def _records(session: Session, wanted: set[str], projects: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Records by id: single ones for a few datasets, whole projects for many."""
    found: dict[str, Mapping[str, Any]] = {}
    if len(wanted) > 20:
        for project in projects:
            listed = session.client.datasets.list(project_id=project, include_metadata=True, limit=None)
            found |= {dataset.unique_id: dataset.model_dump() for dataset in listed if dataset.unique_id in wanted}
    for mfid in sorted(wanted - found.keys()):
        try:
            found[mfid] = session.client.datasets.get(mfid, include_metadata=True).model_dump()
        except (ForbiddenError, NotFoundError):  # not visible to this key: the graph shows a placeholder
            continue
    return found


def _picture(session: Session, mfid: str) -> str | None:
    """A dataset's first thumbnail as a data URI, None if it has none."""
    for picture in session.client.datasets.get_thumbnails(mfid):
        return f"data:{picture.mime_type or 'image/png'};base64,{picture.thumbnail_b64str}"
    return None
