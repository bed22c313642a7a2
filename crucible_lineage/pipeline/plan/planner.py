"""Planning of a pipeline: find its inputs, expand its steps, and look up their results together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError, shortened
from crucible_lineage.fingerprint.walk import canonical_params
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.model import CURRENT, Edge, Node
from crucible_lineage.lineage.records import fields_of, shared
from crucible_lineage.machine.process import collector_paused
from crucible_lineage.marks import METADATA_PREFIX
from crucible_lineage.pipeline.declare.inputs import FILTERS, DatasetInput, ResultInput, SelectInput
from crucible_lineage.pipeline.declare.pipeline import INHERIT
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline, BoundStep, require_names
from crucible_lineage.pipeline.plan.command import inspect_declared
from crucible_lineage.pipeline.plan.current import changed_descriptions
from crucible_lineage.pipeline.plan.differences import Ingredients
from crucible_lineage.pipeline.plan.expand import Expansion, Instance
from crucible_lineage.pipeline.plan.facts import ParentFacts
from crucible_lineage.pipeline.plan.inputs import InputItem, joint_span, known_inputs, uses_fields
from crucible_lineage.pipeline.plan.inspect import Inspection, Inspector
from crucible_lineage.pipeline.plan.plan import BLOCKED, MISSING, PipelinePlan, plan
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import ITSELF, MATCHED, DatasetRef, FileRef
from crucible_lineage.registration.known import KnownResults
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import Currency, currency_of
from crucible_lineage.standing.standings import standings_of_records, visible_copies
from crucible_lineage.statements.effects import StatementEffects
from crucible_lineage.statements.statements import Doubt
from crucible_lineage.text.times import time_shown

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.lineage.graph import LineageGraph
    from crucible_lineage.provenance.schema import StepRecord


class ProjectIndex:
    """Index of one pipeline's datasets in a project; without a pipeline, of all recorded datasets there."""

    def __init__(self, session: Session, project: str, pipeline: str | None) -> None:
        self.session = session
        self.project = project
        self.pipeline = pipeline
        self.is_away = session.is_away  # only the results of earlier syncs are available
        self.results = KnownResults(session.mirror, lambda: session.client, project, pipeline, is_away=self.is_away)
        self.facts = ParentFacts(session, project)
        self._effects: StatementEffects | None = None
        self._of_project: Currency | None = None
        self._held: dict[str, str] = {}

    def sync(self) -> None:
        """Synchronize the index: one cheap call if nothing changed."""
        self.results.sync()
        self._effects = self._of_project = None

    def refresh_statements(self) -> None:
        """Read statements again when they are next needed."""
        self._effects = None

    def on_hold(self, used: Collection[str], code: str) -> tuple[str, ...]:
        """Return why these datasets or this code must not be used: the holds on them, by whom and why."""
        self._effects = self._effects or self.session.effects
        own = [self._held[mfid] for mfid in used if mfid in self._held]
        return tuple(dict.fromkeys(own)) or self._effects.reasons(used, code, self.project)

    def doubts(self, mfids: Collection[str]) -> dict[str, Doubt]:
        """Return why the doubtful ones among these datasets are doubtful."""
        self._effects = self._effects or self.session.effects
        return self._effects.doubts(mfids, self.project)

    def not_current(self, mfid: str, slots: Collection[str]) -> tuple[str, bool]:
        """Return why an existing result is not current in these slots, and whether others are instead of it."""
        if slots and all(mfid in self.current_in(key) for key in slots):
            return "", False
        found = self.results.slots
        if found.state(mfid) != CURRENT and not self.is_away:  # it may have slots of another pipeline
            if self._of_project is None:
                copies = visible_copies(self.session, [self.project])
                self._of_project = currency_of(copies[0]) if copies else found
            found = self._of_project
        if by := found.superseded_by(mfid):
            stays = not found.replacements(mfid).isdisjoint(by)
            text = f"superseded by {', '.join(by)}" + (", made by hand" if stays else "; a run makes it current again")
            return text, True
        current = sorted(key for key in found.slots(mfid) if mfid in found.current(key, self.project))
        if not (slots and current):
            return "", False
        return f"current as {shortened(current, 1)} only; a run makes it current here, too", False

    def is_candidate(self, mfid: str) -> bool:
        """Return whether a dataset waits for a signature."""
        doubt = self.session.effects.doubts([mfid], self.project).get(mfid)
        return doubt is not None and doubt.is_of_candidate(mfid)

    def note_on_hold(self, mfid: str, reason: str) -> None:
        """Treat a dataset as on hold before the hold can be stated at Crucible."""
        self._held[mfid] = reason

    def begin(self, slots: Collection[str]) -> None:
        """Read what a run needs before anything is made. The project exists now.

        The records of the current results in these slots are read, since the service may be unavailable when they are
        needed. Afterwards, lookups of results that the plan has not looked up make no request: such results would be
        another pipeline's, and are found on registration.
        """
        scope = self.results.scope
        if scope is not None and not self.session.mirror.is_synced(self.project, scope):
            self.sync()
        if not self.session.settings.embedded and not self.is_away:
            self.results.read_ahead({mfid for slot in slots for mfid in self.current_in(slot)})
        self.results.asks = False

    def complete(self, mfid: str) -> DatasetRef | None:
        """Return the dataset if it is complete, at Crucible or in the outbox."""
        return self.results.known(mfid) or self.session.outbox.find(mfid)

    def is_begun(self, mfid: str) -> bool:
        """Return whether there is an incomplete record under this id."""
        found = self.results.registered_as(mfid)
        return found is not None and found.is_begun

    def current(self, slot: str) -> Ingredients | None:
        """Return the current result in a slot; the newest, if several declarations have the slot."""
        found = {mfid: self.results.registered_as(mfid) for mfid in self.current_in(slot)}
        earlier = []
        for mfid, dataset in found.items():
            if dataset and (record := dataset.step_record):
                names = {parent: ref.name for parent, ref in self.session.mirror.known_among(record.parents).items()}
                earlier.append(earlier_result(mfid, record, names))
        return max(earlier, key=lambda result: result.mfid, default=None)

    def current_in(self, slot: str) -> tuple[str, ...]:
        """Return the current results in a slot."""
        return self.results.slots.current(slot, self.project)


