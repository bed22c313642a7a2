"""Records for sharing: without anything about datasets that the exporting user may not see.

A record of a visible dataset names its parents, with their files and hashes. If one of these is hidden, the record
loses its recipe (so its id cannot be derived again), and used datasets have their names in the graph.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.formats import redactor
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import DERIVED, Edge, Node
from crucible_lineage.lineage.records import PROVENANCE_KEY, SLOTS_KEY, mapping, mappings, provenance, text, used_mfids
from crucible_lineage.statements.statements import Doubt

WITHHELD = "recipe and attached record: they name datasets that the maker of this file may not see"
_RECORD_FIELDS = (
    *("unique_id", "dataset_name", "measurement", "data_type", "data_format", "session_name", "size", "timestamp"),
    *("creation_time", "modification_time", "public", "project_id", "instrument_name", "instrument_id"),
    *("instrument_mfid", "owner_orcid", "scientific_metadata"),
)


def with_hidden_parents(graph: LineageGraph) -> LineageGraph:
    """Add a link from each hidden node to the datasets whose records list it as used."""
    links = [
        Edge(parent, mfid, DERIVED)
        for mfid, node in graph.nodes.items()
        for parent in used_mfids(node.record)
        if parent in graph.hidden
    ]
    return LineageGraph(graph.nodes.values(), [*graph.edges.values(), *links]) if links else graph


def shareable(graph: LineageGraph) -> LineageGraph:
    """Remove hidden nodes from all records. A superseding result is named if it is in the graph."""
    visible = graph.nodes.keys() - graph.hidden
    records = {mfid: _redacted(node, visible, graph) for mfid, node in graph.nodes.items() if node.record is not None}
    if graph.hidden:
        redact = redactor(graph)
        records = {mfid: redact(record) for mfid, record in records.items()}
    states = {
        mfid: (node.state, tuple(other for other in node.superseded_by if other in visible))
        for mfid, node in graph.nodes.items()
        if node.superseded_by
    }
    doubts = {mfid: _shared_doubt(node.doubt, visible) for mfid, node in graph.nodes.items() if node.doubt}
    return graph.with_records(records).with_states(states).with_doubts(doubts)


def shared_record(node: Node) -> dict[str, object]:
    """Return the fields of a shareable record for others: no access rights, no links, no pictures."""
    record = node.record or {}
    return {key: record[key] for key in _RECORD_FIELDS if record.get(key) is not None}


def _shared_doubt(doubt: Doubt, visible: Set[str]) -> Doubt:
    """Return the doubt about a dataset, without datasets that are not known to be visible."""
    about = replace(doubt.statement.about, datasets=tuple(visible & set(doubt.statement.about.datasets)))
    source = doubt.source if doubt.source in visible else "a dataset that is not shown"
    return Doubt(source, replace(doubt.statement, about=about))


def _redacted(node: Node, visible: Set[str], graph: LineageGraph) -> JsonMapping:
    """Return the record without references to datasets that are hidden, or outside the graph and so maybe hidden."""
    record, written = node.record or {}, provenance(node.record)
    if not written:
        return record
    metadata = {key: value for key, value in record["scientific_metadata"].items() if key != SLOTS_KEY}
    shared = {**written}
    if text(shared.get("supersedes")) not in visible and "supersedes" in shared:
        shared["supersedes"] = None
    entries = list(mappings(shared.get("used")))
    used = {text(entry.get("mfid")) for entry in entries} | {*mapping(written.get("equal_parents"))}
    if not used <= visible or any(source in graph and source not in visible for source in _recipe_sources(written)):
        shared["used"] = [_use(entry, visible, graph) for entry in entries]
        shared = {key: value for key, value in shared.items() if key not in ("recipe", "attached", "equal_parents")}
        shared["params"] = mapping(written.get("recipe") or written).get("params")
        shared["withheld"] = WITHHELD
    return {**record, "scientific_metadata": {**metadata, PROVENANCE_KEY: shared}}


def _use(entry: JsonMapping, visible: Set[str], graph: LineageGraph) -> JsonMapping:
    mfid = text(entry.get("mfid"))
    if mfid in visible:
        return entry
    return {"role": text(entry.get("role")), "mfid": mfid if mfid in graph else "not in this export", "files": []}


def _recipe_sources(written: JsonMapping) -> set[str]:
    """Return the ids of inputs in a recipe: datasets, or origins that represent several."""
    lists = mapping(mapping(written.get("recipe")).get("inputs")).values()
    return {text(entry.get("origin")) or text(entry.get("mfid")) for entries in lists for entry in mappings(entries)}
