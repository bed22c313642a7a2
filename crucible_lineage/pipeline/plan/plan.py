"""The plan: the state of each step, and the causes if it is not fresh. Pure: datasets come from an index.

The plan of a step is also the job that an engine executes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword
from crucible_lineage.errors import Fault, InputError, shortened
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.model import CANDIDATE, DOUBTFUL, SUPERSEDED
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.plan.bound import generations
from crucible_lineage.pipeline.plan.current import DeclaredDifference
from crucible_lineage.pipeline.plan.differences import Ingredients, code_diff, differences, file_changes
from crucible_lineage.pipeline.plan.expand import InputEdge, Instance
from crucible_lineage.pipeline.plan.facts import facts_in
from crucible_lineage.pipeline.plan.inputs import InputItem, Inputs
from crucible_lineage.pipeline.plan.inspect import Inspection
from crucible_lineage.provenance.recipe import PlannedOutput, UsedDataset, derived_mfid, planned_outputs
from crucible_lineage.refs import DatasetRef, Facts, FileRef
from crucible_lineage.statements.statements import Doubt
from crucible_lineage.step import Step

if TYPE_CHECKING:
    from crucible_lineage.pipeline.plan.planner import ProjectIndex

Results = Mapping[str, Mapping[str, DatasetRef]]  # of each instance, by output


def used_datasets(instance: Instance, inputs: Inputs, results: Results) -> tuple[UsedDataset, ...]:
    """Return the parents of an instance. Raises InputError, with the input's location, if a role's files do not fit."""
    roles, locations = instance.inspection.roles, instance.step.locations
    used = []
    for feed in instance.feeds:
        dataset = feed.dataset(inputs, results.__getitem__)
        assert dataset is not None  # ensured by the caller
        try:
            files = files_for_role(feed.role, roles[feed.role], dataset, feed.files)
        except InputError as error:
            message = f"step {instance.name!r}: {error}"
            raise InputError(message, [Fault(message, locations.get(feed.role))]) from error
        used.append(UsedDataset(feed.role, dataset, files, feed.chosen.to_json() if feed.chosen else None))
    return tuple(used)


def files_for_role(role: str, shape: str, dataset: DatasetRef, pattern: str | None) -> tuple[FileRef, ...]:
    """Return the files of a parent for a role. Raises InputError if there are none, or too many for the role."""
    files = tuple(file for file in dataset.data_files if pattern is None or fnmatchcase(file.name, pattern))
    if len(files) == 1 or (files and shape != "file"):
        return files
    subject = f"input {role!r}: dataset {dataset.mfid} ({dataset.name!r})"
    if not files:
        raise InputError(f"{subject} has no file {pattern or 'at all'}")
    names = ", ".join(file.name for file in files)
    raise InputError(
        f"{subject} has several files: {names}; choose one with {role}: {{from: ..., files: NAME}}, "
        "or annotate the input dict[str, Path]"
    )


FRESH, MISSING, INCOMPLETE, STALE, BLOCKED = "fresh", "missing", "incomplete", "stale", "blocked"
# There is a result for what is declared; people may doubt it, and another one may be current.
EXISTING = (FRESH, SUPERSEDED, DOUBTFUL, CANDIDATE)
FORCED = "it is forced"  # the cause if a fresh result is made again on request


@dataclass(frozen=True)
class StepPlan:
    """The plan of an instance, and the job that executes it in a run.

    `results` are the datasets of a step that has them, and `used` its parents. If all parents exist, `outputs` are
    those to be made, with their ids and the results that they would replace. `roots` are the original causes, here or
    upstream, each with its step. With `on_hold`, holds are the only reason why it is blocked.

    To execute it, a run adds its `project`, what records say of the `run`, the `slots` that each output will fill, and
    the `variables` of the environment that the declaration may read. The function receives the `given` parameters of
    the instance validated; it is `called` if it exists in this process, else `spec` names it, or is a command.
    """

    instance: Instance
    state: str
    causes: tuple[str, ...] = ()
    results: Mapping[str, DatasetRef] = field(default_factory=dict)
    outputs: tuple[PlannedOutput, ...] = ()
    code_diff: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    used: tuple[UsedDataset, ...] = ()
    on_hold: bool = False
    project: str = ""
    run: JsonMapping = field(default_factory=dict)
    slots: Mapping[str, Mapping[str, SlotClaim]] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    called: Step[..., Any] | None = None
    json_keys: ClassVar = "name step state causes datasets supersedes code_diff roots notes on_hold choices"

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self.instance.name

    @property
    def step(self) -> str:
        """The name of the step."""
        return self.instance.step.name

    @property
    def spec(self) -> StepSpec:
        """The declaration of the step."""
        return self.instance.step.spec

    @property
    def inspection(self) -> Inspection:
        """The inspection of the function or command."""
        return self.instance.inspection

    @property
    def datasets(self) -> dict[str, str | None]:
        """The id of each output; None while it depends on a parent that does not exist yet."""
        ids: dict[str, str | None] = {planned.output: planned.mfid for planned in self.outputs}
        return ids or dict.fromkeys(self.inspection.outputs)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about its parents."""
        return (*self.instance.notes, *(f"without {gap}" for gap in self.instance.gaps))

    @property
    def choices(self) -> dict[str, list[JsonObject]]:
        """The parents that were chosen in time, by role."""
        return self.instance.choices

    @property
    def exists(self) -> bool:
        """Whether it has its results, doubtful or not."""
        return self.state in EXISTING

    @property
    def supersedes(self) -> dict[str, str]:
        """The earlier results that would be replaced, by output."""
        return {planned.output: planned.supersedes for planned in self.outputs if planned.supersedes}

    @property
    def mfid(self) -> str:
        """The least id of its results, which stands for them all."""
        return min(planned.mfid for planned in self.outputs)

    @property
    def run_id(self) -> str:
        """The id of the run that executes it."""
        return str(self.run.get("run_id", ""))

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keywords of the datasets: their declared pipeline, or the pipelines of the slots that they fill."""
        pipeline = self.instance.step.declared
        declared = {pipeline["name"]} if pipeline else set()
        of_slots = {key.partition("/")[0] for slots in self.slots.values() for key in slots}
        return tuple(map(pipeline_keyword, sorted(declared or of_slots)))

    @property
    def facts(self) -> Facts | None:
        """The facts about its parents, exactly as in its recipe, none for an absent input; None if undeclared."""
        found = facts_in(self.outputs[0].recipe)
        return None if found is None else Facts({**dict.fromkeys(self.inspection.roles, ()), **found})

    @property
    def declared(self) -> JsonObject | None:
        """The declared settings that neither recipe nor dataset shows, metadata by name; None if there are none."""
        spec = self.spec
        names = {"retries", "timeout", "reads", "reproduce"}
        settings = spec.model_dump(mode="json", include=names, exclude_defaults=True)
        options = {"ingestor", "inherit"}
        output = spec.output.model_dump(mode="json", include=options, exclude_defaults=True)
        output |= {} if spec.output.is_ingested else {"ingest": False}
        output |= {"metadata": sorted(spec.output.metadata)} if spec.output.metadata else {}
        return {**settings, **({"output": output} if output else {})} or None


@dataclass(frozen=True)
class PipelinePlan:
    """The plan of all instances, in an order of execution, with the inputs and the index that it is based on.

    `undeclared` are slots with current results that the pipeline no longer declares. `differences` are those between
    declared files and Crucible, `notes` are other messages about files.
    """

    steps: tuple[StepPlan, ...]
    inputs: Inputs = field(compare=False)
    index: ProjectIndex = field(compare=False)
    undeclared: tuple[str, ...] = ()
    differences: tuple[DeclaredDifference, ...] = ()
    notes: tuple[str, ...] = ()
    json_keys: ClassVar = "steps undeclared differences notes"

    @cached_property
    def instances(self) -> dict[str, Instance]:
        """The planned instances, without blocked parents in lists that may have gaps."""
        return {step.name: step.instance for step in self.steps}

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do: each step has its results, doubtful or not."""
        return all(step.exists for step in self.steps)

    @property
    def has_new_files(self) -> bool:
        """Whether measured files are still to be registered."""
        return any(item.raw and item.dataset is None for items in self.inputs.values() for item in items)

    @property
    def is_fresh(self) -> bool:
        """Whether there is nothing to do, and nothing is doubtful."""
        return all(step.state == FRESH for step in self.steps)


