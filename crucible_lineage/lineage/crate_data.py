"""The parts of a crate: header, and datasets, files, samples, people and licences."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote

from crucible_lineage.ids import is_orcid
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import plain
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.prov import (
    ExportedActivity,
    ExportedAgent,
    ExportedLineage,
    Use,
    instant,
)
from crucible_lineage.lineage.records import Creator, Rights, license_iri
from crucible_lineage.refs import DERIVED, MEASURED
from crucible_lineage.text.times import measured_at

TERMS = "https://w3id.org/ro/terms/workflow-run#"
ADDED_TERMS = {  # to the context of RO-Crate 1.1
    **{name: TERMS + name for name in ("resourceUsage", "containerImage", "ContainerImage", "registry")},
    **{name: TERMS + name for name in ("tag", "sha256", "ParameterConnection", "connection")},
    **{name: TERMS + name for name in ("sourceParameter", "targetParameter")},
    "buildInstructions": "https://codemeta.github.io/terms/buildInstructions",
    "copyrightNotice": "http://schema.org/copyrightNotice",
}
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {  # of a crate with step executions; 0.5 is the newest that validators know
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    WORKFLOW_CRATE: "Workflow RO-Crate",
}

Entity = JsonObject
Reference = dict[str, str]


class DataEntities:
    """The entities by their ids, and the properties of the root data entity."""

    def __init__(self, lineage: ExportedLineage, header: CrateHeader) -> None:
        self.lineage, self.header = lineage, header
        self.rights = lineage.rights.get(header.about, Rights())
        self.entities: dict[str, Entity] = {}
        self.root: Entity = {}
        self.steps = [activity for activity in lineage.activities if not activity.by_hand]

    def describe_data(self) -> None:
        """Add all datasets, samples, people and links, but not executions of steps."""
        self._add_header()
        for node in self.lineage.nodes.values():
            self._add_node(node)
        described = {(use.mfid, made.mfid) for step in self.steps for use in step.used for made in step.made}
        for edge in self.lineage.edges:  # samples of measurements, and links that no action explains
            child = self.entities.get(self.dataset_id(edge.target)) or self.entities[f"#{edge.target}"]
            parent = self.any_ref(edge.source)
            if edge.relationship == MEASURED:
                child.setdefault("about", []).append(parent)
            elif edge.relationship != DERIVED:
                child.setdefault("isPartOf" if edge.relationship else "isRelatedTo", []).append(parent)
            elif (edge.source, edge.target) not in described:
                child.setdefault("isBasedOn", []).append(parent)
        for activity in self.lineage.activities:
            for made in activity.made if activity.by_hand else ():
                entity = self.entities[self.dataset_id(made.mfid)]
                if activity.agent and not entity.get("author"):
                    entity["author"] = self.agent(activity.agent)
                entity["description"] = "; ".join(filter(None, (entity["description"], "made by hand", activity.note)))

    def add(self, entity_id: str, kind: str | list[str], name: str, **fields: Any) -> Reference:
        """Add an entity of a kind to the crate and return a reference to it."""
        return self.add_entity({"@id": entity_id, "@type": kind, "name": name, **fields})

    def add_entity(self, entity: Entity) -> Reference:
        """Add an entity to the crate and return a reference to it."""
        self.entities[entity["@id"]] = entity
        return reference(entity["@id"])

    def add_text(self, file: TextFile) -> None:
        """Add a text file as a part of the crate."""
        is_preview = file.path == PREVIEW  # RO-Crate does not count the preview among the data
        entity: Entity = {"@id": quote(file.path), "@type": "CreativeWork" if is_preview else "File", "name": file.name}
        entity["encodingFormat"] = media_type(file.path)
        entity["contentSize"] = str(len(utf8(file.text))) if file.text else ""
        if file.path in ("README.md", PREVIEW):
            entity["about"] = reference("./")
        part = self.add_entity(entity)
        self.root["hasPart"] += [] if is_preview else [part]

    def agent(self, agent: ExportedAgent) -> Reference:
        """Add a person or service account."""
        if agent.is_service:
            about = {"url": self.header.crucible_url, "description": "a service account"}
            return self.add(f"#agent-{quote(agent.id, safe='')}", "Organization", agent.name, **about)
        local_id = f"#agent-{quote(agent.id or agent.name, safe='')}"
        entity_id = f"https://orcid.org/{agent.id}" if is_orcid(agent.id) else local_id
        return self.add(entity_id, "Person", agent.name, affiliation=reference("#crucible"))

    def creator(self, creator: Creator) -> Reference:
        """Add a stated creator of data."""
        local_id = f"#creator-{quote(creator.name, safe='')}"
        return self.add(f"https://orcid.org/{creator.orcid}" if creator.orcid else local_id, "Person", creator.name)

    def license(self, stated: str) -> Reference:
        """Add a licence, or that none is stated."""
        if not stated:
            licences = sorted({rights.license for rights in self.lineage.rights.values() if rights.license})
            partial = f"Some of the datasets have one of their own: {', '.join(licences)}. " if licences else ""
            note = f"{partial}No licence was stated for all of this when it was exported; ask the people named here."
            return self.add("#license", "CreativeWork", "not stated", description=note)
        iri = license_iri(stated) or f"#license-{quote(stated, safe='')}"
        return self.add(iri, "CreativeWork", stated, description="the licence as stated")

    def dataset_id(self, mfid: str) -> str:
        """Return the id of a dataset: the folder of its files if they are in the crate."""
        paths = [file.path for file in self.lineage.files.get(mfid, ()) if file.path]
        return f"{quote('/'.join(paths[0].split('/')[:2]))}/" if paths else f"#{mfid}"

    def any_ref(self, mfid: str) -> Reference:
        """Return the reference to a dataset, a sample or a hidden node."""
        return reference(f"#{mfid}" if self.lineage.nodes[mfid].kind == "sample" else self.dataset_id(mfid))

    def _add_header(self) -> None:
        header = self.header
        note = "The Crucible that the records were read from; agents have their accounts there."
        about = {"url": header.crucible_url, "description": note}
        crucible = self.add("#crucible", "Organization", header.crucible_name, **about)
        url = header.crucible_url
        publisher = self.add("#publisher", "Organization", header.publisher, url=url) if header.publisher else crucible
        self.root = {
            "name": header.name,
            "description": header.description,
            "datePublished": header.published,
            "license": self.license(self.rights.license),
            "copyrightNotice": self.rights.holder,
            "publisher": publisher,
            "hasPart": [],
            "mentions": [],
        }
        agents = dict.fromkeys(activity.agent for activity in self.lineage.activities if activity.agent)
        people = [self.creator(creator) for creator in self.rights.creators] or [self.agent(agent) for agent in agents]
        self.root["author"] = people or [publisher]

    def _add_node(self, node: Node) -> None:
        if node.kind == "sample":
            self.add(f"#{node.id}", "Thing", node.name, description=node.data_type)
            return
        entity: Entity = {"@id": self.dataset_id(node.id), "@type": "Dataset", "name": node.name}
        if node.kind != "hidden":
            record = node.record or {}
            entity["identifier"] = node.id
            entity["description"] = ", ".join(filter(None, (node.measurement, node.data_type, node.state)))
            if node.doubt:
                entity["creativeWorkStatus"] = "doubtful"
                statement = node.doubt.statement
                words = f"{statement.about} is on hold {statement.attribution}"
                about = {"dateCreated": instant(statement.when), "text": words, "identifier": statement.mfid}
                name = f"{statement.verb}: {statement.why}"
                entity["subjectOf"] = [self.add(f"#{statement.mfid}", "CreativeWork", name, **about)]
            rights = self.lineage.rights.get(node.id, Rights())
            licence = self.license(rights.license) if rights.license else ""
            people = [self.creator(creator) for creator in rights.creators]
            entity |= {"license": licence, "author": people, "copyrightNotice": rights.holder}
            taken = measured_at(record)
            entity["dateCreated"] = instant(taken.isoformat() if taken else str(record.get("creation_time") or ""))
            entity["hasPart"] = [
                self.add(
                    quote(file.path) or f"#{node.id}-file-{number}",
                    "File",
                    file.name,
                    description=f"not included: {file.why_absent}" if file.why_absent else "",
                    contentSize=str(file.size) if file.size is not None else "",
                    sha256=file.sha256,
                    encodingFormat=media_type(file.name),
                    license=licence,
                )
                for number, file in enumerate(self.lineage.files.get(node.id, ()), 1)
            ]
        self.root["hasPart"].append(self.add_entity(entity))


def reference(identifier: str) -> Reference:
    """Refer to an entity from the properties of another."""
    return {"@id": identifier}


METADATA, PREVIEW = "ro-crate-metadata.json", "ro-crate-preview.html"


@dataclass(frozen=True)
class TextFile:
    """A file of the crate other than data: its path, name and text."""

    path: str
    name: str
    text: str


@dataclass(frozen=True)
class CrateHeader:
    """Header of a crate; `projects` are rights, `about` is its main dataset.

    `publisher` is the organization of its project; without one, the Crucible is the publisher.
    """

    name: str
    description: str
    published: str
    crucible_name: str
    crucible_url: str
    version: str
    projects: Mapping[str, Rights] = field(default_factory=dict)
    about: str = ""
    publisher: str = ""


def workflow_text(steps: Sequence[ExportedActivity]) -> str:
    """Return the text of the workflow file: the executed steps with their inputs and parameters."""
    makers = {made.mfid: (activity, made.role) for activity in steps for made in activity.made}

    def origin(use: Use) -> str:
        maker = makers.get(use.mfid)
        return f"{maker[0].id}.{maker[1]}" if maker else use.mfid

    executions = [
        {
            "id": activity.id,
            "step": activity.step,
            "function": activity.function,
            "code": activity.code,
            "params": activity.params or {},
            "inputs": [{"role": use.role, "from": origin(use)} for use in activity.used],
            "outputs": [{"role": made.role, "dataset": made.mfid} for made in activity.made],
        }
        for activity in steps
    ]
    workflow = {"format": "crucible-lineage/workflow/1", "executions": executions}
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def readme_text(header: CrateHeader, lineage: ExportedLineage, extras: Sequence[TextFile]) -> str:
    """Return the text of README.md, with markup in names escaped; it names the files that are not included."""
    rights = lineage.rights.get(header.about, Rights())
    listed = [f"- `{file.path}`: {escape(plain(file.name))}" for file in extras if "/" not in file.path]
    about = [f"# {escape(plain(header.name))}", "", escape(plain(header.description)), ""]
    machine = f"`{METADATA}` describes everything here for programs (RO-Crate, https://w3id.org/ro/crate)."
    about += [*(f"- {escape(plain(line))}" for line in rights.lines()), ""] if rights != Rights() else []
    absent = [
        f"- not included: {escape(plain(f'{mfid}: {file.why_absent}'))}"
        for mfid, files in lineage.files.items()
        for file in files
        if file.why_absent
    ]
    return "\n".join([*about, machine, "", *listed, *absent]).rstrip() + "\n"


def utf8(content: str) -> bytes:
    """Encode a text. Lone surrogates, which UTF-8 cannot represent, are escaped as in JSON."""
    return content.encode("utf-8", "backslashreplace")


def media_type(name: str) -> str:
    """Return the media type of a file name by its extension."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
