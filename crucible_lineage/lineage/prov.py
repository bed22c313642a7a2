"""A lineage in the terms of W3C PROV, of which all exports are made, and as PROV-JSON by the library `prov`.

Datasets, samples, files and code are entities; executions are activities, with what they used and made; accounts are
agents. Resources hidden from the reader are named `hidden-N`, and those outside the graph are omitted, so that exports
leak nothing. A record of a visible dataset names its parents, with their files and hashes: if one of these is hidden,
the record loses its recipe (so its id cannot be derived again), and used datasets have their names in the graph.

In PROV, a link of Crucible is `wasDerivedFrom` (with the activity if known), `hadMember` for `is_part_of`, and
`wasInfluencedBy` if Crucible stores no relationship, or another one. A result that replaces another is a
`prov:Revision` of it, if both are included; a superseded one `wasInvalidatedBy` an unnamed activity.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.errors import require_library
from crucible_lineage.ids import EMBEDDED_USER, canonical_json, is_mfid, is_orcid
from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, text
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import HIDDEN_NAME, plain_lines
from crucible_lineage.lineage.model import SUPERSEDED, Edge, Node
from crucible_lineage.lineage.records import Rights, mappings, provenance, recorded_files, rights_of, used_mfids
from crucible_lineage.lineage.text import public_ids, redactor, shown_edges
from crucible_lineage.marks import KEY, SLOTS_KEY
from crucible_lineage.refs import DERIVED, FIELDS, MEASURED, PART
from crucible_lineage.statements.calibrations import certified_text
from crucible_lineage.statements.statements import Doubt
from crucible_lineage.text.times import utc

if TYPE_CHECKING:
    from prov.model import ProvDocument

Record = Mapping[str, object]
_ACTIVITIES = uuid.UUID("9d0a8a37-6a0e-5d5c-9f0f-3d8d4f1f7b60")  # our own namespace, for reproducible ids


@dataclass(frozen=True)
class StoredFile:
    """A file of a dataset. `path` is the path of its bytes in an export that includes them, with `/`, else empty.

    `why_absent` says why an export that includes bytes lacks them.
    """

    name: str
    sha256: str = ""
    size: int | None = None
    path: str = ""
    why_absent: str = ""


@dataclass(frozen=True)
class Use:
    """A dataset and the role in which an activity used it; for a calibration, the certificate that chose it."""

    role: str
    mfid: str
    certificate: Record | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ExportedAgent:
    """The agent of an activity: an account at Crucible. `id` is an ORCID or an MFID, or empty if unknown."""

    id: str
    name: str
    is_service: bool = False


@dataclass(frozen=True)
class ExportedActivity:
    """One execution of a step, or manual activity; `made` are datasets by output. Times are UTC (ISO 8601) or empty."""

    id: str
    step: str
    function: str = ""
    code: str = ""
    source: str = ""
    git: Record | None = None
    started: str = ""
    ended: str = ""
    params: Record | None = None
    used: tuple[Use, ...] = ()
    made: tuple[Use, ...] = ()
    agent: ExportedAgent | None = None
    software: Record | None = None
    pipeline: str = ""
    run: str = ""
    by_hand: bool = False
    note: str = ""
    program: Record | None = None


@dataclass(frozen=True)
class ExportedLineage:
    """Nodes and edges under their public names, activities, and the files of each dataset."""

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    activities: tuple[ExportedActivity, ...]
    files: Mapping[str, tuple[StoredFile, ...]]
    rights: Mapping[str, Rights] = field(default_factory=dict)


def exported(
    graph: LineageGraph,
    files: Mapping[str, Sequence[StoredFile]] | None = None,
    projects: Mapping[str, Rights] | None = None,
) -> ExportedLineage:
    """Return a graph's exportable content; `files` overrides those in records, `projects` are rights by project id."""
    graph = shareable(graph)
    names = public_ids(graph)
    nodes = {names[mfid]: replace(node, id=names[mfid], name=node.name or mfid) for mfid, node in graph.nodes.items()}
    nodes |= {names[mfid]: Node(names[mfid], "hidden", HIDDEN_NAME) for mfid in graph.hidden}
    edges = tuple(shown_edges(graph, graph.edges.values()))
    activities: dict[str, ExportedActivity] = {}  # one for each execution, with all its outputs
    for mfid, node in nodes.items():
        if activity := _activity(node, nodes):
            output = Use(text(provenance(node.record).get("output")) or "out", mfid)
            previous = activities.setdefault(activity.id, activity)
            activities[activity.id] = replace(previous, made=(*previous.made, output))
    recorded = {mfid: [StoredFile(*file) for file in recorded_files(node.record)] for mfid, node in nodes.items()}
    nonempty_files = {mfid: tuple(own) for mfid, own in {**recorded, **(files or {})}.items() if own and mfid in nodes}
    rights = {mfid: rights_of(node.record, projects or {}) for mfid, node in nodes.items() if node.kind == "dataset"}
    return ExportedLineage(nodes, edges, tuple(activities.values()), nonempty_files, rights)