def plan(
    instances: Mapping[str, Instance], inputs: Inputs, index: ProjectIndex, forced: Collection[str] = ()
) -> PipelinePlan:
    """Plan all instances. Steps (or instances) in `forced` are made again even if their results exist.

    Planning goes generation by generation, so that all results of one are looked up together.
    """
    done = dict[str, StepPlan]()
    doubts = index.doubts([item.dataset.mfid for items in inputs.values() for item in items if item.dataset])
    for generation in generations({name: instance.needs for name, instance in instances.items()}):
        complete = [_without_gaps(instances[name], inputs, done, doubts) for name in generation]
        drafts = _drafts(complete, inputs, done, index)
        index.results.look_up([planned.mfid for draft in drafts for planned in draft.outputs])
        for draft in drafts:
            done[draft.name] = _planned(draft, index, forced=draft.name in forced or draft.step in forced)
        done |= _not_in_use([done[name] for name in generation if done[name].state == FRESH], index, doubts)
    return PipelinePlan(tuple(done[name] for name in instances), inputs, index)


def _drafts(
    instances: Sequence[Instance], inputs: Inputs, done: dict[str, StepPlan], index: ProjectIndex
) -> list[StepPlan]:
    """Return the drafts of the instances whose parents all exist; add the plans of the others to those `done`."""
    unready = {instance.name: _unready(instance, inputs, done, index) for instance in instances}
    done |= {name: step for name, step in unready.items() if step}
    ready = [instance for instance in instances if not unready[instance.name]]
    asking = [feed for instance in ready if instance.inspection.facts for feed in instance.feeds]
    parents = [feed.dataset(inputs, lambda name: done[name].results) for feed in asking]
    index.facts.prefetch([dataset.mfid for dataset in parents if dataset])
    drafts = []
    for instance in ready:
        try:
            used = used_datasets(instance, inputs, {need: done[need].results for need in instance.needs})
            drafts.append(_draft(instance, used, index))
        except InputError as error:  # a fault of this step does not stop the others
            done[instance.name] = _blocked(instance, [str(error)])
    return drafts


