"""Binding: every name of a declaration resolved, every fault found, steps in the order they can run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crucible_lineage.amounts import amount
from crucible_lineage.core.store import Store
from crucible_lineage.errors import Fault, InputError, nearest, nearest_word
from crucible_lineage.pipeline.bind.dimensions import dimensions_of, is_field, unknown_field
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep, Variant, declared_step
from crucible_lineage.pipeline.bind.step import (
    collects,
    from_parents,
    label_of,
    names_in,
    output_fault,
    parent_fault,
    place_in_file,
    place_in_step,
    without_values,
)
from crucible_lineage.pipeline.declare.load import Declaration
from crucible_lineage.pipeline.declare.yaml import Location
from crucible_lineage.pipeline.files.remote import source_fault
from crucible_lineage.pipeline.functions.command import inspect_command
from crucible_lineage.pipeline.functions.inspect import (
    ImportExitError,
    ImportFaultError,
    Inspector,
    find_step,
    header_function,
)
from crucible_lineage.pipeline.functions.inspection import Inspection, unknown_inspection
from crucible_lineage.pipeline.spec.inputs import (
    DatasetInput,
    EachInput,
    FileInput,
    PipelineInput,
    ResultInput,
    SelectInput,
)
from crucible_lineage.pipeline.spec.pipeline import (
    TEMPLATED,
    UNKNOWN_FUNCTION,
    PipelineSpec,
    Source,
    StepSpec,
    is_template,
    template_fault,
)


def bind(declared: Declaration, store: Store | None = None) -> BoundPipeline:
    """The pipeline, bound to its functions. InputError with every fault, each with file, line and column.

    Those that were found when the file was read are among them: what can be read is looked at all the same.
    """
    if declared.spec is None:
        raise InputError("", declared.faults)
    return _Binder(declared.spec, declared, store).bind()


@dataclass(frozen=True)
class _Signature:
    """What is known of a step's function though it cannot be called as declared."""

    uses: str
    roles: Mapping[str, str]
    required: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Collection[str]


