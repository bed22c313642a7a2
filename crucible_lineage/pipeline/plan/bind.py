"""Binding: resolve every name of a declaration, report every fault, and sort steps into an order of execution."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError
from pathlib import Path

from crucible_lineage.core.store import Store
from crucible_lineage.errors import Fault, InputError, nearest, nearest_word
from crucible_lineage.machine.process import collector_paused
from crucible_lineage.pipeline.declare.inputs import (
    FILTERS,
    CalibrationInput,
    DatasetInput,
    EachInput,
    FileInput,
    PipelineInput,
    ResultInput,
    SelectInput,
)
from crucible_lineage.pipeline.declare.load import Declaration, mapping_at, read_declaration
from crucible_lineage.pipeline.declare.pipeline import (
    INHERIT,
    UNKNOWN,
    UNKNOWN_FUNCTION,
    PipelineSpec,
    Source,
    StepSpec,
    filled,
    template_fault,
    template_fields,
)
from crucible_lineage.pipeline.declare.yaml import Location
from crucible_lineage.pipeline.plan.bound import (
    BoundPipeline,
    BoundStep,
    Dimension,
    Dimensions,
    Variant,
    generations,
    is_field,
    unknown_field,
)
from crucible_lineage.pipeline.plan.command import inspect_command
from crucible_lineage.pipeline.plan.fetch import source_fault
from crucible_lineage.pipeline.plan.inspect import ImportFaultError, Inspection, Inspector, find_step, header_function
from crucible_lineage.refs import CORRECTED, DESCRIPTIVE, MATCHED


class _Binder:
    def __init__(self, spec: PipelineSpec, declared: Declaration, store: Store | None) -> None:
        self.spec = spec
        self.document = declared.document
        self.inspector = Inspector(store)
        self.faults: list[Fault] = list(declared.faults)
        self.read_faults = {(fault.file, fault.line, fault.column) for fault in declared.faults}
        self.inputs = mapping_at(self.document.data, "inputs")  # unreadable ones included
        self.steps = mapping_at(self.document.data, "steps")
        self.variants: dict[str, tuple[Variant, ...]] = {}
        self.signatures: dict[str, Inspection] = {}  # of a function with a fault, what is known of it
        self.collected: dict[str, frozenset[str]] = {}  # the roles of each step that take lists

    def bind(self) -> BoundPipeline:
        for name in self.steps:
            if name in self.inputs:
                self._report(("steps", name), f"{name!r} is also the name of an input; rename the step")
        unread = {*self.inputs, *self.steps} - self.spec.inputs.keys() - self.spec.steps.keys()
        for location, message in input_faults(self.spec, self.document.data, unread):
            self._report(location, f"input {location[1]!r}: {message}")
        for location, message in _destination_faults(self.spec, unread):
            self._report(location, message)
        for name, step in self.spec.steps.items():
            self._check_step(name, step)
        self.inspector.keep()
        self._check_outputs()
        self._check_unused()
        order = self._ordered()
        found = Dimensions(
            self.spec, lambda name, role, message: self._report(("steps", name, "inputs", role), message)
        )
        for name in order:
            found.add(name, self.collected[name])
        if self.faults:
            faults = dict.fromkeys(self.faults)  # in the order of the file; those without a position last
            in_file = sorted(faults, key=lambda fault: (fault.line is None, fault.line or 0, fault.column or 0))
            raise InputError("", in_file)
        return BoundPipeline(self.spec, {name: self._bound(name, found.by_step[name]) for name in order})

    def _bound(self, name: str, dimensions: tuple[Dimension, ...]) -> BoundStep:
        step = self.spec.steps[name]
        needs = tuple(dict.fromkeys(source.source for _, source in step.edges if source.source in self.spec.steps))
        declared = {"name": self.spec.pipeline, "hash": self.spec.digest, "step": name}  # as records have it
        positions = {role: self.document.fault(("steps", name, "inputs", role), "") for role in step.inputs}
        locations = {role: f"{fault.file}:{fault.line}:{fault.column}" for role, fault in positions.items()}
        return BoundStep(name, step, self.variants[name], needs, self.collected[name], dimensions, declared, locations)

    def _ordered(self) -> list[str]:
        """Return the steps by generation, as declared within each; none if some form a cycle, which is reported."""
        steps = self.spec.steps
        needs = {
            name: [other.source for _, other in step.edges if other.source in steps and other.source != name]
            for name, step in steps.items()
        }
        try:
            return [name for generation in generations(needs) for name in generation]
        except CycleError as error:
            cycle = error.args[1]
            self._report(("steps", cycle[0]), f"the steps form a cycle: {' -> '.join(cycle)}")
            return []

    def _report(self, location: Location, message: str) -> None:
        fault = self.document.fault(location, message)
        # An unreadable value was reported before; this would be a consequence.
        if len(location) < 3 or (fault.file, fault.line, fault.column) not in self.read_faults:
            self.faults.append(fault)

    def _check_step(self, name: str, step: StepSpec) -> None:
        for role, source in step.edges:
            self._check_source(name, role, source)
        variants = self.variants[name] = self._variants(name, step)
        signature = variants[0].inspection if variants else self._signature(name, step)
        shapes = signature.roles if signature else {}
        collected = self.collected[name] = frozenset(
            role
            for role, source in step.edges
            if not source.is_partner and (source.group_by is not None or shapes.get(role) == "files")
        )
        roles, params = (shapes, signature.params) if signature else (step.inputs, None)
        self._check_template(name, step, roles, params)
        if signature is not None:
            self.signatures[name] = signature
            self._check_roles(name, step, signature, collected)
            self._check_params(name, step)

    def _check_params(self, name: str, step: StepSpec) -> None:
        """Check that fields of parents stand in parameters that can be filled in, and not in swept ones."""
        for param, value in step.params.items():
            if fault := parent_fault(step, value):
                location = ("steps", name, "params", param, "value")
                self._report(location, f"step {name!r}: parameter {param!r}: {fault}")
        for param, value in (swept for combination in step.combinations for swept in combination.items()):
            if any(_fields_in(step, text) for text in _texts(value)):
                message = f"step {name!r}: parameter {param!r}: {NOT_FILLED}, not in a matrix"
                self._report(("steps", name, "matrix", param), message)

    def _variants(self, name: str, step: StepSpec) -> tuple[Variant, ...]:
        """Return the step with each combination of its swept parameters; none if one has a fault, which is reported."""
        variants, sound = [], step.uses != UNKNOWN_FUNCTION
        for swept in step.combinations if sound else ():
            for param in sorted(set(swept) & set(step.params)):
                message = f"parameter {param!r} is in the matrix and in params; remove it from one of them"
                self._report(("steps", name, "matrix", param), message)
                sound = False
            params = {**step.params, **swept}
            try:
                if step.uses is None:
                    inspection = inspect_command(name, step, self._shapes(step), params)
                else:
                    pending = tuple(parent_params(step))
                    inspection = self.inspector.inspect(step.uses, params, step.folder, pending, step.reads)
                variants.append(Variant(label_of(swept), params, inspection))
            except ImportFaultError as error:  # a fault of the Python file, reported once for all its steps
                sound = False
                self.faults += error.faults
            except InputError as error:
                sound = False
                for fault in error.faults:
                    message = fault.message
                    for value in (step.params[param] for param in step.references):
                        message = message.replace(repr(value), "a value from the environment")
                        if isinstance(value, str) and len(value) > 3:  # a validator of the user may quote it
                            message = message.replace(value, "a value from the environment")
                    self._report(("steps", name, *location_in_step(step, fault.location, swept)), message)
        return tuple(variants) if sound else ()

    def _shapes(self, step: StepSpec) -> dict[str, str]:
        """Return the shapes of a command's inputs: a file or a list of files, depending on their sources."""
        return {
            role: "files" if others or first.group_by is not None or self._is_list(first) else "file"
            for role, (first, *others) in step.inputs.items()
        }

    def _signature(self, name: str, step: StepSpec) -> Inspection | None:
        """Return what is known of a step whose parameters or code have a fault; None if that is nothing."""
        if step.uses is None:
            shapes, uses = self._shapes(step), f"command of step {name!r}"
            return Inspection(uses, name, shapes, tuple(shapes), ("out",), step.params, fingerprint="")
        try:
            function = find_step(step.uses, step.folder)
        except InputError:
            return None
        roles = {role.name: role.shape for role in function.inputs}
        required = tuple(role.name for role in function.inputs if role.required)
        params = dict.fromkeys(spec.name for spec in function.parameters)
        return Inspection(step.uses, name, roles, required, function.outputs, params, fingerprint="")

    def _check_template(
        self, name: str, step: StepSpec, roles: Collection[str], params: Collection[str] | None
    ) -> None:
        """Check that the name can be filled in; for an unknown function, as far as possible."""
        output = step.output
        if not output.model_fields_set:
            return
        if output.dataset_name and (fault := template_fault(output.dataset_name, roles, params)):
            self._report(("steps", name, "output", "dataset_name"), f"step {name!r}: {fault}")
        texts: dict[tuple[str, ...], object] = {(field,): getattr(output, field) for field in DESCRIPTIVE}
        texts |= {("metadata", key): value for key, value in output.metadata.items()}
        for key, value in texts.items():
            if isinstance(value, str) and _TEMPLATE.search(value):
                message = f"output {' '.join(key)} is {value!r}, and only dataset_name and params are filled in"
                location = ("steps", name, "output", *key)
                self._report(location, f"step {name!r}: {message}; give the value to the step, and let it return it")

    def _check_source(self, step: str, role: str, source: Source) -> None:
        location = ("steps", step, "inputs", role)
        if source.source not in self.inputs and source.source not in self.steps:
            hint = nearest(source.source, [*self.inputs, *self.steps])
            self._report(location, f"step {step!r}: there is no input or step {source.source!r}; {hint}")
        elif source.source == step:
            self._report(location, f"step {step!r} takes its own result as input {role!r}")
        if not source.is_partner:
            return
        declared = self.spec.inputs.get(source.source)
        if declared is not None and declared.partner:
            conflict = f"{source.source} is already matched with {declared.partner}"
            self._report(location, f"step {step!r}: {conflict}; remove `match` there or `nearest` here")
        if all(other.is_partner for _, other in self.spec.steps[step].edges):
            self._report(location, f"step {step!r} has no input beside its partners in time, for which they are chosen")

    def _check_roles(self, name: str, step: StepSpec, inspection: Inspection, collected: frozenset[str]) -> None:
        declared = mapping_at(mapping_at(self.steps, name), "inputs")
        for role, role_sources in step.inputs.items():
            location = ("steps", name, "inputs", role)
            if role not in inspection.roles:
                hint = nearest(role, inspection.roles, "it has")
                self._report(location, f"step {name!r}: {inspection.uses} has no input {role!r}; {hint}")
            elif inspection.roles[role] == "file" and (
                len(role_sources) > 1
                or self._is_list(role_sources[0])
                or role_sources[0].group_by
                or (role in collected and self._is_each(role_sources[0]))
            ):
                message = f"input {role!r} of {inspection.uses} is one file, but several datasets are given"
                self._report(location, f"step {name!r}: {message}; annotate it list[Path]")
        unknown = [role for role in step.inputs if role not in inspection.roles]
        missing = [role for role in inspection.required if role not in step.inputs and role not in declared]
        for role in missing:
            if not any(nearest_word(other, [role]) for other in unknown):
                self._report(("steps", name), f"step {name!r}: the input {role!r} of {inspection.uses} is missing")
        if not step.inputs and not declared and not missing:
            self._report(("steps", name), f"step {name!r} has no inputs; a derived dataset needs a parent")

    def _check_outputs(self) -> None:
        """Check that sources name outputs that exist, and name one where a step has several."""
        for name, step in self.spec.steps.items():
            for role, source in step.edges:
                signature, output, fault = self.signatures.get(source.source), source.output, ""
                outputs = signature.outputs if signature else (output,)
                if source.source in self.spec.inputs:
                    fault = f"is an input of the pipeline; it has no output {output!r}" if output else ""
                elif output is None and len(outputs) > 1:
                    example = f"{source.source}.{outputs[0]}"
                    fault = f"has the outputs {', '.join(map(str, outputs))}; name one of them, as in {example}"
                elif output is not None and output not in outputs:
                    fault = f"has no output {output!r}; it has: {', '.join(map(str, outputs))}"
                if fault:
                    self._report(("steps", name, "inputs", role), f"step {name!r}: {source.source!r} {fault}")

    def _is_list(self, source: Source) -> bool:
        """Return whether a source is several datasets at once; so are partners on both sides."""
        if source.is_partner:
            return len(source.sides) > 1
        declared = self.spec.inputs.get(source.source)
        if declared is None or self._is_each(source) or isinstance(declared, (FileInput, ResultInput)):
            return False  # the number of results of another pipeline is known only when planning
        return not isinstance(declared, DatasetInput) or len(declared.dataset) != 1

    def _is_each(self, source: Source) -> bool:
        declared = self.spec.inputs.get(source.source)
        return declared is not None and not source.is_partner and bool(declared.each or declared.match)

    def _check_unused(self) -> None:
        """Report inputs that no step uses; a misspelt name counts as a use of the nearest input."""
        used = {source.source for step in self.spec.steps.values() for _, source in step.edges}
        used |= {declared.partner for declared in self.spec.inputs.values() if declared.partner}
        used |= {near for name in used - {*self.inputs, *self.steps} if (near := nearest_word(name, self.inputs))}
        if used.issuperset(self.inputs):
            return
        for step in self.steps.values():  # unreadable steps and inputs of steps use names too
            used |= set(names_in(step)) if isinstance(step, dict) else set()
        for name in self.inputs:
            if name not in used:
                self._report(("inputs", name), f"input {name!r} is not used by any step")


