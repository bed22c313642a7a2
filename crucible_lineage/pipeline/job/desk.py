"""What a session's deliverers work with, and what they write down of what has arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from crucible_lineage.pipeline.logs.fault import told_fault
from crucible_lineage.registration.delivery.deliveries import Deliveries
from crucible_lineage.registration.delivery.desk import Delivered, Desk, Trouble
from crucible_lineage.registration.ingestion import note_ingestions
from crucible_lineage.registration.made import Made
from crucible_lineage.registration.outbox import Waiting
from crucible_lineage.registration.register import nothing
from crucible_lineage.session import Session
from crucible_lineage.traffic import Tell

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["deliver_all", "delivering", "desk_of"]

ONE_CALL_S = 5.0  # chosen: after that it is known, and told, that the service is away


def desk_of(
    session: Session,
    client: CrucibleClient | None = None,
    troubled: Callable[[Trouble], None] = nothing,
    arrived: Callable[[Made], None] = nothing,
) -> Desk:
    """The outbox, the service, and whom to tell, of a session."""
    return Desk(
        outbox=session.outbox,
        client=client or session.client,
        machine=session.machine,
        turn=session.turn,
        delivered=partial(_note, session),
        ingesting=partial(note_ingestions, session.store),
        troubled=troubled,
        arrived=arrived,
        told_fault=partial(_told_fault, session),
    )


@contextmanager
def delivering(
    session: Session, troubled: Callable[[Trouble], None], arrived: Callable[[Made], None] = nothing
) -> Iterator[Deliveries]:
    """Deliverers, who are at work until the block ends; what is not delivered then waits in the outbox."""
    with session.connect(at_most_s=ONE_CALL_S) as client:
        deliveries = Deliveries(desk_of(session, client, troubled, arrived))
        try:
            deliveries.take_up()
            yield deliveries
        finally:
            deliveries.stop()


def deliver_all(
    session: Session, patience_s: float, told: Callable[[str], None], tell: Tell
) -> tuple[tuple[str, ...], tuple[Waiting, ...]]:
    """The datasets that were delivered of those that waited here, and what still waits.

    `told` hears each reason, `tell` how far it is.
    """
    made = [mfid for one in session.outbox.all(again=True) for mfid in one.mfids]
    if not made:
        return (), ()
    reasons: dict[str, None] = {}

    def troubled(trouble: Trouble) -> None:
        if trouble.error not in reasons:
            reasons[trouble.error] = None
            told(f"{trouble.made.step}: {trouble.error}")

    with delivering(session, troubled) as deliveries:
        total = len(session.outbox.all())
        tell(f"delivering {total} results", 0)
        deliveries.drain(patience_s, lambda left: tell(f"delivered: {total - left} of {total} results", 0))
    waiting = tuple(session.outbox.waiting())
    left = {*deliveries.under_way.dropped, *(mfid for one in waiting for mfid in one.mfids)}
    return tuple(mfid for mfid in made if mfid not in left), waiting


def _told_fault(session: Session, error: BaseException) -> tuple[str, str]:
    fault = told_fault(error, session.settings.data, session.settings.api_key)
    return fault.message, str(fault.log or "")


def _note(session: Session, found: Sequence[Delivered]) -> None:
    """What has arrived is known to be complete, under both its ids."""
    session.store.remember_as({mfid: one.ref for one in found for mfid in (one.mfid, one.ref.mfid)})
    if all(one.ref.mfid == one.mfid for one in found) and not session.settings.embedded:
        session.store.note_keeps_ids()
