"""Prefect events about steps and their datasets: materialized, reused, failed.

Whoever watches can build automations on them. Crucible, not Prefect, is the record of what was made: an open Prefect
server keeps events for a week and has no view of assets; Prefect Cloud draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext
from prefect.events import emit_event

from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.run.result import FAILED, REUSED, RunResult, StepEvent
from crucible_lineage.refs import DatasetRef

__all__ = ["dataset_resource_id", "tell_asset", "tell_failed", "tell_materialized", "tell_reused"]

MOST_RELATED = 50  # an event may name a hundred other things; Prefect adds some of its own


def dataset_resource_id(mfid: str) -> str:
    """What events call a dataset."""
    return f"crucible.dataset.{mfid}"


def tell_materialized(job: Job, outputs: Mapping[str, DatasetRef]) -> None:
    """Events say that a step was made and which datasets it gave, each an asset that comes from its parents."""
    parents = list(dict.fromkeys(part.dataset.mfid for part in job.used))[:MOST_RELATED]
    pipeline = (job.pipeline or {}).get("name", "")
    emit_event(
        "crucible.step.materialized",
        resource=_step_resource(pipeline, job.project, job.name),
        related=[
            *_related((dataset.mfid for dataset in outputs.values()), "output"),
            *_related(parents, "input"),
        ],
    )
    for output, dataset in outputs.items():
        told = {"project": job.project, "pipeline": pipeline, "step": job.name, "output": output}
        tell_asset(dataset, parents, told)


def tell_asset(dataset: DatasetRef, parents: Sequence[str], told: Mapping[str, str]) -> None:
    """An event says that a dataset was made, as an asset that comes from its parents."""
    asset = Asset(key=_asset_key(dataset.mfid), properties=AssetProperties(name=dataset.name[:200]))
    emit_event(
        "prefect.asset.materialization.succeeded",
        resource=AssetContext.asset_as_resource(asset),
        related=[
            *(AssetContext.asset_as_related(Asset(key=_asset_key(parent))) for parent in parents[:MOST_RELATED]),
            AssetContext.related_materialized_by("crucible-lineage"),
        ],
        payload=dict(told),
    )


def tell_failed(pipeline: str, project: str, event: StepEvent) -> None:
    """If a step failed, an event says so, with its error."""
    if event.outcome == FAILED:
        resource = _step_resource(pipeline, project, event.step)
        emit_event("crucible.step.failed", resource=resource, payload={"error": event.detail})


def tell_reused(result: RunResult) -> None:
    """One event for each declared step of which results were there already, however many instances it has."""
    reused: dict[str, list[str]] = {}
    for name, outcome in result.outcomes.items():
        if outcome == REUSED:
            reused.setdefault(name.partition("[")[0], []).append(name)
    for step, names in reused.items():
        mfids = [mfid for name in names[:MOST_RELATED] for mfid in result.datasets[name].values()]
        emit_event(
            "crucible.step.reused",
            resource=_step_resource(result.pipeline, result.project, step),
            related=_related(mfids[:MOST_RELATED], "output"),
            payload={"instances": len(names)},
        )


def _step_resource(pipeline: str, project: str, name: str) -> dict[str, str]:
    step = name.partition("[")[0]
    return {
        "prefect.resource.id": f"crucible.step.{pipeline}.{step}",
        "prefect.resource.name": name,
        "pipeline": pipeline,
        "project_id": project,
        "step": step,
    }


def _related(mfids: Iterable[str], role: str) -> list[dict[str, Any]]:
    return [{"prefect.resource.id": dataset_resource_id(mfid), "prefect.resource.role": role} for mfid in mfids]


def _asset_key(mfid: str) -> str:
    return f"crucible://dataset/{mfid}"
