"""A lineage as a Process Run Crate, the profile of Workflow Run RO-Crate for executions of steps, by `rocrate`.

Each execution is a CreateAction with the code of its step; datasets are folders with their files. Without their bytes,
datasets and files have ids within the metadata (`#...`), by which RO-Crate distinguishes described from contained data.
A lineage without executed steps is a plain RO-Crate.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote

from crucible_lineage.errors import require_library
from crucible_lineage.ids import is_orcid
from crucible_lineage.json_types import JsonObject, mapping, text
from crucible_lineage.lineage.labels import plain
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.prov import ExportedActivity, ExportedAgent, ExportedLineage, Use, instant
from crucible_lineage.lineage.records import Creator, Rights, license_iri
from crucible_lineage.refs import DERIVED, MEASURED, file_stem
from crucible_lineage.statements.calibrations import certified_text
from crucible_lineage.text.times import measured_at, utc

METADATA, PREVIEW = "ro-crate-metadata.json", "ro-crate-preview.html"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"  # the newest that validators know
ENGINE = "https://w3id.org/crucible-lineage/"
REQUIREMENTS = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
DONE = "http://schema.org/CompletedActionStatus"
TERMS = "https://w3id.org/ro/terms/workflow-run#"
ADDED_TERMS = {  # to the context of RO-Crate 1.1
    **{name: TERMS + name for name in ("resourceUsage", "containerImage", "ContainerImage", "registry")},
    **{name: TERMS + name for name in ("tag", "sha256")},
    "buildInstructions": "https://codemeta.github.io/terms/buildInstructions",
    "copyrightNotice": "http://schema.org/copyrightNotice",
}
_SECOND, _BYTE = "https://qudt.org/vocab/unit/SEC", "https://qudt.org/vocab/unit/BYTE"
_PARAMETER_TYPES = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}

Entity = JsonObject
Reference = dict[str, str]


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
    projects: Mapping[str, Rights] = field(default_factory=dict)
    about: str = ""
    publisher: str = ""


def make_crate(
    lineage: ExportedLineage, header: CrateHeader, extras: Sequence[TextFile] = ()
) -> tuple[JsonObject, list[TextFile]]:
    """Return the metadata document of a lineage, and the files to be written beside it, with `extras`.

    Raises InputError if `rocrate` is not installed.
    """
    require_library("an RO-Crate", "rocrate", "export")
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    entities = _Entities(lineage, header)
    entities.build(extras)
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(ADDED_TERMS)
    for key, value in _compact(entities.root).items():
        crate.root_dataset[key] = value
    for entity in entities.by_id.values():
        crate.add(ContextEntity(crate, entity["@id"], _compact(entity)))
    return crate.metadata.generate(), [*entities.texts, *extras]


class _Entities:
    """The entities of a crate by their ids, and the properties of its root."""

    def __init__(self, lineage: ExportedLineage, header: CrateHeader) -> None:
        self.lineage, self.header = lineage, header
        self.rights = lineage.rights.get(header.about, Rights())
        self.by_id: dict[str, Entity] = {}
        self.root: Entity = {}
        self.texts: list[TextFile] = []
        self._tools: dict[tuple[str, str], Entity] = {}

    def build(self, extras: Sequence[TextFile]) -> None:
        """Add all entities; `texts` are then the files that belong to them."""
        steps = [activity for activity in self.lineage.activities if not activity.by_hand]
        self._add_header()
        for node in self.lineage.nodes.values():
            self._add_node(node)
        self._add_links({(use.mfid, made.mfid) for step in steps for use in step.used for made in step.made})
        for activity in steps:
            self._add_action(activity)
        if steps:
            version = PROFILE.rpartition("/")[2]
            self.root["conformsTo"] = self.add(PROFILE, "CreativeWork", "Process Run Crate", version=version)
        readme = TextFile("README.md", "what this is", readme_text(self.header, self.lineage, extras))
        self.texts.append(readme)
        for file in (readme, *extras):
            self.add_text(file)

    def _add_links(self, explained: Collection[tuple[str, str]]) -> None:
        """Add samples of measurements, links that no execution explains, and what was made by hand."""
        for edge in self.lineage.edges:
            child = self.by_id.get(self.dataset_id(edge.target)) or self.by_id[f"#{edge.target}"]
            parent = self.any_ref(edge.source)
            if edge.relationship == MEASURED:
                child.setdefault("about", []).append(parent)
            elif edge.relationship != DERIVED:
                child.setdefault("isPartOf" if edge.relationship else "isRelatedTo", []).append(parent)
            elif (edge.source, edge.target) not in explained:
                child.setdefault("isBasedOn", []).append(parent)
        for activity in self.lineage.activities:
            for made in activity.made if activity.by_hand else ():
                entity = self.by_id[self.dataset_id(made.mfid)]
                if activity.agent and not entity.get("author"):
                    entity["author"] = self.agent(activity.agent)
                entity["description"] = "; ".join(filter(None, (entity["description"], "made by hand", activity.note)))

    def _add_action(self, activity: ExportedActivity) -> None:
        tool = self._tool(activity)
        action = f"#{activity.id}"
        within = f" in the pipeline {activity.pipeline}" if activity.pipeline else ""
        self.root["mentions"].append(
            self.add(
                action,
                "CreateAction",
                f"execution of {activity.step}",
                description=f"The step {activity.step} was executed{within}",
                instrument=reference(tool["@id"]),
                startTime=instant(activity.started, "milliseconds"),
                endTime=instant(activity.ended, "milliseconds"),
                agent=self.agent(activity.agent) if activity.agent else "",
                actionStatus=DONE,
                object=[self._input(tool, use) for use in activity.used] + self._params(tool, action, activity),
                result=[
                    self._example(tool, "output", made.role, "Dataset", self.dataset_id(made.mfid))
                    for made in activity.made
                ],
                resourceUsage=list(self._usage(action, activity)),
                containerImage=self._container(activity),
            )
        )

    def _tool(self, activity: ExportedActivity) -> Entity:
        """Return the entity of a step's code; its text, if known, is a file of the crate about it."""
        key = (activity.function, activity.code)
        if key not in self._tools:
            number, name = len(self._tools) + 1, file_stem(activity.step)
            tool = f"{ENGINE}code#{quote(f'{activity.code}:{activity.function}', safe='')}"
            if activity.source:
                is_python = ":" in activity.function
                file = TextFile(f"code/{number}-{name}.{'py' if is_python else 'txt'}", activity.step, activity.source)
                self.texts.append(file)
                self.add_text(file)
                kind = "text/x-python" if is_python else "text/plain"
                self.by_id[quote(file.path)] |= {"encodingFormat": kind, "about": reference(tool)}
            requirements = list(self._requirements(activity))
            self._tools[key] = {
                "@id": tool,
                "@type": "SoftwareApplication",
                "name": activity.step,
                "description": activity.function,
                "version": activity.code,
                "url": tool,
                "input": [],
                "output": [],
                "softwareRequirements": requirements,
                "mainEntity": requirements[0] if requirements else "",
                "buildInstructions": self._environment(number, name, activity),
            }
            self.add_entity(self._tools[key])
        return self._tools[key]

    def _requirements(self, activity: ExportedActivity) -> Iterator[Reference]:
        """Yield the software requirements in the recorded versions: Python first, or the program of a command."""
        software, program = mapping(activity.software), mapping(activity.program)
        if program:
            sha256 = text(program.get("sha256"))
            name = text(program.get("path")).rpartition("/")[2]
            yield self._requirement(name, f"sha256:{sha256[:12]}", f"{ENGINE}program#{sha256}")
        if python := text(software.get("python")):
            yield self._requirement("Python", python, "https://www.python.org/")
        for name, version in mapping(software.get("packages")).items():
            yield self._requirement(name, text(version), f"pkg:pypi/{name.lower()}@{text(version)}")

    def _requirement(self, name: str, version: str, url: str) -> Reference:
        entity_id = f"{ENGINE}software#{quote(f'{name}-{version}', safe='')}"
        return self.add(entity_id, "SoftwareApplication", name, version=version, url=url)

    def _environment(self, number: int, name: str, activity: ExportedActivity) -> Reference:
        """Add the recorded versions as a requirements file for `uv` and `pip`."""
        software = mapping(activity.software)
        pins = [f"{package}=={version}" for package, version in mapping(software.get("packages")).items()]
        head = f"# Python {text(software.get('python'))}, {text(software.get('platform'))}"
        content = "\n".join([head, *pins]) + "\n"
        file = TextFile(f"environment/{number}-{name}.txt", f"what {activity.step} ran with", content)
        self.texts.append(file)
        self.add_text(file)
        file_format = self.add(REQUIREMENTS, "CreativeWork", "requirements file of pip")
        self.by_id[quote(file.path)]["conformsTo"] = file_format
        return reference(quote(file.path))

    def _usage(self, action: str, activity: ExportedActivity) -> Iterator[Reference]:
        """Yield the recorded resource usage of an execution."""
        files = [file for made in activity.made for file in self.lineage.files.get(made.mfid, ())]
        usages: dict[str, tuple[object, str]] = {"bytes written": (sum(file.size or 0 for file in files), _BYTE)}
        if activity.started and activity.ended:
            seconds = (utc(activity.ended) - utc(activity.started)).total_seconds()
            usages = {"elapsed time": (round(seconds, 3), _SECOND), **usages}
        for name, (value, unit) in usages.items():
            entity_id = f"{action}/usage/{quote(name, safe='')}"
            about = {"propertyID": f"{ENGINE}usage#{quote(name.replace(' ', '-'))}", "unitCode": unit}
            yield self.add(entity_id, "PropertyValue", name, value=str(value), **about)

    def _container(self, activity: ExportedActivity) -> Reference | str:
        """Add the container image that the step ran in, `registry/name:tag@sha256:...`; empty if none is recorded."""
        image = text(mapping(activity.software).get("container"))
        if not image or image.startswith("unknown: "):  # the environment has the reason
            return ""
        tagged_name, _, digest = image.partition("@")
        registry, _, path = tagged_name.partition("/")
        if not path or not set(registry) & set(".:"):
            registry, path = "docker.io", tagged_name
        name, _, tag = path.partition(":")
        kind = "SIFImage" if tagged_name.endswith(".sif") else "DockerImage"
        about: Entity = {"registry": registry, "tag": tag, "sha256": digest.partition("sha256:")[2]}
        about["additionalType"] = self.add(TERMS + kind, "Thing", kind)
        return self.add(f"#container-{quote(image, safe='')}", "ContainerImage", name, **about)

    def _input(self, tool: Entity, use: Use) -> Reference:
        """Link a used dataset to its parameter, and the certificate by which a calibration was chosen to it."""
        example = self._example(tool, "input", use.role, "Dataset", self.dataset_id(use.mfid))
        if certificate := use.certificate:
            mfid = text(certificate.get("statement"))
            reason = f": {text(certificate.get('why'))}" if certificate.get("why") else ""
            fields = {"identifier": mfid, "dateCreated": instant(text(certificate.get("when")))}
            fields["text"] = f"{certified_text(certificate)} by {text(certificate.get('by'))}{reason}"
            entity_id = f"#{mfid}/{quote(text(certificate.get('from')), safe='')}"
            about = self.add(entity_id, "CreativeWork", f"certificate {mfid}", **fields)
            if about not in self.by_id[example["@id"]].setdefault("subjectOf", []):
                self.by_id[example["@id"]]["subjectOf"].append(about)
        return example

    def _params(self, tool: Entity, action: str, activity: ExportedActivity) -> list[Reference]:
        references = []
        for name, value in (activity.params or {}).items():
            kind = _PARAMETER_TYPES.get(type(value), "Text")
            written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            entity_id = f"{action}/param/{quote(name, safe='')}"
            self.add(entity_id, "PropertyValue", name, value=written)
            references.append(self._example(tool, "input", name, kind, entity_id))
        return references

    def _example(self, tool: Entity, direction: str, name: str, kind: str, example: str) -> Reference:
        """Link a value or dataset and the parameter of the tool for which it was passed, once."""
        parameter = f"{tool['@id']}/{direction}/{quote(name, safe='')}"
        if parameter not in self.by_id:
            about: Entity = {"additionalType": kind, "workExample": []}
            tool[direction].append(self.add(parameter, "FormalParameter", name, **about))
        examples = self.by_id[parameter]["workExample"]
        if reference(example) not in examples:
            examples.append(reference(example))
            self.by_id[example].setdefault("exampleOfWork", []).append(reference(parameter))
        return reference(example)

    def add(self, entity_id: str, kind: str | list[str], name: str, **fields: Any) -> Reference:
        """Add an entity of a kind to the crate and return a reference to it."""
        return self.add_entity({"@id": entity_id, "@type": kind, "name": name, **fields})

    def add_entity(self, entity: Entity) -> Reference:
        """Add an entity to the crate and return a reference to it."""
        self.by_id[entity["@id"]] = entity
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


def _compact(entity: Entity) -> Entity:
    """Remove empty values, and unwrap lists of one value, as RO-Crate requires."""
    filled = {key: value for key, value in entity.items() if value not in ("", None, [])}
    return {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in filled.items()}


def reference(identifier: str) -> Reference:
    """Refer to an entity from the properties of another."""
    return {"@id": identifier}


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
