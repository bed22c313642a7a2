"""The plan: for each step, whether its result is there already, and if not, why. Pure: what is known is passed in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.differences import code_diff, differences
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.inputs import Inputs
from crucible_lineage.pipeline.plan.used import used_datasets
from crucible_lineage.provenance.recipe import UsedDataset, derived_mfid, step_recipe
from crucible_lineage.refs import DatasetRef

__all__ = ["Earlier", "Estimate", "Knowledge", "PipelinePlan", "StepPlan", "plan", "plan_instance"]

FRESH, MISSING, INCOMPLETE, STALE, BLOCKED = "fresh", "missing", "incomplete", "stale", "blocked"


@dataclass(frozen=True)
class Earlier:
    """An earlier result of a step: its id and recipe, and the text that the function had."""

    mfid: str
    recipe: Mapping[str, Any]
    source: str = ""


class Knowledge(Protocol):
    """What is known of Crucible's datasets."""

    def complete(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is there and complete."""

    def is_begun(self, mfid: str) -> bool:
        """True if there is an incomplete record under this id."""

    def attempt(self, first_mfid: str) -> int:
        """The latest attempt at the recipe whose first attempt has this id."""

    def made_from(self, step: str, output: str, parents: Collection[str]) -> Sequence[Earlier]:
        """Earlier results of a declared step that were made from one of these datasets, newest first."""

    def about(self, step: str, output: str, subject: Collection[str]) -> Sequence[Earlier]:
        """Earlier results of a declared step that descend from all of these inputs, newest first."""

    def supersedes(self, mfid: str) -> str | None:
        """The dataset that this one was made to replace."""


@dataclass(frozen=True)
class Estimate:
    """What a step took when it was made before: wall-clock seconds, and bytes of its outputs."""

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class StepPlan:
    """What would be done for an instance of a step. An id is None while it depends on a parent that is not there yet.

    `results` are the datasets of a fresh step; `supersedes` are the earlier ones that a stale step's would replace.
    """

    name: str
    state: str
    causes: tuple[str, ...] = ()
    datasets: Mapping[str, str | None] = field(default_factory=dict)
    results: Mapping[str, DatasetRef] = field(default_factory=dict)
    supersedes: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    step: str = ""
    code_diff: tuple[str, ...] = ()
    estimate: Estimate = Estimate()

    def to_json(self) -> dict[str, Any]:
        """The entry in `plan --json`."""
        return {
            "name": self.name,
            "step": self.step or self.name,
            "state": self.state,
            "causes": list(self.causes),
            "datasets": dict(self.datasets),
            "supersedes": dict(self.supersedes),
            "code_diff": list(self.code_diff),
            "estimate": {"seconds": self.estimate.seconds, "bytes": self.estimate.bytes},
        }


@dataclass(frozen=True)
class PipelinePlan:
    """The plan of all instances, in an order in which they can run."""

    steps: tuple[StepPlan, ...]

    @property
    def is_fresh(self) -> bool:
        """True if nothing has to be done."""
        return all(step.state == FRESH for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        return {"steps": [step.to_json() for step in self.steps]}


def plan(
    project: str,
    instances: Mapping[str, Instance],
    inputs: Inputs,
    knowledge: Knowledge,
    forced: Collection[str] = (),
    current: set[str] | None = None,
) -> PipelinePlan:
    """The plan. Steps (or instances) in `forced` are made again though their results are there.

    `current` collects the results that are there and stay: no other instance replaces them.
    """
    current = set() if current is None else current
    claimed: set[str] = set()
    done: dict[str, StepPlan] = {}
    for _, group in groupby(instances.values(), key=lambda instance: instance.step.name):
        ready: list[tuple[Instance, _Identity]] = []
        for instance in group:
            unready = _unready(instance, inputs, done, knowledge)
            if unready is not None:
                done[instance.name] = unready
                continue
            results = {need: done[need].results for need in instance.needs}
            try:
                used = used_datasets(instance, inputs, results)
            except InputError as error:
                if not instance.subject:
                    raise
                done[instance.name] = _blocked(instance, [str(error)])  # it does not stop the other datasets
                continue
            ready.append((instance, _identify(project, instance, used, knowledge)))
        for _, identity in ready:
            current.update(dataset.mfid for dataset in identity.results.values())
        claimed |= current
        for instance, identity in ready:
            force = instance.name in forced or instance.step.name in forced
            done[instance.name] = _planned(instance, identity, knowledge, claimed, forced=force)
    return PipelinePlan(tuple(done[name] for name in instances))


def plan_instance(
    project: str,
    instance: Instance,
    used: Sequence[UsedDataset],
    knowledge: Knowledge,
    claimed: set[str],
    *,
    forced: bool = False,
) -> StepPlan:
    """The plan of an instance whose parents are all there; what it replaces is claimed from now on."""
    return _planned(instance, _identify(project, instance, used, knowledge), knowledge, claimed, forced=forced)


@dataclass(frozen=True)
class _Identity:
    """The recipes of an instance's outputs with their ids, and what is there of them."""

    recipes: Mapping[str, Mapping[str, Any]]
    mfids: Mapping[str, str]
    attempt: int
    results: Mapping[str, DatasetRef]

    def again(self) -> dict[str, str]:
        """The ids of the next attempt."""
        attempt = {"attempt": self.attempt + 1}
        return {output: derived_mfid({**recipe, **attempt}) for output, recipe in self.recipes.items()}


def _identify(project: str, instance: Instance, used: Sequence[UsedDataset], knowledge: Knowledge) -> _Identity:
    code, params = instance.inspection.code, instance.inspection.params

    def recipes(attempt: int) -> dict[str, dict[str, Any]]:
        outputs = instance.inspection.outputs
        return {output: step_recipe(project, code, output, params, used, attempt) for output in outputs}

    latest = recipes(0)
    mfids = {output: derived_mfid(recipe) for output, recipe in latest.items()}
    attempt = max(knowledge.attempt(mfid) for mfid in mfids.values())
    if attempt:
        latest = recipes(attempt)
        mfids = {output: derived_mfid(recipe) for output, recipe in latest.items()}
    results = {output: dataset for output, mfid in mfids.items() if (dataset := knowledge.complete(mfid))}
    return _Identity(latest, mfids, attempt, results)


def _planned(
    instance: Instance, identity: _Identity, knowledge: Knowledge, claimed: set[str], *, forced: bool
) -> StepPlan:
    name, step, attempt = instance.name, instance.step.name, identity.attempt
    if len(identity.results) == len(identity.mfids):
        if not forced:
            return StepPlan(name, FRESH, (), identity.mfids, identity.results, attempt=attempt, step=step)
        causes = ("it is forced",)
        again = identity.again()
        return StepPlan(name, STALE, causes, again, supersedes=identity.mfids, attempt=attempt + 1, step=step)
    replaced, why, changed = _replaced(instance, identity.recipes, knowledge, claimed)
    if any(knowledge.is_begun(mfid) for mfid in identity.mfids.values()):
        state, why = INCOMPLETE, ["an earlier run did not finish"]
    elif replaced:
        state = STALE
    else:
        state, why = MISSING, ["it was never made"]
    return StepPlan(
        name, state, tuple(why), identity.mfids, supersedes=replaced, attempt=attempt, step=step, code_diff=changed
    )


def _replaced(
    instance: Instance, recipes: Mapping[str, Mapping[str, Any]], knowledge: Knowledge, claimed: set[str]
) -> tuple[dict[str, str], list[str], tuple[str, ...]]:
    """The earlier results that these would replace, by output; what differs from them, and how the code does."""
    replaced: dict[str, str] = {}
    causes: list[str] = []
    changed: tuple[str, ...] = ()
    for output, recipe in recipes.items():
        earlier = [
            (one, differences(one.recipe, recipe))
            for one in _same_subject(instance, output, recipe, knowledge)
            if one.mfid not in claimed
        ]
        if earlier:
            nearest, found = min(earlier, key=lambda pair: len(pair[1]))  # the newest of the nearest
            replaced[output] = nearest.mfid
            claimed.add(nearest.mfid)
            if not causes:
                causes = [f"{cause} (since {nearest.mfid})" for cause in found]
                if nearest.recipe["code"] != recipe["code"]:
                    changed = code_diff(nearest.source, instance.inspection.source)
    return replaced, causes, changed


def _same_subject(
    instance: Instance, output: str, recipe: Mapping[str, Any], knowledge: Knowledge
) -> Sequence[Earlier]:
    """Earlier results that are about the same data, newest first.

    In a pipeline with `each`, those that descend from the same input of it; in others, those that share a parent, or
    whose parent was replaced by one of this result's parents.
    """
    step = instance.step.name
    if instance.subject:
        return knowledge.about(step, output, instance.subject)
    parents = {entry["mfid"] for entries in recipe["inputs"].values() for entry in entries}
    return knowledge.made_from(step, output, parents | {old for mfid in parents if (old := knowledge.supersedes(mfid))})


def _unready(instance: Instance, inputs: Inputs, done: Mapping[str, StepPlan], knowledge: Knowledge) -> StepPlan | None:
    """The plan of an instance whose parents are not all there; None if they are."""
    name, step = instance.name, instance.step.name
    blocked = [instance.blocked] if instance.blocked else []
    blocked += [f"parent {need} is blocked" for need in instance.needs if done[need].state == BLOCKED]
    if blocked:
        return _blocked(instance, blocked)
    waiting = [done[need] for need in instance.needs if done[need].state != FRESH]
    new = [
        f"input {feed.input} is not registered yet"
        for feed in instance.feeds
        if feed.input is not None and inputs[feed.input][feed.index].dataset is None
    ]
    if not waiting and not new:
        return None
    causes = tuple(dict.fromkeys([*(f"parent {parent.name} has to be made first" for parent in waiting), *new]))
    stale = any(parent.state == STALE for parent in waiting) or _was_made(instance, inputs, done, knowledge)
    outputs: dict[str, str | None] = dict.fromkeys(instance.inspection.outputs)
    return StepPlan(name, STALE if stale else MISSING, causes, outputs, step=step)


def _blocked(instance: Instance, causes: Sequence[str]) -> StepPlan:
    outputs: dict[str, str | None] = dict.fromkeys(instance.inspection.outputs)
    return StepPlan(instance.name, BLOCKED, tuple(causes), outputs, step=instance.step.name)


def _was_made(instance: Instance, inputs: Inputs, done: Mapping[str, StepPlan], knowledge: Knowledge) -> bool:
    """True if there is an earlier result about the same data, as far as that can be told without all parents."""
    outputs = instance.inspection.outputs
    if instance.subject:
        return any(knowledge.about(instance.step.name, output, instance.subject) for output in outputs)
    there = {dataset.mfid for need in instance.needs for dataset in done[need].results.values()}
    items = (inputs[feed.input][feed.index] for feed in instance.feeds if feed.input is not None)
    there |= {item.dataset.mfid for item in items if item.dataset}
    return any(knowledge.made_from(instance.step.name, output, there) for output in outputs)