Faults = Iterator[tuple[Location, str]]


def input_faults(spec: PipelineSpec, raw: dict[str, object], unread: Collection[str]) -> Faults:
    """Yield the faults of inputs with their locations. `raw` is the declaration as read, invalid parts included.

    `unread` are the names of what is declared and unreadable.
    """
    raw_inputs = raw.get("inputs")
    for name, declared in spec.inputs.items():
        entries = declared.each if isinstance(declared, EachInput) else (declared,)
        item = raw_inputs.get(name) if isinstance(raw_inputs, dict) else None
        optional = isinstance(item, dict) and "optional" in item  # declared, validly or not
        for index, entry in enumerate(entries):
            location = ("inputs", name, *(("each", index) if isinstance(declared, EachInput) else ()))
            if isinstance(entry, FileInput):
                try:
                    yield from (((*location, "file"), message) for message in _file_faults(entry, optional=optional))
                except InputError as error:  # its package is not installed
                    yield (*location, "file"), str(error)
                try:
                    _ = entry.header and header_function(entry.header, entry.folder)
                except InputError as error:
                    yield (*location, "header"), str(error)
        if isinstance(declared, ResultInput) and not declared.path.is_file():
            yield ("inputs", name, "pipeline"), f"there is no file {declared.path}"
        if isinstance(declared, SelectInput):
            for key in (key for key in declared.filters if key not in FILTERS):
                known = nearest(key, sorted({*MATCHED, *FILTERS}))
                yield ("inputs", name, "select", key), f"there is no filter {key!r}; {known}"
        for message in _partner_faults(spec, name, declared, unread):
            yield ("inputs", name, "match"), message


