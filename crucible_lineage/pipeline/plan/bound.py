"""Pipelines bound to their functions: steps with inspections of their code, in an order of execution."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from crucible_lineage.errors import InputError, nearest, nearest_word
from crucible_lineage.marks import is_entry
from crucible_lineage.pipeline.declare.inputs import NIGHT, FileInput
from crucible_lineage.pipeline.declare.pipeline import PipelineSpec, Source, StepSpec
from crucible_lineage.pipeline.plan.inspect import Inspection
from crucible_lineage.refs import CORRECTED, MATCHED

if TYPE_CHECKING:
    import networkx

    from crucible_lineage.pipeline.plan.expand import Instance


@dataclass(frozen=True)
class Variant:
    """A step with one combination of its swept parameters. The label lists them; it is empty if none is swept."""

    label: str
    given: Mapping[str, object]
    inspection: Inspection


@dataclass(frozen=True)
class BoundStep:
    """A declared step with the inspection of its function. `needs` are the steps it depends on.

    `dimensions` are the inputs with `each` and the steps with a matrix for whose values it has instances. `collected`
    are the roles that take all instances of their sources as one list. `declared` is the entry in records: name and
    hash of the pipeline, and the step's name in it. `locations` are those of its inputs, as file:line:column.
    """

    name: str
    spec: StepSpec
    variants: tuple[Variant, ...]
    needs: tuple[str, ...]
    collected: frozenset[str] = frozenset()
    dimensions: tuple[Dimension, ...] = ()
    declared: Mapping[str, str] | None = None
    locations: Mapping[str, str] = field(default_factory=dict)

    @property
    def inspection(self) -> Inspection:
        """The inspection of the first variant; all variants share the function."""
        return self.variants[0].inspection


@dataclass(frozen=True)
class BoundPipeline:
    """A pipeline that can be planned and run. `steps` are in an order of execution."""

    spec: PipelineSpec
    steps: Mapping[str, BoundStep]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline

    @cached_property
    def graph(self) -> networkx.DiGraph[str]:
        """The graph of the steps."""
        return graph_of(self.steps)


def generations(needs: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Yield names after those that they need, each generation in the given order. Raises CycleError.

    A run in which all is fresh needs no more of its graph, and need not import networkx.
    """
    place = {name: number for number, name in enumerate(needs)}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    while sorter.is_active():
        generation = sorted(sorter.get_ready(), key=place.__getitem__)
        yield generation
        sorter.done(*generation)


def graph_of(parts: Mapping[str, BoundStep | Instance]) -> networkx.DiGraph[str]:
    """Return the graph of steps or instances; edges lead from what they need."""
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(parts)
    graph.add_edges_from((need, name) for name, part in parts.items() for need in part.needs)
    return graph


def require_names(pipeline: BoundPipeline, names: Collection[str], instances: Collection[str] = ()) -> None:
    """Raise InputError if a name is neither a step of the pipeline nor one of the instances."""
    for name in names:
        if name not in pipeline.steps and name not in instances:
            hint = nearest(name, [*pipeline.steps, *instances])
            raise InputError(f"pipeline {pipeline.name!r} has no step {name!r}; {hint}")


PARAMS_PREFIX = "params."


class Dimension(NamedTuple):
    """What a step has one instance for each of: datasets of an input, combinations of a matrix, or groups of these."""

    root: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.root} by {', '.join(self.fields)}" if self.fields else self.root


def is_field(name: str) -> bool:
    """Return whether records can be compared by this field."""
    return name in (*CORRECTED, NIGHT) or is_entry(name)


def unknown_field(name: str) -> str:
    """Return the message that records have no such field, with the nearest one."""
    fields = [*MATCHED, NIGHT]
    if nearest_word(name, fields) or name.startswith("metadata"):
        return f"a record has no field {name!r}; {nearest(name, [*fields, 'metadata.NAME'])}"
    own = f"an entry of the metadata is metadata.{name}"
    return f"a record has no field {name!r}; {own}, and the fields are: {', '.join(fields)}"


