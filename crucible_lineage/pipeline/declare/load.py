"""Reading a declaration: overrides and variables are resolved, then the whole is checked.

Pydantic's errors become faults: reworded, with location and the nearest allowed word.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from crucible_lineage.errors import Fault, InputError, nearest, nearest_word
from crucible_lineage.ids import PROJECT_ID_RULE, canonical_json, is_project_id
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.pipeline.declare.inputs import INPUT_KINDS, EachInput, FileInput
from crucible_lineage.pipeline.declare.pipeline import UNKNOWN_FUNCTION, PipelineSpec, StepSpec
from crucible_lineage.pipeline.declare.yaml import Document, Location, read_document
from crucible_lineage.refs import NOT_SET

INTERNAL_FIELDS = ("path", "digest", "folder", "references", "only")  # fields that are set by the reader, not declared
_TYPES = ("model_type", "tuple_type", "string_type", "dict_type")
TOP_KEYS = [name for name in (*PipelineSpec.model_fields, "params") if name not in INTERNAL_FIELDS]
_REFERENCE = re.compile(r"\$(\$)?\{([^{}]*)\}")


def from_environment(value: object, allowed: Iterable[str], whose: str) -> Any:
    """Resolve references to the environment in a value. Raises InputError if a variable is not set."""
    faults: list[str] = []
    variables = Variables({}, tuple(allowed), os.environ, lambda _, message: faults.append(message))
    resolved = variables.resolve(value, ())
    if faults:
        raise InputError(f"{whose}: {faults[0]}")
    return resolved


def referenced(text: str) -> list[str]:
    """Return the environment variables that a text refers to."""
    found = (name for dollar, name in _REFERENCE.findall(text) if not dollar)
    return [name.removeprefix("env.") for name in found if name.startswith("env.")]


@dataclass
class Variables:
    """Values of references. `report` is called with the location and message of every fault.

    `allowed` are the variables of `environ` that may be read. `secret_locations` are those with a value from
    `environ`, which must not be shown. `used` are the params that were referred to. With `escaped`, `$${` is kept for
    a later pass.
    """

    params: JsonMapping
    allowed: tuple[str, ...]
    environ: Mapping[str, str]
    report: Callable[[Location, str], None]
    escaped: bool = False
    secret_locations: set[Location] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def resolve(self, value: object, location: Location) -> Any:
        """Return the value with all references resolved; a text that is just one keeps the type of its value."""
        if isinstance(value, dict):
            return {key: self.resolve(part, (*location, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part, (*location, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        match = _REFERENCE.fullmatch(value)
        if match and not match[1]:
            return self._value(match[2], location)
        return _REFERENCE.sub(lambda match: self._text(match, location), value)

    def _text(self, match: re.Match[str], location: Location) -> str:
        if match[1]:
            return match[0] if self.escaped else f"${{{match[2]}}}"
        return str(self._value(match[2], location))

    def _value(self, reference: str, location: Location) -> object:
        kind, _, name = reference.partition(".")
        if kind == "params" and name in self.params:
            self.used.add(name)
            return self.params[name]
        if kind == "env" and name in self.allowed:
            self.secret_locations.add(location)
            if name not in self.environ:
                self.report(location, f"the environment variable {name} is not set")
            return self.environ.get(name, "")
        fault = "stands for nothing; write ${params.NAME} or ${env.NAME}, or $${ for the text itself"
        if kind == "env" and name:
            fault = f"name the variable first, as in `env: [{name}]` at the top"
        elif kind == "params" and name:
            fault = f"`params:` at the top has no {name!r}; {nearest(name, self.params)}"
        is_named = kind in ("env", "params") and bool(name)
        self.report(location, f"${{{reference}}}{':' if is_named else ''} {fault}")
        return ""


@dataclass(frozen=True)
class Declaration:
    """A declaration that was read: the pipeline as far as it is readable (None if not at all), and its faults."""

    spec: PipelineSpec | None
    document: Document
    faults: tuple[Fault, ...]


def load_pipeline(path: Path) -> PipelineSpec:
    """Read the pipeline declared in a file. Raises InputError with every fault: line, column and a suggestion."""
    declared = read_declaration(path)
    if declared.faults or declared.spec is None:
        raise InputError("", declared.faults)
    return declared.spec


def read_declaration(path: Path, overrides: Mapping[str, object] | None = None) -> Declaration:
    """Read a declaration with its faults, and with this run's `overrides`, as `axis.degree`. Raises InputError."""
    return _Loader(path).load(overrides or {})


