"""A step to be made: what runs, with what, which datasets come of it and what they are called. A value, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword
from crucible_lineage.facts import Facts
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.functions.inspection import Inspection
from crucible_lineage.pipeline.inputs.parent_facts import facts_in
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.spec.pipeline import StepSpec
from crucible_lineage.provenance.recipe import PlannedOutput, UsedDataset
from crucible_lineage.step import Step
from crucible_lineage.times import measured_at

FieldsOf = Callable[[str], Mapping[str, Any]]  # the fields of a dataset's record, by MFID
_COUNT = re.compile(r" and \d+ more$")  # what a default name says of a list


@dataclass(frozen=True)
class Job:
    """A step to be made in a run.

    `name` is its name in the run, `label` tells the combination of swept parameters, `group` the label of what it is
    given together, `subject` the `each` datasets that it is about. `given` are the parameters as they were given; the
    function gets them validated. `outputs` are the datasets that it will give, each with the id that the plan computed,
    and `slots` those that each will hold. `variables` are those of the environment that the declaration may read,
    `gaps` what was left out of lists. `step` is the function, where it is at hand; else `spec` names it, or is a
    command.
    """

    name: str
    project: str
    inspection: Inspection
    given: Mapping[str, Any]
    used: tuple[UsedDataset, ...]
    outputs: tuple[PlannedOutput, ...]
    spec: StepSpec
    run: Mapping[str, Any]
    slots: Mapping[str, Mapping[str, SlotClaim]] = field(default_factory=dict)
    label: str = ""
    group: str = ""
    subject: tuple[str, ...] = ()
    pipeline: Mapping[str, str] | None = None
    variables: tuple[str, ...] = ()
    step: Step[..., Any] | None = None
    gaps: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The run that it is of."""
        return str(self.run.get("run_id", ""))

    @property
    def keywords(self) -> tuple[str, ...]:
        """Return the keywords of the datasets: their declared pipeline, or that of the slots that they fill."""
        named = {self.pipeline["name"]} if self.pipeline else set()
        filled = {key.partition("/")[0] for slots in self.slots.values() for key in slots}
        return tuple(map(pipeline_keyword, sorted(named or filled)))

    @property
    def facts(self) -> Facts | None:
        """Return the step's facts about its parents: just what its recipe holds. None if it asks for nothing.

        Of an input that is not there it is nothing, too.
        """
        found = facts_in(self.outputs[0].recipe)
        return None if found is None else Facts({**dict.fromkeys(self.inspection.roles, ()), **found})

    @property
    def declared(self) -> dict[str, Any] | None:
        """Return what was declared beside the recipe and is to be seen nowhere else; None if nothing was.

        Of declared metadata the names: the values are in the dataset.
        """
        spec = self.spec
        names = {"retries", "timeout", "tags", "resources", "reads", "strict", "reproduce", "keep"}
        how = spec.model_dump(mode="json", include=names, exclude_defaults=True)
        what = spec.output.model_dump(mode="json", include={"ingestor", "publish"}, exclude_defaults=True)
        what |= {} if spec.output.is_ingested else {"ingest": False}
        metadata = {"metadata": sorted(spec.output.metadata)} if spec.output.metadata else {}
        output = {**what, **metadata}
        return {**how, **({"output": output} if output else {})} or None


def job_of(
    pipeline: BoundPipeline,
    instance: Instance,
    used: tuple[UsedDataset, ...],
    outputs: tuple[PlannedOutput, ...],
    run: Mapping[str, object],
    slots: Mapping[str, Mapping[str, SlotClaim]],
) -> Job:
    """The job that an instance of a pipeline's step comes down to, once its parents are there."""
    return Job(
        name=instance.name,
        project=pipeline.spec.project,
        inspection=instance.inspection,
        given=instance.given,
        used=used,
        outputs=outputs,
        spec=instance.step.spec,
        run=run,
        slots=slots,
        label=instance.label,
        group=instance.group,
        subject=instance.subject,
        pipeline=instance.step.declared,
        variables=tuple(pipeline.spec.env),
        gaps=instance.gaps,
    )


def dataset_name(job: Job, output: str, results: Mapping[str, object], fields_of: FieldsOf) -> tuple[str, str]:
    """Return the child's name: the declared template, or what it is about with the step's name and what was swept.

    What it is about is its group, or the data of its first input.

    Beside it a note, where the template asks for what is not there and the default name stands for it. `results` is
    what the step returned for the output. `fields_of` is asked only if the template names a field of a parent's record.
    """
    template = job.spec.output.dataset_name
    step = job.name.partition("[")[0]
    suffix = step if len(job.inspection.outputs) == 1 else f"{step}.{output}"
    default = f"{job.group or _subject(job)} ({', '.join(filter(None, (suffix, job.label)))})"
    if template is None:
        return default, ""
    parents: dict[str, list[UsedDataset]] = {}
    for part in job.used:
        parents.setdefault(part.role, []).append(part)
    try:
        filled = template.format(
            **{role: _Parent(parts, fields_of) for role, parts in parents.items()},
            output=output,
            step=step,
            params=SimpleNamespace(**job.inspection.params),
            results=_Values(results),
        )
    except (KeyError, AttributeError, IndexError, ValueError, TypeError) as error:
        return default, f"it got the name {default!r}, since {template!r} cannot be filled in: {error}"
    return filled, ""


def without_step(name: str) -> str:
    """A default name without the step at its end, whose variant may have brackets of its own: `a (fit, f(x))`."""
    depth = 0
    for at in range(len(name) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(name[at], 0)
        if depth == 0:
            return name[: at - 1] if name[at - 1 : at + 1] == " (" else name
    return name


def _subject(job: Job) -> str:
    """The name of what its first input is about; how many more there are."""
    first = job.used[0]
    others = len({part.dataset.mfid for part in job.used if part.role == first.role}) - 1
    name = without_step(first.dataset.name) if first.dataset.parents else first.dataset.name
    if not others:
        return name
    return f"{_COUNT.sub('', name) if first.dataset.parents else name} and {others} more"


class _Parent:
    """What a name template may say of the parents in a role."""

    def __init__(self, parts: list[UsedDataset], fields_of: FieldsOf) -> None:
        self._first = parts[0].dataset
        self._fields_of = fields_of
        self.dataset_name = self._first.name
        self.mfid = self._first.mfid
        self.count = len(parts)

    def __getattr__(self, name: str) -> Any:
        fields = self._fields_of(self._first.mfid)
        if name == "metadata":
            return _Values(fields.get("scientific_metadata") or {})
        if name == "timestamp":
            return self._first.taken or (fields[name] if measured_at(fields) else "time not known")
        if fields.get(name) is None:
            raise AttributeError(f"{self._first.name} has no {name}")
        return fields[name]


class _Values:
    """Nested values by their names."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(f"there is no {name!r}; there is: {', '.join(map(str, self._values)) or 'nothing'}")
        found = self._values[name]
        return _Values(found) if isinstance(found, Mapping) else found
