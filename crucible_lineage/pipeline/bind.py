"""A pipeline bound to its functions: every name resolved, every fault found, steps in the order they can run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crucible_lineage.errors import Finding, InputError
from crucible_lineage.pipeline.command import inspect_command
from crucible_lineage.pipeline.document import Document, Location
from crucible_lineage.pipeline.inspection import Inspection, inspect_step
from crucible_lineage.pipeline.spec import FileInput, PipelineSpec, SelectInput, Source, StepSpec, load_pipeline
from crucible_lineage.store import Store

__all__ = ["BoundPipeline", "BoundStep", "bind", "bind_file"]


@dataclass(frozen=True)
class BoundStep:
    """A declared step with what is known of its function. `needs` are the steps it waits for."""

    name: str
    spec: StepSpec
    inspection: Inspection
    sources: Mapping[str, tuple[Source, ...]]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class BoundPipeline:
    """A pipeline that can be planned and run. `steps` stand in the order in which they can run."""

    spec: PipelineSpec
    steps: Mapping[str, BoundStep]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline


def bind_file(path: Path, store: Store | None = None) -> BoundPipeline:
    """The pipeline declared in a file, bound. InputError with every fault in it."""
    spec, document = load_pipeline(path)
    return bind(spec, document, store)


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
        self._check_files()
        bound = {name: self._bind_step(name, step) for name, step in self.spec.steps.items()}
        self._check_outputs({name: step for name, step in bound.items() if step is not None})
        self._check_unused()
        order = self._ordered()
        if self.findings:
            raise InputError("", self.findings)
        return BoundPipeline(self.spec, {name: step for name in order if (step := bound[name]) is not None})

    def _find(self, location: Location, message: str) -> None:
        self.findings.append(self.document.finding(location, message))

    def _check_names(self) -> None:
        for name in self.spec.steps:
            if name in self.spec.inputs:
                self._find(("steps", name), f"{name!r} is the name of an input too; give the step another one")

    def _check_files(self) -> None:
        for name, declared in self.spec.inputs.items():
            if isinstance(declared, FileInput):
                for path in declared.paths(self.spec.folder):
                    if not path.is_file():
                        self._find(("inputs", name, "file"), f"input {name!r}: there is no file {path}")

    def _bind_step(self, name: str, step: StepSpec) -> BoundStep | None:
        sources = {role: given if isinstance(given, tuple) else (given,) for role, given in step.inputs.items()}
        for role, given in sources.items():
            for source in given:
                self._check_source(name, role, source)
        try:
            inspection = self._inspect(name, step, sources)
        except InputError as error:
            place = "params" if "parameter" in str(error) else "uses" if step.uses else "run"
            self._find(("steps", name, place, *self._parameter(step, str(error))), str(error))
            return None
        self._check_roles(name, inspection, sources)
        needs = tuple(dict.fromkeys(s.source for given in sources.values() for s in given if self._is_step(s.source)))
        return BoundStep(name, step, inspection, sources, needs)

    def _inspect(self, name: str, step: StepSpec, sources: Mapping[str, tuple[Source, ...]]) -> Inspection:
        if step.uses is not None:
            return inspect_step(step.uses, step.params, self.spec.folder, self.store)
        roles = {
            role: "files" if len(given) > 1 or self._is_selection(given[0]) else "file"
            for role, given in sources.items()
        }
        return inspect_command(name, step.run or "", roles, step.params, self.spec.folder)

    def _parameter(self, step: StepSpec, message: str) -> Location:
        return next(((name,) for name in step.params if f"parameter {name!r}" in message), ())

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

    def _check_roles(self, name: str, inspection: Inspection, sources: Mapping[str, tuple[Source, ...]]) -> None:
        for role, given in sources.items():
            location = ("steps", name, "inputs", role)
            if role not in inspection.roles:
                near = difflib.get_close_matches(role, inspection.roles, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(inspection.roles) or 'none'}"
                self._find(location, f"step {name!r}: {inspection.uses} has no input {role!r}; {hint}")
            elif inspection.roles[role] == "file" and (len(given) > 1 or self._is_selection(given[0])):
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

    def _is_selection(self, source: Source) -> bool:
        return isinstance(self.spec.inputs.get(source.source), SelectInput)

    def _check_unused(self) -> None:
        used = {
            source.source
            for step in self.spec.steps.values()
            for given in step.inputs.values()
            for source in (given if isinstance(given, tuple) else (given,))
        }
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