class _Loader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.document = read_document(path)
        self.faults = list(self.document.faults)
        if not isinstance(self.document.data, dict):
            self._report((), "a pipeline is a mapping with the keys pipeline, project, steps")
            raise InputError("", self.faults)

    def load(self, overrides: JsonMapping) -> Declaration:
        data = self.document.data
        digest = hashlib.sha256(canonical_json(data)).hexdigest()
        self._override(data, overrides)
        variables = self._fill(data)
        unused = [] if overrides else [name for name in variables.params if name not in variables.used]
        for name in unused:  # an override may replace the only reference to a parameter
            hint = f"write ${{params.{name}}} where it belongs, or remove it"
            self._report(("params", name), f"nothing uses {name!r}; {hint}")
        path = self.path.absolute()
        spec, errors = readable_part(data, {"path": path, "digest": digest, "folder": path.parent, "only": ""})
        reported = {(fault.file, fault.line, fault.column) for fault in self.faults}  # the rest only follows from these
        found = faults_of(self.document, errors, variables.secret_locations)
        self.faults += [fault for fault in found if (fault.file, fault.line, fault.column) not in reported]
        return Declaration(spec, self.document, tuple(dict.fromkeys(self.faults)))

    def _report(self, location: Location, message: str) -> None:
        self.faults.append(self.document.fault(location, message))

    def _override(self, data: JsonObject, overrides: JsonMapping) -> None:
        """Replace declared values by those of this run. Raises InputError if nothing has that name."""
        steps, params = mapping_at(data, "steps"), mapping_at(data, "params")
        for name, value in overrides.items():
            step, dot, param = name.partition(".")
            if not dot:
                if name not in params:
                    raise InputError(_no_override(name, [*params, *(f"{known}.PARAMETER" for known in steps)]))
                params[name] = value
                self.document.options["params", name] = f"--set {name}"
                continue
            if step not in steps:
                raise InputError(_no_override(name, [f"{known}.{param}" for known in steps]))
            declared = mapping_at(steps, step)
            matrix = declared.get("matrix")
            if any(
                isinstance(part, dict) and param in part for part in (matrix if isinstance(matrix, list) else [matrix])
            ):
                raise InputError(f"--set {name}: the parameter {param!r} is swept by the matrix of step {step!r}")
            declared["params"] = {**mapping_at(declared, "params"), param: value}
            self.document.options["steps", step, "params", param] = f"--set {name}"

    def _fill(self, data: JsonObject) -> Variables:
        declared = data.get("env") if isinstance(data.get("env"), list) else []
        allowed = tuple(map(str, declared or ()))
        variables = Variables({}, allowed, os.environ, self._report)
        # Leaves variables of the environment as references: such values may be passed on.
        references = Variables({}, allowed, {name: f"${{env.{name}}}" for name in allowed}, lambda *_: None, True)
        params = data.pop("params", None)
        if not isinstance(params, dict | None):
            self._report(("params",), "params is a mapping, as in {degree: 3}")
        params = params if isinstance(params, dict) else {}
        references.params = references.resolve(params, ("params",))
        variables.params = variables.resolve(params, ("params",))
        for part in ("project", "inputs", "schedule", "trigger"):
            if part in data:
                data[part] = variables.resolve(data[part], (part,))
        steps = mapping_at(data, "steps")
        for name, step in steps.items():
            if isinstance(step, dict):
                steps[name] = self._resolved_step(name, step, variables, references)
        return variables

    def _resolved_step(self, name: str, step: JsonObject, variables: Variables, references: Variables) -> JsonObject:
        if "${" in str(step.get("run", "")):
            self._report(("steps", name, "run"), "a command takes parameters as {params.NAME}")
        location = ("steps", name)
        if "references" in step:
            self._report((*location, "references"), "unknown key 'references'")
            step = {key: part for key, part in step.items() if key != "references"}
        filled = {k: v if k == "run" else variables.resolve(v, (*location, k)) for k, v in step.items()}
        if "env" in step:  # resolved only when the command is called, and never stored
            filled["env"] = references.resolve(step["env"], (*location, "env"))
        params = step.get("params")
        if isinstance(params, dict):
            resolved = references.resolve(params, (*location, "params"))
            filled["references"] = {k: resolved[k] for k in params if repr(resolved[k]) != repr(filled["params"][k])}
        return filled


def mapping_at(data: object, key: str) -> JsonObject:
    """Return the mapping under a key; empty for any other value, which validation reports."""
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _no_override(name: str, possible: list[str]) -> str:
    return f"--set {name}: nothing that can be set has this name; {nearest(name, possible)}"


