"""A step of a pipeline, ordered to be made in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.declare.variables import from_environment
from crucible_lineage.pipeline.job.job import StepJob
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.known import pipeline_keyword
from crucible_lineage.pipeline.spec.pipeline import StepSpec
from crucible_lineage.provenance.recipe import UsedDataset

__all__ = ["StepOrder", "declared_beside", "declared_keywords", "step_job"]


@dataclass(frozen=True)
class StepOrder:
    """An instance to be made in a run: its parents, which attempt it is, and what its outputs replace."""

    pipeline: BoundPipeline
    instance: Instance
    used: tuple[UsedDataset, ...]
    run_id: str
    attempt: int = 0
    supersedes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self.instance.name


def step_job(order: StepOrder, run: Mapping[str, Any]) -> StepJob:
    """The job that an order comes down to in this process; `run` says who makes it."""
    instance, spec = order.instance, order.instance.step.spec
    return StepJob(
        name=instance.name,
        project=order.pipeline.spec.project,
        inspection=instance.inspection,
        given=instance.given,
        used=order.used,
        output=spec.output,
        label=instance.label,
        command=spec.run or (),
        env=from_environment(spec.env, order.pipeline.spec.env, f"step {instance.name!r}"),
        declared_in=spec.folder,
        keywords=declared_keywords(instance.step.declared),
        pipeline=instance.step.declared,
        declared=declared_beside(spec),
        run={**run, "run_id": order.run_id},
        attempt=order.attempt,
        timeout_s=spec.timeout,
        supersedes=order.supersedes,
    )


def declared_beside(spec: StepSpec) -> dict[str, Any] | None:
    """What was declared beside the recipe and is to be seen nowhere else; None if nothing was.

    Of declared metadata the names: the values are in the dataset.
    """
    how = spec.model_dump(mode="json", include={"retries", "timeout", "tags", "resources"}, exclude_defaults=True)
    what = spec.output.model_dump(mode="json", include={"ingest", "ingestor", "publish"}, exclude_defaults=True)
    names = {"metadata": sorted(spec.output.metadata)} if spec.output.metadata else {}
    output = {**what, **names}
    return {**how, **({"output": output} if output else {})} or None


def declared_keywords(declared: Mapping[str, str] | None) -> tuple[str, ...]:
    """What the datasets of a declared pipeline are found by."""
    return (pipeline_keyword(declared["name"]),) if declared else ()
