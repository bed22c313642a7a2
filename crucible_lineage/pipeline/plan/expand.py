"""Expansion of steps into instances, one for each value of `each` inputs and matrices, with their parents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from crucible_lineage.core.slots import slot
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.records import shared, value_of, values_of
from crucible_lineage.marks import is_entry
from crucible_lineage.pipeline.declare.inputs import CalibrationInput, PairedInput
from crucible_lineage.pipeline.declare.parts import TimeMatch
from crucible_lineage.pipeline.declare.pipeline import OWN_PARENT_FIELDS, Source, template_fields
from crucible_lineage.pipeline.plan.bind import filled_in, parent_params
from crucible_lineage.pipeline.plan.bound import (
    BoundPipeline,
    BoundStep,
    Dimension,
    record_fields,
)
from crucible_lineage.pipeline.plan.inputs import InputItem, Inputs, joint_span
from crucible_lineage.pipeline.plan.inspect import Inspection
from crucible_lineage.pipeline.plan.naming import (
    Value,
    first_scope,
    groups_of,
    groups_of_combinations,
    swept_above,
    values_of_input,
)
from crucible_lineage.pipeline.plan.partners import NO_ID, Candidates, Partner, Partners, RelationRow
from crucible_lineage.refs import DatasetRef
from crucible_lineage.text.amounts import amount, distinct, is_equal, value_text

MOST_INSTANCES = 100_000
Point = Mapping[Dimension, int]  # dimension -> index of its value


@dataclass(frozen=True)
class InputEdge:
    """Edge from a parent: an item of an input, or an output of another instance; `chosen` if selected in time."""

    role: str
    files: str | None
    input: str | None = None
    index: int = 0
    instance: str | None = None
    output: str | None = None
    chosen: Partner | None = None

    def item(self, inputs: Inputs) -> InputItem:
        """Return the item of an input."""
        return inputs[self.input or ""][self.index]

    def dataset(self, inputs: Inputs, results_of: Callable[[str], Mapping[str, DatasetRef]]) -> DatasetRef | None:
        """Return the parent, if it exists. `results_of` returns the results of an instance by output."""
        if self.instance is None:
            return self.item(inputs).dataset
        results = results_of(self.instance)
        return results.get(self.output) if self.output else next(iter(results.values()), None)


@dataclass(frozen=True)
class Instance:
    """A step for one value of each of its dimensions.

    `subject` holds the ids of the `each` datasets it is about, `slots` the slots of each output. `blocked` says why it
    cannot be made. `group` is the label of its group. `about` are the items of inputs that it is about or derived from,
    by input and index. `notes` are about its parents, `gaps` are the items left out of its lists, with the reasons.
    `named` are values of the fields in the name of its result, as far as the data it is about agree in them.
    """

    name: str
    step: BoundStep
    label: str
    given: Mapping[str, object]
    inspection: Inspection
    feeds: tuple[InputEdge, ...]
    subject: tuple[str, ...] = ()
    blocked: str = ""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: str = ""
    about: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    named: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The instances that it depends on."""
        return tuple(dict.fromkeys(feed.instance for feed in self.feeds if feed.instance))

    @property
    def choices(self) -> dict[str, list[dict[str, object]]]:
        """The parents that were chosen in time, by role."""
        choices: dict[str, list[dict[str, object]]] = {}
        for feed in self.feeds:
            if feed.chosen is not None:
                choices.setdefault(feed.role, []).append({"name": feed.chosen.label, **feed.chosen.to_json()})
        return choices


Inspect = Callable[[BoundStep, Mapping[str, object]], Inspection]