def _not_in_use(fresh: Sequence[StepPlan], index: ProjectIndex, doubts: dict[str, Doubt]) -> dict[str, StepPlan]:
    """Return those of the fresh steps whose results are not current, or doubtful, as such; add to `doubts`."""
    new = index.doubts([dataset.mfid for step in fresh for dataset in step.results.values()])
    doubts |= new
    above = index.doubts([part.dataset.mfid for step in fresh for part in step.used]) if new else {}
    found = {}
    for step in fresh:
        slots = step.instance.slots
        marks = [index.not_current(ref.mfid, slots.get(output, ())) for output, ref in step.results.items()]
        causes = tuple(cause for cause, _ in marks if cause)
        doubtful = None if any(is_replaced for _, is_replaced in marks) else _doubtful(step, new, above)
        if doubtful or causes:
            roots = tuple(f"{step.name}: {cause}" for cause in causes)
            found[step.name] = doubtful or replace(step, state=SUPERSEDED, causes=causes, roots=roots)
    return found


def _doubtful(step: StepPlan, new: Mapping[str, Doubt], above: Mapping[str, Doubt]) -> StepPlan | None:
    """Return the plan of a step with a result among the `new` doubts; None if it has none. `above` are its parents'."""
    mfid = next((ref.mfid for ref in step.results.values() if ref.mfid in new), None)
    if mfid is None:
        return None
    doubt, is_own = new[mfid], new[mfid].source == mfid
    cause = doubt.message(mfid)
    if not is_own and len(step.used) > 1:
        count, reason = sum(part.dataset.mfid in above for part in step.used), doubt.statement.why
        cause = f"{count} of {len(step.used)} held ({'not signed' if doubt.is_candidate else 'hold'}: {reason})"
    state = CANDIDATE if doubt.is_of_candidate(mfid) else DOUBTFUL
    return replace(step, state=state, causes=(cause,), roots=(f"{step.name}: {cause}",) if is_own else ())


def _without_gaps(
    instance: Instance, inputs: Inputs, done: Mapping[str, StepPlan], doubts: Mapping[str, Doubt]
) -> Instance:
    """Return the instance without blocked and doubtful parents in lists that may have gaps."""
    roles = {role for role, source in instance.step.spec.edges if source.gaps}
    if not roles:
        return instance
    gaps = [_gap(feed, inputs, done, doubts) if feed.role in roles else "" for feed in instance.feeds]
    if not any(gaps):
        return instance
    feeds = tuple(feed for feed, gap in zip(instance.feeds, gaps, strict=True) if not gap)
    empty = next((role for role in roles if all(feed.role != role for feed in feeds)), "")
    return replace(
        instance,
        feeds=feeds,
        blocked=instance.blocked or (f"all that {empty} would be given is blocked" if empty else ""),
        gaps=(*instance.gaps, *filter(None, gaps)),
    )


