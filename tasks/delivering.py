"""Who delivers what a task has made: deliverers of this process, the process of the run, or the task itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from crucible_lineage.pipeline.job.delivering import ONE_CALL_S
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.news import is_run_here
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.registration.delivery import DeliveredByRun, DeliversLater
from crucible_lineage.session import Session

__all__ = ["Driver", "delivered_here", "deliverers_of"]

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
    session.introduce(driver.agent)
    for name in driver.parents:
        session.outbox.look(name)
    return DeliveredByRun(driver.may_be_there, partial(session.connect, at_most_s=ONE_CALL_S))