def _destination_faults(spec: PipelineSpec, unread: Collection[str]) -> Faults:
    """Yield why the project cannot be that of the data, and why requests cannot name a dataset."""
    for name, declared in spec.inputs.items() if spec.project == INHERIT else ():
        if not isinstance(declared, (SelectInput, DatasetInput, CalibrationInput)):
            yield ("project",), f"inherit is for data at Crucible; name the project, since input {name!r} is none"
    if spec.request is not None and spec.request.input not in unread:
        asked = spec.inputs.get(spec.request.input)
        if asked is None:
            yield ("request", "input", "value"), f"there is no such input; {nearest(spec.request.input, spec.inputs)}"
        elif not isinstance(asked, SelectInput) or not asked.each:
            yield ("request", "input", "value"), "a request names one dataset of a selection with `each: true`"


def _file_faults(declared: FileInput, *, optional: bool) -> Iterator[str]:
    """Yield the faults of files: missing ones, and patterns without a match unless `optional`."""
    paths = declared.paths
    yield from filter(None, map(source_fault, declared.remote))
    if not paths and not optional and not declared.remote:
        names = ", ".join(declared.file)
        yield f"no file matches {names} in {declared.folder}; if it may come later, add `optional: true`"
    if declared.optional and not declared.each and paths:
        others = declared.model_copy(update={"optional": False}).paths
        yield from (
            f"there is no file {path}, but others of this dataset exist" for path in others if not path.exists()
        )
    for path in (path for path in paths if not path.is_file()):
        if path.is_dir():
            yield f"{path} is a folder; name its files, as in {path.name}/*"
        else:
            yield f"there is no file {path}"


