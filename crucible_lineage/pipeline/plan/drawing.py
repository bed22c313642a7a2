"""The declared pipeline as a lineage graph, each step in its planned state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import RAW, Edge, Node
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.plan.expand import InputEdge, Instance
from crucible_lineage.pipeline.plan.plan import MISSING, StepPlan
from crucible_lineage.pipeline.plan.planner import plan_pipeline
from crucible_lineage.session import Session


def draw_plan(pipeline: BoundPipeline, session: Session) -> LineageGraph:
    """Plan a pipeline and return it as a lineage graph, each step in its planned state. Changes nothing."""
    planned = plan_pipeline(pipeline, session)
    steps = {step.name: step for step in planned.plan.steps}
    return _graph(pipeline.spec.project, steps, planned.instances, planned.inputs)


def _graph(
    project: str, steps: Mapping[str, StepPlan], instances: Mapping[str, Instance], inputs: Inputs
) -> LineageGraph:
    """Build the graph. Existing datasets are identified by id, those to be made or registered by name."""
    nodes = [_input_node(project, name, item) for name, items in inputs.items() for item in items]
    nodes += [_step_node(project, instance, steps[instance.name]) for instance in instances.values()]
    return LineageGraph(nodes, _edges(steps, instances, inputs))


def _edges(steps: Mapping[str, StepPlan], instances: Mapping[str, Instance], inputs: Inputs) -> Iterator[Edge]:
    for instance in instances.values():
        for feed in instance.feeds:
            note = feed.chosen.note if feed.chosen else ""
            yield Edge(_parent(feed, steps, inputs), _id(steps[instance.name]), note=note)


def _parent(feed: InputEdge, steps: Mapping[str, StepPlan], inputs: Inputs) -> str:
    if feed.instance is not None:
        return _id(steps[feed.instance])
    name = feed.input or ""
    return _item_id(name, feed.item(inputs))


def _id(step: StepPlan) -> str:
    return next((dataset.mfid for dataset in step.results.values()), step.name)


def _item_id(name: str, item: InputItem) -> str:
    return item.dataset.mfid if item.dataset else f"{name}: {item.label}"


def _input_node(project: str, name: str, item: InputItem) -> Node:
    node = _item_id(name, item)
    shown = item.shown or (item.dataset.name if item.dataset else item.label)
    return Node(node, name=shown, data_type=f"input {name}", project=project, state=RAW if item.dataset else MISSING)


def _step_node(project: str, instance: Instance, step: StepPlan) -> Node:
    described = instance.inspection.described(instance.step.spec.output)
    return Node(
        _id(step),
        name=instance.name,
        measurement=str(described.get("measurement", "")),
        data_type=str(described.get("data_type", "")),
        project=project,
        state=step.state,
        step=instance.step.name,
    )
