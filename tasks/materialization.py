"""The Prefect task that makes one step of a pipeline real: run if need be, registered, linked."""

from __future__ import annotations

import json
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run

from crucible_lineage.pipeline.engines.slurm import materialize_on_slurm
from crucible_lineage.pipeline.job.job_json import job_from_json, made_to_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.processes.parent import end_with_parent
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.tasks.delivering import Driver, deliverers_of
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
    job: str,
    crucible: CrucibleConnection,
    slurm: Runner | None = None,
    driver: Driver | None = None,
) -> dict[str, Any]:
    """`{"outputs": {name: MFID}, "executed": bool, "note": str}` of a step.

    `job` is JSON of names, ids and declared values only; `crucible_lineage.pipeline.job.job_json.job_to_json` makes it.
    It is text, since Prefect draws an arrow to a task from whatever gave a value that is the very object of one in its
    arguments: and Python has but one empty text. With `slurm` it is made by a batch job as that runner declares.
    With `driver` what was made may be left to that to deliver, where it shares the data folder.
    """
    end_with_parent()
    session = session_for(crucible)
    run = {
        "engine": "prefect",
        "flow_run_id": str(flow_run.get_id() or ""),
        "task_run_id": str(task_run.get_id() or ""),
    }
    sent = json.loads(job)
    deliverers = deliverers_of(sent["run"]["run_id"], session, driver)
    arrived = job_from_json(sent, run, session)
    if slurm is None:
        made = materialize_step(arrived, session, get_run_logger().info, deliverers)
    else:
        made = materialize_on_slurm(arrived, session, slurm)
    if made.executed and not made.waits:  # else whoever delivers it says so
        tell_materialized(arrived, made.outputs)
    return made_to_json(made)
