"""The Prefect task that makes one step of a pipeline real: run if need be, registered, linked."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run, task_run

from crucible_lineage.pipeline.job.job_json import job_from_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.tasks.events import tell_materialized
from crucible_lineage.tasks.retries import is_transient
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

__all__ = ["materialize"]


@task(
    task_run_name="{step}",
    cache_policy=NO_CACHE,  # the dataset's id says whether it is there
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=is_transient,
)
def materialize(
    step: str,  # noqa: ARG001 (the name that Prefect shows)
    order: dict[str, Any],
    crucible: CrucibleConnection,
) -> dict[str, Any]:
    """`{"outputs": {name: MFID}, "executed": bool, "note": str}` of a step.

    `order` holds names, ids and declared values only; `crucible_lineage.pipeline.job.order.order_to_json` makes it.
    """
    session = session_for(crucible)
    run = {
        "engine": "prefect",
        "flow_run_id": str(flow_run.get_id() or ""),
        "task_run_id": str(task_run.get_id() or ""),
    }
    job = job_from_json(order, run, session)
    made = materialize_step(job, session)
    if made.executed:
        tell_materialized(job, made.outputs)
    outputs = {name: dataset.mfid for name, dataset in made.outputs.items()}
    return {"outputs": outputs, "executed": made.executed, "note": made.note}
