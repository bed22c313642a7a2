"""Expansion of steps into instances, one for each value of `each` inputs and matrices, with their parents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.fields import REGISTERED, shared, value_of, values_of
from crucible_lineage.marks import METADATA_PREFIX
from crucible_lineage.pipeline.declare.inputs import CalibrationInput
from crucible_lineage.pipeline.declare.parts import TimeMatch
from crucible_lineage.pipeline.declare.pipeline import OWN_PARENT_FIELDS, Source, template_fields
from crucible_lineage.pipeline.plan.bind import filled_in, parent_params
from crucible_lineage.pipeline.plan.bound import (
    PARAMS_PREFIX,
    BoundPipeline,
    BoundStep,
    Variant,
    fields_of,
    grouping,
    record_fields,
    root_of,
)
from crucible_lineage.pipeline.plan.inputs import InputItem, Inputs, joint_span
from crucible_lineage.pipeline.plan.inspect import Inspection
from crucible_lineage.pipeline.plan.naming import DimensionLabels, Group, Point, groups_of, groups_of_variants
from crucible_lineage.pipeline.plan.partners import NO_ID, Candidates, Partner, Partners, RelationRow
from crucible_lineage.refs import DatasetRef
from crucible_lineage.text.amounts import amount, distinct, is_equal, value_text

MOST_INSTANCES = 100_000


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
    `named` are values of the fields in the name of its result, as far as the data it is about agree in them. What it
    `awaits` are parents whose returned values its partners in time share.
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
    awaits: tuple[str, ...] = ()

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
        self.inputs = inputs
        self.instances: dict[str, Instance] = {}
        self.points: dict[str, list[tuple[Point, str]]] = {}  # step -> points and names of its instances
        self.names: dict[tuple[str, tuple[int, ...]], str] = {}
        self.groups: dict[str, tuple[Group, ...]] = {}
        self.naming = DimensionLabels(pipeline, inputs, self.groups)
        self.group_at: dict[str, dict[int, int]] = {}  # dimension -> member -> its group
        self.params: dict[str, Mapping[str, object]] = {}  # instance -> its parameters and those upstream
        self.templated = {  # steps that use fields of the data behind their roles
            name
            for name, step in pipeline.steps.items()
            if "{" in (step.spec.output.dataset_name or "") or parent_params(step.spec)
        }
        self.candidates: dict[object, Candidates] = {}  # by matched input, or by source of partners in time

    def expand(self) -> dict[str, Instance]:
        """Return the instances, in an order of execution."""
        for step in self.pipeline.steps.values():
            self._group(step)
            sizes = [self._size(dimension) for dimension in step.dimensions]
            if len(self.instances) + math.prod(sizes) > MOST_INSTANCES:
                message = f"step {step.name!r} would have {math.prod(sizes)} instances, one for each combination of "
                message += (
                    f"{', '.join(step.dimensions)}; at most {MOST_INSTANCES} are possible. Pair inputs by `match`"
                )
                raise InputError(message)
            self.points[step.name] = []
            for indices in product(*map(range, sizes)):
                self._add(step, dict(zip(step.dimensions, indices, strict=True)), indices)
        return self.instances

    def _group(self, step: BoundStep) -> None:
        """Form the groups that the step and its inputs use."""
        named = {grouping(root, by_record) for source in step.spec.all_sources
                 if source.group_by and (by_record := record_fields(source.group_by))
                 for root in self._roots(source.source) if root in self.inputs}  # fmt: skip
        for dimension in {*named, *filter(fields_of, step.dimensions)} - self.groups.keys():
            root, fields = root_of(dimension), fields_of(dimension)
            if root in self.inputs:
                groups = groups_of(self.inputs[root], fields)
            else:
                combinations = self.pipeline.steps[root].spec.combinations
                params = [name.removeprefix(PARAMS_PREFIX) for name in fields]
                groups = groups_of_variants(combinations, params)
            self.groups[dimension] = groups
            self.group_at[dimension] = {index: number for number, group in enumerate(groups) for index in group.indices}

    def _roots(self, source: str) -> list[str]:
        return [source] if source in self.inputs else [root_of(name) for name in self.pipeline.steps[source].dimensions]

    def _size(self, dimension: str) -> int:
        if dimension in self.inputs:
            return len(self.inputs[dimension])
        return len(self.groups[dimension] if dimension in self.groups else self.pipeline.steps[dimension].variants)

    def _add(self, step: BoundStep, point: Point, indices: tuple[int, ...]) -> None:
        variant = step.variants[point.get(step.name, 0)]
        labels = [self.naming.label(dimension, index) for dimension, index in point.items()]
        name = f"{step.name}[{', '.join(labels)}]" if labels else step.name
        faults = [self.groups[name][index].fault for name, index in point.items() if name in self.groups]
        parents = self._sources(step, point, name)
        for (role, number), part in parents.by_source.items():
            if part.feeds or part.blocks or role in step.inspection.required:  # optional ones may be absent
                faults.append(part.fault)
            faults.append(self._unexpected(role, step.sources[role][number], part.feeds))
        feeds, resolved = parents.feeds, _Resolved(variant.given, variant.inspection)
        if step.name in self.templated and not any(faults):
            resolved = self._in_scope(step, variant, feeds)
            faults.append(resolved.fault)
        blocked = next(filter(None, faults), "")
        if not feeds and not any(faults):
            blocked = "none of its inputs exists; a derived dataset needs a parent"
        if name in self.instances:
            raise InputError(f"two instances would be called {name!r}; give them values that look different")
        about = self._all_about(point)
        self.instances[name] = Instance(
            name=name,
            step=step,
            label=self.naming.own_label(step, point),
            group=self.naming.group(point),
            given=resolved.given,
            inspection=resolved.inspection,
            feeds=feeds,
            subject=tuple(mfid for root, index in about if (mfid := self.inputs[root][index].mfid)),
            blocked=blocked,
            slots=self.naming.slots(step, point),
            about=about or tuple(items_behind((feed for feed in feeds if feed.chosen is None), self.instances)),
            notes=tuple(filter(None, (*_notes(step, feeds), resolved.note))),
            gaps=tuple(gap for part in parents.by_source.values() for gap in part.gaps),
            named=resolved.named,
            awaits=tuple(name for part in parents.by_source.values() for name in part.awaits),
        )
        self.points[step.name].append((point, name))
        self.names[step.name, indices] = name

    def _sources(self, step: BoundStep, point: Point, name: str) -> _Parents:
        """Return an instance's parents by source; partners in time are chosen for the parents from other sources."""
        keys = [(role, number) for role, sources in step.sources.items() for number in range(len(sources))]
        parents = _Parents(name, dict.fromkeys(keys, _SourceParents()))
        partners = [(role, number) for role, number in keys if step.sources[role][number].is_partner]
        for role, number in keys:
            if (role, number) not in partners:
                parents.by_source[role, number] = self._feeds(step, role, step.sources[role][number], point)
        variant = step.variants[point.get(step.name, 0)]
        self.params[name] = self._params(variant, parents.feeds)
        chosen = {(role, n): self._chosen_feeds(step.sources[role][n], role, parents) for role, n in partners}
        return _Parents(name, {**parents.by_source, **chosen})

    def _params(self, variant: Variant, feeds: Sequence[InputEdge]) -> Mapping[str, object]:
        """Return the parameters of an instance, and those upstream that agree."""
        upstream: dict[str, object] = {}
        differing = set()
        for name in dict.fromkeys(feed.instance for feed in feeds if feed.instance):
            for param, value in self.params[name].items():
                if not is_equal(upstream.setdefault(param, value), value):
                    differing.add(param)
        return {**{param: value for param, value in upstream.items() if param not in differing}, **variant.given}

    def _all_about(self, point: Point) -> tuple[tuple[str, int], ...]:
        roots = [root for root in dict.fromkeys(map(root_of, point)) if root in self.inputs]
        return tuple((root, index) for root in roots for index in self._about(root, point) or ())

    def _in_scope(self, step: BoundStep, variant: Variant, feeds: Sequence[InputEdge]) -> _Resolved:
        """Return the parameters and the values for the name, from the data behind the roles of a step."""
        behind: dict[str, list[InputItem]] = {}
        for role in step.sources:
            items = items_behind((feed for feed in feeds if feed.role == role), self.instances)
            behind[role] = [self.inputs[root][index] for root, index in items]
        given, inspection = dict(variant.given), variant.inspection
        for param, fields in parent_params(step.spec).items():
            values = {}
            for name in fields:
                role, _, field_name = name.partition(".")
                values[name], fault = shared_value(field_name, behind[role])
                if fault:
                    message = f"parameter {param!r} is {step.spec.params[param]}, and {fault}"
                    return _Resolved(variant.given, inspection, message)
            given[param] = filled_in(str(step.spec.params[param]), values)
        try:
            inspection = self.inspect(step, given) if parent_params(step.spec) else inspection
        except InputError as error:
            return _Resolved(given, inspection, "; ".join(fault.message for fault in error.faults) or str(error))
        template, named, note = step.spec.output.dataset_name or "", dict[str, object](), ""
        for name in template_fields(template):
            role, _, field_name = name.partition(".")
            if role not in behind or field_name in OWN_PARENT_FIELDS:
                continue
            value, fault = shared_value(field_name, behind[role])
            if not fault:
                named[name] = value
            elif any(feed.role == role and feed.input is not None for feed in feeds):  # else the parent may have it
                note = note or f"default name, since {template!r} cannot be filled in: {{{name}}}: {fault}"
        return _Resolved(given, inspection, note=note, named=named)

    def _unexpected(self, role: str, source: Source, feeds: Sequence[InputEdge]) -> str:
        if source.expect is None or len(feeds) == source.expect:
            return ""
        labels = [feed.instance or feed.item(self.inputs).label for feed in feeds]
        shown = f": {', '.join(labels)}" if 0 < len(labels) <= 12 else ""
        return f"{role}: {source.expect} of {source.source} are expected, and there are {len(labels)}{shown}"

    def _members(self, root: str, point: Point, fields: Sequence[str] = ()) -> Sequence[int] | None:
        """Return the datasets of an input that an instance is about, or their group by `fields`; None for all."""
        members = self._about(root, point)
        if members is None or not fields:
            return members
        dimension = grouping(root, fields)
        return self.groups[dimension][self.group_at[dimension][members[0]]].indices

    def _about(self, root: str, point: Point) -> Sequence[int] | None:
        if root in point:
            return (point[root],)
        return next((self.groups[name][index].indices for name, index in point.items()
                     if name in self.groups and root_of(name) == root), None)  # fmt: skip

    def _at(self, dimension: str, point: Point) -> int:
        """Return an instance's index in a dimension of a parent, which may be coarser than its own."""
        if dimension in point:
            return point[dimension]
        members = self._about(root_of(dimension), point)
        assert members  # a step's dimensions are at least as fine as its parents'
        return self.group_at[dimension][members[0]]

    def _feeds(self, step: BoundStep, role: str, source: Source, point: Point) -> _SourceParents:
        """Return the parents from a source, with the fault if there are none."""
        collects = role in step.collected
        if source.source not in self.inputs:
            names = list(self._instances(source, point, collects=collects))
            fault = "" if names else f"there is nothing to collect: {source.source} has no instances"
            feeds = tuple(InputEdge(role, source.files, instance=name, output=source.output) for name in names)
            return _SourceParents(feeds, fault)
        parents = self._input_feeds(source, point, role, collects=collects)
        if source.gaps:
            parents = self._without_blocked(source.source, parents)
        if len(parents.feeds) > 1 and step.inspection.roles[role] == "file":
            count = amount(len(parents.feeds), "dataset")
            fault = f"input {source.source} has {count}, but {role!r} of the step is one file"
            return replace(parents, fault=f"{fault}; give the input `each: true`, or annotate the role list[Path]")
        items = self.inputs[source.source]
        blocked = next((items[feed.index].blocked for feed in parents.feeds if items[feed.index].blocked), "")
        return replace(parents, fault=parents.fault or blocked)

    def _without_blocked(self, name: str, parents: _SourceParents) -> _SourceParents:
        items = self.inputs[name]
        blocked = [items[feed.index] for feed in parents.feeds if items[feed.index].blocked]
        left = tuple(feed for feed in parents.feeds if not items[feed.index].blocked)
        fault = parents.fault or ("" if left else f"all datasets of input {name} are blocked")
        gaps = tuple(f"{item.label}: {item.blocked}" for item in blocked)
        return replace(parents, feeds=left, fault=fault, gaps=gaps)

    def _input_feeds(self, source: Source, point: Point, role: str, *, collects: bool) -> _SourceParents:
        name = source.source
        if self.pipeline.spec.inputs[name].match is not None:
            return self._matched_feeds(source, role, point, collects=collects)
        members = self._members(name, point, record_fields(source.group_by or ()))
        if members is None or not (source.group_by or not collects or name not in point):
            members = range(len(self.inputs[name]))
        fault = "" if members else f"input {name} has no dataset"
        return _SourceParents(tuple(InputEdge(role, source.files, input=name, index=index) for index in members), fault)

    def _matched_feeds(self, source: Source, role: str, point: Point, *, collects: bool) -> _SourceParents:
        """Return the datasets of a matched input for those that the instance is about: the nearest in time, or all."""
        name, declared = source.source, self.pipeline.spec.inputs[source.source]
        if isinstance(declared, CalibrationInput):
            return self._calibration_feeds(source, role, declared.of, point, collects=collects)
        ((partner, same),) = (declared.match or {}).items()
        if name not in self.candidates:
            self.candidates[name] = Candidates(f"input {name}", self._rows_of(name, same, declared), same, declared)
        candidates, members, items = self.candidates[name], self._about(partner, point), self.inputs[partner]
        if members is not None and not collects:
            own = [items[index] for index in members]
            named = (self.naming.label(name, index) for name, index in point.items() if root_of(name) == partner)
            label = own[0].label if len(own) == 1 else next(named, partner)
            return self._partner_feeds(source, role, candidates.choose(_row(0, label, own, {}, same, declared)))
        own = list(items) if members is None else [items[index] for index in members]
        equal = [candidates.equal(_row(0, item.label, [item], {}, same, declared)) for item in own]
        indices = sorted({row.key for rows, _ in equal for row in rows})
        feeds = tuple(InputEdge(role, source.files, input=name, index=index) for index in indices)
        return _SourceParents(feeds, next((none.fault for _, none in equal if none.fault and members is not None), ""))

    def _calibration_feeds(
        self, source: Source, role: str, partner: str, point: Point, *, collects: bool
    ) -> _SourceParents:
        """Return the calibrations that are certified for the data that an instance is about."""
        name, members = source.source, self._about(partner, point)
        numbers = {item.mfid or item.label: number for number, item in enumerate(self.inputs[name])}
        items = self.inputs[partner]
        data = list(items) if members is None else [items[index] for index in members]
        feeds: dict[tuple[str, str], InputEdge] = {}
        for measured in data:
            selection = measured.calibrations[name]
            if selection.fault:
                return _SourceParents((), selection.fault, blocks=not selection.absent)
            for chosen in selection.chosen:
                number = numbers[str(chosen.key)]
                item = self.inputs[name][number]
                choice = replace(chosen, key=number, label=item.dataset.name if item.dataset else item.label)
                feed = InputEdge(role, source.files, input=name, index=number, chosen=choice)
                feeds.setdefault((str(chosen.key), chosen.rule), feed)
        blocked = next((blocked for feed in feeds.values() if (blocked := self.inputs[name][feed.index].blocked)), "")
        if not collects and len(feeds) > max(len(measured.calibrations[name].chosen) for measured in data):
            named = ", ".join(dict.fromkeys(feed.chosen.label for feed in feeds.values() if feed.chosen))
            fault = f"several calibrations are certified for its data: {named}; group by fields that distinguish these"
            return _SourceParents((), fault, blocks=True)
        return _SourceParents(tuple(feeds.values()), blocked, blocks=bool(blocked))

    def _chosen_feeds(self, source: Source, role: str, parents: _Parents) -> _SourceParents:
        """Choose the partners in time from a source for the data that the instance is about."""
        if source not in self.candidates:
            self.candidates[source] = self._candidates(source)
        own = [self.inputs[root][index] for root, index in items_behind(parents.first, self.instances)]
        label = own[0].label if len(own) == 1 else parents.name
        made = [self._made_fields(feed.instance)["metadata"] for feed in parents.first if feed.instance]
        fields = {"params": self.params[parents.name], "metadata": shared(made)}
        found = self.candidates[source].choose(_row(0, label, own, fields, source.same, source))
        unknown = {feed.instance for feed in parents.first if feed.instance} - self.returned.keys()
        if not found.fault or not unknown or not any(name.startswith(METADATA_PREFIX) for name in source.same):
            return self._partner_feeds(source, role, found)
        fault = f"{found.fault}; what a step returns is known once its result is at Crucible"
        return _SourceParents((), fault, blocks=True, awaits=tuple(sorted(unknown)))

    def _made_fields(self, instance: str) -> dict[str, JsonMapping]:
        """Return the fields that results of an instance have beside those of its data."""
        declared = self.instances[instance].step.spec.output.metadata
        return {"params": self.params[instance], "metadata": {**declared, **self.returned.get(instance, {})}}

    def _partner_feeds(self, source: Source, role: str, partners: Partners) -> _SourceParents:
        feeds, blocked = [], ""
        for partner in partners.chosen:
            if source.source in self.inputs:
                feeds.append(InputEdge(role, source.files, input=source.source, index=int(partner.key), chosen=partner))
                blocked = blocked or self.inputs[source.source][int(partner.key)].blocked
            else:
                _, name = self.points[source.source][int(partner.key)]
                feeds.append(InputEdge(role, source.files, instance=name, output=source.output, chosen=partner))
        fault = partners.fault or blocked
        return _SourceParents(tuple(feeds), fault, blocks=bool(fault) and not partners.absent)

    def _candidates(self, source: Source) -> Candidates:
        """Return the candidates for partners: the datasets of an input, or the results of a step."""
        if source.source in self.inputs:
            rows = self._rows_of(source.source, source.same, source)
            return Candidates(f"input {source.source}", rows, source.same, source)
        rows = []
        for number, (_, name) in enumerate(self.points[source.source]):
            items = [self.inputs[root][index] for root, index in self.instances[name].about]
            rows.append(_row(number, name, items, self._made_fields(name), source.same, source))
        return Candidates(f"step {source.source}", rows, source.same, source)

    def _rows_of(self, name: str, same: Sequence[str], rule: TimeMatch) -> list[RelationRow]:
        return [_row(index, item.label, [item], {}, same, rule) for index, item in enumerate(self.inputs[name])]

    def _instances(self, source: Source, point: Point, *, collects: bool) -> Iterator[str]:
        """Yield the instances of a source step at this point; if it collects, all in the dimensions that it lacks."""
        name = source.source
        other = self.pipeline.steps[name]
        if not collects:
            yield self.names[name, tuple(self._at(dimension, point) for dimension in other.dimensions)]
            return
        by_record, selected = record_fields(source.group_by or ()), {}
        for root in self._roots(name):
            members = self._members(root, point, by_record if root in self.inputs else ())
            if members is not None:
                selected[root] = set(members)
        for other_point, instance in self.points[name]:
            if all(members.intersection(self._about(root, other_point) or ()) for root, members in selected.items()):
                yield instance