def _partner_faults(spec: PipelineSpec, name: str, declared: PipelineInput, unread: Collection[str]) -> Iterator[str]:
    partner = declared.partner
    if partner is None:
        return
    names = [other for other, item in spec.inputs.items() if item.each and not item.match and other != name]
    if partner not in names and partner not in unread:
        yield f"it is matched with {partner!r}, which is not an input with `each`; {nearest(partner, names)}"
    for field in (declared.match or {}).get(partner, ()):
        if not is_field(field):
            yield unknown_field(field)


NOT_FILLED = "fields of records are filled in where a parameter is a text"
# A field where none is filled in; not that of a shell.
_TEMPLATE = re.compile(r"(?<!\$)\{([A-Za-z][\w-]*\.[\w.-]+|step)(![rsa])?(:[^{}]*)?\}")


def parent_params(step: StepSpec) -> dict[str, list[str]]:
    """Return the fields (ROLE.FIELD) in each parameter of a step that takes values from records, by its name."""
    fields = {name: _fields_in(step, value) for name, value in step.params.items()}
    return {
        name: found
        for name, found in fields.items()
        if found and all(field.partition(".")[0] in step.inputs for field in found)
    }


def parent_fault(step: StepSpec, value: object) -> str | None:
    """Return the fault of a parameter that takes values from records; None for a valid one or a plain value."""
    if not isinstance(value, str) and any(_fields_in(step, text) for text in _texts(value)):
        return f"{NOT_FILLED}, not in a list or a mapping"
    for role, _, name in (field.partition(".") for field in _fields_in(step, value)):
        if role not in step.inputs:
            return f"the step has no input {role!r}; {nearest(role, step.inputs, 'it has')}"
        if not is_field(name):
            return unknown_field(name)
    return None


