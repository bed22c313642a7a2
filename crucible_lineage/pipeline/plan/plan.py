"""The plan: for each step, whether its result is there already, and if not, why. Pure: what is known is passed in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.files.fetch import EvictedDataset
from crucible_lineage.pipeline.inputs.current import DeclaredDifference
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.plan.differences import Ingredients, UsedFiles, code_diff, differences, file_changes
from crucible_lineage.pipeline.plan.expand import InputEdge, Instance
from crucible_lineage.pipeline.plan.used import used_datasets
from crucible_lineage.provenance.recipe import PlannedOutput, UsedDataset, derived_mfid, planned_outputs
from crucible_lineage.refs import DatasetRef

FRESH, MISSING, INCOMPLETE, STALE, BLOCKED = "fresh", "missing", "incomplete", "stale", "blocked"
FORCED = "it is forced"  # the cause of what is made again on request


@dataclass(frozen=True)
class EarlierResult:
    """An earlier result of a step, and what it was made by."""

    mfid: str
    made: Ingredients


class DatasetIndex(Protocol):
    """Knowledge about Crucible's datasets."""

    def look(self, mfids: Collection[str]) -> None:
        """Announce the datasets that are going to be asked for."""

    def complete(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is there and complete."""

    def lost(self, mfid: str) -> Sequence[str]:
        """The files of a dataset that Crucible is known to have lost."""

    def is_begun(self, mfid: str) -> bool:
        """True if there is an incomplete record under this id."""

    def refusal(self, mfid: str) -> str:
        """Return why the complete dataset of this id is not relied on; empty if it is, or if there is none."""

    def attempt(self, first_mfid: str) -> int:
        """The latest attempt at the recipe whose first attempt has this id."""

    def current(self, slot: str) -> EarlierResult | None:
        """The result that holds in a slot now."""

    def look_ahead(self, mfids: Collection[str]) -> None:
        """The facts about these datasets are going to be asked for."""

    def facts(self, used: Sequence[UsedDataset]) -> Mapping[str, Any]:
        """Return the facts about these parents for a recipe. InputError if one cannot be read."""

    def is_held(self, slot: str) -> bool:
        """True if there is one, as far as is known without asking."""

    def on_hold(self, used: Collection[str], code: str) -> Sequence[str]:
        """Return why these datasets must not be used with this code: the holds on them."""


@dataclass(frozen=True)
class Estimate:
    """What a step took when it was made before: wall-clock seconds, and bytes of its outputs."""

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class StepPlan:
    """What would be done for an instance of a step. An id is None while it depends on a parent that is not there yet.

    `results` are the datasets of a fresh step, and `used` its parents; `outputs` are those that a step would give whose
    parents are there, with what they would replace. `roots`
    are the causes from which it follows that it is not fresh, each with the step that it is a cause of. `notes` are
    said of its parents, `choices` are those that were chosen in time, by role. It is blocked since something is
    `on_hold`, and for no other reason.
    """

    name: str
    state: str
    causes: tuple[str, ...] = ()
    datasets: Mapping[str, str | None] = field(default_factory=dict)
    results: Mapping[str, DatasetRef] = field(default_factory=dict)
    outputs: tuple[PlannedOutput, ...] = ()
    step: str = ""
    code_diff: tuple[str, ...] = ()
    estimate: Estimate = Estimate()
    roots: tuple[str, ...] = ()
    used: tuple[UsedDataset, ...] = ()
    notes: tuple[str, ...] = ()
    choices: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    on_hold: bool = False

    @property
    def supersedes(self) -> dict[str, str]:
        """The earlier results that those of a stale step would replace, by output."""
        return {planned.output: planned.supersedes for planned in self.outputs if planned.supersedes}

    def to_json(self) -> dict[str, Any]:
        """The entry in `plan --json`."""
        return {
            "name": self.name,
            "step": self.step or self.name,
            "state": self.state,
            "causes": list(self.causes),
            "datasets": dict(self.datasets),
            "supersedes": self.supersedes,
            "code_diff": list(self.code_diff),
            "roots": list(self.roots),
            "notes": list(self.notes),
            "on_hold": self.on_hold,
            "choices": {role: list(chosen) for role, chosen in self.choices.items()},
            "estimate": {"seconds": self.estimate.seconds, "bytes": self.estimate.bytes},
        }


@dataclass(frozen=True)
class PipelinePlan:
    """The plan of all instances, in an order in which they can run.

    `undeclared` are slots of results that still hold although the pipeline declares them no more. `instances` are
    those that are planned, without what is blocked where a list may have gaps; `differences` are those between what is
    declared of files and what Crucible says of them, `notes` are what else is to be said of files. `away` are inputs of
    what is to be made whose bytes were let go and have to be made again first.
    """

    steps: tuple[StepPlan, ...]
    undeclared: tuple[str, ...] = ()
    instances: Mapping[str, Instance] = field(default_factory=dict, compare=False)
    differences: tuple[DeclaredDifference, ...] = ()
    notes: tuple[str, ...] = ()
    away: tuple[EvictedDataset, ...] = ()

    @property
    def is_fresh(self) -> bool:
        """True if nothing has to be done."""
        return all(step.state == FRESH for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Return the plan for `plan --json`."""
        steps = [step.to_json() for step in self.steps]
        differences = [one.to_json() for one in self.differences]
        return {
            "steps": steps,
            "undeclared": list(self.undeclared),
            "differences": differences,
            "notes": list(self.notes),
            "away": [one.to_json() for one in self.away],
        }


def plan(
    project: str,
    instances: Mapping[str, Instance],
    inputs: Inputs,
    knowledge: DatasetIndex,
    forced: Collection[str] = (),
) -> PipelinePlan:
    """The plan. Steps (or instances) in `forced` are made again though their results are there.

    It is made generation by generation: what is known of all results of one is looked up together.
    """
    done: dict[str, StepPlan] = {}
    left, looked = dict(instances), set[str]()
    for generation in _generations(instances):
        drafts = []
        for name in generation:
            instance = left[name] = _without_gaps(instances[name], done)
            unready = _unready(instance, inputs, done, knowledge)
            if unready is not None:
                done[name] = unready
                continue
            if instance.inspection.facts and instance.step.name not in looked:
                looked.add(instance.step.name)
                _look_ahead(instance, instances, inputs, done, knowledge)
            results = {need: done[need].results for need in instance.needs}
            try:
                drafts.append(_draft(project, instance, used_datasets(instance, inputs, results), knowledge))
            except InputError as error:  # it is this step's fault, and does not stop the others
                done[name] = _blocked(instance, [str(error)])
        knowledge.look([planned.mfid for draft in drafts for planned in draft.outputs])
        for draft in drafts:
            name, step = draft.instance.name, draft.instance.step.name
            done[name] = _planned(draft, knowledge, forced=name in forced or step in forced)
        for name in generation:
            notes = (*left[name].notes, *(f"without {gap}" for gap in left[name].gaps))
            if notes or left[name].choices:
                done[name] = replace(done[name], notes=notes, choices=left[name].choices)
    return PipelinePlan(tuple(done[name] for name in instances), instances=left)


def _without_gaps(instance: Instance, done: Mapping[str, StepPlan]) -> Instance:
    """The instance without parents that are blocked, in the lists that may have gaps."""
    sources = instance.step.sources
    roles = {role for role, given in sources.items() if any(source.gaps for source in given)}
    gone = [feed for feed in instance.feeds if feed.role in roles and feed.instance
            and done[feed.instance].state == BLOCKED]  # fmt: skip
    if not gone:
        return instance
    feeds = tuple(feed for feed in instance.feeds if feed not in gone)
    empty = next((role for role in roles if all(feed.role != role for feed in feeds)), "")
    gaps = tuple(f"{feed.instance}: {', '.join(done[feed.instance or ''].causes)}" for feed in gone)
    return replace(
        instance,
        feeds=feeds,
        needs=tuple(dict.fromkeys(feed.instance for feed in feeds if feed.instance)),
        blocked=instance.blocked or (f"all that {empty} would be given is blocked" if empty else ""),
        gaps=(*instance.gaps, *gaps),
    )


def _generations(instances: Mapping[str, Instance]) -> list[list[str]]:
    """Instances by how many others they come after: those of one generation do not need one another."""
    depth: dict[str, int] = {}
    found: list[list[str]] = []
    for name, instance in instances.items():  # parents come before their children
        depth[name] = max((depth[need] + 1 for need in instance.needs), default=0)
        if depth[name] == len(found):
            found.append([])
        found[depth[name]].append(name)
    return found


@dataclass(frozen=True)
class _Draft:
    """An instance whose parents are all there, with the outputs that it would give."""

    instance: Instance
    used: tuple[UsedDataset, ...]
    outputs: tuple[PlannedOutput, ...]


def plan_instance(
    project: str, instance: Instance, used: Sequence[UsedDataset], knowledge: DatasetIndex, *, forced: bool = False
) -> StepPlan:
    """The plan of an instance whose parents are all there."""
    try:
        draft = _draft(project, instance, used, knowledge)
    except InputError as error:
        return _blocked(instance, [str(error)])
    return _planned(draft, knowledge, forced=forced)


def _draft(project: str, instance: Instance, used: Sequence[UsedDataset], knowledge: DatasetIndex) -> _Draft:
    """The outputs of the latest attempt at an instance. InputError if facts about a parent cannot be read."""
    inspection = instance.inspection
    code, params = inspection.code, inspection.params
    salt = instance.step.spec.salt
    facts = knowledge.facts(used) if inspection.facts else None
    planned_as = partial(planned_outputs, project, code, inspection.outputs, params, used, salt=salt, facts=facts)
    outputs = planned_as()
    if attempt := max(knowledge.attempt(planned.mfid) for planned in outputs):
        outputs = planned_as(attempt=attempt)
    return _Draft(instance, tuple(used), outputs)


def _planned(draft: _Draft, knowledge: DatasetIndex, *, forced: bool) -> StepPlan:
    instance, used, outputs = draft.instance, draft.used, draft.outputs
    found = {planned.output: knowledge.complete(planned.mfid) for planned in outputs}
    results = {output: dataset for output, dataset in found.items() if dataset}
    name, step = instance.name, instance.step.name
    lost = [f"Crucible has lost the bytes of its file {file}" for one in outputs for file in knowledge.lost(one.mfid)]
    is_there = not lost and len(results) == len(outputs) and not forced
    if not is_there and (
        on_hold := knowledge.on_hold([one.dataset.mfid for one in used], instance.inspection.code.fingerprint)
    ):
        return _blocked(instance, on_hold, on_hold=True)
    if lost and not forced:
        roots = tuple(f"{name}: {cause}" for cause in lost)
        ids = _ids(outputs)
        return StepPlan(name, INCOMPLETE, tuple(lost), ids, outputs=outputs, step=step, roots=roots, used=used)
    refused = [knowledge.refusal(planned.mfid) for planned in outputs if planned.output not in results]
    refusals = [told for told in refused if told]
    if forced and (refusals or len(results) == len(outputs)):
        return _forced(draft)
    if refusals:
        return _blocked(instance, refusals)
    if len(results) == len(outputs):
        return StepPlan(name, FRESH, (), _ids(outputs), results, outputs, step, used=tuple(used))
    return _unfinished(draft, knowledge)


def _forced(draft: _Draft) -> StepPlan:
    """Return the plan of an instance that is made again although nothing asks for it."""
    name, step = draft.instance.name, draft.instance.step.name
    again = tuple(_again(planned) for planned in draft.outputs)
    return StepPlan(name, STALE, (FORCED,), _ids(again), outputs=again, step=step, roots=(f"{name}: {FORCED}",))


def _unfinished(draft: _Draft, knowledge: DatasetIndex) -> StepPlan:
    """Return the plan of an instance without results, or not all: begun, never made, or made of something else."""
    instance, outputs = draft.instance, draft.outputs
    name, step = instance.name, instance.step.name
    replaced, why, changed = _replaced(instance, outputs, draft.used, knowledge)
    if any(knowledge.is_begun(planned.mfid) for planned in outputs):
        state, why = INCOMPLETE, ["an earlier run did not finish"]
    elif replaced:
        state = STALE
    else:
        state, why = MISSING, ["never made"]
    outputs = tuple(replace(planned, supersedes=replaced.get(planned.output)) for planned in outputs)
    roots = tuple(f"{name}: {cause.partition(' (since ')[0]}" for cause in why)
    return StepPlan(name, state, tuple(why), _ids(outputs), outputs=outputs, step=step, code_diff=changed, roots=roots)


def _look_ahead(
    instance: Instance,
    instances: Mapping[str, Instance],
    inputs: Inputs,
    done: Mapping[str, StepPlan],
    knowledge: DatasetIndex,
) -> None:
    """The parents of all instances of a step that asks for facts are looked at together, before its first one."""
    step = instance.step.name
    found = []
    for feed in (feed for one in instances.values() if one.step.name == step for feed in one.feeds):
        if feed.instance is not None and feed.instance not in done:
            continue
        if feed.instance is not None:
            found += [dataset.mfid for dataset in done[feed.instance].results.values()]
        elif (item := _item(feed, inputs)).dataset is not None:
            found.append(item.dataset.mfid)
    knowledge.look_ahead(found)


def _ids(outputs: Sequence[PlannedOutput]) -> dict[str, str]:
    return {planned.output: planned.mfid for planned in outputs}


def _again(planned: PlannedOutput) -> PlannedOutput:
    """The next attempt at an output, which would replace the one that is there."""
    recipe = {**planned.recipe, "attempt": planned.recipe.get("attempt", 0) + 1}
    return PlannedOutput(planned.output, derived_mfid(recipe), recipe, planned.mfid)


def _replaced(
    instance: Instance, outputs: Sequence[PlannedOutput], used: Sequence[UsedDataset], knowledge: DatasetIndex
) -> tuple[dict[str, str], list[str], tuple[str, ...]]:
    """The results that hold now and that these would replace, by output; what differs, and how the code does."""
    replaced: dict[str, str] = {}
    causes: list[str] = []
    changed: tuple[str, ...] = ()
    for planned in outputs:
        earlier = _current(instance, planned.output, knowledge)
        if earlier is None or earlier.mfid == planned.mfid:
            continue
        replaced[planned.output] = earlier.mfid
        if not causes:
            now = _made(instance, planned, used)
            causes = [f"{cause} (since {earlier.mfid})" for cause in differences(earlier.made, now)]
            if earlier.made.recipe["code"] != planned.recipe["code"]:
                changed = code_diff(earlier.made, now)
    return replaced, causes, changed


def _current(instance: Instance, output: str, knowledge: DatasetIndex) -> EarlierResult | None:
    found = (knowledge.current(key) for key in instance.slots.get(output, ()))
    return next((one for one in found if one), None)


def _unready(
    instance: Instance, inputs: Inputs, done: Mapping[str, StepPlan], knowledge: DatasetIndex
) -> StepPlan | None:
    """The plan of an instance whose parents are not all there; None if they are."""
    above = [need for need in instance.needs if done[need].state == BLOCKED]
    blocked = [*([instance.blocked] if instance.blocked else []), *(f"parent {need} is blocked" for need in above)]
    if blocked:
        is_held = not instance.blocked and all(done[need].on_hold for need in above)
        return _blocked(instance, blocked, on_hold=is_held)
    waiting = [done[need] for need in instance.needs if done[need].state != FRESH]
    new = [feed for feed in instance.feeds if feed.input is not None and _item(feed, inputs).dataset is None]
    if not waiting and not new:
        return None
    there = [dataset.mfid for feed in instance.feeds if (dataset := _dataset(feed, inputs, done))]
    if on_hold := knowledge.on_hold(there, instance.inspection.code.fingerprint):
        return _blocked(instance, on_hold, on_hold=True)
    return _waiting(instance, waiting, new, inputs, knowledge)


def _waiting(
    instance: Instance, waiting: Sequence[StepPlan], new: Sequence[InputEdge], inputs: Inputs, knowledge: DatasetIndex
) -> StepPlan:
    """Return the plan of an instance that waits for parents to be made and for files to be registered."""
    name, step = instance.name, instance.step.name
    held = any(map(knowledge.is_held, (key for keys in instance.slots.values() for key in keys)))
    found = (_current(instance, output, knowledge) for output in instance.inspection.outputs if new)
    earlier = next((one for one in found if one), None)
    changed = [_new_input(feed, _item(feed, inputs), earlier) for feed in new]
    causes = tuple(dict.fromkeys([*_follows(waiting, held=held), *changed]))
    earlier_roots = (root for parent in waiting for root in parent.roots)
    roots = tuple(dict.fromkeys([*earlier_roots, *(f"{name}: {one}" for one in changed)]))
    outputs: dict[str, str | None] = dict.fromkeys(instance.inspection.outputs)
    return StepPlan(name, STALE if held else MISSING, causes, outputs, step=step, roots=roots)


def _dataset(feed: InputEdge, inputs: Inputs, done: Mapping[str, StepPlan]) -> DatasetRef | None:
    """The dataset that a feed gives, if it is there."""
    if feed.instance is None:
        return _item(feed, inputs).dataset
    results = done[feed.instance].results
    return results.get(feed.output) if feed.output else next(iter(results.values()), None)


def _item(feed: InputEdge, inputs: Inputs) -> InputItem:
    return inputs[feed.input or ""][feed.index]


def _new_input(feed: InputEdge, item: InputItem, earlier: EarlierResult | None) -> str:
    """Return what is new about files that are not registered yet, compared with the current result's."""
    files = {file.ref.name: (file.ref.sha256, file.ref.size) for file in (item.raw.files if item.raw else ())}
    before = next((one for one in (earlier.made.used if earlier else ()) if one.role == feed.role), None)
    if before is not None and before.files.keys() & files.keys():
        return f"input {feed.role}: {file_changes(before, UsedFiles(feed.role, '', '', files))}"
    if before is not None and files:
        return f"input {feed.role}: {_told(files)} instead of {_told(before.files) or 'another dataset'}"
    return f"input {feed.input} is not registered yet"


def _told(files: Mapping[str, tuple[str, int]]) -> str:
    """Files by name, with the beginning of the hash, as far as there is room."""
    shown = [f"{name} (sha {sha256[:8]})" for name, (sha256, _) in sorted(files.items())]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _made(instance: Instance, planned: PlannedOutput, used: Sequence[UsedDataset]) -> Ingredients:
    """Return what the output would be made by now."""
    parents = tuple(
        UsedFiles(
            part.role,
            part.dataset.name,
            part.dataset.source,
            {file.name: (file.sha256, file.size) for file in part.files},
        )
        for part in used
    )
    return Ingredients(planned.recipe, instance.inspection.source, instance.inspection.pieces, parents)


def _follows(parents: Sequence[StepPlan], *, held: bool) -> Iterator[str]:
    """Yield what a result waits for, a line for all parents of a step in the same state.

    `held` is whether there is a result that may be kept.
    """
    alike: dict[tuple[str, bool], list[str]] = {}
    for parent in parents:
        alike.setdefault((parent.step, parent.state == MISSING), []).append(parent.name)
    for (step, is_missing), names in alike.items():
        named = f"parent {names[0]}" if len(names) == 1 else f"{len(names)} parents of step {step}"
        if is_missing:
            yield f"{named} must be made first"
        else:
            kept = "; this result is kept if the output is identical" if held else ""
            yield f"{named} will be rerun{kept}"


def _blocked(instance: Instance, causes: Sequence[str], *, on_hold: bool = False) -> StepPlan:
    outputs: dict[str, str | None] = dict.fromkeys(instance.inspection.outputs)
    return StepPlan(instance.name, BLOCKED, tuple(causes), outputs, step=instance.step.name, on_hold=on_hold)