def items_behind(feeds: Iterable[InputEdge], instances: Mapping[str, Instance]) -> dict[tuple[str, int], None]:
    """Return the items of inputs that parents are or are derived from, each once."""
    behind: dict[tuple[str, int], None] = {}
    for feed in feeds:
        if feed.instance is not None:
            behind |= dict.fromkeys(instances[feed.instance].about)
        elif feed.input is not None:
            behind[feed.input, feed.index] = None
    return behind


@dataclass(frozen=True)
class _Resolved:
    """The parameters and inspection of an instance with the values from the data behind its roles, or the fault."""

    given: Mapping[str, object]
    inspection: Inspection
    fault: str = ""
    note: str = ""
    named: Mapping[str, object] = field(default_factory=dict)


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
    """The parents from a source; with `blocks`, a fault counts for an optional input, too; `gaps` were left out.

    `awaits` are the instances whose returned values are needed to choose.
    """

    feeds: tuple[InputEdge, ...] = ()
    fault: str = ""
    blocks: bool = False
    gaps: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parents:
    """The parents of an instance by source, as (role, index within it), in the order of the declaration."""

    name: str
    by_source: dict[tuple[str, int], _SourceParents]

    @property
    def feeds(self) -> tuple[InputEdge, ...]:
        """All parents."""
        return tuple(feed for part in self.by_source.values() for feed in part.feeds)

    @property
    def first(self) -> tuple[InputEdge, ...]:
        """The parents in the first role without partners in time: what the instance is about."""
        feeds = [feed for feed in self.feeds if feed.chosen is None]
        return tuple(feed for feed in feeds if feed.role == feeds[0].role)


def _row(
    key: int, label: str, items: Sequence[InputItem], own: JsonMapping, same: Sequence[str], rule: TimeMatch
) -> RelationRow:
    """Return datasets as one row, with the values of its `own` fields, or those that all of them share."""
    values, fault, behind = [], "", [item.fields for item in items]
    for name in same:
        found = ["" if value is None else value_text(value) for value in values_of(name, own, behind)] or [""]
        if found != [found[0]] or not found[0]:
            listed = ", ".join(value or "nothing" for value in found)
            fault = fault or (f"{name} differs: {listed}" if len(found) > 1 else f"there is no {name} in the record")
        values.append(found[0])
    spans = [item.span or (item.registered if rule.undated == REGISTERED else None) for item in items]
    undated = (
        next((item.label for item, span in zip(items, spans, strict=True) if span is None), "") if items else label
    )
    return RelationRow(
        key=key,
        label=label,
        values=tuple(values),
        span=joint_span(spans),
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
    for role, sources in step.sources.items():
        for source in sources:
            if source.across:
                yield f"{role}: joined across {', '.join(source.across)}"
