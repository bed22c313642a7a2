"""Fetch lineages from Crucible: of a dataset or of whole projects, with the record of each dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from crucible_lineage.client.client import CrucibleClient
from crucible_lineage.core.datasets import ONE_BY_ONE, fetch_datasets
from crucible_lineage.core.tables import Snapshot
from crucible_lineage.errors import NotFoundError, RefusedError
from crucible_lineage.ids import require_mfid
from crucible_lineage.json_types import JsonMapping, mapping, text
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import is_withdrawn, provenance, used_mfids
from crucible_lineage.marks import KEY
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import whole_record
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import (
    Standing,
    may_be_replaced,
    standings,
    standings_of_records,
    visible_copies,
)

Record = Mapping[str, object]


def fetch_lineage(session: Session, *mfids: str, most: int = 1, thumbnails: bool = False) -> LineageGraph:
    """Return the connected lineages of datasets or samples as one graph; of unconnected ones the first `most`.

    It has records and, with `thumbnails`, pictures. Raises InputError if there is no such resource.
    """
    linked, alone = LineageGraph(()), LineageGraph(())
    for mfid in mfids:
        require_mfid(mfid)
        if mfid in linked or mfid in alone:
            continue
        if not most:
            break
        most -= 1
        try:
            linked = _joint(linked, LineageGraph.from_api(session.client.graphs.get(mfid, recursive=True)))
        except NotFoundError:
            from crucible_lineage.ask.view import existing  # rarely needed

            found = existing(session, mfid)
            if not is_withdrawn(found.model_dump()):  # only of what is to be deleted there is none
                needed = "lineages need one; `crucible-lineage doctor` tests what else this Crucible lacks"
                raise RefusedError(f"dataset {mfid} exists, but Crucible has no graph of it\n{needed}") from None
            alone = _joint(alone, with_states(session, LineageGraph.from_records([found.model_dump()])))
    datasets = [node for node in linked.nodes.values() if node.kind == "dataset"]
    if not datasets:
        return _joint(linked, alone)
    records, copies = _records(session, {node.id for node in datasets}, {node.project for node in datasets})
    if thumbnails:
        for mfid, record in records.items():
            pictures = (
                f"data:{picture.mime_type or 'image/png'};base64,{picture.thumbnail_b64str}"
                for picture in session.client.datasets.get_thumbnails(mfid)
            )
            records[mfid] = {**record, "thumbnail": next(pictures, None)}
    return _joint(with_states(session, linked.with_records(records), copies), alone)


def _joint(first: LineageGraph, second: LineageGraph) -> LineageGraph:
    nodes, edges = {**first.nodes, **second.nodes}, {**first.edges, **second.edges}
    return LineageGraph(nodes.values(), edges.values())


def fetch_projects(session: Session, projects: Iterable[str]) -> LineageGraph:
    """Return the lineage of all datasets of these projects, with what they are linked to elsewhere.

    Only changes since the last time are downloaded. Raises InputError if there is no such project.
    """
    copies = {project: session.mirror.snapshot(project) for project in projects}
    records = (record for copy in copies.values() for record in copy.records.values())
    found: dict[str, Standing] = {}
    for project, copy in copies.items():
        found |= standings(session, project, copy=copy)
    return _standing(LineageGraph.from_records(records), found)


def with_named_parents(session: Session, graph: LineageGraph) -> LineageGraph:
    """Add to the graph all datasets that its records name as used: hidden if deleted or not visible to this key.

    Linked ones of other projects, and those to be deleted, get their records, too.
    """
    named = {mfid for node in graph.nodes.values() for mfid in used_mfids(node.record)} - graph.nodes.keys()
    unread = {mfid for mfid, node in graph.nodes.items() if node.kind == "dataset" and node.record is None}
    if not named and not unread:
        return graph
    records = fetch_datasets(session.client, sorted(named | unread)).found
    nodes = [*graph.nodes.values(), *(Node(mfid, "dataset" if mfid in records else "hidden") for mfid in sorted(named))]
    return _standing(
        LineageGraph(nodes, graph.edges.values()).with_records(records), standings_of_records(session, records, {})
    )


def with_whole_records(session: Session, graph: LineageGraph) -> LineageGraph:
    """Complete the graph's long provenance records from the files attached to them.

    Raises ChecksumError if such a file has changed.
    """
    long = {mfid: node.record for mfid, node in graph.nodes.items() if "attached" in provenance(node.record)}
    completed = {mfid: whole_record_of(session.client, mfid, record or {}) for mfid, record in long.items()}
    return graph.with_records(completed) if completed else graph


def whole_record_of(client: CrucibleClient, mfid: str, record: JsonMapping) -> JsonMapping:
    """Return a dataset's record, with a long provenance record completed from the file attached to it.

    Raises ChecksumError if this file has changed.
    """
    metadata = mapping(record.get("scientific_metadata"))
    partial = read_record(metadata) if "attached" in provenance(record) else None
    if partial is None or partial.is_whole:
        return record
    complete = whole_record(client, mfid, partial).document()
    return {**record, "scientific_metadata": {**metadata, KEY: complete}}


def _records(
    session: Session, requested: set[str], projects: Iterable[str]
) -> tuple[dict[str, Record], list[Snapshot]]:
    """Return records by id, and the copies of projects that were read: for a few datasets none, unless needed.

    A dataset's successor need not be linked to it. If there may be one, the projects are read.
    """
    found = dict(fetch_datasets(session.client, requested).found) if len(requested) <= ONE_BY_ONE else {}
    if found and not any(map(may_be_replaced, found.values())):
        return found, []
    of_records = {text(record.get("project_id")) for record in found.values()}
    copies = visible_copies(session, sorted({*projects, *of_records} - {""}))
    for copy in copies:
        found |= {mfid: copy.records[mfid] for mfid in (requested & copy.records.keys()) - found.keys()}
    return found | fetch_datasets(session.client, requested - found.keys()).found, copies


def with_states(session: Session, graph: LineageGraph, copies: Sequence[Snapshot] | None = None) -> LineageGraph:
    """Add to each dataset with a record where it stands, and why. `copies` are those of its projects, if read."""
    session.mirror.sync_statements()
    records = {mfid: node.record for mfid, node in graph.nodes.items() if node.record and node.kind == "dataset"}
    linked = {mfid: graph.parents(mfid) for mfid in records}
    return _standing(graph, standings_of_records(session, records, linked, copies))


def _standing(graph: LineageGraph, found: Mapping[str, Standing]) -> LineageGraph:
    return graph.with_fields(
        {
            mfid: {name: getattr(standing, name) for name in ("state", "superseded_by", "doubt")}
            for mfid, standing in found.items()
        }
    )


def named_projects(projects: Sequence[str]) -> str:
    """Return the projects as a sentence names them."""
    return f"project {projects[0]}" if len(projects) == 1 else f"projects {', '.join(projects)}"
