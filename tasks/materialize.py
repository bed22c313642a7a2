"""The Prefect task that makes one step of a pipeline real: run if need be, registered, linked."""

from __future__ import annotations

from typing import Any

from crucible_lineage.tasks.retries import is_transient
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run, task_run

from crucible_lineage.datasets import DatasetRef
from crucible_lineage.pipeline.bind import bind_file
from crucible_lineage.pipeline.inputs import existing_dataset
from crucible_lineage.pipeline.materialize import materialize_step
from crucible_lineage.pipeline.run import step_job
from crucible_lineage.pipeline.spec import located
from crucible_lineage.recipe import UsedDataset
from crucible_lineage.session import Session

__all__ = ["materialize", "used_from_json", "used_to_json"]


@task(
    task_run_name="{step}",
    cache_policy=NO_CACHE,  # the dataset's id says whether it is there
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=is_transient,
)
def materialize(
    pipeline: str, step: str, used: list[dict[str, Any]], run_id: str, crucible: CrucibleConnection
) -> dict[str, Any]:
    """`{"outputs": {name: MFID}, "executed": bool}` of a step of the pipeline in that file.

    `used` lists the parents: role, MFID and names of the files that the step is given.
    """
    session = session_for(crucible)
    bound = bind_file(located(pipeline), session.store)
    run = {
        "engine": "prefect",
        "run_id": run_id,
        "flow_run_id": str(flow_run.get_id() or ""),
        "task_run_id": str(task_run.get_id() or ""),
    }
    job = step_job(bound, bound.steps[step], used_from_json(used, session), run)
    made = materialize_step(job, session)
    return {"outputs": {name: dataset.mfid for name, dataset in made.outputs.items()}, "executed": made.executed}


def used_to_json(used: tuple[UsedDataset, ...]) -> list[dict[str, Any]]:
    """The parents as ids and names."""
    return [
        {"role": part.role, "mfid": part.dataset.mfid, "files": [file.name for file in part.files]} for part in used
    ]


def used_from_json(used: list[dict[str, Any]], session: Session) -> tuple[UsedDataset, ...]:
    """The parents, known again from ids and names."""

    def part(entry: dict[str, Any]) -> UsedDataset:
        dataset: DatasetRef = existing_dataset(entry["mfid"], session)
        files = tuple(file for file in dataset.files if file.name in entry["files"])
        return UsedDataset(entry["role"], dataset, files)

    return tuple(part(entry) for entry in used)