def record_fields(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the fields of records, each once; the others are parameters of steps."""
    return tuple(name for name in dict.fromkeys(fields) if not name.startswith(PARAMS_PREFIX))


class Dimensions:
    """The dimensions of each step, in the order of its inputs; `report` gets step, role and message of each fault."""

    def __init__(self, spec: PipelineSpec, report: Callable[[str, str, str], None]) -> None:
        self.spec = spec
        self.report = report
        self.by_step: dict[str, tuple[Dimension, ...]] = {}

    def add(self, name: str, collected: frozenset[str]) -> None:
        """Determine the dimensions of a step, after those that it depends on, with its roles that take lists."""
        roles: dict[Dimension, str] = {}  # dimension -> the first role with it
        matched: dict[str, str] = {}  # likewise, for inputs that are matched with another one
        for role, source in self.spec.steps[name].edges:
            if source.is_partner:
                self._check_fields(name, role, source.match)
            elif source.group_by:
                for dimension in self._grouped(name, role, source):
                    roles.setdefault(dimension, role)
            elif role not in collected:
                declared = self.spec.inputs.get(source.source)
                if declared is not None and declared.partner:
                    matched.setdefault(declared.partner, role)
                elif declared is not None and declared.each:
                    roles.setdefault(Dimension(source.source), role)
                for dimension in self.by_step.get(source.source, ()):
                    roles.setdefault(dimension, role)
        for partner, role in matched.items():
            # The datasets of a group that agree in the fields they are matched by share one partner.
            by = {name for other in self.spec.inputs.values() if other.match for name in other.match.get(partner, ())}
            if not any(dim.root == partner and dim.fields and by <= {*dim.fields} for dim in roles):
                roles.setdefault(Dimension(partner), role)
        if len(self.spec.steps[name].combinations) > 1:
            roles[Dimension(name)] = ""
        self.by_step[name] = self._finest(name, roles)

    def _check_fields(self, step: str, role: str, fields: Iterable[str]) -> bool:
        """Return whether all are fields of records or parameters; report the first that is not."""
        wrong = next((name for name in record_fields(fields) if not is_field(name)), None)
        if wrong is not None:
            self._fault(step, role, unknown_field(wrong))
        return wrong is None

    def _grouped(self, step: str, role: str, source: Source) -> tuple[Dimension, ...]:
        """Return the dimensions that `group_by` requests; none if that is impossible, which is reported."""
        fields = source.group_by or ()
        if not self._check_fields(step, role, fields):
            return ()
        swept = self._swept_upstream(step, role, source)
        if not (by_record := record_fields(fields)):
            return swept
        roots = [dim for dim in self.by_step.get(source.source, ()) if dim.root in self.spec.inputs]
        roots = [Dimension(source.source)] if source.source in self.spec.inputs else roots
        if len(roots) != 1:
            reason = (
                f"it exists once for each of {', '.join(map(str, roots))} together" if roots else "it is a single value"
            )
            self._fault(step, role, f"{source.source} cannot be grouped: {reason}")
            return ()
        (dimension,) = roots
        root, declared = dimension.root, self.spec.inputs[dimension.root]
        if declared.partner or (isinstance(declared, FileInput) and not declared.each):
            partner = declared.partner
            remedy = f"group {partner}, which it is matched with" if partner else "give it `each: true`"
            self._fault(step, role, f"the datasets of {root} cannot be grouped; {remedy}")
            return ()
        if left := {*by_record} - {*dimension.fields} if dimension.fields else set():
            reason = f"{source.source} is already grouped by {', '.join(dimension.fields)}, and not by {min(left)}"
            self._fault(step, role, f"{reason}; use fields that it is grouped by")
            return ()
        return Dimension(root, by_record), *swept

    def _swept_upstream(self, step: str, role: str, source: Source) -> tuple[Dimension, ...]:
        """Return the dimensions of swept parameters upstream, except those joined by `across`."""
        joined, dimensions, known = set(source.across or ()), [], set[str]()
        for dimension in self.by_step.get(source.source, ()):
            if dimension.root not in self.spec.steps:
                continue
            swept = {name for combination in self.spec.steps[dimension.root].combinations for name in combination}
            params = [name.removeprefix(PARAMS_PREFIX) for name in dimension.fields] or sorted(swept)
            known.update(params)
            if left := [f"{PARAMS_PREFIX}{name}" for name in params if name not in joined]:
                dimensions.append(dimension if len(left) == len(params) else Dimension(dimension.root, tuple(left)))
        grouped = {name.removeprefix(PARAMS_PREFIX) for name in source.group_by or () if name.startswith(PARAMS_PREFIX)}
        for name in sorted((joined | grouped) - known):
            hint = nearest(name, sorted(known)) if known else "nothing is swept there"
            self._fault(step, role, f"no matrix above {source.source} sweeps {name!r}; {hint}")
        for name in sorted(joined & grouped):
            self._fault(step, role, f"{name!r} is in group_by and in across; remove it from one of them")
        return tuple(dimensions)

    def _finest(self, step: str, roles: Mapping[Dimension, str]) -> tuple[Dimension, ...]:
        """Return of the dimensions with the same root the finest one, which has to fit the others."""
        finest = []
        for root in dict.fromkeys(dimension.root for dimension in roles):
            several = [dimension for dimension in roles if dimension.root == root]
            best = max(several, key=lambda dimension: len(dimension.fields) or math.inf)
            for other in several:
                if best.fields and not {*other.fields} <= {*best.fields}:
                    fields = (", ".join(dimension.fields) for dimension in (best, other))
                    self._fault(step, roles[other], f"groups by {' and by '.join(fields)} do not fit")
            finest.append(best)
        return tuple(finest)

    def _fault(self, step: str, role: str, message: str) -> None:
        self.report(step, role, f"step {step!r}: {message}")
