"""A pipeline planned as things stand: its inputs found, its steps expanded, what is known looked up in one go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.model import BoundPipeline, bind_file
from crucible_lineage.pipeline.bind.names import require_names
from crucible_lineage.pipeline.plan.expand import Instance, expand
from crucible_lineage.pipeline.plan.inputs import InputItem, known_inputs
from crucible_lineage.pipeline.plan.known import ProjectKnowledge
from crucible_lineage.pipeline.plan.plan import FRESH, Estimate, PipelinePlan, plan
from crucible_lineage.pipeline.spec.inputs import ResultInput
from crucible_lineage.session import Session

__all__ = ["Planned", "make_plan", "plan_pipeline"]


@dataclass(frozen=True)
class Planned:
    """A pipeline's plan with all it rests on. `current` are the results that are there and stay."""

    plan: PipelinePlan
    instances: Mapping[str, Instance]
    inputs: Mapping[str, tuple[InputItem, ...]]
    knowledge: ProjectKnowledge
    current: set[str]


def make_plan(pipeline: BoundPipeline, session: Session, forced: Collection[str] = ()) -> PipelinePlan:
    """The plan as things stand, with what each step took before. Changes nothing."""
    planned = plan_pipeline(pipeline, session, forced).plan
    took = {step: Estimate(*figures) for step, figures in session.store.took(pipeline.name).items()}
    return PipelinePlan(
        tuple(
            step if step.state == FRESH else replace(step, estimate=took.get(step.step, Estimate()))
            for step in planned.steps
        )
    )


def plan_pipeline(
    pipeline: BoundPipeline, session: Session, forced: Collection[str] = (), within: tuple[Path, ...] = ()
) -> Planned:
    """The plan and what it rests on. `within` are the pipelines on whose behalf this one is planned."""
    spec = pipeline.spec
    knowledge = ProjectKnowledge(session, spec.project, pipeline.name)

    def results_of(declared: ResultInput) -> Iterator[InputItem]:
        return _results_of(declared, session, (*within, spec.path.resolve()))

    inputs = known_inputs(spec, session, results_of)
    instances = expand(pipeline, inputs)
    require_names(pipeline, forced, instances)
    current: set[str] = set()
    planned = plan(spec.project, instances, inputs, knowledge, forced, current)
    return Planned(planned, instances, inputs, knowledge, current)


def _results_of(declared: ResultInput, session: Session, within: tuple[Path, ...]) -> Iterator[InputItem]:
    """The current results of a step of another pipeline, one for each of its instances."""
    path = declared.path
    if path.resolve() in within:
        raise InputError(f"{path} takes a result of itself, by way of {within[-1]}")
    other = bind_file(path, session.store)
    require_names(other, [declared.step])
    outputs = other.steps[declared.step].inspection.outputs
    output = declared.output or outputs[0]
    if output not in outputs or (declared.output is None and len(outputs) > 1):
        raise InputError(
            f"step {declared.step!r} of {path} has the outputs {', '.join(outputs)}; name one with `output:`"
        )
    planned = plan_pipeline(other, session, within=within).plan
    for step in planned.steps:
        if step.step != declared.step:
            continue
        if step.state == FRESH:
            dataset = step.results[output]
            yield InputItem(dataset.mfid, dataset, {"dataset_name": dataset.name})
        else:
            yield InputItem(step.name, None, blocked=f"{step.name} of {path} is {step.state}; run that pipeline first")
