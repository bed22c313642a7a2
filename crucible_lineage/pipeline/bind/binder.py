"""Binding: every name of a declaration resolved, every fault found, steps in the order they can run."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from crucible_lineage.errors import Finding, InputError
from crucible_lineage.local.store import Store
from crucible_lineage.pipeline.bind.command import inspect_command
from crucible_lineage.pipeline.bind.inspect import inspect_step
from crucible_lineage.pipeline.bind.inspection import Inspection
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep, Variant
from crucible_lineage.pipeline.declare.yaml import Document, Location
from crucible_lineage.pipeline.files.remote import source_fault
from crucible_lineage.pipeline.spec.inputs import (
    MATCHED,
    DatasetInput,
    EachInput,
    FileInput,
    PipelineInput,
    ResultInput,
    SelectInput,
)
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec, Source, StepSpec
from crucible_lineage.pipeline.spec.templates import template_fault

__all__ = ["bind"]


def bind(spec: PipelineSpec, document: Document, store: Store | None = None) -> BoundPipeline:
    """The pipeline, bound to its functions. InputError with every fault, each with file, line and column."""
    return _Binder(spec, document, store).bind()


class _Binder:
    def __init__(self, spec: PipelineSpec, document: Document, store: Store | None) -> None:
        self.spec = spec
        self.document = document
        self.store = store
        self.findings: list[Finding] = []

    def bind(self) -> BoundPipeline:
        self._check_names()
        self._check_inputs()
        bound = {name: self._bind_step(name, step) for name, step in self.spec.steps.items()}
        self._check_outputs({name: step for name, step in bound.items() if step is not None})
        self._check_unused()
        order = self._ordered()
        if self.findings:
            raise InputError("", self.findings)
        ordered = {name: step for name in order if (step := bound[name]) is not None}
        return BoundPipeline(self.spec, self._with_dimensions(ordered))

    def _find(self, location: Location, message: str) -> None:
        self.findings.append(self.document.finding(location, message))

    def _check_names(self) -> None:
        for name in self.spec.steps:
            if name in self.spec.inputs:
                self._find(("steps", name), f"{name!r} is the name of an input too; give the step another one")

    def _check_inputs(self) -> None:
        for name, declared in self.spec.inputs.items():
            entries = declared.each if isinstance(declared, EachInput) else (declared,)
            for index, entry in enumerate(entries):
                place = ("each", index) if isinstance(declared, EachInput) else ()
                if isinstance(entry, FileInput):
                    self._check_files(("inputs", name, *place, "file"), name, entry)
            if isinstance(declared, ResultInput) and not declared.path.is_file():
                self._find(("inputs", name, "pipeline"), f"input {name!r}: there is no file {declared.path}")
            if isinstance(declared, SelectInput):
                self._check_filters(name, declared)
            self._check_partner(name, declared)

    def _check_filters(self, name: str, declared: SelectInput) -> None:
        # The client costs a third of a second; who selects nothing does not wait for it.
        from crucible_lineage.client.filters import DatasetFilters, sent_filters

        for key, value in declared.select.items():
            try:
                sent_filters({key: value}, DatasetFilters)
            except InputError as error:
                said = str(error).replace("\n", "; ")
                self._find(("inputs", name, "select", key), f"input {name!r}: {said}")

    def _check_files(self, place: Location, name: str, declared: FileInput) -> None:
        """Files that are named are there; a pattern may fit none only where every file is a dataset of its own."""
        paths = declared.paths
        for address in declared.remote:
            if fault := source_fault(address):
                self._find(place, f"input {name!r}: {fault}")
        if not paths and not declared.each and not declared.remote:
            self._find(place, f"input {name!r}: no file fits {declared.file!r} in {declared.folder}")
        for path in paths:
            if not path.is_file():
                self._find(place, f"input {name!r}: there is no file {path}")

    def _check_partner(self, name: str, declared: PipelineInput) -> None:
        partner = declared.partner
        if partner is None:
            return
        each = [other for other, given in self.spec.inputs.items() if given.each and not given.match and other != name]
        if partner not in each:
            near = difflib.get_close_matches(partner, each, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(each) or 'none'}"
            message = f"input {name!r} is matched with {partner!r}, which is no input with `each`; {hint}"
            self._find(("inputs", name, "match"), message)
        for field in (declared.match or {}).get(partner, ()):
            if field not in MATCHED and not field.startswith("metadata."):
                near = difflib.get_close_matches(field, MATCHED, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(MATCHED)}, metadata.NAME"
                self._find(("inputs", name, "match"), f"input {name!r}: a record has no field {field!r}; {hint}")

    def _bind_step(self, name: str, step: StepSpec) -> BoundStep | None:
        sources = {role: given if isinstance(given, tuple) else (given,) for role, given in step.inputs.items()}
        for role, given in sources.items():
            for source in given:
                self._check_source(name, role, source)
        try:
            variants = tuple(self._variant(name, step, sources, swept) for swept in step.combinations)
        except InputError as error:
            place = "params" if "parameter" in str(error) else "uses" if step.uses else "run"
            location = ("steps", name, *self._parameter(step, place, str(error)))
            self._find(location, _without_values(str(error), step))
            return None
        inspection = variants[0].inspection
        collected = frozenset(
            role for role, given in sources.items() if any(_collects(s, inspection.roles.get(role)) for s in given)
        )
        self._check_roles(name, inspection, sources, collected)
        template = step.output.dataset_name
        if template and (fault := template_fault(template, inspection.roles, inspection.params)):
            self._find(("steps", name, "output", "dataset_name"), f"step {name!r}: {fault}")
        needs = tuple(dict.fromkeys(s.source for given in sources.values() for s in given if self._is_step(s.source)))
        declared = {"name": self.spec.pipeline, "hash": self.spec.digest, "step": name}
        return BoundStep(name, step, variants, sources, needs, collected, declared=declared)

    def _variant(
        self, name: str, step: StepSpec, sources: Mapping[str, tuple[Source, ...]], swept: Mapping[str, Any]
    ) -> Variant:
        if both := sorted(set(swept) & set(step.params)):
            raise InputError(f"parameter {both[0]!r} is in the matrix and in params; leave it out of one of them")
        given = {**step.params, **swept}
        label = ",".join(
            f"{param}={value if isinstance(value, str) else json.dumps(value)}" for param, value in swept.items()
        )
        return Variant(label, given, self._inspect(name, step, sources, given))

    def _inspect(
        self, name: str, step: StepSpec, sources: Mapping[str, tuple[Source, ...]], given: Mapping[str, Any]
    ) -> Inspection:
        if step.uses is not None:
            return inspect_step(step.uses, given, step.folder, self.store)
        roles = {
            role: "files" if len(several) > 1 or several[0].collect or self._is_list(several[0]) else "file"
            for role, several in sources.items()
        }
        return inspect_command(name, step.run or "", roles, given, step.folder, step.env)

    def _parameter(self, step: StepSpec, place: str, message: str) -> Location:
        swept = {param for part in step.combinations for param in part}
        for name in (*step.params, *swept):
            if f"parameter {name!r}" in message:
                return ("matrix", name) if name in swept else ("params", name)
        return (place,)

    def _is_step(self, name: str) -> bool:
        return name in self.spec.steps

    def _check_source(self, step: str, role: str, source: Source) -> None:
        names = [*self.spec.inputs, *self.spec.steps]
        location = ("steps", step, "inputs", role)
        if source.source not in names:
            near = difflib.get_close_matches(source.source, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            self._find(location, f"step {step!r}: there is no input or step {source.source!r}; {hint}")
        elif source.source == step:
            self._find(location, f"step {step!r} takes its own result as input {role!r}")

    def _check_roles(
        self, name: str, inspection: Inspection, sources: Mapping[str, tuple[Source, ...]], collected: frozenset[str]
    ) -> None:
        for role, given in sources.items():
            location = ("steps", name, "inputs", role)
            if role not in inspection.roles:
                near = difflib.get_close_matches(role, inspection.roles, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(inspection.roles) or 'none'}"
                self._find(location, f"step {name!r}: {inspection.uses} has no input {role!r}; {hint}")
            elif inspection.roles[role] == "file" and (
                len(given) > 1 or self._is_list(given[0]) or (role in collected and self._is_each(given[0]))
            ):
                message = f"input {role!r} of {inspection.uses} is one file, but several datasets are given"
                self._find(location, f"step {name!r}: {message}; annotate it list[Path]")
        for role in inspection.required:
            if role not in sources:
                self._find(("steps", name), f"step {name!r}: the input {role!r} of {inspection.uses} is missing")
        if not sources:
            self._find(("steps", name), f"step {name!r} has no inputs; a derived dataset needs a parent")

    def _check_outputs(self, bound: Mapping[str, BoundStep]) -> None:
        """What is taken from a step is one of its outputs, and said where it has several."""
        for name, step in bound.items():
            for role, given in step.sources.items():
                for source in given:
                    outputs = bound[source.source].inspection.outputs if source.source in bound else None
                    if (
                        fault := _output_fault(source, outputs, is_input=source.source in self.spec.inputs)
                    ) is not None:
                        self._find(("steps", name, "inputs", role), f"step {name!r}: {fault}")

    def _is_list(self, source: Source) -> bool:
        """True for an input that is several datasets at once."""
        declared = self.spec.inputs.get(source.source)
        if declared is None or self._is_each(source) or isinstance(declared, (FileInput, ResultInput)):
            return False  # how many results the other pipeline has is known when both are planned
        return not isinstance(declared, DatasetInput) or len(declared.dataset) != 1

    def _is_each(self, source: Source) -> bool:
        declared = self.spec.inputs.get(source.source)
        return declared is not None and bool(declared.each or declared.match)

    def _with_dimensions(self, steps: Mapping[str, BoundStep]) -> dict[str, BoundStep]:
        """The steps with what they have one instance each for; in an order in which they can run."""
        of: dict[str, tuple[str, ...]] = {}
        for name, declared in self.spec.inputs.items():
            of[name] = (declared.partner,) if declared.partner else (name,) if declared.each else ()
        done = {}
        for name, step in steps.items():
            taken = [s.source for role, given in step.sources.items() if role not in step.collected for s in given]
            own = (name,) if len(step.variants) > 1 else ()
            of[name] = tuple(dict.fromkeys((*(dimension for source in taken for dimension in of[source]), *own)))
            done[name] = replace(step, dimensions=of[name])
        return done

    def _check_unused(self) -> None:
        used = {
            source.source
            for step in self.spec.steps.values()
            for given in step.inputs.values()
            for source in (given if isinstance(given, tuple) else (given,))
        }
        used |= {declared.partner for declared in self.spec.inputs.values() if declared.partner}
        for name in self.spec.inputs:
            if name not in used:
                self._find(("inputs", name), f"input {name!r} is used by no step")

    def _ordered(self) -> list[str]:
        """Steps in an order in which they can run, declaration order where there is a choice; a cycle is a finding."""
        waiting = {name: {s for s in self._sources_of(step) if s != name} for name, step in self.spec.steps.items()}
        order: list[str] = []
        while ready := [name for name, needs in waiting.items() if needs.isdisjoint(waiting)]:
            for name in ready:
                del waiting[name]
            order += ready
        if waiting:
            path = self._cycle({name: [n for n in needs if n in waiting] for name, needs in waiting.items()})
            self._find(("steps", path[0]), f"the steps form a cycle: {' -> '.join(path)}")
        return order

    def _sources_of(self, step: StepSpec) -> set[str]:
        given = (g if isinstance(g, tuple) else (g,) for g in step.inputs.values())
        return {source.source for sources in given for source in sources if source.source in self.spec.steps}

    @staticmethod
    def _cycle(needs: Mapping[str, list[str]]) -> list[str]:
        """One cycle, in the direction in which data flows."""
        path = [next(iter(needs))]
        while (following := sorted(needs[path[-1]])[0]) not in path:
            path.append(following)
        loop = path[path.index(following) :]
        return [loop[0], *reversed(loop)]


def _without_values(message: str, step: StepSpec) -> str:
    """The message without values that came from the environment."""
    for value in (step.params[name] for name in step.references):
        message = message.replace(repr(value), "a value from the environment")
        if isinstance(value, str) and len(value) > 3:  # as a validator of the user's own may tell it
            message = message.replace(value, "a value from the environment")
    return message


def _output_fault(source: Source, outputs: tuple[str, ...] | None, *, is_input: bool) -> str | None:
    if is_input and source.output is not None:
        return f"{source.source!r} is an input of the pipeline; it has no output {source.output!r}"
    if outputs is None:
        return None
    if source.output is None and len(outputs) > 1:
        chosen = f"{source.source}.{outputs[0]}"
        return f"{source.source!r} has the outputs {', '.join(outputs)}; name one of them, as in {chosen}"
    if source.output is not None and source.output not in outputs:
        return f"{source.source!r} has no output {source.output!r}; it has: {', '.join(outputs)}"
    return None


def _collects(source: Source, shape: str | None) -> bool:
    return source.collect if source.collect is not None else shape == "files"
