"""The data of a crate: datasets with their files, samples, people, licences and links, as entities of RO-Crate."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from crucible_lineage.lineage.export.activities import (
    ExportedAgent,
    ExportedLineage,
    StoredFile,
    instant,
    is_orcid,
)
from crucible_lineage.lineage.export.crate_parts import (
    PREVIEW,
    CrateHeader,
    TextFile,
    media_type,
    utf8,
)
from crucible_lineage.lineage.export.crate_profiles import BASES
from crucible_lineage.lineage.model import DERIVED, MEASURED, Node
from crucible_lineage.lineage.records import moment
from crucible_lineage.lineage.rights import Creator, Rights, license_iri
from crucible_lineage.statements import Statement

__all__ = ["DataEntities", "Entity", "Reference", "reference"]

Entity = dict[str, Any]
Reference = dict[str, str]


class DataEntities:
    """The entities by their ids, and the properties of the root data entity."""

    def __init__(self, lineage: ExportedLineage, header: CrateHeader) -> None:
        self.lineage, self.header = lineage, header
        self.basis = BASES[header.profile]
        self.rights = Rights(header.license).or_else(lineage.rights.get(header.about, Rights()))
        self.entities: dict[str, Entity] = {}
        self.root: Entity = {}
        self.steps = [activity for activity in lineage.activities if not activity.by_hand]

    def describe_data(self) -> None:
        """All datasets, samples, people and links are told; executions of steps are not."""
        self._add_header()
        for node in self.lineage.nodes.values():
            self._add_node(node)
        self._add_edges()
        self._add_notes()

    def add(self, entity: Entity) -> Reference:
        """The reference to the entity, which is in the crate from now on."""
        self.entities[entity["@id"]] = entity
        return reference(entity["@id"])

    def add_text(self, file: TextFile) -> None:
        """The file is described as a part of the crate."""
        is_preview = file.path == PREVIEW  # which RO-Crate does not count among the data
        entity: Entity = {"@id": quote(file.path), "@type": "CreativeWork" if is_preview else "File", "name": file.name}
        entity["encodingFormat"] = media_type(file.path)
        entity["contentSize"] = str(len(utf8(file.text))) if file.text else ""
        if file.path in ("README.md", PREVIEW):
            entity["about"] = reference("./")
        described = self.add(entity)
        self.root["hasPart"] += [] if is_preview else [described]

    def agent(self, agent: ExportedAgent) -> Reference:
        """The person or service account."""
        if agent.is_service:
            service: Entity = {"@id": f"#agent-{quote(agent.id, safe='')}", "@type": "Organization", "name": agent.name}
            return self.add({**service, "url": self.header.crucible_url, "description": "a service account"})
        me = (
            f"https://orcid.org/{agent.id}"
            if is_orcid(agent.id)
            else f"#agent-{quote(agent.id or agent.name, safe='')}"
        )
        return self.add({"@id": me, "@type": "Person", "name": agent.name, "affiliation": reference("#crucible")})

    def creator(self, creator: Creator) -> Reference:
        """Add somebody who is said to have made data."""
        me = f"https://orcid.org/{creator.orcid}" if creator.orcid else f"#creator-{quote(creator.name, safe='')}"
        return self.add({"@id": me, "@type": "Person", "name": creator.name})

    def license(self, stated: str) -> Reference:
        """Add a licence; without one, that none is stated."""
        if not stated:
            known = sorted({one.license for one in self.lineage.rights.values() if one.license})
            some = f"Some of the datasets have one of their own: {', '.join(known)}. " if known else ""
            ask = f"{some}No licence was stated for all of this when it was exported; ask the people named here."
            return self.add({"@id": "#license", "@type": "CreativeWork", "name": "not stated", "description": ask})
        iri = license_iri(stated) or f"#license-{quote(stated, safe='')}"
        return self.add({"@id": iri, "@type": "CreativeWork", "name": stated, "description": "the licence as stated"})

    def dataset_id(self, mfid: str) -> str:
        """The id of a dataset: the folder of its files where they are in the crate."""
        paths = [file.path for file in self.lineage.files.get(mfid, ()) if file.path]
        return f"{quote('/'.join(paths[0].split('/')[:2]))}/" if paths else f"#{mfid}"

    def any_ref(self, mfid: str) -> Reference:
        """The reference to a dataset, a sample or what is hidden."""
        return reference(f"#{mfid}" if self.lineage.nodes[mfid].kind == "sample" else self.dataset_id(mfid))

    def _add_header(self) -> None:
        header = self.header
        crucible = {"@id": "#crucible", "@type": "Organization", "name": header.crucible_name}
        where = "The Crucible that the records were read from; agents have their accounts there."
        publisher = self.add({**crucible, "url": header.crucible_url, "description": where})
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
        people = [self.creator(one) for one in self.rights.creators] or [self.agent(agent) for agent in agents]
        self.root["author"] = people or [publisher]

    def _add_node(self, node: Node) -> None:
        if node.kind == "sample":
            self.add({"@id": f"#{node.id}", "@type": "Thing", "name": node.name, "description": node.data_type})
            return
        entity: Entity = {"@id": self.dataset_id(node.id), "@type": "Dataset", "name": node.name}
        if node.kind != "hidden":
            record = node.record or {}
            entity["identifier"] = node.id
            entity["description"] = ", ".join(filter(None, (node.measurement, node.data_type, node.shown_state)))
            if node.doubt:
                entity["creativeWorkStatus"] = "doubtful"
                entity.setdefault("subjectOf", []).append(self._add_statement(node.doubt.statement))
            self._add_rights(entity, self.lineage.rights.get(node.id, Rights()))
            known = moment(record)
            entity["dateCreated"] = instant(known.isoformat() if known else str(record.get("creation_time") or ""))
            entity["hasPart"] = [
                self._add_file(node.id, n, f) for n, f in enumerate(self.lineage.files.get(node.id, ()), 1)
            ]
        self.root["hasPart"].append(self.add(entity))

    def _add_rights(self, entity: Entity, rights: Rights) -> None:
        entity["license"] = self.license(rights.license) if rights.license else ""
        entity["author"] = [self.creator(one) for one in rights.creators]
        entity["copyrightNotice"] = rights.holder

    def _add_statement(self, one: Statement) -> Reference:
        """Add a statement as a text about datasets."""
        told = {"name": f"{one.verb}: {one.why}", "text": f"{one.about} is on hold {one.said}", "identifier": one.mfid}
        return self.add({"@id": f"#{one.mfid}", "@type": "CreativeWork", "dateCreated": instant(one.when), **told})

    def _add_file(self, mfid: str, number: int, file: StoredFile) -> Reference:
        stated = self.lineage.rights.get(mfid, Rights()).license
        return self.add(
            {
                "@id": quote(file.path) or f"#{mfid}-file-{number}",
                "@type": "File",
                "name": file.name,
                "localPath": "" if file.path or not self.basis.says_where else f"data/{mfid}/{file.name}",
                "contentSize": str(file.size) if file.size is not None else "",
                "sha256": file.sha256,
                "encodingFormat": media_type(file.name),
                "license": self.license(stated) if stated else "",
            }
        )

    def _add_edges(self) -> None:
        """Add the samples of measurements, and the links that no action explains."""
        described = {(use.mfid, made.mfid) for one in self.steps for use in one.used for made in one.made}
        for edge in self.lineage.edges:
            child = self.entities.get(self.dataset_id(edge.target)) or self.entities[f"#{edge.target}"]
            parent = self.any_ref(edge.source)
            if edge.relationship == MEASURED:
                child.setdefault("about", []).append(parent)
            elif edge.relationship != DERIVED:
                child.setdefault("isPartOf" if edge.relationship else "isRelatedTo", []).append(parent)
            elif (edge.source, edge.target) not in described:
                child.setdefault("isBasedOn", []).append(parent)

    def _add_notes(self) -> None:
        """Add the maker and the note of what was made by hand, which is not the execution of anything."""
        for activity in self.lineage.activities:
            for made in activity.made if activity.by_hand else ():
                entity = self.entities[self.dataset_id(made.mfid)]
                if activity.agent and not entity.get("author"):
                    entity["author"] = self.agent(activity.agent)
                entity["description"] = "; ".join(filter(None, (entity["description"], "made by hand", activity.note)))


def reference(identifier: str) -> Reference:
    """Refer to an entity from the properties of another."""
    return {"@id": identifier}
