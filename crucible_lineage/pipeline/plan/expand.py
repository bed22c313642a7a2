"""Steps as instances: one for each value of `each` inputs and matrices, with the datasets and results that feed it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from crucible_lineage.amounts import amount, value_text
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.dimensions import OF_PARAMS, fields_of, grouping, of_records, root_of
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep, Variant
from crucible_lineage.pipeline.bind.step import from_parents, label_of
from crucible_lineage.pipeline.functions.inspection import Inspection
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.plan.naming import DimensionLabels, Group, Point, Scope, groups_of, groups_of_variants
from crucible_lineage.pipeline.plan.relation import NO_ID, Candidates, Partner, Partners, RelationRow
from crucible_lineage.pipeline.spec.declared import REGISTERED, TimeMatch
from crucible_lineage.pipeline.spec.inputs import CalibrationInput, value_of
from crucible_lineage.pipeline.spec.pipeline import Source, StepSpec

MOST_INSTANCES = 100_000


@dataclass(frozen=True)
class InputEdge:
    """A parent of an instance: an item of an input, or an output of another instance; `chosen` in time, if it was."""

    role: str
    files: str | None
    input: str | None = None
    index: int = 0
    instance: str | None = None
    output: str | None = None
    chosen: Partner | None = None


@dataclass(frozen=True)
class Instance:
    """A step for one value of each of its dimensions. `needs` are the instances it waits for.

    `subject` holds the ids of the `each` datasets it is about; `slots` are what each output is a result of, whichever
    dataset holds there; `blocked` says why it cannot be made at all; `group` is the label of its
    group. `about` are the items of inputs that it is about,
    or leads back to, by input and number; `notes` are what the plan says of its parents, `gaps` what is left out of
    its lists and why.
    """

    name: str
    step: BoundStep
    label: str
    given: Mapping[str, Any]
    inspection: Inspection
    feeds: tuple[InputEdge, ...]
    needs: tuple[str, ...]
    subject: tuple[str, ...] = ()
    blocked: str = ""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: str = ""
    about: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    @property
    def choices(self) -> dict[str, list[dict[str, Any]]]:
        """The parents that were chosen in time, by role."""
        found: dict[str, list[dict[str, Any]]] = {}
        for feed in self.feeds:
            if feed.chosen is not None:
                found.setdefault(feed.role, []).append({"name": feed.chosen.label, **feed.chosen.to_json()})
        return found


Inspect = Callable[[BoundStep, Mapping[str, Any]], Inspection]


def expand(pipeline: BoundPipeline, inputs: Inputs, inspect: Inspect) -> dict[str, Instance]:
    """The instances of all steps, in an order in which they can run.

    `inspect` is asked for a step with the parameters that the records of its inputs give.
    """
    return _Expansion(pipeline, inputs, inspect).expand()


class _Expansion:
    def __init__(self, pipeline: BoundPipeline, inputs: Inputs, inspect: Inspect) -> None:
        self.inspect = inspect
        self.pipeline = pipeline
        self.inputs = inputs
        self.instances: dict[str, Instance] = {}
        self.points: dict[str, list[tuple[Point, str]]] = {}  # step -> where its instances stand
        self.names: dict[tuple[str, tuple[int, ...]], str] = {}
        self.groups: dict[str, tuple[Group, ...]] = {}
        self.naming = DimensionLabels(pipeline, inputs, self.groups)
        self.group_at: dict[str, dict[int, int]] = {}  # dimension -> member -> its group
        self.params: dict[str, Mapping[str, Any]] = {}  # instance -> its parameters, and those above it
        self.templated = {name: _is_templated(step.spec) for name, step in pipeline.steps.items()}
        self.candidates: dict[object, Candidates] = {}  # of a matched input, or of a source that is chosen in time

    def expand(self) -> dict[str, Instance]:
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
        """The groups are known that the step, or one of its inputs, speaks of."""
        named = {grouping(root, by_record) for given in step.sources.values() for source in given
                 if source.group_by and (by_record := of_records(source.group_by))
                 for root in self._roots(source.source) if root in self.inputs}  # fmt: skip
        for dimension in {*named, *(one for one in step.dimensions if fields_of(one))} - self.groups.keys():
            root, fields = root_of(dimension), fields_of(dimension)
            if root in self.inputs:
                groups = groups_of(self.inputs[root], fields)
            else:
                combinations = self.pipeline.steps[root].spec.combinations
                groups = groups_of_variants(combinations, [one.removeprefix(OF_PARAMS) for one in fields], label_of)
            self.groups[dimension] = groups
            self.group_at[dimension] = {index: number for number, one in enumerate(groups) for index in one.indices}

    def _roots(self, source: str) -> list[str]:
        return [source] if source in self.inputs else [root_of(one) for one in self.pipeline.steps[source].dimensions]

    def _size(self, dimension: str) -> int:
        if dimension in self.inputs:
            return len(self.inputs[dimension])
        return len(self.groups[dimension] if dimension in self.groups else self.pipeline.steps[dimension].variants)

    def _add(self, step: BoundStep, point: Point, indices: tuple[int, ...]) -> None:
        variant = step.variants[point.get(step.name, 0)]
        labels = [self.naming.label(dimension, index) for dimension, index in point.items()]
        name = f"{step.name}[{', '.join(labels)}]" if labels else step.name
        faults = [str(step.blocked)] if step.blocked else []
        faults += [self.groups[one][index].fault for one, index in point.items() if one in self.groups]
        given = self._sources(step, point, name)
        for (role, number), found in given.found.items():
            if found.feeds or found.blocks or role in step.inspection.required:  # else it may be missing
                faults.append(found.fault)
            faults.append(self._unexpected(role, step.sources[role][number], found.feeds))
        feeds, filled = given.feeds, _Filled(step, variant.given, variant.inspection)
        if self.templated[step.name] and not any(faults):
            filled = self._in_scope(step, variant, feeds)
            faults.append(filled.fault)
        blocked = next(filter(None, faults), "")
        if not feeds and not any(faults):
            blocked = "none of its inputs is there; a derived dataset needs a parent"
        about = self._all_about(point)
        self.instances[name] = Instance(
            name=name,
            step=filled.step,
            label=self.naming.told_apart(step, point),
            group=self.naming.group(point),
            given=filled.given,
            inspection=filled.inspection,
            feeds=feeds,
            needs=tuple(dict.fromkeys(feed.instance for feed in feeds if feed.instance)),
            subject=tuple(mfid for root, index in about if (mfid := self.inputs[root][index].mfid)),
            blocked=blocked,
            slots=self.naming.slots(step, point),
            about=about or tuple(dict.fromkeys(self._behind(feed for feed in feeds if feed.chosen is None))),
            notes=tuple(filter(None, (*_notes(step, feeds), filled.note))),
            gaps=tuple(gap for found in given.found.values() for gap in found.gaps),
        )
        self.points[step.name].append((point, name))
        self.names[step.name, indices] = name

    def _sources(self, step: BoundStep, point: Point, name: str) -> _Given:
        """Return what each source gives to an instance; partners in time are chosen for what the others give."""
        places = [(role, number) for role, sources in step.sources.items() for number in range(len(sources))]
        given = _Given(name, dict.fromkeys(places, _Found()))
        partners = [(role, number) for role, number in places if step.sources[role][number].is_partner]
        for role, number in places:
            if (role, number) not in partners:
                given.found[role, number] = self._feeds(step, role, step.sources[role][number], point)
        variant = step.variants[point.get(step.name, 0)]
        self.params[name] = self._params(variant, given.feeds)
        chosen = {place: self._chosen(step.sources[place[0]][place[1]], place[0], given) for place in partners}
        return _Given(name, {**given.found, **chosen})

    def _params(self, variant: Variant, feeds: Sequence[InputEdge]) -> Mapping[str, Any]:
        """The parameters of an instance, and of those above it as far as they agree there."""
        above: dict[str, Any] = {}
        differing = set()
        for name in dict.fromkeys(feed.instance for feed in feeds if feed.instance):
            for param, value in self.params[name].items():
                if above.setdefault(param, value) != value:
                    differing.add(param)
        return {**{param: value for param, value in above.items() if param not in differing}, **variant.given}

    def _all_about(self, point: Point) -> tuple[tuple[str, int], ...]:
        roots = [root for root in dict.fromkeys(map(root_of, point)) if root in self.inputs]
        return tuple((root, index) for root in roots for index in self._about(root, point) or ())

    def _behind(self, feeds: Iterable[InputEdge]) -> Iterator[tuple[str, int]]:
        """The datasets of inputs that parents are, or lead back to."""
        for feed in feeds:
            if feed.instance is not None:
                yield from self.instances[feed.instance].about
            elif feed.input is not None:
                yield feed.input, feed.index

    def _in_scope(self, step: BoundStep, variant: Variant, feeds: Sequence[InputEdge]) -> _Filled:
        """The step with parameters and descriptions filled in with what the data behind its roles say."""
        behind: dict[str, list[InputItem]] = {}
        for role in step.sources:
            places = dict.fromkeys(self._behind(feed for feed in feeds if feed.role == role))
            behind[role] = [self.inputs[root][index] for root, index in places]
        direct = {feed.role for feed in feeds if feed.input is not None}
        given, inspection = dict(variant.given), variant.inspection
        scope = Scope(step.name, behind, frozenset(direct), inspection.params)
        for param, field_of in from_parents(step.spec).items():
            given[param], fault = scope.value(field_of.role, field_of.name)
            if fault:
                told = f"parameter {param!r} is {{{field_of.role}.{field_of.name}}}, and {fault}"
                return _Filled(step, variant.given, inspection, told)
        try:
            inspection = self.inspect(step, given) if from_parents(step.spec) else inspection
        except InputError as error:
            told = "; ".join(fault.message for fault in error.faults) or str(error)
            return _Filled(step, given, inspection, told)
        described, fault, note = replace(scope, params=inspection.params).output(step)
        return _Filled(described, given, inspection, fault, note)

    def _unexpected(self, role: str, source: Source, feeds: Sequence[InputEdge]) -> str:
        if source.expect is None or len(feeds) == source.expect:
            return ""
        labels = [feed.instance or self.inputs[feed.input or ""][feed.index].label for feed in feeds]
        shown = f": {', '.join(labels)}" if 0 < len(labels) <= 12 else ""
        return f"{role}: {source.expect} of {source.source} are expected, and there are {len(labels)}{shown}"

    def _members(self, root: str, point: Point, fields: Sequence[str] = ()) -> Sequence[int] | None:
        """The datasets of an input that an instance is about, or the whole group of them by `fields`; None for all."""
        members = self._about(root, point)
        if members is None or not fields:
            return members
        dimension = grouping(root, fields)
        return self.groups[dimension][self.group_at[dimension][members[0]]].indices

    def _about(self, root: str, point: Point) -> Sequence[int] | None:
        if root in point:
            return (point[root],)
        return next((self.groups[one][index].indices for one, index in point.items()
                     if one in self.groups and root_of(one) == root), None)  # fmt: skip

    def _at(self, dimension: str, point: Point) -> int:
        """Where an instance stands along a dimension of one of its parents, which may be a coarser one than its own."""
        if dimension in point:
            return point[dimension]
        members = self._about(root_of(dimension), point)
        assert members  # the dimensions of a step are as fine as those of its parents
        return self.group_at[dimension][members[0]]

    def _feeds(self, step: BoundStep, role: str, source: Source, point: Point) -> _Found:
        """The parents that a source gives, and why there are none if that is so."""
        collects = role in step.collected
        if source.source not in self.inputs:
            names = list(self._instances(source, point, collects=collects))
            fault = "" if names else f"there is nothing to collect: {source.source} has no instances"
            feeds = tuple(InputEdge(role, source.files, instance=name, output=source.output) for name in names)
            return _Found(feeds, fault)
        found = self._items(source, point, role, collects=collects)
        if source.gaps:
            found = self._without_blocked(source.source, found)
        if len(found.feeds) > 1 and step.inspection.roles[role] == "file":
            fault = (
                f"input {source.source} has {amount(len(found.feeds), 'dataset')}, but {role!r} of the step is one file"
            )
            return replace(found, fault=f"{fault}; give the input `each: true`, or annotate the role list[Path]")
        items = self.inputs[source.source]
        blocked = next((items[feed.index].blocked for feed in found.feeds if items[feed.index].blocked), "")
        return replace(found, fault=found.fault or blocked)

    def _without_blocked(self, name: str, found: _Found) -> _Found:
        items = self.inputs[name]
        blocked = [items[feed.index] for feed in found.feeds if items[feed.index].blocked]
        left = tuple(feed for feed in found.feeds if not items[feed.index].blocked)
        fault = found.fault or ("" if left else f"input {name} has no dataset that is not blocked")
        return replace(found, feeds=left, fault=fault, gaps=tuple(f"{one.label}: {one.blocked}" for one in blocked))

    def _items(self, source: Source, point: Point, role: str, *, collects: bool) -> _Found:
        name = source.source
        if self.pipeline.spec.inputs[name].match is not None:
            return self._matched(source, role, point, collects=collects)
        members = self._members(name, point, of_records(source.group_by or ()))
        if members is None or not (source.group_by or not collects or name not in point):
            members = range(len(self.inputs[name]))
        fault = "" if members else f"input {name} has no dataset"
        return _Found(tuple(InputEdge(role, source.files, input=name, index=index) for index in members), fault)

    def _matched(self, source: Source, role: str, point: Point, *, collects: bool) -> _Found:
        """The datasets of an input that belong to those that the instance is about: the nearest in time, or all."""
        name, declared = source.source, self.pipeline.spec.inputs[source.source]
        if isinstance(declared, CalibrationInput):
            return self._calibrated(source, role, declared.of, point, collects=collects)
        ((partner, same),) = (declared.match or {}).items()
        if name not in self.candidates:
            self.candidates[name] = Candidates(f"input {name}", self._rows_of(name, same, declared), same, declared)
        candidates, members, items = self.candidates[name], self._about(partner, point), self.inputs[partner]
        if members is not None and not collects:
            those = [items[index] for index in members]
            label = those[0].label if len(those) == 1 else self.naming.of(partner, point)
            return self._fed(source, role, candidates.choose(_row(0, label, those, {}, same, declared)))
        asked = range(len(items)) if members is None else members
        equal = [candidates.equal(_row(0, items[one].label, [items[one]], {}, same, declared)) for one in asked]
        indices = sorted({row.key for rows, _ in equal for row in rows})
        feeds = tuple(InputEdge(role, source.files, input=name, index=index) for index in indices)
        return _Found(feeds, next((none.fault for _, none in equal if none.fault and members is not None), ""))

    def _calibrated(self, source: Source, role: str, of: str, point: Point, *, collects: bool) -> _Found:
        """The calibrations that are certified for the data that an instance is about."""
        name, members = source.source, self._about(of, point)
        numbers = {item.mfid or item.label: number for number, item in enumerate(self.inputs[name])}
        data = [self.inputs[of][index] for index in (range(len(self.inputs[of])) if members is None else members)]
        feeds: dict[tuple[str, str], InputEdge] = {}
        for one in data:
            found = one.calibrations[name]
            if found.fault:
                return _Found((), found.fault, blocks=not found.absent)
            for chosen in found.chosen:
                certificate, number = chosen.certificate, numbers[chosen.certificate.dataset]
                item = self.inputs[name][number]
                label = item.dataset.name if item.dataset else item.label
                same, document = dict(certificate.fields), chosen.document()
                partner = Partner(number, label, chosen.side, chosen.seconds, chosen.rule, same, certificate=document)
                feed = InputEdge(role, source.files, input=name, index=number, chosen=partner)
                feeds.setdefault((certificate.dataset, chosen.rule), feed)
        blocked = next((blocked for feed in feeds.values() if (blocked := self.inputs[name][feed.index].blocked)), "")
        if not collects and len(feeds) > max(len(one.calibrations[name].chosen) for one in data):
            named = ", ".join(dict.fromkeys(feed.chosen.label for feed in feeds.values() if feed.chosen))
            fault = f"several calibrations are certified for its data: {named}; group them by what tells these apart"
            return _Found((), fault, blocks=True)
        return _Found(tuple(feeds.values()), blocked, blocks=bool(blocked))

    def _chosen(self, source: Source, role: str, given: _Given) -> _Found:
        """The partners in time that a source gives to what the instance is about."""
        if source not in self.candidates:
            self.candidates[source] = self._candidates(source)
        own = [self.inputs[root][index] for root, index in dict.fromkeys(self._behind(given.first))]
        label = own[0].label if len(own) == 1 else given.name
        row = _row(0, label, own, self.params[given.name], source.same, source)
        return self._fed(source, role, self.candidates[source].choose(row))

    def _fed(self, source: Source, role: str, partners: Partners) -> _Found:
        feeds, blocked = [], ""
        for one in partners.chosen:
            if source.source in self.inputs:
                feeds.append(InputEdge(role, source.files, input=source.source, index=one.key, chosen=one))
                blocked = blocked or self.inputs[source.source][one.key].blocked
            else:
                _, name = self.points[source.source][one.key]
                feeds.append(InputEdge(role, source.files, instance=name, output=source.output, chosen=one))
        fault = partners.fault or blocked
        return _Found(tuple(feeds), fault, blocks=bool(fault) and not partners.absent)

    def _candidates(self, source: Source) -> Candidates:
        """The datasets of an input, or the results of a step, that partners are chosen from."""
        if source.source in self.inputs:
            rows = self._rows_of(source.source, source.same, source)
            return Candidates(f"input {source.source}", rows, source.same, source)
        rows = []
        for number, (_, name) in enumerate(self.points[source.source]):
            items = [self.inputs[root][index] for root, index in self.instances[name].about]
            rows.append(_row(number, name, items, self.params[name], source.same, source))
        return Candidates(f"step {source.source}", rows, source.same, source)

    def _rows_of(self, name: str, same: Sequence[str], rule: TimeMatch) -> list[RelationRow]:
        return [_row(index, item.label, [item], {}, same, rule) for index, item in enumerate(self.inputs[name])]

    def _instances(self, source: Source, point: Point, *, collects: bool) -> Iterator[str]:
        """The instances of a step that stand where this one stands; all of them along what it collects over."""
        name = source.source
        other = self.pipeline.steps[name]
        if not collects:
            yield self.names[name, tuple(self._at(dimension, point) for dimension in other.dimensions)]
            return
        by_record, wanted = of_records(source.group_by or ()), {}
        for root in self._roots(name):
            members = self._members(root, point, by_record if root in self.inputs else ())
            if members is not None:
                wanted[root] = set(members)
        for there, instance in self.points[name]:
            if all(members.intersection(self._about(root, there) or ()) for root, members in wanted.items()):
                yield instance


@dataclass(frozen=True)
class _Filled:
    """A step with what the data behind its roles say filled in; or what is wrong with that."""

    step: BoundStep
    given: Mapping[str, Any]
    inspection: Inspection
    fault: str = ""
    note: str = ""


def _is_templated(spec: StepSpec) -> bool:
    """True if the step takes a field of the data behind a role as a parameter, or is described by one."""
    return bool(spec.output.templates or from_parents(spec))


@dataclass(frozen=True)
class _Found:
    """The parents that a source gives. `fault` is why there are none, or why they cannot be used.

    It `blocks` also where the function could do without the input. `gaps` are what was left out, with the reason.
    """

    feeds: tuple[InputEdge, ...] = ()
    fault: str = ""
    blocks: bool = False
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Given:
    """What the sources of an instance give, by role and number within it, in the order of the declaration."""

    name: str
    found: dict[tuple[str, int], _Found]

    @property
    def feeds(self) -> tuple[InputEdge, ...]:
        """The parents."""
        return tuple(feed for found in self.found.values() for feed in found.feeds)

    @property
    def first(self) -> tuple[InputEdge, ...]:
        """The parents in the first role that has none chosen in time: what the instance is about."""
        feeds = [feed for feed in self.feeds if feed.chosen is None]
        return tuple(feed for feed in feeds if feed.role == feeds[0].role)


def _row(
    key: int, label: str, items: Sequence[InputItem], params: Mapping[str, Any], same: Sequence[str], rule: TimeMatch
) -> RelationRow:
    """Datasets as one thing in time, with the values that all of them share."""
    values, lacking = [], ""
    for name in same:
        found = _values(name, items, params)
        if len(found) > 1 or "" in found:
            told = ", ".join(value or "nothing" for value in found)
            lacking = lacking or (f"{name} differs: {told}" if len(found) > 1 else f"there is no {name} in the record")
        values.append(next(iter(found), ""))
    spans = [item.span or (item.registered if rule.undated == REGISTERED else None) for item in items]
    undated = (
        next((item.label for item, span in zip(items, spans, strict=True) if span is None), "") if items else label
    )
    dated = [span for span in spans if span]
    return RelationRow(
        key=key,
        label=label,
        values=tuple(values),
        span=None if undated else (min(first for first, _ in dated), max(last for _, last in dated)),
        tie=max((item.mfid or NO_ID for item in items), default=NO_ID),
        lacking=lacking,
        undated=undated,
        size=len(items),
    )


def _values(name: str, items: Sequence[InputItem], params: Mapping[str, Any]) -> dict[str, None]:
    """The values in a field, as text, each once; empty text where there is none."""
    if name.startswith(OF_PARAMS):
        found: list[object] = [params.get(name.removeprefix(OF_PARAMS))]
    else:
        found = [value_of(item.fields, name) for item in items]
    return dict.fromkeys("" if value is None else value_text(value) for value in found)


def _notes(step: BoundStep, feeds: Sequence[InputEdge]) -> Iterator[str]:
    """Yield the plan's notes on the parents: which were chosen in time, and which variants are joined."""
    for feed in feeds:
        if feed.chosen is not None:
            yield f"{feed.role}: {feed.chosen.label}, {feed.chosen}"
    for role, sources in step.sources.items():
        for source in sources:
            if source.across:
                yield f"{role}: joined across {', '.join(source.across)}"