PLACEHOLDERS: JsonObject = {"pipeline": "pipeline", "project": "project", "inputs": {}, "steps": {}}
MOST_ROUNDS = 50  # each removes something, and declarations are less deep


Errors = list[tuple[Location, JsonMapping]]  # of pydantic, with their locations in the declaration


def readable_part(declared: JsonMapping, known: Mapping[str, object]) -> tuple[PipelineSpec | None, Errors]:
    """Return the pipeline without what is faulty, or None if no step is left, and the errors.

    `known` are the values of the fields that are not declared.
    """
    data, errors, removed = dict(declared), Errors(), set[Location]()
    for _ in range(MOST_ROUNDS):
        try:
            return PipelineSpec.model_validate(data, context=dict(known)), errors
        except ValidationError as error:
            found: Errors = [(location_of(dict(item), data), dict(item)) for item in error.errors()]
        data = data if removed else copy.deepcopy(data)
        # Without those that follow from what was removed there or within.
        errors += [item for item in found if not any(part[: len(item[0])] == item[0] for part in removed)]
        if not mapping_at(data, "steps"):
            break
        before = frozenset(removed)
        for location, item in found:
            if not any(location[: len(part)] == part for part in removed - before):
                _remove(data, location, item, removed)
    return None, errors


def _remove(data: JsonObject, location: Location, error: JsonMapping, removed: set[Location]) -> None:
    """Remove what is faulty; a step stays with its inputs, even if it is unknown what it calls."""
    if error["type"] == "missing" and len(location) > 1:
        location = location[:-1]
    declared = _at(data, location)
    is_step = len(location) == 2 and location[0] == "steps" and isinstance(declared, dict) and declared
    if is_step and declared.get("uses") != UNKNOWN_FUNCTION:
        data["steps"][location[1]] = {"uses": UNKNOWN_FUNCTION, "inputs": declared.get("inputs", {})}
        removed |= {(*location, key) for key in declared if key != "inputs"}
        return
    while len(location) > 1 and _at(data, location) is None:
        location = location[:-1]  # removed before, so remove what contained it
    removed.add(location)
    container = _at(data, location[:-1])
    if len(location) <= 1:
        name = str(location[0]) if location else ""
        data.pop(name, None)
        data |= {name: copy.deepcopy(PLACEHOLDERS[name])} if name in PLACEHOLDERS else {}
    elif isinstance(container, dict):
        del container[location[-1]]
    else:
        container[int(location[-1])] = None
        container[:] = [item for item in container if item is not None]


def _at(data: Any, location: Location) -> Any:
    """Return what is at a location; None if nothing is there."""
    for part in location:
        if isinstance(data, dict):
            data = data.get(part)
        else:
            data = data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None
    return data


def project_in(folder: Path) -> str | None:
    """Return the project of the pipeline files in a folder; None if there is none, or several."""
    projects = set()
    for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        with suppress(InputError):  # a file of another program
            spec = read_declaration(file).spec
            projects |= {spec.project} if spec else set()
    return projects.pop() if len(projects) == 1 else None


def project_fault(declared: Declaration) -> Fault | None:
    """Return why the pipeline's project cannot be created; None if it can, or if it is unreadable."""
    project = declared.spec.project if declared.spec and "project" in declared.document.data else None
    if project is None or is_project_id(project):
        return None
    return declared.document.fault(("project",), f"no project can be called {project!r}: {PROJECT_ID_RULE}")


def named_ingestors(spec: PipelineSpec) -> dict[Location, str]:
    """Return the named ingestors by location in the declaration."""
    found: dict[Location, str | None] = {}
    for name, declared in spec.inputs.items():
        if isinstance(declared, FileInput):
            found["inputs", name, "ingestor"] = declared.ingestor
        for number, entry in enumerate(declared.each if isinstance(declared, EachInput) else ()):
            found["inputs", name, "each", number, "ingestor"] = entry.ingestor
    found |= {("steps", name, "output", "ingestor"): step.output.ingestor for name, step in spec.steps.items()}
    return {location: name for location, name in found.items() if name}


def ingestor_faults(declared: Declaration, known: Collection[str]) -> list[Fault]:
    """Return a fault for each named ingestor that Crucible does not have."""
    named = named_ingestors(declared.spec) if declared.spec else {}
    return [
        declared.document.fault(location, f"Crucible has no ingestor {name!r}; {nearest(name, known)}")
        for location, name in named.items()
        if name not in known
    ]