class _Binder:
    def __init__(self, spec: PipelineSpec, declared: Declaration, store: Store | None) -> None:
        self.spec = spec
        self.document = declared.document
        self.complete = declared.complete
        self.inspector = Inspector(store)
        self.faults: list[Fault] = list(declared.faults)
        self.read_faults = {(fault.file, fault.line, fault.column) for fault in declared.faults}
        self.inputs = tuple(_mapping(self.document.data, "inputs"))  # also those that cannot be read
        self.steps = tuple(_mapping(self.document.data, "steps"))
        self.signatures: dict[str, Inspection | _Signature] = {}
        self.blocked: dict[str, Fault] = {}

    def bind(self) -> BoundPipeline:
        self._check_names()
        for place, message in input_faults(self.spec, self.document.data, self._is_unread):
            self._find(place, f"input {place[1]!r}: {message}")
        bound = {name: self._bind_step(name, step) for name, step in self.spec.steps.items()}
        self.inspector.keep()
        self._check_outputs()
        self._check_unused()
        order, cycle = ordered(self.spec)
        if cycle:
            self._find(("steps", cycle[0]), f"the steps form a cycle: {' -> '.join(cycle)}")
        collected = {name: self._collected(name, step) for name, step in self.spec.steps.items()}
        swept = [name for name, step in self.spec.steps.items() if len(step.combinations) > 1]
        dimensions = dimensions_of(self.spec, order, collected, swept)
        for name, role, message in dimensions.faults:
            self._find(("steps", name, "inputs", role), message)
        if self.faults:
            raise InputError("", sorted(dict.fromkeys(self.faults), key=place_in_file))
        in_order = {
            name: replace(step, dimensions=dimensions.of[name]) for name in order if (step := bound[name]) is not None
        }
        return BoundPipeline(self.spec, in_order)

    def _find(self, location: Location, message: str) -> None:
        fault = self.document.fault(location, message)
        # A value that could not be read was told as that; here it is another one.
        if len(location) < 3 or (fault.file, fault.line, fault.column) not in self.read_faults:
            self.faults.append(fault)

    def _check_names(self) -> None:
        for name in self.steps:
            if name in self.inputs:
                self._find(("steps", name), f"{name!r} is the name of an input too; give the step another one")

    def _bind_step(self, name: str, step: StepSpec) -> BoundStep | None:
        sources = step.sources
        for role, given in sources.items():
            for source in given:
                self._check_source(name, role, source)
        variants = self._variants(name, step, sources)
        known = variants[0].inspection if variants else self._signature(name, step, sources)
        if known is None or name in self.blocked:
            self._check_template(name, step, sources, None)
        else:
            self._check_signature(name, step, known, sources)
        if not variants:
            return None
        collected = self._collected(name, step)
        needs = tuple(dict.fromkeys(s.source for given in sources.values() for s in given if self._is_step(s.source)))
        declared = declared_step(self.spec, name)
        at = {role: self.document.fault(("steps", name, "inputs", role), "") for role in sources}
        places = {role: f"{fault.file}:{fault.line}:{fault.column}" for role, fault in at.items()}
        blocked = self.blocked.get(name)
        return BoundStep(name, step, variants, sources, needs, collected, (), declared, places, blocked)

    def _check_signature(
        self, name: str, step: StepSpec, known: Inspection | _Signature, sources: Mapping[str, tuple[Source, ...]]
    ) -> None:
        """Check that the declaration fits the function."""
        self.signatures[name] = known
        self._check_roles(name, known, sources, self._collected(name, step))
        self._check_template(name, step, known.roles, known.params)
        for param, value in step.params.items():
            if fault := parent_fault(step, value):
                self._find(("steps", name, "params", param, "value"), f"step {name!r}: parameter {param!r}: {fault}")

    def _variants(
        self, name: str, step: StepSpec, sources: Mapping[str, tuple[Source, ...]]
    ) -> tuple[Variant, ...] | None:
        """The step with each combination of its swept parameters; None if one of them has a fault, which is told.

        A step whose module ends its process is known by its declaration alone: it cannot be made, and the others can.
        """
        variants, sound = [], step.uses != UNKNOWN_FUNCTION
        for swept in step.combinations if sound else ():
            for param in sorted(set(swept) & set(step.params)):
                message = f"parameter {param!r} is in the matrix and in params; remove it from one of them"
                self._find(("steps", name, "matrix", param), message)
                sound = False
            given = {**step.params, **swept}
            try:
                variants.append(Variant(label_of(swept), given, self._inspect(name, step, sources, given)))
            except ImportExitError as error:
                place = ("steps", name, *place_in_step(step, (), swept))
                self.blocked[name] = self.document.fault(place, str(error))
                variants.append(Variant(label_of(swept), given, unknown_inspection(name, self._shapes(sources))))
            except ImportFaultError as error:  # a fault of the Python file, once for all steps that need it
                sound = False
                self.faults += error.faults
            except InputError as error:
                sound = False
                for fault in error.faults:
                    place = ("steps", name, *place_in_step(step, fault.location, swept))
                    self._find(place, without_values(fault.message, step))
        return tuple(variants) if sound else None

    def _inspect(
        self, name: str, step: StepSpec, sources: Mapping[str, tuple[Source, ...]], given: Mapping[str, object]
    ) -> Inspection:
        if step.uses is not None:
            return self.inspector.inspect(step.uses, given, step.folder, tuple(from_parents(step)), step.reads)
        return inspect_command(name, step, self._shapes(sources), given)

    def _shapes(self, sources: Mapping[str, tuple[Source, ...]]) -> dict[str, str]:
        """The inputs of a command: what is given to it says whether they are files or lists of them."""
        return {
            role: "files" if len(several) > 1 or _is_collected(several[0]) or self._is_list(several[0]) else "file"
            for role, several in sources.items()
        }

    def _signature(self, name: str, step: StepSpec, sources: Mapping[str, tuple[Source, ...]]) -> _Signature | None:
        """Return what can be known of a step whose parameters or whose code have a fault."""
        if step.uses is None:
            shapes = self._shapes(sources)
            return _Signature(f"command of step {name!r}", shapes, tuple(shapes), ("out",), step.params)
        try:
            found = find_step(step.uses, step.folder)
        except InputError:
            return None
        roles = {role.name: role.shape for role in found.inputs}
        required = tuple(role.name for role in found.inputs if role.required)
        return _Signature(step.uses, roles, required, found.outputs, [spec.name for spec in found.parameters])

    def _check_template(
        self, name: str, step: StepSpec, roles: Collection[str], params: Collection[str] | None
    ) -> None:
        """Check that the child's templates can be filled in; for an unknown function, as far as that can be said."""
        output = step.output
        if output.dataset_name and (fault := template_fault(output.dataset_name, roles, params)):
            self._find(("steps", name, "output", "dataset_name"), f"step {name!r}: {fault}")
        texts: dict[tuple[str, ...], object] = {(field,): getattr(output, field) for field in TEMPLATED}
        texts |= {("metadata", key): value for key, value in output.metadata.items()}
        for place, value in texts.items():
            what = f"output {' '.join(place)}"
            if is_template(value) and (fault := template_fault(str(value), roles, params, what, late=False)):
                self._find(("steps", name, "output", *place), f"step {name!r}: {fault}")

    def _is_step(self, name: str) -> bool:
        return name in self.spec.steps

    def _is_unread(self, name: str) -> bool:
        """True for a name that is declared but could not be read, or may be in what could not be."""
        return not self.complete or (
            name in (*self.inputs, *self.steps) and name not in self.spec.inputs and name not in self.spec.steps
        )

    def _check_source(self, step: str, role: str, source: Source) -> None:
        names = [*self.inputs, *self.steps]
        location = ("steps", step, "inputs", role)
        if source.source not in names and self.complete:
            hint = nearest(source.source, names)
            self._find(location, f"step {step!r}: there is no input or step {source.source!r}; {hint}")
        elif source.source == step:
            self._find(location, f"step {step!r} takes its own result as input {role!r}")
        if not source.is_partner:
            return
        declared = self.spec.inputs.get(source.source)
        if declared is not None and declared.partner:
            told = f"{source.source} is matched with {declared.partner} already"
            self._find(location, f"step {step!r}: {told}; leave `match` there or `nearest` here out")
        if all(one.is_partner for given in self.spec.steps[step].sources.values() for one in given):
            self._find(location, f"step {step!r} has no input beside its partners in time, for which they are chosen")

    def _check_roles(
        self,
        name: str,
        inspection: Inspection | _Signature,
        sources: Mapping[str, tuple[Source, ...]],
        collected: frozenset[str],
    ) -> None:
        declared = _mapping(_mapping(_mapping(self.document.data, "steps"), name), "inputs")
        for role, given in sources.items():
            location = ("steps", name, "inputs", role)
            if role not in inspection.roles:
                hint = nearest(role, inspection.roles, "it has")
                self._find(location, f"step {name!r}: {inspection.uses} has no input {role!r}; {hint}")
            elif inspection.roles[role] == "file" and (
                len(given) > 1
                or self._is_list(given[0])
                or given[0].group_by
                or (role in collected and self._is_each(given[0]))
            ):
                message = f"input {role!r} of {inspection.uses} is one file, but several datasets are given"
                self._find(location, f"step {name!r}: {message}; annotate it list[Path]")
            elif inspection.roles[role] == "file" and (several := self._several_files(given[0])):
                message = f"input {role!r} of {inspection.uses} is one file, but {given[0].source} is one dataset of"
                way_out = f"give {given[0].source} `each: true` for a dataset each, or annotate the input list[Path]"
                self._find(location, f"step {name!r}: {message} {amount(several, 'file')}; {way_out}")
        unknown = [role for role in sources if role not in inspection.roles]
        missing = [role for role in inspection.required if role not in sources and role not in declared]
        for role in missing:
            if not any(nearest_word(other, [role]) for other in unknown):
                self._find(("steps", name), f"step {name!r}: the input {role!r} of {inspection.uses} is missing")
        if not sources and not declared and not missing:
            self._find(("steps", name), f"step {name!r} has no inputs; a derived dataset needs a parent")

    def _check_outputs(self) -> None:
        """Check that what is taken from a step is one of its outputs, named where it has several."""
        for name, step in self.spec.steps.items():
            for role, given in step.sources.items():
                for source in given:
                    taken = self.signatures.get(source.source)
                    fault = output_fault(
                        source, taken.outputs if taken else None, is_input=source.source in self.spec.inputs
                    )
                    if fault is not None:
                        self._find(("steps", name, "inputs", role), f"step {name!r}: {fault}")

    def _is_list(self, source: Source) -> bool:
        """True for an input that is several datasets at once, and for partners on both sides."""
        if source.is_partner:
            return len(source.sides) > 1
        declared = self.spec.inputs.get(source.source)
        if declared is None or self._is_each(source) or isinstance(declared, (FileInput, ResultInput)):
            return False  # how many results the other pipeline has is known when both are planned
        return not isinstance(declared, DatasetInput) or len(declared.dataset) != 1

    def _several_files(self, source: Source) -> int:
        """Return how many files a pattern fits that are one dataset, if these are more than one; else 0."""
        declared = self.spec.inputs.get(source.source)
        written = _mapping(_mapping(self.document.data, "inputs"), source.source)  # also what could not be read
        if not isinstance(declared, FileInput) or source.files is not None or written.keys() & {"each", "match"}:
            return 0
        return found if declared.is_pattern and (found := len(declared.paths)) > 1 else 0

    def _is_each(self, source: Source) -> bool:
        declared = self.spec.inputs.get(source.source)
        return declared is not None and not source.is_partner and bool(declared.each or declared.match)

    def _collected(self, name: str, step: StepSpec) -> frozenset[str]:
        """The roles of a step that are given all instances of their sources, or a group of them, as one list."""
        known = self.signatures.get(name)
        return frozenset(
            role
            for role, given in step.sources.items()
            if any(collects(source, known.roles.get(role) if known else None) for source in given)
        )

    def _check_unused(self) -> None:
        """Every input is used by a step; a name that is nearly that of an input means it."""
        steps = _mapping(self.document.data, "steps")
        used = {
            source.source for step in self.spec.steps.values() for given in step.sources.values() for source in given
        }
        used |= {declared.partner for declared in self.spec.inputs.values() if declared.partner}
        used |= {near for name in used - {*self.inputs, *self.steps} if (near := nearest_word(name, self.inputs))}
        for step in steps.values():  # of steps, or inputs of steps, that could not be read
            used |= set(names_in(step)) if isinstance(step, dict) else set()
        for name in self.inputs:
            if name not in used:
                self._find(("inputs", name), f"input {name!r} is used by no step")