def _gap(feed: InputEdge, inputs: Inputs, done: Mapping[str, StepPlan], doubts: Mapping[str, Doubt]) -> str:
    """Return the name of a parent that is blocked or doubtful, and why; empty if it is neither."""
    if feed.instance:
        parent = done[feed.instance]
        excluded = parent.state in (DOUBTFUL, CANDIDATE) and any(ref.mfid in doubts for ref in parent.results.values())
        return f"{parent.name}: {', '.join(parent.causes)}" if parent.state == BLOCKED or excluded else ""
    item = feed.item(inputs)
    doubt = doubts.get(item.dataset.mfid) if item.dataset else None
    return f"{item.label}: {doubt.message(item.mfid or '')}" if doubt else ""


def plan_instance(
    instance: Instance, used: Sequence[UsedDataset], index: ProjectIndex, *, forced: bool = False
) -> StepPlan:
    """Plan an instance whose parents all exist. Raises InputError if facts about a parent cannot be read."""
    return _planned(_draft(instance, used, index), index, forced=forced)


def _draft(instance: Instance, used: Sequence[UsedDataset], index: ProjectIndex) -> StepPlan:
    """Return the plan of an instance without its state: the outputs of its latest attempt.

    Raises InputError if facts about a parent cannot be read.
    """
    inspection, salt = instance.inspection, instance.step.spec.salt
    facts = index.facts.of(used) if inspection.facts else None
    fixed = (index.project, inspection.code, inspection.outputs, inspection.params, used)
    planned_as = partial(planned_outputs, *fixed, salt=salt, facts=facts)
    outputs = planned_as()
    if attempt := max(index.results.attempt(planned.mfid) for planned in outputs):
        outputs = planned_as(attempt=attempt)
    return StepPlan(instance, "", outputs=outputs, used=tuple(used))


def _planned(draft: StepPlan, index: ProjectIndex, *, forced: bool) -> StepPlan:
    instance, used, outputs = draft.instance, draft.used, draft.outputs
    complete = {planned.output: index.complete(planned.mfid) for planned in outputs}
    results = {output: dataset for output, dataset in complete.items() if dataset}
    is_complete = len(results) == len(outputs)
    if (forced or not is_complete) and (
        on_hold := index.on_hold([parent.dataset.mfid for parent in used], instance.inspection.code.fingerprint)
    ):
        return _blocked(instance, on_hold, on_hold=True)
    reasons = [index.results.refusal(planned.mfid) for planned in outputs if planned.output not in results]
    refusals = [reason for reason in reasons if reason]
    if forced and (refusals or is_complete):  # the next attempt replaces the existing result
        recipes = [(output, {**output.recipe, "attempt": output.recipe.get("attempt", 0) + 1}) for output in outputs]
        again = tuple(
            PlannedOutput(output.output, derived_mfid(recipe), recipe, output.mfid) for output, recipe in recipes
        )
        roots = (f"{instance.name}: {FORCED}",)
        return replace(draft, state=STALE, causes=(FORCED,), outputs=again, roots=roots)
    if refusals:
        return _blocked(instance, refusals)
    if is_complete:
        return replace(draft, state=FRESH, results=results)
    return _unfinished(draft, index)


def _unfinished(draft: StepPlan, index: ProjectIndex) -> StepPlan:
    """Return the plan of an instance whose results are not all complete: interrupted, never made, or stale.

    Current results that it would replace give the causes: the differences, and the diff of the code.
    """
    instance, replaced = draft.instance, dict[str, str]()
    state, causes, changed = MISSING, ["never made"], tuple[str, ...]()
    for planned in draft.outputs:
        earlier = _current(instance, planned.output, index)
        if earlier is None or earlier.mfid == planned.mfid:
            continue
        if not replaced:
            now = Ingredients(planned.recipe, draft.inspection.source, draft.inspection.pieces, draft.used)
            causes = [f"{cause} (since {earlier.mfid})" for cause in differences(earlier, now)]
            if earlier.recipe["code"] != planned.recipe["code"]:
                changed = code_diff(earlier, now)
        state, replaced[planned.output] = STALE, earlier.mfid
    if any(index.is_begun(planned.mfid) for planned in draft.outputs):
        state, causes = INCOMPLETE, ["an earlier run did not finish"]
    outputs = tuple(replace(planned, supersedes=replaced.get(planned.output)) for planned in draft.outputs)
    roots = tuple(f"{draft.name}: {cause.partition(' (since ')[0]}" for cause in causes)
    return replace(draft, state=state, causes=tuple(causes), outputs=outputs, code_diff=changed, roots=roots)


