"""Prefect events about steps and their datasets: materialized, reused, failed.

Whoever watches can build automations on them. Crucible, not Prefect, is the record of what was made: an open Prefect
server keeps events for a week and has no view of assets; Prefect Cloud draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext
from prefect.events import emit_event

from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.run.result import FAILED, REUSED, RunResult, StepEvent
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.new_dataset import NewDataset
from crucible_lineage.registration.payload import Payload

__all__ = ["dataset_resource_id", "tell_asset", "tell_failed", "tell_materialized", "tell_reused", "telling_arrived"]

MOST_RELATED = 50  # an event may name a hundred other things; Prefect adds some of its own


def dataset_resource_id(mfid: str) -> str:
    """Return the name that events have for a dataset."""
    return f"crucible.dataset.{mfid}"


def tell_materialized(job: Job, outputs: Mapping[str, DatasetRef]) -> None:
    """Events say that a step was made and which datasets it gave, each an asset that comes from its parents."""
    pipeline = (job.pipeline or {}).get("name", "")
    _tell_made(pipeline, job.project, job.name, [part.dataset.mfid for part in job.used], outputs)


def telling_arrived() -> Callable[[Payload], None]:
    """Tells the same, for the flow run that calls this, of what comes to Crucible after its task has ended."""
    context = copy_context()
    return lambda made: context.copy().run(_tell_arrived, made)


def _tell_arrived(made: Payload) -> None:
    records = {new.mfid: record for new in made.datasets if (record := new.record.as_step)}
    outputs = {records[new.mfid].output: new for new in made.datasets if new.mfid in records}
    for record in list(records.values())[:1]:  # all outputs of a step have these in common
        pipeline, run = record.pipeline, record.activity.run
        task_run = run.task_run_id if run else None
        _tell_made(pipeline.name if pipeline else "", made.project, made.step, record.parents, outputs, task_run)


def _tell_made(
    pipeline: str,
    project: str,
    step: str,
    used: Sequence[str],
    outputs: Mapping[str, DatasetRef | NewDataset],
    task_run: str | None = None,
) -> None:
    parents = list(dict.fromkeys(used))[:MOST_RELATED]
    by = [{"prefect.resource.id": f"prefect.task-run.{task_run}", "prefect.resource.role": "task-run"}]
    emit_event(
        "crucible.step.materialized",
        resource=_step_resource(pipeline, project, step),
        related=[
            *_related((dataset.mfid for dataset in outputs.values()), "output"),
            *_related(parents, "input"),
            *(by if task_run else ()),
        ],
    )
    for output, dataset in outputs.items():
        told = {"project": project, "pipeline": pipeline, "step": step, "output": output}
        tell_asset(dataset, parents, told)


def tell_asset(dataset: DatasetRef | NewDataset, parents: Sequence[str], told: Mapping[str, str]) -> None:
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