def earlier_result(mfid: str, record: StepRecord, names: Mapping[str, str]) -> Ingredients:
    """Return a result with its ingredients; `names` are the known names of its parents."""
    code = record.activity.code
    used = []
    for part in record.used:
        files = tuple(FileRef(file.name, file.sha256, file.size) for file in part.files or ())
        used.append(UsedDataset(part.role, DatasetRef(part.mfid, names.get(part.mfid, ""), files), files))
    return Ingredients(record.recipe, code.source, code.pieces or {}, tuple(used), mfid)


def make_plan(pipeline: BoundPipeline, session: Session, forced: Collection[str] = (), as_of: str = "") -> PipelinePlan:
    """Plan a pipeline, with all differences between what is declared and Crucible. Changes nothing."""
    planned = plan_pipeline(pipeline, session, forced, as_of=as_of)
    results = [(step.name, dataset.mfid, step.spec.output)
               for step in planned.steps for dataset in step.results.values()]  # fmt: skip
    changed = changed_descriptions(results, pipeline.spec.project, session)
    return replace(planned, differences=(*planned.differences, *changed))


def by_project(pipeline: BoundPipeline, session: Session) -> list[BoundPipeline]:
    """Return a pipeline once for each project that has data for it, if it is of the project of its data.

    Raises InputError if there is none.
    """
    spec = pipeline.spec
    if spec.project != INHERIT:  # the usual case, which need not import the client
        return [pipeline]
    datasets, projects, named = session.client.datasets, set[str](), set[str]()
    for declared in spec.inputs.values():
        if isinstance(declared, SelectInput):
            texts: dict[str, Any] = {name: value for name, value in declared.select.items() if isinstance(value, str)}
            filters = {name: texts[name] for name in texts.keys() & {*MATCHED, *FILTERS}}
            projects.update(found.project_id or "" for found in datasets.iter(**filters))
        elif isinstance(declared, DatasetInput):
            named.update(datasets.get(mfid).project_id or "" for mfid in declared.dataset)
    found_in = sorted(filter(None, projects or named))
    if not found_in:
        raise InputError(f"no project that this key may read has data for the selections of {spec.path}")
    if named and len({*found_in, *named}) > 1:
        both = " and ".join(sorted({*found_in, *named}))
        raise InputError(f"{spec.path} takes data of projects {both}; say where results belong: `project: NAME`")
    return [replace(pipeline, spec=spec.model_copy(update={"project": project})) for project in found_in]