def _current(instance: Instance, output: str, index: ProjectIndex) -> Ingredients | None:
    results = (index.current(key) for key in instance.slots.get(output, ()))
    return next(filter(None, results), None)


def _unready(instance: Instance, inputs: Inputs, done: Mapping[str, StepPlan], index: ProjectIndex) -> StepPlan | None:
    """Return the plan of an instance with parents that are blocked or to be made or registered; None if all exist."""
    parents = [done[need] for need in instance.needs]
    held = [parent for parent in parents if parent.state == BLOCKED]
    if instance.blocked or held:
        causes = [*filter(None, [instance.blocked]), *(f"parent {parent.name} is blocked" for parent in held)]
        return _blocked(instance, causes, on_hold=not instance.blocked and all(parent.on_hold for parent in held))
    waiting = [parent for parent in parents if not parent.exists]
    new = [feed for feed in instance.feeds if feed.input is not None and feed.item(inputs).dataset is None]
    if not waiting and not new:
        return None
    existing = [feed.dataset(inputs, lambda name: done[name].results) for feed in instance.feeds]
    code = instance.inspection.code.fingerprint
    if on_hold := index.on_hold([dataset.mfid for dataset in existing if dataset], code):
        return _blocked(instance, on_hold, on_hold=True)
    results = (_current(instance, output, index) for output in instance.inspection.outputs if new)
    earlier = next(filter(None, results), None)
    return _waiting(instance, waiting, [_new_input(feed, feed.item(inputs), earlier) for feed in new], index)


def _waiting(instance: Instance, parents: Sequence[StepPlan], changed: Sequence[str], index: ProjectIndex) -> StepPlan:
    """Return the plan of an instance that waits for parents to be made, and for `changed` inputs to be registered."""
    has_current = any(index.current_in(key) for keys in instance.slots.values() for key in keys)
    causes = dict.fromkeys([*_follows(parents, has_current=has_current), *changed])
    own = [f"{instance.name}: {cause}" for cause in changed]
    roots = dict.fromkeys([*(root for parent in parents for root in parent.roots), *own])
    return StepPlan(instance, STALE if has_current else MISSING, tuple(causes), roots=tuple(roots))


def _new_input(feed: InputEdge, item: InputItem, earlier: Ingredients | None) -> str:
    """Return how unregistered files differ from those of the current result."""
    files = [file.ref for file in item.raw.files] if item.raw else []
    before = next((parent for parent in (earlier.used if earlier else ()) if parent.role == feed.role), None)
    if before is not None and not {file.name for file in before.files}.isdisjoint(file.name for file in files):
        return f"input {feed.role}: {file_changes(before.files, files)}"
    if before is not None and files:
        former = _names(before.files) if before.files else "another dataset"
        return f"input {feed.role}: {_names(files)} instead of {former}"
    return f"input {feed.input} is not registered yet"


def _names(files: Iterable[FileRef]) -> str:
    """Name up to three files, with the first digits of their hashes."""
    return shortened(sorted(f"{file.name} (sha {file.sha256[:8]})" for file in files), 3)


def _follows(parents: Sequence[StepPlan], *, has_current: bool) -> Iterator[str]:
    """Yield the causes from parents that are not fresh, one for all parents of a step in the same state.

    `has_current` tells whether there is a result that may be kept.
    """
    alike: dict[tuple[str, bool], list[str]] = {}
    for parent in parents:
        alike.setdefault((parent.step, parent.state == MISSING), []).append(parent.name)
    for (step, is_missing), names in alike.items():
        named = f"parent {names[0]}" if len(names) == 1 else f"{len(names)} parents of step {step}"
        if is_missing:
            yield f"{named} must be made first"
        else:
            note = "; this result is kept if the output is identical" if has_current else ""
            yield f"{named} will be rerun{note}"


def _blocked(instance: Instance, causes: Sequence[str], *, on_hold: bool = False) -> StepPlan:
    return StepPlan(instance, BLOCKED, tuple(causes), on_hold=on_hold)
