"""A step to be executed, as a value: code, inputs, parameters, outputs and their names; and its state in a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword
from crucible_lineage.dataclass import dataclass, field
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.fields import value_of
from crucible_lineage.pipeline.declare.pipeline import StepSpec, filled
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.facts import facts_in
from crucible_lineage.pipeline.plan.inspect import Inspection
from crucible_lineage.provenance.recipe import PlannedOutput, UsedDataset
from crucible_lineage.refs import DatasetRef, Facts, without_step
from crucible_lineage.step import Step

FieldsOf = Callable[[str], JsonMapping]  # the fields of a dataset's record, by MFID
_COUNT = re.compile(r" and \d+ more$")  # in the default name of a list


@dataclass(frozen=True)
class Job:
    """A step to be executed in a run: its instance, its parents, and the datasets to be made.

    The function receives the `given` parameters of the instance validated. `outputs` have the ids that the plan
    computed, and `slots` are those that each will fill. `variables` are those of the environment that the declaration
    may read. `step` is the function, if it exists in this process; else `spec` names it, or is a command.
    """

    instance: Instance
    project: str
    used: tuple[UsedDataset, ...]
    outputs: tuple[PlannedOutput, ...]
    run: JsonMapping
    slots: Mapping[str, Mapping[str, SlotClaim]] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    step: Step[..., Any] | None = None

    @property
    def name(self) -> str:
        """The name of the step in the run."""
        return self.instance.name

    @property
    def spec(self) -> StepSpec:
        """The declaration of the step."""
        return self.instance.step.spec

    @property
    def inspection(self) -> Inspection:
        """The inspection of the function or command."""
        return self.instance.inspection

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return str(self.run.get("run_id", ""))

    @property
    def mfid(self) -> str:
        """The least id of its results, which stands for them all."""
        return min(planned.mfid for planned in self.outputs)

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


class Outcome(StrEnum):
    """The outcome of a step, or its present phase; the last ones are of a run.

    A step is QUEUED when the engine has it, then STARTED, then MADE; when registered, it is EXECUTED.
    """

    EXECUTED = "executed"
    REUSED = "reused"
    FAILED = "failed"
    ON_HOLD = "on hold"  # of a run: nothing failed, and what is missing or doubtful is so because of statements
    SKIPPED = "skipped"
    QUEUED = "queued"
    STARTED = "started"
    MADE = "made"
    LEFT_OUT = "left out"  # by --only or --from
    STOPPED = "stopped"  # under way when the run was stopped
    STOPPING = "stopping"
    PLANNED = "planned"
    REGISTERING = "registering"
    DELIVERING = "delivering"
    WAITING = "waiting"  # why a result could not be delivered yet
    AWAY = "away"  # why the service is away, and what the run does meanwhile


@dataclass
class StepState:
    """The state of a step in a run, as its engine returns it and its run keeps it.

    `outcome` is empty until the step has ended, `results` until it has datasets. `note` is a message for the user,
    `took` the time to make and register the results; `returned` are the values returned for each output, if known.
    """

    outcome: str = ""
    results: Mapping[str, DatasetRef] = field(default_factory=dict)
    note: str = ""
    took: float | None = None
    returned: Mapping[str, JsonMapping] = field(default_factory=dict)
    error: str = ""
    log: str = ""
    trace: str = ""
    began: float | None = None
    remade: int = 0
    needs: set[str] = field(default_factory=set)  # parents without a result yet

    @property
    def mfids(self) -> list[str]:
        """The ids of the results."""
        return [dataset.mfid for dataset in self.results.values()]


def dataset_name(job: Job, output: str, results: Mapping[str, object], fields_of: FieldsOf) -> tuple[str, str]:
    """Return the child's name, and a note if its declared template could not be filled in.

    The default name has the group, or the data of the first input, with the step's name and the swept parameters.
    `results` are the values that the step returned for the output. `fields_of` is called only if the template names a
    field of a parent's record.
    """
    template = job.spec.output.dataset_name
    step = job.name.partition("[")[0]
    suffix = step if len(job.inspection.outputs) == 1 else f"{step}.{output}"
    default = f"{job.instance.group or _subject(job)} ({', '.join(filter(None, (suffix, job.instance.label)))})"
    if template is None:
        return default, ""
    known = {**job.instance.named, "step": step, "output": output}
    known |= {f"params.{name}": value for name, value in job.inspection.params.items()}

    def value(name: str) -> object:
        role, _, field_name = name.partition(".")
        if name in known:
            return known[name]
        found = value_of(results, field_name) if role == "results" else _parent_field(job, role, field_name, fields_of)
        if found is None:
            raise ValueError(f"there is no {name}")
        return found

    try:
        return filled(template, value), ""
    except (ValueError, TypeError) as error:
        return default, f"it got the name {default!r}, since {template!r} cannot be filled in: {error}"


def _subject(job: Job) -> str:
    """Return the name of the subject of the first input, and the number of further ones."""
    first = job.used[0]
    others = len({part.dataset.mfid for part in job.used if part.role == first.role}) - 1
    name = without_step(first.dataset.name) if first.dataset.parents else first.dataset.name
    if not others:
        return name
    return f"{_COUNT.sub('', name) if first.dataset.parents else name} and {others} more"


def _parent_field(job: Job, role: str, name: str, fields_of: FieldsOf) -> object:
    """Return a field of the first parent in a role, from its own record; None if it has none."""
    parts = [part for part in job.used if part.role == role]
    if name == "count" or not parts:
        return len(parts) or None
    first = parts[0].dataset
    if name in ("dataset_name", "mfid"):
        return first.mfid if name == "mfid" else first.name
    if name == "timestamp" and first.taken:
        return first.taken
    found = value_of(fields_of(first.mfid), name)
    return "time not known" if found is None and name == "timestamp" else found
