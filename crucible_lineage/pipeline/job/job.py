"""A step to be made: what runs, with what, and which datasets come of it. A value, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.core.slots import Filled, pipeline_keyword
from crucible_lineage.facts import Facts
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.functions.inspection import Inspection
from crucible_lineage.pipeline.inputs.parent_facts import facts_in
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.spec.pipeline import StepSpec
from crucible_lineage.provenance.recipe import PlannedOutput, UsedDataset
from crucible_lineage.step import Step

__all__ = ["Job", "job_of"]


@dataclass(frozen=True)
class Job:
    """A step to be made in a run.

    `name` is its name in the run, `label` tells the combination of swept parameters, `group` the label of what it is
    given together, `subject` the `each` datasets that it is about. `given` are the parameters as they were given; the
    function gets them validated. `outputs` are the datasets that it will give, each with the id that the plan computed,
    and `places` those that each will hold. `variables` are those of the environment that the declaration may read,
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
    places: Mapping[str, Mapping[str, Filled]] = field(default_factory=dict)
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
        """Return the keywords of the datasets: their declared pipeline, or that of the places that they fill."""
        named = {self.pipeline["name"]} if self.pipeline else set()
        filled = {key.partition("/")[0] for places in self.places.values() for key in places}
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
    places: Mapping[str, Mapping[str, Filled]],
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
        places=places,
        label=instance.label,
        group=instance.group,
        subject=instance.subject,
        pipeline=instance.step.declared,
        variables=tuple(pipeline.spec.env),
        gaps=instance.gaps,
    )