class Expansion:
    """Expands steps into instances; `inspect` inspects one with parameters from records.

    `returned` are the metadata of existing results, by instance, as far as partners in time share them.
    """

    def __init__(
        self, pipeline: BoundPipeline, inputs: Inputs, inspect: Inspect, returned: Mapping[str, JsonMapping]
    ) -> None:
        self.inspect = inspect
        self.returned = returned
        self.pipeline = pipeline
        self.has_partners = any(source.is_partner for step in pipeline.steps.values() for _, source in step.spec.edges)
        self.inputs = inputs
        self.instances: dict[str, Instance] = {}
        self.names: dict[str, dict[tuple[int, ...], str]] = {}  # step -> the names of its instances
        self.columns: dict[Dimension, tuple[Value, ...]] = {}  # dimension -> its values
        self.value_at: dict[Dimension, dict[int, int]] = {}  # dimension -> member -> the value that it belongs to
        self.params: dict[
            str, Mapping[str, object]
        ] = {}  # instance -> its parameters; with partners in time, those upstream, too
        self.candidates: dict[object, Candidates] = {}  # by name and rule
        for name, items in inputs.items():
            self._add_column(Dimension(name), values_of_input(items))

    def expand(self) -> dict[str, Instance]:
        """Return the instances, in an order of execution."""
        for step in self.pipeline.steps.values():
            labels = [variant.label for variant in step.variants]
            self._add_column(Dimension(step.name), tuple(Value(label, label, (n,)) for n, label in enumerate(labels)))
            grouped = {Dimension(root, by_record) for _, source in step.spec.edges
                       if source.group_by and (by_record := record_fields(source.group_by))
                       for root in self._roots(source.source) if root in self.inputs}  # fmt: skip
            for dimension in {*grouped, *step.dimensions}.difference(self.columns):
                root, fields = dimension
                if root in self.inputs:
                    self._add_column(dimension, groups_of(self.inputs[root], fields))
                else:
                    combinations = self.pipeline.steps[root].spec.combinations
                    self._add_column(dimension, groups_of_combinations(combinations, fields))
            sizes = [len(self.columns[dimension]) for dimension in step.dimensions]
            if len(self.instances) + (count := math.prod(sizes)) > MOST_INSTANCES:
                each = ", ".join(map(str, step.dimensions))
                message = f"step {step.name!r} would have {count} instances, one for each combination of {each}"
                raise InputError(f"{message}; at most {MOST_INSTANCES} are possible. Pair inputs by `match`")
            self.names[step.name] = {}
            swept = tuple(swept_above(step, self.pipeline))
            for indices in product(*map(range, sizes)):
                self._add(step, dict(zip(step.dimensions, indices, strict=True)), indices, swept)
        return self.instances

    def _add_column(self, dimension: Dimension, values: tuple[Value, ...]) -> None:
        self.columns[dimension] = values
        self.value_at[dimension] = {member: n for n, value in enumerate(values) for member in value.members}

    def _roots(self, source: str) -> list[str]:
        return [source] if source in self.inputs else [dim.root for dim in self.pipeline.steps[source].dimensions]

    def _add(self, step: BoundStep, point: Point, indices: tuple[int, ...], swept: tuple[str, ...]) -> None:
        variant = step.variants[point.get(Dimension(step.name), 0)]
        values = {dimension: self.columns[dimension][index] for dimension, index in point.items()}
        labels = [value.label for value in values.values()]
        name = f"{step.name}[{', '.join(labels)}]" if labels else step.name
        if name in self.instances:
            raise InputError(f"two instances would be called {name!r}; give them values that look different")
        parents = self._sources(step, variant.given, point, name)
        feeds = tuple(feed for _, part in parents for feed in part.feeds)
        group = ", ".join(value.label for dimension, value in values.items() if dimension.fields)
        items = [value.label for (root, fields), value in values.items() if root in self.inputs and not fields]
        steps = dict.fromkeys((*swept, *(root for root, fields in point if root in self.names and not fields)))
        variants = [self.pipeline.steps[other].variants[point.get(Dimension(other), 0)].label for other in steps]
        about = self._about(values)
        instance = Instance(
            name=name,
            step=step,
            label=", ".join((*items[0 if group else 1 :], *variants)),  # beside its group, or its first item
            group=group,
            given=variant.given,
            inspection=variant.inspection,
            feeds=feeds,
            subject=tuple(mfid for root, index in about if (mfid := self.inputs[root][index].mfid)),
            blocked=next(filter(None, self._faults(step, values.values(), parents)), ""),
            slots=self._slots(step, values, variants),
            about=about or tuple(items_behind((feed for feed in feeds if feed.chosen is None), self.instances)),
            notes=tuple(_notes(step, feeds)),
            gaps=tuple(gap for _, part in parents for gap in part.gaps),
        )
        self.instances[name] = instance if instance.blocked else self._with_shared_values(instance)
        self.names[step.name][indices] = name

    def _about(self, values: Mapping[Dimension, Value]) -> tuple[tuple[str, int], ...]:
        """Return the items of inputs that an instance with these values is about."""
        roots = ((root, value) for (root, _), value in values.items() if root in self.inputs)
        return tuple((root, index) for root, value in roots for index in value.members)

    def _slots(
        self, step: BoundStep, values: Mapping[Dimension, Value], variants: Sequence[str]
    ) -> dict[str, tuple[str, ...]]:
        """Return the slots of each output, in the scope of these values; none if the step is made from records."""
        if not step.declared:
            return {}
        scopes = [value.scope for (root, fields), value in values.items() if fields or root not in self.names]
        scope = ", ".join((*(scopes or [first_scope(step, self.pipeline, self.columns)]), *variants))
        place = step.declared["name"], step.declared["step"]
        return {output: (slot(*place, output, scope),) for output in step.inspection.outputs}

    def _faults(
        self, step: BoundStep, values: Iterable[Value], parents: Sequence[tuple[str, _SourceParents]]
    ) -> Iterator[str]:
        """Yield why an instance cannot be made, or nothing, for each of its values and parents."""
        yield from (value.fault for value in values)
        for role, part in parents:
            if part.feeds or part.blocks or role in step.inspection.required:  # optional ones may be absent
                yield part.fault
        if not any(part.feeds for _, part in parents):
            yield "none of its inputs exists; a derived dataset needs a parent"

    def _sources(
        self, step: BoundStep, given: Mapping[str, object], point: Point, name: str
    ) -> list[tuple[str, _SourceParents]]:
        """Return an instance's parents, each with its role; those in time are chosen for the others."""
        edges = step.spec.edges
        parents = [None if source.is_partner else self._feeds(step, role, source, point) for role, source in edges]
        own = [feed for part in parents if part for feed in part.feeds]
        self.params[name] = self._params(given, own) if self.has_partners else given
        own = [feed for feed in own if feed.chosen is None]
        first = [feed for feed in own if feed.role == own[0].role]  # what the instance is about
        return [
            (role, part or self._chosen_feeds(source, role, name, first))
            for (role, source), part in zip(edges, parents, strict=True)
        ]

    def _params(self, given: Mapping[str, object], feeds: Sequence[InputEdge]) -> Mapping[str, object]:
        """Return the parameters of an instance, and those upstream that agree."""
        upstream: dict[str, object] = {}
        differing = set()
        for name in dict.fromkeys(feed.instance for feed in feeds if feed.instance):
            for param, value in self.params[name].items():
                if not is_equal(upstream.setdefault(param, value), value):
                    differing.add(param)
        return {**{param: value for param, value in upstream.items() if param not in differing}, **given}

    def _with_shared_values(self, instance: Instance) -> Instance:
        """Return the instance with the values from the data behind its roles, in parameters and for its name."""
        params, template = parent_params(instance.step.spec), instance.step.spec.output.dataset_name or ""
        if not params and "{" not in template:
            return instance
        behind: dict[str, list[InputItem]] = {}
        for role in instance.step.spec.inputs:
            items = items_behind((feed for feed in instance.feeds if feed.role == role), self.instances)
            behind[role] = [self.inputs[root][index] for root, index in items]
        instance = self._with_parameters(instance, params, behind) if params else instance
        return instance if instance.blocked else _with_name(instance, template, behind)

    def _with_parameters(
        self, instance: Instance, params: Mapping[str, Sequence[str]], behind: Mapping[str, Sequence[InputItem]]
    ) -> Instance:
        """Return the instance with its parameters filled in; blocked if the data behind a role do not agree."""
        given = dict(instance.given)
        for param, fields in params.items():
            written, values = instance.step.spec.params[param], {}
            for name in fields:
                role, _, field_name = name.partition(".")
                values[name], fault = shared_value(field_name, behind[role])
                if fault:
                    return replace(instance, blocked=f"parameter {param!r} is {written}, and {fault}")
            try:
                given[param] = filled_in(str(written), values)
            except (TypeError, ValueError) as error:
                return replace(instance, blocked=f"parameter {param!r} is {written}: {error}")
        try:
            return replace(instance, given=given, inspection=self.inspect(instance.step, given))
        except InputError as error:
            faults = "; ".join(fault.message for fault in error.faults) or str(error)
            return replace(instance, given=given, blocked=faults)

    def _members(self, root: str, point: Point, fields: Sequence[str] = ()) -> Sequence[int] | None:
        """Return the members of a root that an instance is about, or their group by `fields`; None for all."""
        value = next(
            (self.columns[dimension][index] for dimension, index in point.items() if dimension.root == root), None
        )
        if value is None or not fields:
            return value.members if value else None
        dimension = Dimension(root, tuple(fields))
        return self.columns[dimension][self.value_at[dimension][value.members[0]]].members

    def _edge(self, source: Source, role: str, key: int | str, chosen: Partner | None = None) -> InputEdge:
        """Return the edge from an item of an input, by index, or from an instance of a step, by name."""
        if isinstance(key, str):
            return InputEdge(role, source.files, instance=key, output=source.output, chosen=chosen)
        return InputEdge(role, source.files, input=source.source, index=key, chosen=chosen)

    def _feeds(self, step: BoundStep, role: str, source: Source, point: Point) -> _SourceParents:
        """Return the parents from a source, with the fault if there are none."""
        collects, name = role in step.collected, source.source
        declared = self.pipeline.spec.inputs.get(name)
        if declared is None:
            feeds = tuple(self._edge(source, role, key) for key in self._instances(source, point, collects=collects))
            return _SourceParents(feeds, "" if feeds else f"there is nothing to collect: {name} has no instances")
        if isinstance(declared, CalibrationInput):
            parents = self._calibrations(source, role, declared, point, collects=collects)
        elif declared.match is not None:
            parents = self._matches(source, role, declared, point, collects=collects)
        else:
            members = self._members(name, point, record_fields(source.group_by or ()))
            if members is None or not (source.group_by or not collects or Dimension(name) not in point):
                members = range(len(self.inputs[name]))
            feeds = tuple(self._edge(source, role, index) for index in members)
            parents = _SourceParents(feeds, "" if feeds else f"input {name} has no dataset")
        parents = self._without_blocked(parents, name) if source.gaps else parents
        if len(parents.feeds) > 1 and step.inspection.roles[role] == "file":
            count = amount(len(parents.feeds), "dataset")
            fault = f"input {name} has {count}, but {role!r} of the step is one file"
            return replace(parents, fault=f"{fault}; give the input `each: true`, or annotate the role list[Path]")
        blocked = "" if parents.fault else self._blocked(parents.feeds)
        return replace(parents, fault=blocked) if blocked else parents

    def _without_blocked(self, parents: _SourceParents, name: str) -> _SourceParents:
        """Return the parents from an input without those that are blocked, which are its gaps."""
        items = [feed.item(self.inputs) for feed in parents.feeds]
        left = tuple(feed for feed, item in zip(parents.feeds, items, strict=True) if not item.blocked)
        fault = parents.fault or ("" if left else f"all datasets of input {name} are blocked")
        return replace(
            parents, feeds=left, fault=fault, gaps=tuple(f"{i.label}: {i.blocked}" for i in items if i.blocked)
        )

    def _blocked(self, feeds: Iterable[InputEdge]) -> str:
        """Return why the first of the blocked items among parents is blocked."""
        return next((reason for feed in feeds if feed.input and (reason := feed.item(self.inputs).blocked)), "")

    def _data(self, root: str, members: Iterable[int] | None) -> list[InputItem]:
        """Return these items of an input, or all."""
        return [self.inputs[root][index] for index in members] if members is not None else [*self.inputs[root]]

    def _matches(
        self, source: Source, role: str, declared: PairedInput, point: Point, *, collects: bool
    ) -> _SourceParents:
        """Return the datasets of a matched input for those that the instance is about: the nearest in time, or all."""
        ((partner, same),) = (declared.match or {}).items()
        candidates, members = self._candidates(source.source, same, declared), self._members(partner, point)
        own = self._data(partner, members)
        if members is not None and not collects:
            group = next(self.columns[dim][index].label for dim, index in point.items() if dim.root == partner)
            label = own[0].label if len(own) == 1 else group
            return self._partners(source, role, candidates.choose(_row(0, label, own, {}, same)))
        equal = [candidates.equal(_row(0, item.label, [item], {}, same)) for item in own]
        keys = sorted({row.key for rows, _ in equal for row in rows})
        fault = next((none.fault for _, none in equal if none.fault and members is not None), "")
        return _SourceParents(tuple(self._edge(source, role, key) for key in keys), fault)

    def _calibrations(
        self, source: Source, role: str, declared: CalibrationInput, point: Point, *, collects: bool
    ) -> _SourceParents:
        """Return the calibrations that are certified for the data that an instance is about."""
        data = self._data(declared.of, self._members(declared.of, point))
        selections = [measured.calibrations[source.source] for measured in data]
        chosen: dict[tuple[int | str, str], Partner] = {}
        for selection in selections:
            if selection.fault:
                return self._partners(source, role, selection)
            for calibration in selection.chosen:
                chosen.setdefault((calibration.key, calibration.rule), calibration)
        if not collects and len(chosen) > max(len(selection.chosen) for selection in selections):
            named = ", ".join(dict.fromkeys(calibration.label for calibration in chosen.values()))
            fault = f"several calibrations are certified for its data: {named}; group by fields that distinguish these"
            return _SourceParents((), fault, blocks=True)
        return self._partners(source, role, Partners(tuple(chosen.values())))

    def _chosen_feeds(self, source: Source, role: str, name: str, first: Sequence[InputEdge]) -> _SourceParents:
        """Choose the partners in time from a source for the parents that the instance is about."""
        own = [self.inputs[root][index] for root, index in items_behind(first, self.instances)]
        label = own[0].label if len(own) == 1 else name
        made = [feed.instance for feed in first if feed.instance]
        shared_metadata = shared(self._made_fields(instance)["metadata"] for instance in made)
        fields = {"params": self.params[name], "metadata": shared_metadata}
        found = self._candidates(source.source, source.match, source).choose(_row(0, label, own, fields, source.match))
        if not found.fault or self.returned.keys() >= set(made) or not any(map(is_entry, source.match)):
            return self._partners(source, role, found)
        fault = f"{found.fault}; what a step returns is known once its result is at Crucible: run again then"
        return _SourceParents((), fault, blocks=True)

    def _made_fields(self, instance: str) -> dict[str, JsonMapping]:
        """Return the fields that results of an instance have beside those of its data."""
        declared = self.instances[instance].step.spec.output.metadata
        return {"params": self.params[instance], "metadata": {**declared, **self.returned.get(instance, {})}}

    def _partners(self, source: Source, role: str, partners: Partners) -> _SourceParents:
        feeds = tuple(self._edge(source, role, partner.key, partner) for partner in partners.chosen)
        fault = partners.fault or self._blocked(feeds)
        return _SourceParents(feeds, fault, blocks=bool(fault) and not partners.absent)

    def _candidates(self, name: str, same: tuple[str, ...], rule: TimeMatch) -> Candidates:
        """Return the candidates for partners: the datasets of an input, or the results of a step."""
        key = (name, same, rule.sides, rule.within, rule.otherwise)
        if key not in self.candidates:
            rows = [_row(number, item.label, [item], {}, same) for number, item in enumerate(self.inputs.get(name, ()))]
            for instance in self.names.get(name, {}).values():
                items = [self.inputs[root][index] for root, index in self.instances[instance].about]
                rows.append(_row(instance, instance, items, self._made_fields(instance), same))
            self.candidates[key] = Candidates(f"{'input' if name in self.inputs else 'step'} {name}", rows, same, rule)
        return self.candidates[key]

    def _instances(self, source: Source, point: Point, *, collects: bool) -> Iterator[str]:
        """Yield the instances of a source step at this point; if it collects, all in the dimensions that it lacks."""
        name, indices = source.source, list[int]()
        if not collects:
            for dimension in self.pipeline.steps[name].dimensions:  # they may be coarser than its own
                members = self._members(dimension.root, point)
                assert members
                indices.append(self.value_at[dimension][members[0]])
            yield self.names[name][tuple(indices)]
            return
        by_record, selected = record_fields(source.group_by or ()), {}
        for root in self._roots(name):
            members = self._members(root, point, by_record if root in self.inputs else ())
            if members is not None:
                selected[root] = set(members)
        for numbers, instance in self.names[name].items():
            other_point = dict(zip(self.pipeline.steps[name].dimensions, numbers, strict=True))
            if all(members.intersection(self._members(root, other_point) or ()) for root, members in selected.items()):
                yield instance


