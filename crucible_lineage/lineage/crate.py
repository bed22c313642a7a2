"""A lineage as a Provenance Run Crate, the fullest profile of Workflow Run RO-Crate, by the library `rocrate`.

The workflow of the crate consists of the executed steps of the lineage, in `workflow.json`, each with its code. Each
execution is a CreateAction; datasets are folders with their files. Without their bytes, datasets and files have ids
within the metadata (`#...`), by which RO-Crate distinguishes described from contained data. A lineage without executed
steps is a plain RO-Crate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from crucible_lineage.errors import require_library
from crucible_lineage.json_types import JsonObject, mapping, text
from crucible_lineage.lineage.crate_data import (
    ADDED_TERMS,
    PROFILES,
    TERMS,
    WORKFLOW_CRATE,
    CrateHeader,
    DataEntities,
    Entity,
    Reference,
    TextFile,
    readme_text,
    reference,
    workflow_text,
)
from crucible_lineage.lineage.prov import ExportedActivity, ExportedLineage, Use, instant
from crucible_lineage.refs import file_stem
from crucible_lineage.statements.calibrations import certified_text
from crucible_lineage.text.times import utc

WORKFLOW = "workflow.json"
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
ENGINE = "https://w3id.org/crucible-lineage/"
REQUIREMENTS = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
DONE = "http://schema.org/CompletedActionStatus"
_SECOND, _BYTE = "https://qudt.org/vocab/unit/SEC", "https://qudt.org/vocab/unit/BYTE"
_PARAMETER_TYPES = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}


def make_crate(
    lineage: ExportedLineage, header: CrateHeader, extras: Sequence[TextFile] = ()
) -> tuple[JsonObject, list[TextFile]]:
    """Return the metadata document of a lineage, and the files to be written beside it, with `extras`.

    Raises InputError if `rocrate` is not installed.
    """
    require_library("an RO-Crate", "rocrate", "export")
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    builder = _Builder(lineage, header)
    builder.build(extras)
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(ADDED_TERMS)
    for key, value in _compact(builder.root).items():
        crate.root_dataset[key] = value
    if builder.steps:
        crate.metadata["conformsTo"] = [reference(crate.metadata.profile), reference(WORKFLOW_CRATE)]
    for entity in builder.entities.values():
        crate.add(ContextEntity(crate, entity["@id"], _compact(entity)))
    return crate.metadata.generate(), [*builder.texts, *extras]


class _Builder(DataEntities):
    """All entities of a crate: the data, the executions of steps, their code, and the workflow."""

    def __init__(self, lineage: ExportedLineage, header: CrateHeader) -> None:
        super().__init__(lineage, header)
        self.texts: list[TextFile] = []
        self._tools: dict[tuple[str, str], Entity] = {}
        self._environments: dict[tuple[str, str], Reference] = {}
        self._parameter_values: dict[str, None] = {}  # values of the workflow's parameters

    def build(self, extras: Sequence[TextFile]) -> None:
        """Add all entities; `texts` are then the files that belong to them."""
        self.describe_data()
        for activity in self.steps:
            self._add_action(activity)
        if self.steps:
            self._add_workflow()
        readme = TextFile("README.md", "what this is", readme_text(self.header, self.lineage, extras))
        self.texts.append(readme)
        for file in (readme, *extras):
            self.add_text(file)

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
        """Return the entity of a step's code: a file of the crate if its text is known."""
        key = (activity.function, activity.code)
        if key not in self._tools:
            number = len(self._tools) + 1
            name = file_stem(activity.step)
            entity: Entity = {
                "@id": f"#tool-{number}",
                "@type": ["SoftwareSourceCode", "SoftwareApplication"],
                "name": activity.step,
                "description": activity.function,
                "version": activity.code,
                "url": f"urn:crucible-lineage:code:{quote(activity.code, safe='')}",
                "input": [],
                "output": [],
            }
            if activity.source:
                ending = "py" if ":" in activity.function else "txt"
                file = TextFile(f"code/{number}-{name}.{ending}", activity.step, activity.source)
                self.texts.append(file)
                entity |= {"@id": quote(file.path), "@type": ["File", "SoftwareSourceCode", "SoftwareApplication"]}
                entity["encodingFormat"] = "text/x-python" if ending == "py" else "text/plain"
                if ending == "py":
                    version = text(mapping(activity.software).get("python"))  # that ran it
                    about = {"url": "https://www.python.org/", "version": version or "3"}
                    language = f"#python-{quote(version, safe='')}"
                    entity["programmingLanguage"] = self.add(language, "ComputerLanguage", "Python", **about)
                self.root["hasPart"].append(reference(entity["@id"]))
            requirements = list(self._requirements(activity))
            entity |= {"softwareRequirements": requirements, "mainEntity": requirements[0] if requirements else ""}
            self.add_entity(entity)
            self._tools[key] = entity
            self._environments[key] = self._environment(number, name, activity)
        return self._tools[key]

    def _requirements(self, activity: ExportedActivity) -> Iterator[Reference]:
        """Yield the software requirements in the recorded versions: Python first, or the program of a command."""
        software = mapping(activity.software)
        program = mapping(activity.program)
        if program:
            version = f"sha256:{text(program.get('sha256'))[:12]}"
            url = f"urn:crucible-lineage:program:{text(program.get('sha256'))}"
            yield self._requirement(text(program.get("path")).rpartition("/")[2], version, url)
        if python := text(software.get("python")):
            yield self._requirement("Python", python, "https://www.python.org/")
        for name, version in mapping(software.get("packages")).items():
            yield self._requirement(name, text(version), f"pkg:pypi/{name.lower()}@{text(version)}")

    def _requirement(self, name: str, version: str, url: str) -> Reference:
        entity_id = f"#software-{quote(name, safe='')}-{quote(version, safe='')}"
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
        self.entities[quote(file.path)]["conformsTo"] = file_format
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
            if about not in self.entities[example["@id"]].setdefault("subjectOf", []):
                self.entities[example["@id"]]["subjectOf"].append(about)
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
        """Link the entity `example` to the parameter of the tool for which it was passed."""
        parameter = self._parameter(tool, direction, name)
        if parameter not in self.entities:
            tool[direction].append(self._add_parameter(parameter, name, kind))
        self._add_example(parameter, example)
        return reference(example)

    def _add_workflow(self) -> None:
        steps, controls = {}, []
        for position, (key, tool) in enumerate(self._tools.items(), 1):
            about = {"position": str(position), "workExample": reference(tool["@id"])}
            about["buildInstructions"] = self._environments[key]
            steps[key] = self.add(f"{WORKFLOW}#step-{position}", "HowToStep", tool["name"], **about)
        inputs = self._add_connections(steps)
        for activity in self.steps:
            about = {"instrument": steps[activity.function, activity.code], "object": reference(f"#{activity.id}")}
            name = f"control of {activity.step}"
            controls.append(self.add(f"#{activity.id}/control", "ControlAction", name, **about))
        written_in = {"url": ENGINE, "version": "1"}
        self.texts.append(TextFile(WORKFLOW, "the workflow that the lineage shows", workflow_text(self.steps)))
        self.root["mainEntity"] = self.add(
            WORKFLOW,
            ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            f"the workflow of {self.header.name}",
            description="The steps that were executed, as their records tell; possibly in more than one run.",
            encodingFormat="application/json",
            programmingLanguage=self.add(
                "#json", "ComputerLanguage", "crucible-lineage workflow, as JSON", **written_in
            ),
            version="1",
            url=ENGINE,
            conformsTo=self.add(BIOSCHEMAS, "CreativeWork", "Bioschemas ComputationalWorkflow"),
            hasPart=[reference(tool["@id"]) for tool in self._tools.values()],
            step=list(steps.values()),
            input=inputs,
            buildInstructions=list(self._environments.values()),
        )
        self.root["hasPart"].append(reference(WORKFLOW))
        self.root["conformsTo"] = [
            self.add(uri, "CreativeWork", name, version=uri.rpartition("/")[2]) for uri, name in PROFILES.items()
        ]
        self._add_run(controls)

    def _add_connections(self, steps: Mapping[tuple[str, str], Reference]) -> list[Reference]:
        """Add the workflow's parameters with their values; connect each to its tools, and outputs to inputs."""
        makers = {made.mfid: (activity, made.role) for activity in self.steps for made in activity.made}
        inputs: dict[str, Reference] = {}
        for activity in self.steps:
            key = activity.function, activity.code
            tool, step = self._tools[key], self.entities[steps[key]["@id"]]
            passed = [(use.role, use.mfid, self.dataset_id(use.mfid)) for use in activity.used]
            params = activity.params or {}
            passed += [(name, "", f"#{activity.id}/param/{quote(name, safe='')}") for name in params]
            for name, mfid, example in passed:
                target = self._parameter(tool, "input", name)
                if mfid in makers:
                    maker, role = makers[mfid]
                    source = self._parameter(self._tools[maker.function, maker.code], "output", role)
                else:
                    source = f"#{WORKFLOW}/input/{quote(str(tool['name']), safe='')}/{quote(name, safe='')}"
                    if source not in inputs:
                        kind = self.entities[target]["additionalType"]
                        inputs[source] = self._add_parameter(source, f"{tool['name']}: {name}", kind)
                    self._add_example(source, example)
                    self._parameter_values[example] = None
                self._connect(step, source, target)
        return list(inputs.values())

    def _add_parameter(self, parameter_id: str, name: str, kind: str) -> Reference:
        return self.add(parameter_id, "FormalParameter", name, additionalType=kind, workExample=[])

    def _add_example(self, parameter: str, example: str) -> None:
        """Link a value or dataset and the parameter for which it was passed, once."""
        examples = self.entities[parameter]["workExample"]
        if reference(example) not in examples:
            examples.append(reference(example))
            self.entities[example].setdefault("exampleOfWork", []).append(reference(parameter))

    def _connect(self, step: Entity, source: str, target: str) -> None:
        connection_id = (
            f"{step['@id']}/connection/{quote(source.lstrip('#'), safe='')}/{quote(target.rpartition('/')[2], safe='')}"
        )
        if connection_id not in self.entities:
            ends = {"sourceParameter": reference(source), "targetParameter": reference(target)}
            name = f"{self.entities[source]['name']} to {self.entities[target]['name']}"
            connection = self.add(connection_id, "ParameterConnection", name, **ends)
            step.setdefault("connection", []).append(connection)

    @staticmethod
    def _parameter(tool: Entity, direction: str, name: str) -> str:
        """Return the id of a parameter of a tool."""
        return f"{'' if tool['@id'].startswith('#') else '#'}{tool['@id']}/{direction}/{quote(name, safe='')}"

    def _add_run(self, controls: list[Reference]) -> None:
        """Add the execution of the whole workflow, and the engine that organized it."""
        made = {made.mfid: None for activity in self.steps for made in activity.made}
        used = {use.mfid: None for activity in self.steps for use in activity.used}
        values = [name for name in self._parameter_values if self.entities[name]["@type"] == "PropertyValue"]
        organization = self.add(
            "#organization-of-the-run",
            "OrganizeAction",
            "organization of the run",
            instrument=self.add(
                ENGINE, "SoftwareApplication", "crucible-lineage", url=ENGINE, version=self.header.version
            ),
            object=[*controls, self._add_configuration()],
            result=self.add(
                "#run",
                "CreateAction",
                f"execution of the workflow of {self.header.name}",
                description="All executions of steps that this lineage shows.",
                instrument=reference(WORKFLOW),
                startTime=min(filter(None, (instant(step.started, "milliseconds") for step in self.steps)), default=""),
                endTime=max(filter(None, (instant(step.ended, "milliseconds") for step in self.steps)), default=""),
                agent=self.root["author"][0],
                actionStatus=DONE,
                object=[*(self.any_ref(mfid) for mfid in used if mfid not in made), *map(reference, values)],
                result=[self.any_ref(mfid) for mfid in made],
                containerImage=next(filter(None, map(self._container, self.steps)), ""),
            ),
        )
        self.root["mentions"] += [reference("#run"), organization]

    def _add_configuration(self) -> Reference:
        """Add the declared options for running the steps that are not part of their recipes."""
        steps = {
            activity.id: {
                "step": activity.step,
                "pipeline": activity.pipeline,
                "run": activity.run,
                **(activity.declared or {}),
            }
            for activity in self.steps
        }
        content = json.dumps({"format": "crucible-lineage/configuration/1", "executions": steps}, indent=1) + "\n"
        file = TextFile("configuration.json", "how the steps were declared to run", content)
        self.texts.append(file)
        self.add_text(file)
        return reference(file.path)


def _compact(entity: Entity) -> Entity:
    """Remove empty values, and unwrap lists of one value, as RO-Crate requires."""
    filled = {key: value for key, value in entity.items() if value not in ("", None, [])}
    return {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in filled.items()}