def _is_collected(source: Source) -> bool:
    return bool(source.collect or source.group_by)


def _mapping(data: object, key: str) -> dict[str, Any]:
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def ordered(spec: PipelineSpec) -> tuple[list[str], list[str]]:
    """Steps in an order in which they can run, that of the declaration where there is a choice; and a cycle, if any."""
    waiting = {
        name: {source for source in source_names(step) if source in spec.steps and source != name}
        for name, step in spec.steps.items()
    }
    order: list[str] = []
    while ready := [name for name, needs in waiting.items() if needs.isdisjoint(waiting)]:
        for name in ready:
            del waiting[name]
        order += ready
    return order, _cycle(waiting) if waiting else []


def source_names(step: StepSpec) -> set[str]:
    """The inputs and steps that a step takes files from."""
    return {source.source for given in step.sources.values() for source in given}


def _cycle(waiting: Mapping[str, set[str]]) -> list[str]:
    """One cycle, in the direction in which data flows."""
    path = [next(iter(waiting))]
    while (following := min(name for name in waiting[path[-1]] if name in waiting)) not in path:
        path.append(following)
    loop = path[path.index(following) :]
    return [loop[0], *reversed(loop)]


Faults = Iterator[tuple[Location, str]]


def input_faults(spec: PipelineSpec, written: dict[str, Any], is_unread: Callable[[str], bool]) -> Faults:
    """Each with where it stands. `written` is the declaration as it was read, also what could not be understood of it.

    `is_unread` says of a name whether it may be declared by what could not be.
    """
    given = written.get("inputs")
    for name, declared in spec.inputs.items():
        entries = declared.each if isinstance(declared, EachInput) else (declared,)
        said = given.get(name) if isinstance(given, dict) else None
        undecided = isinstance(said, dict) and "optional" in said  # it says so, rightly or not
        for index, entry in enumerate(entries):
            place = ("inputs", name, *(("each", index) if isinstance(declared, EachInput) else ()))
            if isinstance(entry, FileInput):
                yield from (((*place, "file"), told) for told in _file_faults(entry, undecided=undecided))
                yield from (((*place, "header"), told) for told in _header_faults(entry))
        if isinstance(declared, ResultInput) and not declared.path.is_file():
            yield ("inputs", name, "pipeline"), f"there is no file {declared.path}"
        if isinstance(declared, SelectInput):
            yield from _filter_faults(("inputs", name, "select"), declared)
        yield from ((("inputs", name, "match"), told) for told in _partner_faults(spec, name, declared, is_unread))


