"""The plan: for each step, whether its result is there already, and if not, why. Pure: what is known is passed in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from crucible_lineage.datasets import DatasetRef, FileRef
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind import BoundPipeline, BoundStep
from crucible_lineage.pipeline.spec import Source
from crucible_lineage.recipe import UsedDataset, derived_mfid, step_recipe

__all__ = ["Knowledge", "PipelinePlan", "StepPlan", "files_for_role", "plan", "plan_step", "used_datasets"]

FRESH, MISSING, INCOMPLETE, STALE = "fresh", "missing", "incomplete", "stale"


class Knowledge(Protocol):
    """What is known of Crucible's datasets."""

    def complete(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is there and complete."""

    def is_begun(self, mfid: str) -> bool:
        """True if there is an incomplete record under this id."""

    def attempt(self, first_mfid: str) -> int:
        """The latest attempt at the recipe whose first attempt has this id."""

    def siblings(self, step: str, output: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Id and recipe of each earlier result of this step, newest first."""

    def supersedes(self, mfid: str) -> str | None:
        """The dataset that this one was made to replace."""


@dataclass(frozen=True)
class StepPlan:
    """What would be done for a step. An id is None while it depends on a parent that is not there yet.

    `results` are the datasets of a fresh step; `supersedes` are the earlier ones that a stale step's would replace.
    """

    name: str
    state: str
    causes: tuple[str, ...] = ()
    datasets: Mapping[str, str | None] = field(default_factory=dict)
    results: Mapping[str, DatasetRef] = field(default_factory=dict)
    supersedes: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0

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
    pipeline: BoundPipeline,
    inputs: Mapping[str, tuple[DatasetRef, ...] | None],
    knowledge: Knowledge,
    forced: Collection[str] = (),
) -> PipelinePlan:
    """The plan. `inputs` holds the datasets of each input, None for one that is not registered yet.

    Steps in `forced` are made again though their results are there.
    """
    done: dict[str, StepPlan] = {}
    for name, step in pipeline.steps.items():
        waiting = [need for need in step.needs if done[need].state != FRESH]
        new = [s.source for given in step.sources.values() for s in given if inputs.get(s.source, ()) is None]
        if waiting or new:
            done[name] = _waiting(step, [done[need] for need in waiting], new, inputs, done, knowledge)
        else:
            results = {need: done[need].results for need in step.needs}
            used = used_datasets(step, inputs, results)
            done[name] = plan_step(pipeline.spec.project, step, used, knowledge, forced=name in forced)
    return PipelinePlan(tuple(done.values()))


def plan_step(
    project: str, step: BoundStep, used: Sequence[UsedDataset], knowledge: Knowledge, *, forced: bool = False
) -> StepPlan:
    """The plan of one step whose parents are all there."""
    code, params = step.inspection.code, step.inspection.params

    def recipes(attempt: int) -> dict[str, dict[str, Any]]:
        return {output: step_recipe(project, code, output, params, used, attempt) for output in step.inspection.outputs}

    first = {output: derived_mfid(recipe) for output, recipe in recipes(0).items()}
    attempt = max(knowledge.attempt(mfid) for mfid in first.values())
    latest = {output: derived_mfid(recipe) for output, recipe in recipes(attempt).items()} if attempt else first
    results = {output: dataset for output, mfid in latest.items() if (dataset := knowledge.complete(mfid))}
    if len(results) == len(latest):
        if not forced:
            return StepPlan(step.name, FRESH, (), latest, results, attempt=attempt)
        again = {output: derived_mfid(recipe) for output, recipe in recipes(attempt + 1).items()}
        return StepPlan(step.name, STALE, ("it is forced",), again, supersedes=latest, attempt=attempt + 1)
    replaced, causes = _replaced(step, recipes(attempt), knowledge)
    if any(knowledge.is_begun(mfid) for mfid in latest.values()):
        causes = ["an earlier run did not finish"]
        return StepPlan(step.name, INCOMPLETE, tuple(causes), latest, supersedes=replaced, attempt=attempt)
    if replaced:
        return StepPlan(step.name, STALE, tuple(causes), latest, supersedes=replaced, attempt=attempt)
    return StepPlan(step.name, MISSING, ("it was never made",), latest, attempt=attempt)