def instant(moment: str, timespec: str = "auto") -> str:
    """Return an ISO 8601 time in UTC, empty for invalid ones; a time without a zone counts as UTC."""
    try:
        return utc(moment).astimezone(UTC).isoformat(timespec=timespec)
    except ValueError:
        return ""


def _activity(node: Node, nodes: Container[str]) -> ExportedActivity | None:
    record = provenance(node.record)
    activity_record = mapping(record.get("activity"))
    if not activity_record:
        return None
    code, run = mapping(activity_record.get("code")), mapping(activity_record.get("run"))
    used = tuple(
        Use(text(entry.get("role")), mfid, mapping(mapping(entry.get("chosen")).get("certificate")) or None)
        for entry in mappings(record.get("used"))
        if (mfid := text(entry.get("mfid"))) in nodes
    )
    activity = ExportedActivity(
        id="",
        step=text(activity_record.get("step")) or text(activity_record.get("kind")),
        function=text(activity_record.get("function")),
        code=text(code.get("fingerprint")),
        source=text(code.get("source")),
        git=mapping(code.get("git")) or None,
        started=instant(text(activity_record.get("started"))),
        ended=instant(text(activity_record.get("ended"))),
        params=mapping(mapping(record.get("recipe") or record).get("params")),
        used=used,
        agent=_agent(mapping(record.get("agent"))),
        software=mapping(record.get("software")) or None,
        pipeline=text(mapping(record.get("pipeline")).get("name")),
        run=text(run.get("run_id")),
        by_hand="step" not in activity_record,
        note=text(activity_record.get("note")),
        program=mapping(code.get("program")) or None,
    )
    # All outputs of one execution have the same id; without times, each output has its own.
    identity: list[object] = [activity.function, activity.code, activity.started, activity.ended, activity.run]
    identity += [] if activity.started and activity.ended else [node.id]
    identity += [dict(activity.params or {}), [[use.role, use.mfid] for use in used]]
    spelled = canonical_json(identity).decode("utf-8", "backslashreplace")
    return replace(activity, id=str(uuid.uuid5(_ACTIVITIES, spelled)))


def _agent(record: Record) -> ExportedAgent | None:
    name = text(record.get("username")) or text(record.get("local_user"))
    mfid = text(record.get("unique_id"))
    if text(record.get("username")) == EMBEDDED_USER:  # no particular person
        name, mfid = text(record.get("local_user")) or "somebody", ""
    return ExportedAgent(mfid, name or mfid, record.get("is_service_account") is True) if name or mfid else None


WITHHELD = "recipe and attached record: they name datasets that the maker of this file may not see"


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
    redact = redactor(graph)
    records = {mfid: redact(record) for mfid, record in records.items()}
    fields = {
        mfid: {
            "superseded_by": tuple(other for other in node.superseded_by if other in visible),
            "doubt": node.doubt and _shared_doubt(node.doubt, visible),
        }
        for mfid, node in graph.nodes.items()
        if node.superseded_by or node.doubt
    }
    return graph.with_records(records).with_fields(fields)


def shared_record(node: Node) -> dict[str, object]:
    """Return the fields of a shareable record for others: no access rights, no links, no pictures."""
    record = node.record or {}
    return {key: record[key] for key in ("unique_id", *FIELDS, "scientific_metadata") if record.get(key) is not None}


def _shared_doubt(doubt: Doubt, visible: Set[str]) -> Doubt:
    """Return the doubt about a dataset, without datasets that are not known to be visible."""
    about = replace(doubt.statement.about, datasets=tuple(visible & set(doubt.statement.about.datasets)))
    source = doubt.source if doubt.source in visible else "a dataset that is not shown"
    return Doubt(source, replace(doubt.statement, about=about))