def _filter_faults(place: Location, declared: SelectInput) -> Faults:
    # The client costs a third of a second; who selects nothing does not wait for it.
    from crucible_lineage.client.filters import DatasetFilters, sent_filters

    for key, value in declared.filters.items():
        try:
            sent_filters({key: value}, DatasetFilters)
        except InputError as error:
            yield (*place, key), str(error).replace("\n", "; ")


def _file_faults(declared: FileInput, *, undecided: bool) -> Iterator[str]:
    """Files that are named are there, and a pattern fits one, unless it is `optional`."""
    paths = declared.paths
    yield from filter(None, map(source_fault, declared.remote))
    if not paths and not undecided and not declared.remote:
        yield f"no file fits {declared.file!r} in {declared.folder}; if it may come later, add `optional: true`"
    if declared.optional and not declared.each and paths:
        yield from (f"there is no file {path}, and others of this dataset are there" for path in declared.absent)
    for path in paths:
        if path.is_dir():
            yield f"{path} is a folder; name its files, as in {path.name}/*"
        elif not path.is_file():
            yield f"there is no file {path}"


def _header_faults(declared: FileInput) -> Iterator[str]:
    if declared.header is not None:
        try:
            header_function(declared.header, declared.folder)
        except InputError as error:
            yield str(error)


def _partner_faults(
    spec: PipelineSpec, name: str, declared: PipelineInput, is_unread: Callable[[str], bool]
) -> Iterator[str]:
    partner = declared.partner
    if partner is None:
        return
    each = [other for other, given in spec.inputs.items() if given.each and not given.match and other != name]
    if partner not in each and not is_unread(partner):
        yield f"it is matched with {partner!r}, which is no input with `each`; {nearest(partner, each)}"
    for field in (declared.match or {}).get(partner, ()):
        if not is_field(field):
            yield unknown_field(field)
