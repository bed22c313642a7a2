"""Delivery of a session's results: during a run, on its own (`push`), or before a result is handed on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from crucible_lineage.core.journal import ResultRow
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.process import Tell
from crucible_lineage.pipeline.logs import is_run_here, record_fault
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.registration.delivery import DELIVERED, Deliver, Delivery, DeliveryContext
from crucible_lineage.registration.ingestion import note_ingestions
from crucible_lineage.registration.register import nothing
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.pipeline.job.job import Job

ONE_CALL_S = 5.0  # chosen: after that, the service is reported to be away


def delivery_context(session: Session, client: CrucibleClient | None = None) -> DeliveryContext:
    """Return the context of a delivery of this session."""
    return DeliveryContext(
        outbox=session.outbox,
        client=client or session.client,
        machine=session.machine,
        turn=session.turn,
        # Trusted under the id made here and the one that the service gave.
        note=lambda refs: session.mirror.trust({mfid: ref for made, ref in refs.items() for mfid in (made, ref.mfid)}),
        ingesting=partial(note_ingestions, session.store),
        describe_fault=partial(record_fault, data=session.settings.data),
    )


@contextmanager
def delivering(session: Session, report: Callable[[Delivery], None]) -> Iterator[Deliverer]:
    """Deliver waiting results until the block ends; the others stay in the outbox."""
    with session.connect(at_most_s=ONE_CALL_S) as client:
        deliverer = Deliverer(delivery_context(session, client), report)
        try:
            deliverer.take_up()
            yield deliverer
        finally:
            deliverer.stop()


def deliver_all(
    session: Session, patience_s: float, report: Callable[[str], None], tell: Tell
) -> tuple[tuple[str, ...], tuple[ResultRow, ...]]:
    """Deliver waiting results; return the delivered ids and what still waits. `report` gets each reason once."""
    if not session.outbox.all(again=True):
        return (), ()
    reasons: dict[str, None] = {}
    arrived: list[str] = []

    def note_outcome(delivery: Delivery) -> None:
        if delivery.outcome == DELIVERED:
            arrived.extend(delivery.payload.mfids)
        elif delivery.error and delivery.error not in reasons:
            reasons[delivery.error] = None
            report(f"{delivery.payload.step}: {delivery.error}")

    with delivering(session, note_outcome) as deliverer:
        total = deliverer.waiting()
        tell(f"delivering {amount(total, 'result')}", 0)
        deliverer.drain(patience_s, lambda left: tell(f"delivered: {total - left:,} of {amount(total, 'result')}", 0))
    return tuple(arrived), tuple(session.outbox.waiting())


# Steps that run as tasks hand their results to the deliverer of their run, which may be in another process.

_here: dict[str, tuple[int, Deliverer]] = {}  # by run, with the id of the process


@dataclass(frozen=True)
class Driver:
    """What a step in another process needs to know about its run's process to leave delivery to it."""

    host: str
    agent: JsonObject
    parents: list[str]  # those that wait in the outbox

    @classmethod
    def of(cls, job: Job, session: Session) -> Driver:
        """Describe this process as the driver of a step that is about to be materialized."""
        parents = session.outbox.names_of(part.dataset.mfid for part in job.used)
        return cls(host=socket.gethostname(), agent=session.agent, parents=parents)


@contextmanager
def delivered_here(run_id: str, deliverer: Deliverer) -> Iterator[None]:
    """Let tasks of the run in this process hand their results to this deliverer, within this block."""
    _here[run_id] = (os.getpid(), deliverer)
    try:
        yield
    finally:
        del _here[run_id]


def deliverer_for(run_id: str, session: Session, driver: Driver | None) -> Deliver | None:
    """Return the deliverer of the run's results; None if the step has to deliver its own before others use them."""
    process, deliverer = _here.get(run_id, (0, None))
    if process == os.getpid():
        return deliverer.add if deliverer else None
    if driver is None or driver.host != socket.gethostname() or not is_run_here(session.settings.data, run_id):
        return None
    session.set_agent(driver.agent)
    for name in driver.parents:
        session.outbox.label(name)
    return nothing
