"""Pipelines bound to their functions: steps with inspections of their code, in an order of execution."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

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
    dimensions: tuple[str, ...] = ()
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

_BY = " by "  # names contain no spaces


def grouping(root: str, fields: Sequence[str]) -> str:
    """Return the dimension of the groups of a root's datasets or combinations by these fields."""
    return f"{root}{_BY}{', '.join(dict.fromkeys(fields))}"


def root_of(dimension: str) -> str:
    """Return the input, or the step with a matrix, of a dimension."""
    return dimension.partition(_BY)[0]


def fields_of(dimension: str) -> tuple[str, ...]:
    """Return the fields that a dimension groups by; none for the datasets themselves."""
    _, _, fields = dimension.partition(_BY)
    return tuple(fields.split(", ")) if fields else ()


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
    """Return the fields of records; the others are parameters of steps."""
    return tuple(name for name in fields if not name.startswith(PARAMS_PREFIX))


class Dimensions:
    """The dimensions of each step, in the order of its inputs; `report` gets step, role and message of each fault."""

    def __init__(self, spec: PipelineSpec, report: Callable[[str, str, str], None]) -> None:
        self.spec = spec
        self.report = report
        self.by_step: dict[str, tuple[str, ...]] = {}

    def add(self, name: str, collected: frozenset[str]) -> None:
        """Determine the dimensions of a step, after those that it depends on, with its roles that take lists."""
        roles: dict[str, str] = {}  # dimension -> the first role with it
        matched: dict[str, str] = {}  # likewise, for inputs that are matched with another one
        for role, sources in self.spec.steps[name].inputs.items():
            for source in sources:
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
                        roles.setdefault(source.source, role)
                    for dimension in self.by_step.get(source.source, ()):
                        roles.setdefault(dimension, role)
        for partner, role in matched.items():
            # The datasets of a group that agree in the fields they are matched by share one partner.
            by = {name for other in self.spec.inputs.values() if other.match for name in other.match.get(partner, ())}
            if not any(root_of(dim) == partner and fields_of(dim) and by <= {*fields_of(dim)} for dim in roles):
                roles.setdefault(partner, role)
        if len(self.spec.steps[name].combinations) > 1:
            roles[name] = ""
        self.by_step[name] = self._finest(name, roles)

    def _check_fields(self, step: str, role: str, fields: Iterable[str]) -> bool:
        """Return whether all are fields of records or parameters; report the first that is not."""
        wrong = next((name for name in record_fields(fields) if not is_field(name)), None)
        if wrong is not None:
            self._fault(step, role, unknown_field(wrong))
        return wrong is None

    def _grouped(self, step: str, role: str, source: Source) -> tuple[str, ...]:
        """Return the dimensions that `group_by` requests; none if that is impossible, which is reported."""
        fields = source.group_by or ()
        if not self._check_fields(step, role, fields):
            return ()
        swept = self._swept_upstream(step, role, source)
        if not (by_record := record_fields(fields)):
            return swept
        roots = [dim for dim in self.by_step.get(source.source, ()) if root_of(dim) in self.spec.inputs]
        roots = [source.source] if source.source in self.spec.inputs else roots
        if len(roots) != 1:
            reason = f"it exists once for each of {', '.join(roots)} together" if roots else "it is a single value"
            self._fault(step, role, f"{source.source} cannot be grouped: {reason}")
            return ()
        (dimension,) = roots
        root, declared = root_of(dimension), self.spec.inputs[root_of(dimension)]
        if declared.partner or (isinstance(declared, FileInput) and not declared.each):
            partner = declared.partner
            remedy = f"group {partner}, which it is matched with" if partner else "give it `each: true`"
            self._fault(step, role, f"the datasets of {root} cannot be grouped; {remedy}")
            return ()
        if left := set(by_record) - set(fields_of(dimension)) if fields_of(dimension) else set():
            reason = f"{source.source} is already grouped by {', '.join(fields_of(dimension))}, and not by {min(left)}"
            self._fault(step, role, f"{reason}; use fields that it is grouped by")
            return ()
        return grouping(root, by_record), *swept

    def _swept_upstream(self, step: str, role: str, source: Source) -> tuple[str, ...]:
        """Return the dimensions of swept parameters upstream, except those joined by `across`."""
        joined, dimensions, known = set(source.across or ()), [], set[str]()
        for dimension in self.by_step.get(source.source, ()):
            if (root := root_of(dimension)) not in self.spec.steps:
                continue
            swept = {name for combination in self.spec.steps[root].combinations for name in combination}
            params = [name.removeprefix(PARAMS_PREFIX) for name in fields_of(dimension)] or sorted(swept)
            known.update(params)
            if left := [f"{PARAMS_PREFIX}{name}" for name in params if name not in joined]:
                dimensions.append(dimension if len(left) == len(params) else grouping(root, left))
        grouped = {name.removeprefix(PARAMS_PREFIX) for name in source.group_by or () if name.startswith(PARAMS_PREFIX)}
        for name in sorted((joined | grouped) - known):
            hint = nearest(name, sorted(known)) if known else "nothing is swept there"
            self._fault(step, role, f"no matrix above {source.source} sweeps {name!r}; {hint}")
        for name in sorted(joined & grouped):
            self._fault(step, role, f"{name!r} is in group_by and in across; remove it from one of them")
        return tuple(dimensions)

    def _finest(self, step: str, roles: Mapping[str, str]) -> tuple[str, ...]:
        of_root: dict[str, list[str]] = {}
        for dimension in roles:
            of_root.setdefault(root_of(dimension), []).append(dimension)
        finest = []
        for root, several in of_root.items():
            if root in several:
                finest.append(root)
                continue
            best = max(several, key=lambda dim: len(fields_of(dim)))
            for other in several:
                if not set(fields_of(other)) <= set(fields_of(best)):
                    fields = (", ".join(fields_of(dimension)) for dimension in (best, other))
                    self._fault(step, roles[other], f"groups by {' and by '.join(fields)} do not fit")
            finest.append(best)
        return tuple(finest)

    def _fault(self, step: str, role: str, message: str) -> None:
        self.report(step, role, f"step {step!r}: {message}")
