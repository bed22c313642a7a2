"""The plan: for each step, whether its result is there already, and if not, why. Pure: what is known is passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from crucible_lineage.datasets import DatasetRef, FileRef
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind import BoundPipeline, BoundStep
from crucible_lineage.pipeline.spec import Source
from crucible_lineage.recipe import UsedDataset, derived_mfid, step_recipe

__all__ = ["Knowledge", "PipelinePlan", "StepPlan", "plan", "plan_step", "used_datasets"]

FRESH, MISSING, INCOMPLETE, STALE = "fresh", "missing", "incomplete", "stale"


class Knowledge(Protocol):
    """What is known of Crucible's datasets."""

    def complete(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is there and complete."""

    def is_begun(self, mfid: str) -> bool:
        """True if there is an incomplete record under this id."""

    def siblings(self, step: str, output: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Id and recipe of each earlier result of this step, newest first."""


@dataclass(frozen=True)
class StepPlan:
    """What would be done for a step. An id is None while it depends on a parent that is not there yet."""

    name: str
    state: str
    causes: tuple[str, ...] = ()
    datasets: Mapping[str, str | None] = field(default_factory=dict)
    results: Mapping[str, DatasetRef] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The step's entry in `plan --json`."""
        return {
            "name": self.name,
            "state": self.state,
            "causes": list(self.causes),
            "datasets": dict(self.datasets),
        }


@dataclass(frozen=True)
class PipelinePlan:
    """The plan of all steps, in the order in which they can run."""

    steps: tuple[StepPlan, ...]

    @property
    def is_fresh(self) -> bool:
        """True if nothing has to be done."""
        return all(step.state == FRESH for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        return {"steps": [step.to_json() for step in self.steps]}


def plan(
    pipeline: BoundPipeline, inputs: Mapping[str, tuple[DatasetRef, ...] | None], knowledge: Knowledge
) -> PipelinePlan:
    """The plan. `inputs` holds the datasets of each input, None for one that is not registered yet."""
    done: dict[str, StepPlan] = {}
    for name, step in pipeline.steps.items():
        waiting = [need for need in step.needs if done[need].state != FRESH]
        new = [s.source for given in step.sources.values() for s in given if inputs.get(s.source, ()) is None]
        if waiting or new:
            done[name] = _waiting(step, waiting, new, knowledge)
        else:
            results = {need: done[need].results for need in step.needs}
            used = used_datasets(step, inputs, results)
            done[name] = plan_step(pipeline.spec.project, step, used, knowledge)
    return PipelinePlan(tuple(done.values()))


def plan_step(project: str, step: BoundStep, used: Sequence[UsedDataset], knowledge: Knowledge) -> StepPlan:
    """The plan of one step whose parents are all there."""
    recipes = {
        output: step_recipe(project, step.inspection.code, output, step.inspection.params, used)
        for output in step.inspection.outputs
    }
    mfids = {output: derived_mfid(recipe) for output, recipe in recipes.items()}
    results = {output: dataset for output, mfid in mfids.items() if (dataset := knowledge.complete(mfid))}
    if len(results) == len(mfids):
        return StepPlan(step.name, FRESH, (), mfids, results)
    if any(knowledge.is_begun(mfid) for mfid in mfids.values()):
        return StepPlan(step.name, INCOMPLETE, ("an earlier run did not finish",), mfids)
    output, recipe = next(iter(recipes.items()))
    siblings = knowledge.siblings(step.inspection.step, output)
    if siblings:
        nearest, causes = min(
            ((mfid, differences(earlier, recipe)) for mfid, earlier in siblings), key=lambda pair: len(pair[1])
        )
        if causes:
            return StepPlan(step.name, STALE, tuple(f"{cause} (since {nearest})" for cause in causes), mfids)
    return StepPlan(step.name, MISSING, ("it was never made",), mfids)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes of one step, in words."""
    causes = []
    if earlier["code"] != now["code"]:
        causes.append(f"the code changed: {earlier['code'][:12]} -> {now['code'][:12]}")
    for name in sorted({*earlier["params"], *now["params"]}):
        old, new = earlier["params"].get(name), now["params"].get(name)
        if old != new:
            causes.append(f"parameter {name} changed: {old!r} -> {new!r}")
    for role in sorted({*earlier["inputs"], *now["inputs"]}):
        if earlier["inputs"].get(role) != now["inputs"].get(role):
            causes.append(f"input {role} is another dataset or has other files")
    return causes


def used_datasets(
    step: BoundStep,
    inputs: Mapping[str, tuple[DatasetRef, ...] | None],
    results: Mapping[str, Mapping[str, DatasetRef]],
) -> tuple[UsedDataset, ...]:
    """The parents of a step in their roles, with the files it is given. InputError if a role's files do not fit."""
    used = []
    for role, sources in step.sources.items():
        for source in sources:
            for dataset in _datasets_of(source, inputs, results):
                used.append(UsedDataset(role, dataset, _files_of(step, role, source, dataset)))
    return tuple(used)


def _datasets_of(
    source: Source,
    inputs: Mapping[str, tuple[DatasetRef, ...] | None],
    results: Mapping[str, Mapping[str, DatasetRef]],
) -> tuple[DatasetRef, ...]:
    if source.source in results:
        outputs = results[source.source]
        return (outputs[source.output] if source.output else next(iter(outputs.values())),)
    return inputs[source.source] or ()


def _files_of(step: BoundStep, role: str, source: Source, dataset: DatasetRef) -> tuple[FileRef, ...]:
    place = f"step {step.name!r}, input {role!r}: dataset {dataset.mfid} ({dataset.name!r})"
    files = [file for file in dataset.data_files if source.files is None or fnmatchcase(file.name, source.files)]
    if not files:
        raise InputError(f"{place} has no file {source.files or 'at all'}")
    if step.inspection.roles[role] == "file" and len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"{place} has several files: {names}; choose one with {role}: {{from: {source.source}, files: NAME}}, "
            f"or annotate the input dict[str, Path]"
        )
    return tuple(files)


def _waiting(step: BoundStep, waiting: Sequence[str], new: Sequence[str], knowledge: Knowledge) -> StepPlan:
    causes = [f"parent {name} has to be made first" for name in waiting]
    causes += [f"input {name} is not registered yet" for name in dict.fromkeys(new)]
    outputs = step.inspection.outputs
    made_before = any(knowledge.siblings(step.inspection.step, output) for output in outputs)
    state = STALE if made_before else MISSING
    return StepPlan(step.name, state, tuple(causes), dict.fromkeys(outputs))
