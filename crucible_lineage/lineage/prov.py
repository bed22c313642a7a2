"""A lineage as W3C PROV, written as PROV-JSON by the library `prov`.

Datasets, samples, files and code are entities, executions are activities, accounts are agents. A link of Crucible is
`wasDerivedFrom` (with the activity if known), `hadMember` for `is_part_of`, and `wasInfluencedBy` if Crucible stores
no relationship, or another one. A result that replaces another is a `prov:Revision` of it, if both are included; a
superseded one `wasInvalidatedBy` an unnamed activity.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.errors import missing_library
from crucible_lineage.ids import is_mfid, is_orcid
from crucible_lineage.json_types import JsonObject, text
from crucible_lineage.lineage.activities import ExportedActivity, ExportedLineage, exported
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.lineage.model import SUPERSEDED, Edge, Node
from crucible_lineage.lineage.records import provenance
from crucible_lineage.refs import DERIVED, MEASURED, PART
from crucible_lineage.statements.calibrations import certified_text

if TYPE_CHECKING:
    from prov.model import ProvDocument

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
    try:
        from prov.model import ProvDocument  # an optional library
    except ImportError as error:
        raise missing_library("PROV", "prov", "export") from error
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