def faults_of(document: Document, errors: Errors, hidden: Collection[Location] = ()) -> Iterator[Fault]:
    """Yield the faults that pydantic found, without repetitions; values at `hidden` locations are not shown."""
    reported: set[tuple[Location, str]] = set()
    for location, error in errors:
        named = location, "type" if error["type"] in _TYPES else error["type"] + error["msg"]
        if named not in reported and not _follows(error, location, errors):
            reported.add(named)
            yield document.fault(*_fault_of(location, error, hidden))


def _follows(error: JsonMapping, location: Location, errors: Errors) -> bool:
    """Return whether an error only follows from another one, or is about a form that a value was not written in."""
    kind = error["type"]
    if kind == "string_type" and isinstance(error["input"], list | tuple):
        # It was also read as a list, whose faults, or those of its items, are reported instead.
        within = ((other, its["type"]) for other, its in errors if other[: len(location)] == location)
        return any(found != (location, kind) for found in within)
    if kind == "too_short":  # its items have faults of their own
        return any(other[: len(location)] == location and its["type"] != kind for other, its in errors)
    if kind == "missing":  # present under a misspelt name, which is reported as unknown
        beside = [
            other[-1] for other, its in errors if its["type"] == "extra_forbidden" and other[:-1] == location[:-1]
        ]
        return any(nearest_word(str(key), [str(location[-1])]) for key in beside)
    return False


def _fault_of(location: Location, error: JsonMapping, hidden: Collection[Location]) -> tuple[Location, str]:
    """Return where an error is to be corrected, and its message."""
    kind, name = error["type"], str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        return location, f"unknown key {name!r}; {_instead_of(name, error['loc'])}"
    if kind == "missing":
        within = f" in {'.'.join(map(str, location[:-1]))}" if location[:-1] else ""
        return location[:-1], f"the key {name!r} is missing{within}"
    message = error["msg"].removeprefix("Value error, ")
    if kind == "input_kind" and isinstance(error["input"], dict):
        wrong = (str(key) for key in error["input"] if key not in INPUT_KINDS)
        near = next(filter(None, (nearest_word(key, INPUT_KINDS) for key in wrong)), None)
        message += f"; did you mean {near!r}?" if near else ""
    if kind.startswith(("datetime_", "date_")):
        message = "that is not a time; write it as in 2024-05-10T12:00:00Z"
    secret = any(location[: len(other)] == other or other[: len(location)] == location for other in hidden)
    shown = "a value from the environment" if secret else repr(error["input"])
    given = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return location, f"{'.'.join(map(str, location))}: {message} (given: {given})"


def _instead_of(name: str, raw: tuple[str | int, ...]) -> str:
    """Return what to write instead of an unknown key at pydantic's location."""
    if name == "from name":
        return "`from name` is written as the value of a field: `metadata: {NAME: \"from name '(PATTERN)'\"}`"
    reason = "Crucible reads it from the files" if name == "data_format" else NOT_SET.get(name)
    return reason or nearest(name, sorted(_allowed_keys(raw)), "possible here")


def location_of(error: JsonMapping, data: object) -> Location:
    """Return pydantic's location in the declaration: without its tags, type names, and items of what is no list."""
    location: Location = ()
    raw: tuple[str | int, ...] = error["loc"]
    for number, part in enumerate(raw):
        is_tag = number == 2 and raw[0] == "inputs" and part in INPUT_KINDS
        if not is_tag and (
            part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int)
        ):
            location, data = (*location, part), _at(data, (part,))
    if error["type"] == "missing":
        return (*location, raw[-1])
    is_shared = raw[2:4] == ("each", "each") and len(location) == 4 and len(raw) > 5  # a key beside the list
    return (*location[:2], raw[5]) if is_shared else location


def _allowed_keys(raw: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are possible at pydantic's location of an unknown one."""
    if len(raw) == 1:
        return TOP_KEYS
    if raw[0] == "inputs":
        model: type[BaseModel] = FileInput if raw[2] == "each" else INPUT_KINDS.get(str(raw[2]), FileInput)
    else:
        model = StepSpec if raw[0] == "steps" else PipelineSpec
    for part in raw[2:-1] if raw[0] == "steps" else raw[3:-1] if raw[0] == "inputs" else raw[:-1]:
        fields = (field for name, field in model.model_fields.items() if part in (name, field.alias))
        model = next((nested for field in fields for nested in _models_in(field.annotation)), model)
    return [field.alias or name for name, field in model.model_fields.items() if name not in INTERNAL_FIELDS]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
