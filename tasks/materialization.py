"""The Prefect task that makes one step of a pipeline real: run if need be, registered, linked, delivered."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run
from pydantic import BaseModel, ConfigDict

from crucible_lineage.pipeline.engines.slurm import materialize_on_slurm
from crucible_lineage.pipeline.job.delivering import ONE_CALL_S
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.job_json import job_from_json, made_to_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.job.progress import is_run_here
from crucible_lineage.pipeline.processes.supervised import end_with_parent
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.registration.delivery import DeliveredByRun, DeliversLater
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import tell_materialized
from crucible_lineage.tasks.sessions import CrucibleConnection, is_transient, session_for


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


_here: dict[str, tuple[int, Deliverer]] = {}  # by run, with the process that they are of


class Driver(BaseModel):
    """What a step in another process has to know of the process of its run, so as to leave it the delivery."""

    model_config = ConfigDict(frozen=True)

    host: str
    agent: dict[str, Any]
    may_be_there: bool
    parents: list[str]  # those that wait in the outbox

    @classmethod
    def of(cls, job: Job, session: Session, deliveries: Deliverer) -> Driver:
        """Return this process as the driver, for a step that is about to be made."""
        may = any(deliveries.is_worth_a_look(planned.mfid) for planned in job.outputs)
        parents = session.outbox.names_of(part.dataset.mfid for part in job.used)
        return cls(host=socket.gethostname(), agent=session.agent, may_be_there=may, parents=parents)


@contextmanager
def delivered_here(run_id: str, deliveries: Deliverer) -> Iterator[None]:
    """Tasks of the run that are in this process in this block hand their results to these."""
    _here[run_id] = (os.getpid(), deliveries)
    try:
        yield
    finally:
        del _here[run_id]


def deliverers_of(run_id: str, session: Session, driver: Driver | None) -> DeliversLater | None:
    """Whoever delivers what is made in the run; None if nobody does to whom it can be left: then it is to be delivered
    before anything goes on with it.
    """
    process, deliveries = _here.get(run_id, (0, None))
    if process == os.getpid():
        return deliveries
    if driver is None or driver.host != socket.gethostname() or not is_run_here(session.settings.data, run_id):
        return None
    session.set_agent(driver.agent)
    for name in driver.parents:
        session.outbox.look(name)
    return DeliveredByRun(driver.may_be_there, partial(session.connect, at_most_s=ONE_CALL_S))
