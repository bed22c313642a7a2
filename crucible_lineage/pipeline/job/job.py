"""The state of a step in a run, and the name of a dataset that it makes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.records import value_of
from crucible_lineage.pipeline.declare.pipeline import filled
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.refs import DatasetRef, without_step

FieldsOf = Callable[[str], JsonMapping]  # the fields of a dataset's record, by MFID
_COUNT = re.compile(r" and \d+ more$")  # in the default name of a list


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


def dataset_name(job: StepPlan, output: str, results: Mapping[str, object], fields_of: FieldsOf) -> tuple[str, str]:
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


def _subject(job: StepPlan) -> str:
    """Return the name of the subject of the first input, and the number of further ones."""
    first = job.used[0]
    others = len({part.dataset.mfid for part in job.used if part.role == first.role}) - 1
    name = without_step(first.dataset.name) if first.dataset.parents else first.dataset.name
    if not others:
        return name
    return f"{_COUNT.sub('', name) if first.dataset.parents else name} and {others} more"


def _parent_field(job: StepPlan, role: str, name: str, fields_of: FieldsOf) -> object:
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