def _with_name(instance: Instance, template: str, behind: Mapping[str, Sequence[InputItem]]) -> Instance:
    """Return the instance with the values that its name needs, and a note if the data behind a role do not agree."""
    named, notes = dict[str, object](), list[str]()
    for name in template_fields(template):
        role, _, field_name = name.partition(".")
        if role not in behind or field_name in OWN_PARENT_FIELDS:
            continue
        value, fault = shared_value(field_name, behind[role])
        if not fault:
            named[name] = value
        elif any(feed.role == role and feed.input for feed in instance.feeds):  # else the parent may have it
            notes.append(f"default name, since {template!r} cannot be filled in: {{{name}}}: {fault}")
    return replace(instance, notes=(*instance.notes, *notes[:1]), named=named)


def items_behind(feeds: Iterable[InputEdge], instances: Mapping[str, Instance]) -> dict[tuple[str, int], None]:
    """Return the items of inputs that parents are or are derived from, each once."""
    behind: dict[tuple[str, int], None] = {}
    for feed in feeds:
        if feed.instance is not None:
            behind |= dict.fromkeys(instances[feed.instance].about)
        elif feed.input is not None:
            behind[feed.input, feed.index] = None
    return behind


def shared_value(name: str, items: Sequence[InputItem]) -> tuple[object, str]:
    """Return the value of a field that these data agree in; or None and the reason why there is none."""
    if lacking := [item.label for item in items if value_of(item.fields, name) is None]:
        return None, f"{lacking[0]} has none"
    values = distinct(value_of(item.fields, name) for item in items)
    if len(values) == 1:
        return values[0], ""
    differ = f"they differ: {', '.join(map(value_text, values))}; group by {name}"
    return None, differ if values else "there are no data"