def _sources(written: JsonMapping) -> set[str]:
    """Return the inputs in the recipe of a record: datasets, or origins that represent several."""
    lists = mapping(mapping(written.get("recipe")).get("inputs")).values()
    inputs = (entry for listed in lists for entry in mappings(listed))
    return {text(entry.get("origin")) or text(entry.get("mfid")) for entry in inputs}


def _redacted(node: Node, visible: Set[str], graph: LineageGraph) -> JsonMapping:
    """Return the record without references to datasets that are hidden, or outside the graph and so maybe hidden."""
    record, written = node.record or {}, provenance(node.record)
    if not written:
        return record
    metadata = {key: value for key, value in record["scientific_metadata"].items() if key != SLOTS_KEY}
    shared = {**written}
    if text(shared.get("supersedes")) not in visible and "supersedes" in shared:
        shared["supersedes"] = None
    if not visible >= {*used_mfids(node.record)} or _sources(written) & graph.hidden:
        shared["used"] = [
            entry
            if (mfid := text(entry.get("mfid"))) in visible
            else {"role": text(entry.get("role")), "mfid": mfid if mfid in graph else "not in this export", "files": []}
            for entry in mappings(shared.get("used"))
        ]
        shared = {key: value for key, value in shared.items() if key not in ("recipe", "attached", "equal_parents")}
        shared["params"] = mapping(written.get("recipe") or written).get("params")
        shared["withheld"] = WITHHELD
    return {**record, "scientific_metadata": {**metadata, KEY: shared}}


NAMESPACES = {
    "mfid": "urn:mfid:",
    "activity": "urn:uuid:",
    "file": "urn:crucible-lineage:file:",
    "code": "urn:crucible-lineage:code:",
    "agent": "urn:crucible-lineage:agent:",
    "orcid": "https://orcid.org/",
    "cl": "urn:crucible-lineage:terms:",
}
Attributes = JsonObject
T = TypeVar("T")


def render_prov_json(graph: LineageGraph) -> str:
    """Return the graph as PROV-JSON."""
    return f"{prov_document(exported(graph)).serialize(format='json', indent=1)}\n"


def prov_document(lineage: ExportedLineage) -> ProvDocument:
    """Return a lineage as a document of the library `prov`. Raises InputError if that is not installed."""
    require_library("PROV", "prov", "export")
    from prov.model import ProvDocument

    document = ProvDocument()
    for prefix, uri in NAMESPACES.items():
        document.add_namespace(prefix, uri)
    for node in lineage.nodes.values():
        about: Attributes = {"prov:label": node.name, "prov:type": f"cl:{node.kind.capitalize()}"}
        about |= {"cl:measurement": node.measurement, "cl:dataType": node.data_type}
        about |= {"cl:project": node.project, "cl:state": node.state}
        document.entity(f"mfid:{node.id}", _attributes(document, about))
    for mfid, files in lineage.files.items():
        for number, file in enumerate(files, 1):
            about = {"prov:type": "cl:File", "prov:label": file.name, "cl:sha256": file.sha256, "cl:size": file.size}
            document.entity(f"file:{mfid}-{number}", _attributes(document, about))
            document.hadMember(f"mfid:{mfid}", f"file:{mfid}-{number}")
    _add_activities(document, lineage)
    makers = {made.mfid: activity for activity in lineage.activities for made in activity.made}
    for edge in lineage.edges:
        _add_edge(document, edge, makers.get(edge.target))
    for node in lineage.nodes.values():
        _add_revisions(document, node, lineage.nodes)
    return document


def _add_activities(document: ProvDocument, lineage: ExportedLineage) -> None:
    """Add the activities, with the code that they executed and the agents."""
    sources = {(activity.function, activity.code): activity.source for activity in lineage.activities}
    executions = [activity for activity in lineage.activities if not activity.by_hand]
    plans = _numbered("code:plan", ((activity.function, activity.code) for activity in executions))
    numbers = _numbered("agent:agent", (activity.agent for activity in lineage.activities if activity.agent))
    own_names = {agent: "mfid" if is_mfid(agent.id) else "orcid" if is_orcid(agent.id) else "" for agent in numbers}
    agents = {agent: f"{own}:{agent.id}" if (own := own_names[agent]) else numbers[agent] for agent in numbers}
    for (function, code), name in plans.items():
        source = sources[function, code]
        about = {"prov:type": "prov:Plan", "prov:label": function, "cl:fingerprint": code, "cl:source": source}
        document.entity(name, _attributes(document, about))
    for agent, name in agents.items():
        kind = "prov:SoftwareAgent" if agent.is_service else "prov:Person"
        document.agent(name, _attributes(document, {"prov:type": kind, "prov:label": agent.name}))

    for activity in lineage.activities:
        _add_activity(document, activity)
        if activity.agent:
            plan = plans.get((activity.function, activity.code))
            document.wasAssociatedWith(f"activity:{activity.id}", agents[activity.agent], plan)


