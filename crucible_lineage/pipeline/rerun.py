"""Pipelines from provenance records: making a dataset, or all stale ones, again with current code and parents.

A recorded step is executed again with its recorded parameters, the present code, and current parents: those that
supersede the recorded ones, or that are made from them in the same run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import networkx

from crucible_lineage.core.datasets import no_project, visible_dataset
from crucible_lineage.core.slots import pipeline_keyword, slot
from crucible_lineage.errors import ChecksumError, InputError, NotFoundError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.graph import executions
from crucible_lineage.lineage.model import CURRENT
from crucible_lineage.lineage.records import fields_of
from crucible_lineage.pipeline.declare.load import referenced
from crucible_lineage.pipeline.declare.pipeline import OutputFields, PipelineSpec, StepSpec
from crucible_lineage.pipeline.plan.bound import BoundPipeline, BoundStep, Variant
from crucible_lineage.pipeline.plan.command import inspect_declared
from crucible_lineage.pipeline.plan.differences import Ingredients
from crucible_lineage.pipeline.plan.expand import InputEdge, Instance
from crucible_lineage.pipeline.plan.inputs import InputItem, usable_item
from crucible_lineage.pipeline.plan.inspect import Inspector, find_step
from crucible_lineage.pipeline.plan.plan import PipelinePlan, plan
from crucible_lineage.pipeline.plan.planner import ProjectIndex, earlier_result
from crucible_lineage.pipeline.run.result import StepChoice
from crucible_lineage.refs import DESCRIPTIVE
from crucible_lineage.registration.read import whole_record
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import currency_of
from crucible_lineage.statements.consent import Consent, recorded_code
from crucible_lineage.text.commands import is_command, split_command

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.provenance.schema import StepRecord, Used


@dataclass(frozen=True)
class RecordedPipeline:
    """A pipeline from records, with its plan; `left_out` has the datasets that cannot be made again, with reasons."""

    pipeline: BoundPipeline
    planned: PipelinePlan
    choice: StepChoice
    left_out: Mapping[str, str]


def plan_rerun(
    mfid: str, session: Session, folder: Path | None, overrides: Mapping[str, object], *, forced: bool = False
) -> RecordedPipeline:
    """Plan to make a dataset and its ancestors again, or to finish it. Raises InputError if no step made it.

    `folder` is searched for modules and scripts, `overrides` are other values for the step's parameters.
    """
    dataset = visible_dataset(session.client, mfid)
    if not dataset.project_id:
        raise InputError(f"dataset {mfid} belongs to no project")
    history = _History(session, dataset.project_id, folder)
    if mfid in history.begun:
        return _plan_completion(mfid, history)
    if mfid not in history.made:
        raise InputError(f"dataset {mfid} ({dataset.dataset_name!r}) was not made by a step that is recorded")
    target = history.current(mfid)
    mfids = [target, *networkx.ancestors(history.graph, target)]
    for ancestor in mfids:  # refused if several datasets supersede a parent of one
        history.parents(ancestor)
    recorded = history.build(mfids, {target: overrides}, {target} if forced else ())
    if target in recorded.left_out:
        raise InputError(f"dataset {target} cannot be rerun: {recorded.left_out[target]}")
    return recorded


def _plan_completion(mfid: str, history: _History) -> RecordedPipeline:
    """Plan to complete a dataset whose registration was interrupted, from its recorded parents.

    Its pipeline does that in its next run, unless that uses other parents now.
    """
    try:
        history.made = {mfid: whole_record(history.session.client, mfid, history.begun[mfid]).as_step}
    except (ChecksumError, InputError, NotFoundError) as error:
        raise InputError(f"dataset {mfid} and its record are incomplete: {error}; run its pipeline") from error
    history.currency = currency_of()
    recorded = history.build([mfid], {}, ())
    if mfid in recorded.left_out:
        raise InputError(f"dataset {mfid} cannot be finished: {recorded.left_out[mfid]}")
    if mfid not in {planned for step in recorded.planned.steps for planned in step.datasets.values()}:
        raise InputError(
            f"dataset {mfid} is incomplete and cannot be finished, since the code of its step has changed; "
            "restore the old code, or request the deletion of the dataset"
        )
    return recorded


def plan_stale(project: str, session: Session, folder: Path | None) -> RecordedPipeline:
    """Plan to make the stale results of a project again. Raises InputError if there is no such project."""
    if session.client.projects.find(project) is None:
        raise no_project(session.client, project, session.settings.describe())
    history = _History(session, project, folder)
    current = [mfid for mfid in history.made if history.currency.state(mfid) == CURRENT]
    return history.build(current, {}, ())


class _History:
    """The recorded results of a project, what superseded them, and the steps that make them again."""

    def __init__(self, session: Session, project: str, folder: Path | None) -> None:
        self.session = session
        self.project = project
        self.folder = folder
        self.index = _OwnHistory(session, project)
        self.inspector = Inspector(session.store)
        session.mirror.sync_statements()
        found = self.index.results.registered()
        steps = {mfid: record for mfid, dataset in found.items() if (record := dataset.step_record) is not None}
        self.made = {mfid: record for mfid, record in steps.items() if record.is_complete}
        self.begun = {mfid: record for mfid, record in steps.items() if not record.is_complete}
        self.currency = self.index.results.slots
        self.items: list[InputItem] = []
        self.instances: dict[str, Instance] = {}
        self.maker: dict[str, tuple[str, str]] = {}  # dataset -> the instance and output that make it again
        self.left_out: dict[str, str] = {}

    def current(self, mfid: str) -> str:
        """Return the dataset that supersedes this one, or itself. Raises InputError if several do."""
        current = self.currency.superseded_by(mfid)
        if len(current) > 1:
            raise InputError(
                f"dataset {mfid} is superseded by several: {', '.join(current)}; the records do "
                "not say which one is meant: run the pipeline, or name the result to rerun"
            )
        return current[0] if current else mfid

    def parents(self, mfid: str) -> list[str]:
        """Return the current parents. Raises InputError if several supersede one of them."""
        return [self.current(used.mfid) for used in self.made[mfid].used]

    @cached_property
    def graph(self) -> networkx.DiGraph[str]:
        """The recorded results below those of their current parents; without edges where several supersede a parent."""
        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_nodes_from(self.made)
        for mfid in self.made:
            with suppress(InputError):
                graph.add_edges_from((parent, mfid) for parent in self.parents(mfid) if parent in self.made)
        return graph

    def build(
        self, mfids: Collection[str], overrides: Mapping[str, Mapping[str, object]], forced: Collection[str]
    ) -> RecordedPipeline:
        recipes = {mfid: self.made[mfid].recipe for mfid in sorted(mfids)}
        for made in executions(recipes, self.graph.edges):
            given = {key: value for mfid in made for key, value in overrides.get(mfid, {}).items()}
            self._add({self.made[mfid].output: mfid for mfid in made}, given)
        steps = {instance.name: instance.step for instance in self.instances.values()}
        pipelines = (self.made[mfid].pipeline for mfid in mfids)
        names = {pipeline.name for pipeline in pipelines if pipeline}
        name = names.pop() if len(names) == 1 else "rerun"
        spec = PipelineSpec.model_construct(
            pipeline=name,
            project=self.project,
            env=tuple(name for step in steps.values() for text in step.spec.env.values() for name in referenced(text)),
            inputs={},
            steps={name: step.spec for name, step in steps.items()},
            path=(self.folder / "rerun" if self.folder else self.session.journal.declaration(name))
            or Path.cwd() / "rerun",
            digest="",
        )
        self.inspector.keep()
        inputs = {"datasets": tuple(self.items)}
        choice = StepChoice(forced=tuple(self.maker[mfid][0] for mfid in forced if mfid in self.maker))
        planned = plan(self.instances, inputs, self.index, choice.forced)
        return RecordedPipeline(BoundPipeline(spec, steps), planned, choice, self.left_out)

    def _add(self, group: Mapping[str, str], overrides: Mapping[str, object]) -> None:
        first = next(iter(group.values()))
        record = self.made[first]
        declared = record.declared_step
        name = f"{declared}[{first}]"
        try:
            spec = self._step_spec(record, first, overrides)
            roles = {role: "files" if len(given) > 1 else "file" for role, given in record.recipe["inputs"].items()}
            inspection = inspect_declared(declared, spec, roles, spec.params, self.inspector)
            feeds = tuple(self._edge(used) for used in record.used)
        except InputError as error:
            self.left_out |= dict.fromkeys(group.values(), str(error))
            return
        variants = (Variant("", spec.params, inspection),)
        source = record.pipeline
        entry = {"name": source.name, "hash": source.hash, "step": declared} if source else None
        needs = tuple(feed.instance for feed in feeds if feed.instance)
        step = BoundStep(name, spec, variants, needs, declared=entry)
        blocked = next((item.blocked for feed in feeds if feed.input and (item := self.items[feed.index]).blocked), "")
        slots = {output: self._slots(mfid) for output, mfid in group.items()}
        self.instances[name] = Instance(name, step, "", spec.params, inspection, feeds, (), blocked, slots)
        for output, mfid in group.items():
            self.maker[mfid] = (name, output)
            self.index.forerunners |= dict.fromkeys(slots[output], mfid)

    def _slots(self, mfid: str) -> tuple[str, ...]:
        """Return the slots that the dataset fills; if there are none, one for it alone."""
        record = self.made[mfid]
        own = (slot("rerun", record.declared_step, record.output, mfid),)
        return tuple(self.currency.slots(mfid)) or own

    def _step_spec(self, record: StepRecord, mfid: str, overrides: Mapping[str, object]) -> StepSpec:
        uses = record.activity.function
        dataset = self.index.results.registered()[mfid].dataset
        declaration = self.session.journal.declaration(record.pipeline.name if record.pipeline else "")
        folder = self.folder or (declaration.parent if declaration else Path.cwd())
        params = {**record.recipe["params"], **overrides}
        declared = record.activity.declared.document() if record.activity.declared else {}
        output = self._output_fields(dataset, dict(declared.pop("output", {})))
        declared |= {"params": params, "output": output, "folder": folder, "salt": record.recipe.get("salt")}
        if is_command(uses):  # functions are those of this machine
            Consent().require(self.session, [recorded_code(dataset, record)])
            return StepSpec(**split_command(uses), **declared)
        given = {name for name, value in params.items() if value is not None and name not in overrides}
        if secrets := [spec.name for spec in find_step(uses, folder).parameters if spec.secret and spec.name in given]:
            raise InputError(f"its parameter {secrets[0]!r} is secret and was not kept; run its pipeline instead")
        return StepSpec(uses=uses, **declared)

    def _output_fields(self, dataset: Dataset, declared: JsonObject) -> OutputFields:
        """Return the fields of a dataset that is made again, some as its step declared them."""
        mfid, described = dataset.unique_id, dataset.scientific_metadata or {}
        keywords = sorted(word.keyword for word in self.session.client.datasets.get_keywords(mfid))
        own = fields_of(dataset.model_dump())  # without what it inherited
        fields: JsonObject = {field: own.get(field) for field in DESCRIPTIVE}
        return OutputFields(
            dataset_name=(dataset.dataset_name or mfid).replace("{", "{{").replace("}", "}}"),
            keywords=tuple(word for word in keywords if not word.startswith(pipeline_keyword(""))),
            public=bool(getattr(dataset, "public", False)),
            metadata={key: described[key] for key in declared.pop("metadata", ()) if key in described},
            **declared,
            **fields,
        )

    def _edge(self, used: Used) -> InputEdge:
        parent = self.current(used.mfid)
        names = [file.name for file in used.files or ()]
        pattern = names[0] if len(names) == 1 else None
        if parent in self.maker:
            instance, output = self.maker[parent]
            return InputEdge(used.role, pattern, instance=instance, output=output)
        self.items.append(usable_item(parent, self.session))
        return InputEdge(used.role, pattern, input="datasets", index=len(self.items) - 1)


class _OwnHistory(ProjectIndex):
    """Knowledge in which each recorded instance has just one forerunner: the dataset that it is made from."""

    def __init__(self, session: Session, project: str) -> None:
        super().__init__(session, project, None)
        self.forerunners: dict[str, str] = {}  # by the slot that the new dataset will fill

    def current_in(self, slot: str) -> tuple[str, ...]:
        return (self.forerunners[slot],) if slot in self.forerunners else ()

    def current(self, slot: str) -> Ingredients | None:
        mfid = self.forerunners.get(slot)
        record = self.results.registered()[mfid].step_record if mfid else None
        if mfid is None or record is None:
            return None
        return earlier_result(mfid, record, {})