def _replaced(
    step: BoundStep, recipes: Mapping[str, Mapping[str, Any]], knowledge: Knowledge
) -> tuple[dict[str, str], list[str]]:
    """The earlier results that these would replace, by output, and what differs from them."""
    replaced: dict[str, str] = {}
    causes: list[str] = []
    for output, recipe in recipes.items():
        earlier = [
            (mfid, differences(other, recipe))
            for mfid, other in knowledge.siblings(step.inspection.step, output)
            if _same_subject(other, recipe, knowledge)
        ]
        if earlier:
            nearest, found = min(earlier, key=lambda pair: len(pair[1]))  # the newest of the nearest
            replaced[output] = nearest
            causes = causes or [f"{cause} (since {nearest})" for cause in found]
    return replaced, causes


def _same_subject(earlier: Mapping[str, Any], now: Mapping[str, Any], knowledge: Knowledge) -> bool:
    """True if both results are about the same data: they share a parent, or one replaced a parent of the other.

    A pipeline that runs over many measurements makes many results with one step; only those of the same measurement
    replace each other.
    """
    old, new = _parents(earlier), _parents(now)
    return bool(old & new) or any(knowledge.supersedes(mfid) in old for mfid in new)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes of one step, in words."""
    causes = []
    if earlier["code"] != now["code"]:
        causes.append(f"the code changed: {earlier['code'][:12]} -> {now['code'][:12]}")
    packages, others = now.get("packages", {}), earlier.get("packages", {})
    for name in sorted({*packages, *others}):
        if others.get(name) != packages.get(name):
            causes.append(f"package {name} changed: {others.get(name)} -> {packages.get(name)}")
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
                files = files_for_role(role, step.inspection.roles[role], dataset, source.files)
                used.append(UsedDataset(role, dataset, files))
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


def files_for_role(role: str, shape: str, dataset: DatasetRef, pattern: str | None) -> tuple[FileRef, ...]:
    """The files of a parent that a step is given in a role. InputError if there is none, or one has to be chosen."""
    place = f"input {role!r}: dataset {dataset.mfid} ({dataset.name!r})"
    files = [file for file in dataset.data_files if pattern is None or fnmatchcase(file.name, pattern)]
    if not files:
        raise InputError(f"{place} has no file {pattern or 'at all'}")
    if shape == "file" and len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"{place} has several files: {names}; choose one with {role}: {{from: ..., files: NAME}}, "
            "or annotate the input dict[str, Path]"
        )
    return tuple(files)


def _waiting(
    step: BoundStep,
    waiting: Sequence[StepPlan],
    new: Sequence[str],
    inputs: Mapping[str, tuple[DatasetRef, ...] | None],
    done: Mapping[str, StepPlan],
    knowledge: Knowledge,
) -> StepPlan:
    """A step whose parents are not all there: stale if there are earlier results about the same data."""
    causes = [f"parent {parent.name} has to be made first" for parent in waiting]
    causes += [f"input {name} is not registered yet" for name in dict.fromkeys(new)]
    there = {
        dataset.mfid
        for given in step.sources.values()
        for source in given
        for dataset in (*(inputs.get(source.source) or ()), *_results_of(source, done))
    }
    earlier = (
        recipe for output in step.inspection.outputs for _, recipe in knowledge.siblings(step.inspection.step, output)
    )
    shared = any(there & _parents(recipe) for recipe in earlier)
    state = STALE if shared or any(parent.state == STALE for parent in waiting) else MISSING
    return StepPlan(step.name, state, tuple(causes), dict.fromkeys(step.inspection.outputs))


def _results_of(source: Source, done: Mapping[str, StepPlan]) -> tuple[DatasetRef, ...]:
    return tuple(done[source.source].results.values()) if source.source in done else ()


def _parents(recipe: Mapping[str, Any]) -> set[str]:
    return {entry["mfid"] for entries in recipe["inputs"].values() for entry in entries}