def _add_activity(document: ProvDocument, activity: ExportedActivity) -> None:
    """Add an activity, with the datasets that it used and made."""
    activity_id = f"activity:{activity.id}"
    about: Attributes = {
        "prov:label": activity.step,
        "prov:type": "cl:ByHand" if activity.by_hand else "cl:StepExecution",
        "cl:note": activity.note,
        "cl:pipeline": activity.pipeline,
        "cl:run": activity.run,
        **{f"cl:{name}": _json(getattr(activity, name)) for name in ("params", "software", "git")},
    }
    document.activity(activity_id, activity.started or None, activity.ended or None, _attributes(document, about))
    for use in activity.used:
        certificate = use.certificate or {}
        about = {"prov:role": use.role, "cl:certificate": text(certificate.get("statement"))}
        about |= {"cl:certified": certified_text(certificate), "cl:certifiedBy": text(certificate.get("by"))}
        document.used(activity_id, f"mfid:{use.mfid}", other_attributes=_attributes(document, about))
    for made in activity.made:
        role = _attributes(document, {"prov:role": made.role})
        document.wasGeneratedBy(f"mfid:{made.mfid}", activity_id, activity.ended or None, other_attributes=role)


def _add_edge(document: ProvDocument, edge: Edge, maker: ExportedActivity | None) -> None:
    parent, child = f"mfid:{edge.source}", f"mfid:{edge.target}"
    if edge.relationship == DERIVED:
        used = maker is not None and any(use.mfid == edge.source for use in maker.used)
        document.wasDerivedFrom(child, parent, f"activity:{maker.id}" if used and maker else None)
    elif edge.relationship == MEASURED:
        measured = _attributes(document, {"prov:type": "cl:measured-from"})
        document.wasDerivedFrom(child, parent, other_attributes=measured)
    elif edge.relationship == PART:
        document.hadMember(parent, child)
    else:
        attributes = _attributes(document, {"cl:relationship": edge.relationship})
        document.wasInfluencedBy(child, parent, other_attributes=attributes)


def _add_revisions(document: ProvDocument, node: Node, nodes: Mapping[str, Node]) -> None:
    """Add what a result replaces, and that it is superseded or doubtful."""
    before = text(provenance(node.record).get("supersedes"))
    if before in nodes:
        document.wasRevisionOf(f"mfid:{node.id}", f"mfid:{before}")
    if node.state == SUPERSEDED:
        superseded = {"prov:type": "cl:Superseded", "cl:supersededBy": " ".join(node.superseded_by)}
        document.wasInvalidatedBy(f"mfid:{node.id}", other_attributes=_attributes(document, superseded))
    if node.doubt:
        hold = node.doubt.statement
        about = {
            "prov:type": "cl:OnHold" if node.doubt.source == node.id else "cl:Doubtful",
            "cl:because": node.doubt.message(node.id),
            "cl:statement": hold.mfid,
            "cl:statedBy": hold.by,
        }
        document.wasInvalidatedBy(f"mfid:{node.id}", None, hold.when, other_attributes=_attributes(document, about))


def _numbered(prefix: str, keys: Iterable[T]) -> dict[T, str]:
    return {key: f"{prefix}-{number}" for number, key in enumerate(dict.fromkeys(keys), 1)}


def _json(value: Mapping[str, object] | None) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""


def _attributes(document: ProvDocument, values: Attributes) -> Attributes:
    """Return the attributes with values; the type as a qualified name, texts without control characters."""
    given = {key: value for key, value in values.items() if value not in ("", None)}
    attributes = {key: plain_lines(value) if isinstance(value, str) else value for key, value in given.items()}
    if "prov:type" in attributes:
        attributes["prov:type"] = document.valid_qualified_name(attributes["prov:type"])
    return attributes
