"""Lineages fetched from Crucible: of a dataset, or of whole projects, with the record of each dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage import LineageGraph, Node
from crucible_lineage.lineage.records import PROVENANCE_KEY, provenance, used_mfids
from crucible_lineage.provenance.attachment import whole_record
from crucible_lineage.queries.graph.project_copy import FEW, ProjectCopy, project_copy
from crucible_lineage.session import Session

__all__ = [
    "ProjectLineage",
    "fetch_lineage",
    "fetch_projects",
    "lineage_of_copies",
    "with_named_parents",
    "with_whole_records",
]

Record = Mapping[str, Any]

WORKERS = 8  # what one client should ask of a shared service at a time


@dataclass(frozen=True)
class ProjectLineage:
    """The lineage of whole projects; `datasets` lie in them, of which `downloaded` were not known in that state."""

    graph: LineageGraph
    datasets: int
    downloaded: int


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


def fetch_projects(session: Session, projects: Iterable[str], *, refresh: bool = False) -> ProjectLineage:
    """The lineage of all datasets of these projects, with what they are linked to elsewhere.

    Only what changed since the last time is downloaded; with `refresh`, everything. InputError if there is no such
    project.
    """
    return lineage_of_copies([project_copy(session, one, refresh=refresh) for one in dict.fromkeys(projects)])


def lineage_of_copies(copies: Sequence[ProjectCopy]) -> ProjectLineage:
    """The lineage that local copies show."""
    records = {mfid: record for copy in copies for mfid, record in copy.records.items()}
    graph = LineageGraph.from_records(records.values())
    return ProjectLineage(graph, len(records), sum(copy.downloaded for copy in copies))


def with_named_parents(session: Session, graph: LineageGraph) -> LineageGraph:
    """The graph, and in it all that its records say was used: hidden where this key cannot see it, or it is gone."""
    named = {mfid for node in graph.nodes.values() for mfid in used_mfids(node.record)}
    unknown = sorted(named - graph.nodes.keys())
    if not unknown:
        return graph
    records = _asked(session, unknown)
    nodes = [*graph.nodes.values(), *(Node(mfid, "dataset" if mfid in records else "hidden") for mfid in unknown)]
    return LineageGraph(nodes, graph.edges.values()).with_records(records)


def with_whole_records(session: Session, graph: LineageGraph) -> LineageGraph:
    """The graph with long provenance records made whole, from the files attached to them.

    ChecksumError where such a file is not what it was.
    """
    whole: dict[str, Record] = {}
    for node in graph.nodes.values():
        written = provenance(node.record)
        if node.record and "attached" in written and "recipe" not in written:
            metadata = node.record["scientific_metadata"]
            record = whole_record(session.client, node.id, written)
            whole[node.id] = {**node.record, "scientific_metadata": {**metadata, PROVENANCE_KEY: record}}
    return graph.with_records(whole) if whole else graph


def _records(session: Session, wanted: set[str], projects: Iterable[str]) -> dict[str, Record]:
    """Records by id: single ones for a few datasets, whole projects for many."""
    found: dict[str, Record] = {}
    if len(wanted) > FEW:
        for project in projects:
            copy = project_copy(session, project)
            found |= {mfid: copy.records[mfid] for mfid in wanted & copy.records.keys()}
    return found | _asked(session, sorted(wanted - found.keys()))


def _asked(session: Session, mfids: Sequence[str]) -> dict[str, Record]:
    """Those of the datasets that this key may see, one call each, several at a time."""

    def ask(mfid: str) -> Record | None:
        try:
            return session.client.datasets.get(mfid, include_metadata=True).model_dump()
        except (ForbiddenError, NotFoundError):
            return None

    if len(mfids) < 2:
        answers = list(map(ask, mfids))
    else:
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="fetch") as pool:
            answers = list(pool.map(ask, mfids))
    return {mfid: record for mfid, record in zip(mfids, answers, strict=True) if record is not None}


def _picture(session: Session, mfid: str) -> str | None:
    """A dataset's first thumbnail as a data URI, None if it has none."""
    for picture in session.client.datasets.get_thumbnails(mfid):
        return f"data:{picture.mime_type or 'image/png'};base64,{picture.thumbnail_b64str}"
    return None