@collector_paused()
def plan_pipeline(
    pipeline: BoundPipeline,
    session: Session,
    forced: Collection[str] = (),
    within: tuple[Path, ...] = (),
    as_of: str = "",
    with_fields: bool = False,
) -> PipelinePlan:
    """Plan a pipeline. `within` are the files of the pipelines that it is planned for.

    Calibrations are those certified `as_of` a moment, by default now. `with_fields` says that fields of the data are
    needed, whether this pipeline uses them or not.
    """
    spec = pipeline.spec
    if spec.project == INHERIT:
        raise InputError(f"{spec.path} is of the project of its data, which has to be one here: `project: NAME`")
    index = ProjectIndex(session, spec.project, pipeline.name)
    index.sync()
    with_fields = with_fields or uses_fields(spec)
    around = (*within, spec.path.resolve())
    results_of = partial(_results_of, session=session, within=around, as_of=as_of, with_fields=with_fields)
    inputs = known_inputs(spec, session, results_of, with_fields=with_fields, as_of=as_of)
    inspected, returned, inspector = dict[bytes, Inspection](), dict[str, JsonMapping](), Inspector(session.store)

    def inspect(step: BoundStep, given: Mapping[str, object]) -> Inspection:
        key = canonical_json([step.name, canonical_params(given)])
        if key not in inspected:
            inspected[key] = inspect_declared(step.name, step.spec, step.inspection.roles, given, inspector)
        return inspected[key]

    for _ in pipeline.steps:  # partners in time may share what steps returned, and so may theirs
        instances = Expansion(pipeline, inputs, inspect, returned).expand()
        require_names(pipeline, forced, instances)
        planned = plan(instances, inputs, index, forced)
        before, returned = returned, _returned(pipeline, planned, index)
        if before == returned:
            break
    inspector.keep()
    filled = frozenset(slot for _, slot in index.results.slots.all_slots())  # those with a current result
    left = undeclared(filled, instances.values(), pipeline.name)
    differences = tuple(difference for items in inputs.values() for item in items for difference in item.differs)
    notes = dict.fromkeys(note for items in inputs.values() for item in items for note in item.notes)
    warnings = [statement.warning for statement in session.effects.unvouched(spec.project)]
    if until := session.mirror.statements_until():
        warnings.append(f"the service's lists are late: statements of others up to {time_shown(until)} are applied")
    return replace(planned, undeclared=left, differences=differences, notes=(*warnings, *notes))


def _returned(pipeline: BoundPipeline, planned: PipelinePlan, index: ProjectIndex) -> dict[str, JsonMapping]:
    """Return the metadata of existing results by instance, if partners in time share metadata."""
    sources = [source for step in pipeline.steps.values() for _, source in step.spec.edges]
    if not any(name.startswith(METADATA_PREFIX) for source in sources for name in source.match):
        return {}
    results = {step.name: next(iter(step.results.values())).mfid for step in planned.steps if step.exists}
    index.results.read_ahead(list(results.values()))
    found = {name: index.results.registered_as(mfid) for name, mfid in results.items()}
    return {
        name: fields_of(registered.dataset.model_dump())["metadata"] for name, registered in found.items() if registered
    }


def _results_of(
    declared: ResultInput, session: Session, within: tuple[Path, ...], as_of: str, *, with_fields: bool
) -> Iterator[InputItem]:
    """Yield the current results of a step of another pipeline, one for each of its instances."""
    path = declared.path
    if path.resolve() in within:
        raise InputError(f"{path} uses its own result, through {within[-1]}")
    other = bind_file(path, session.store)
    require_names(other, [declared.step])
    outputs = other.steps[declared.step].inspection.outputs
    output = declared.output or outputs[0]
    if output not in outputs or (declared.output is None and len(outputs) > 1):
        raise InputError(
            f"step {declared.step!r} of {path} has the outputs {', '.join(outputs)}; name one with `output:`"
        )
    planned = plan_pipeline(other, session, within=within, as_of=as_of, with_fields=with_fields)
    for step in planned.steps:
        if step.step != declared.step:
            continue
        instance = step.instance
        own: JsonMapping = {}
        if step.exists:
            dataset = step.results[output]
            found = planned.index.results.registered_as(dataset.mfid) if with_fields else None
            own = {**(fields_of(found.dataset.model_dump()) if found else {}), "dataset_name": dataset.name}
        items = [planned.inputs[root][index] for root, index in instance.about]
        # The fields are its own, the declared ones, and those that its data agree in; times are those of its data.
        of_data, declared_here = {"metadata": {}, **shared(item.fields for item in items)}, instance.step.spec.output
        inherited = {name: value for name, value in of_data.items() if name not in ITSELF}
        fields = {**inherited, **instance.inspection.described(declared_here), **own}
        fields["timestamp"] = of_data.get("timestamp")
        fields["metadata"] = {**of_data["metadata"], **declared_here.metadata, **own.get("metadata", {})}
        span = joint_span(item.span for item in items)
        if step.exists:
            yield InputItem(dataset.mfid, dataset, fields, about=instance.slots[output][0], span=span)
        else:
            why = f": {'; '.join(step.causes)}" if step.state == BLOCKED else "; run that pipeline first"
            blocked = f"{step.name} of {path} is {step.state}{why}"
            yield InputItem(step.name, None, fields, blocked=blocked, span=span)