def filled_in(text: str, values: Mapping[str, object]) -> object:
    """Return a parameter with the values of its fields: the value itself, with its type, if it is one field alone."""
    alone = text.removeprefix("{").removesuffix("}")
    return values[alone] if alone in values else filled(text, lambda name: values.get(name, UNKNOWN))


def _fields_in(step: StepSpec, value: object) -> list[str]:
    """Return the fields of records that a text names, or nearly so; other braces are passed to the function."""
    if not isinstance(value, str) or "{" not in value:
        return []
    found = [field.partition(".") for field in template_fields(value)]
    near = {name for role, _, name in found if role in step.inputs and nearest_word(name, CORRECTED)}
    return [
        f"{role}.{name}" for role, _, name in found if name in near or is_field(name) or name.startswith("metadata")
    ]


def _texts(value: object) -> Iterator[str]:
    """Yield the texts within a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def label_of(swept: Mapping[str, object]) -> str:
    """Return the label of a combination of swept parameters."""
    return ",".join(
        f"{param}={value if isinstance(value, str) else json.dumps(value)}" for param, value in swept.items()
    )


def location_in_step(step: StepSpec, location: Location, swept: Mapping[str, object]) -> Location:
    """Return where in the step's declaration a fault of its function or command is, for these swept parameters."""
    if not location:
        return ("uses",) if step.uses else ("run",)
    name = str(location[1]) if len(location) > 1 else ""
    if location[0] != "params" or name not in swept or step.matrix is None:
        return location
    if not isinstance(step.matrix, dict):
        return ("matrix", list(step.matrix).index(dict(swept)), name)
    return ("matrix", name, list(step.matrix[name]).index(swept[name])) if location[2:] else ("matrix", name)


def names_in(value: object) -> Iterator[str]:
    """Yield the names of sources anywhere in a step's declaration."""
    if isinstance(value, str):
        yield value.partition(".")[0]
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from names_in(part) if key not in ("uses", "run", "params") else ()
    elif isinstance(value, list):
        for part in value:
            yield from names_in(part)


@collector_paused()
def bind_file(path: Path, store: Store | None = None, overrides: Mapping[str, object] | None = None) -> BoundPipeline:
    """Bind the pipeline declared in a file. Raises InputError with every fault, each with file, line and column.

    `overrides` holds parameters for one run, as in {"axis.degree": 4}. With a store, functions whose source files are
    unchanged are not imported again.
    """
    declared = read_declaration(path, overrides)
    if declared.spec is None:
        raise InputError("", declared.faults)
    return _Binder(declared.spec, declared, store).bind()
