"""The Prefect task that makes one step of a pipeline real: run if need be, registered, linked."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run, task_run

from crucible_lineage.pipeline.bind import BoundStep, bind_file
from crucible_lineage.pipeline.materialize import materialize_step
from crucible_lineage.pipeline.raw import existing_dataset
from crucible_lineage.pipeline.run import StepOrder, step_job
from crucible_lineage.pipeline.spec import located
from crucible_lineage.recipe import UsedDataset
from crucible_lineage.session import Session
from crucible_lineage.tasks.retries import is_transient
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

__all__ = ["materialize", "order_from_json", "order_to_json"]


@task(
    task_run_name="{step}",
    cache_policy=NO_CACHE,  # the dataset's id says whether it is there
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=is_transient,
)
def materialize(pipeline: str, step: str, order: dict[str, Any], crucible: CrucibleConnection) -> dict[str, Any]:
    """`{"outputs": {name: MFID}, "executed": bool}` of a step of the pipeline in that file.

    `order` holds ids and names only: the parents (role, MFID, names of the files that the step is given), the run, the
    attempt and what the outputs supersede; `order_to_json` makes it.
    """
    session = session_for(crucible)
    bound = bind_file(located(pipeline), session.store)
    run = {
        "engine": "prefect",
        "run_id": order["run_id"],
        "flow_run_id": str(flow_run.get_id() or ""),
        "task_run_id": str(task_run.get_id() or ""),
    }
    made = materialize_step(step_job(bound, order_from_json(order, bound.steps[step], session), run), session)
    return {"outputs": {name: dataset.mfid for name, dataset in made.outputs.items()}, "executed": made.executed}


def order_to_json(order: StepOrder) -> dict[str, Any]:
    """The order as ids and names, which may cross to another process."""
    used = [
        {"role": part.role, "mfid": part.dataset.mfid, "files": [file.name for file in part.files]}
        for part in order.used
    ]
    return {"used": used, "run_id": order.run_id, "attempt": order.attempt, "supersedes": dict(order.supersedes)}


def order_from_json(order: dict[str, Any], step: BoundStep, session: Session) -> StepOrder:
    """The order, known again from ids and names."""

    def part(entry: dict[str, Any]) -> UsedDataset:
        dataset = existing_dataset(entry["mfid"], session)
        return UsedDataset(entry["role"], dataset, tuple(f for f in dataset.files if f.name in entry["files"]))

    used = tuple(part(entry) for entry in order["used"])
    return StepOrder(step, used, order["run_id"], order["attempt"], order["supersedes"])