def undeclared(filled: Collection[str], instances: Iterable[Instance], pipeline: str) -> tuple[str, ...]:
    """Return the slots of current results that are no longer declared, as `step/output/scope`.

    `filled` are the slots with current results of the pipeline. Slots of a declared output for other data are excluded:
    their results stay current beside the others.
    """
    declared = {key for instance in instances for keys in instance.slots.values() for key in keys}
    if not declared:
        return ()
    outputs, subjects = map(set, zip(*map(_parts, declared), strict=True))
    left = ((key, *_parts(key)) for key in sorted(set(filled) - declared))
    names = (key for key, output, subject in left if output not in outputs or subject in subjects)
    return tuple(key.removeprefix(f"{pipeline}/") for key in names)


def _parts(key: str) -> tuple[str, str]:
    """Return `pipeline/step/output` of a slot, and the first item of its scope."""
    *output, scope = key.split("/", 3)
    return "/".join(output), scope.split(", ")[0]


def draw_plan(pipeline: BoundPipeline, session: Session) -> LineageGraph:
    """Plan a pipeline and return it as a lineage graph, each step in its planned state. Changes nothing.

    Existing datasets are identified by id, those to be made or registered by name.
    """
    from crucible_lineage.lineage.graph import LineageGraph  # imports networkx, which planning need not pay

    if pipeline.spec.project == INHERIT:
        drawn = [draw_plan(one, session) for one in by_project(pipeline, session)]
        nodes_of = (node for graph in drawn for node in graph.nodes.values())
        return LineageGraph(nodes_of, (edge for graph in drawn for edge in graph.edges.values()))
    planned, project = plan_pipeline(pipeline, session), pipeline.spec.project
    ids = {step.name: next((ref.mfid for ref in step.results.values()), step.name) for step in planned.steps}
    items = [(name, item) for name, items in planned.inputs.items() for item in items]
    mfids = {item.dataset.mfid for _, item in items if item.dataset}
    copies = visible_copies(session, [project] if mfids else [])
    records = {mfid: copy.records[mfid] for copy in copies for mfid in mfids & copy.records.keys()}
    records |= session.mirror.read(mfids - records.keys())
    stand = standings_of_records(session, records, {}, copies or None)
    nodes = [
        Node(
            _item_id(name, item),
            name=item.dataset.name if item.dataset else item.label,
            data_type=f"input {name}",
            project=project,
            state=found.state if (found := stand.get(item.mfid or "")) else MISSING,
        )
        for name, item in items
    ]
    edges = []
    for step in planned.steps:
        described = step.inspection.described(step.spec.output)
        nodes.append(
            Node(
                ids[step.name],
                name=step.name,
                measurement=str(described.get("measurement", "")),
                data_type=str(described.get("data_type", "")),
                project=project,
                state=step.state,
                step=step.step,
            )
        )
        for feed in step.instance.feeds:
            parent = ids[feed.instance] if feed.instance else _item_id(feed.input or "", feed.item(planned.inputs))
            edges.append(Edge(parent, ids[step.name], note=feed.chosen.note if feed.chosen else ""))
    return LineageGraph(nodes, edges)


def _item_id(name: str, item: InputItem) -> str:
    return item.dataset.mfid if item.dataset else f"{name}: {item.label}"