@dataclass(frozen=True)
class _SourceParents:
    """The parents from a source; with `blocks`, a fault counts for an optional input, too; `gaps` were left out."""

    feeds: tuple[InputEdge, ...] = ()
    fault: str = ""
    blocks: bool = False
    gaps: tuple[str, ...] = ()


def _row(key: int | str, label: str, items: Sequence[InputItem], own: JsonMapping, same: Sequence[str]) -> RelationRow:
    """Return datasets as one row, with the values of its `own` fields, or those that all of them share."""
    values, fault, behind = [], "", [item.fields for item in items]
    for name in same:
        found = ["" if value is None else value_text(value) for value in values_of(name, own, behind)] or [""]
        if found != [found[0]] or not found[0]:
            listed = ", ".join(value or "nothing" for value in found)
            fault = fault or (f"{name} differs: {listed}" if len(found) > 1 else f"there is no {name} in the record")
        values.append(found[0])
    undated = next((item.label for item in items if item.span is None), "") if items else label
    return RelationRow(
        key=key,
        label=label,
        values=tuple(values),
        span=joint_span(item.span for item in items),
        tie=max((item.mfid or NO_ID for item in items), default=NO_ID),
        fault=fault,
        undated=undated,
        size=len(items),
    )


def _notes(step: BoundStep, feeds: Sequence[InputEdge]) -> Iterator[str]:
    """Yield notes for the plan: parents chosen in time, and joined variants."""
    for feed in feeds:
        if feed.chosen is not None:
            yield f"{feed.role}: {feed.chosen.label}, {feed.chosen}"
    for role, source in step.spec.edges:
        if source.across:
            yield f"{role}: joined across {', '.join(source.across)}"
