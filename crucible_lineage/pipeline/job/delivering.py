"""Delivery of a session's results: during a run, or on its own (`push`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from crucible_lineage.core.journal import DELIVERED, ResultRow
from crucible_lineage.machine.process import Tell
from crucible_lineage.pipeline.logs import record_fault
from crucible_lineage.registration.deliver import Deliverer, DeliveryContext, Report
from crucible_lineage.registration.ingestion import note_ingestions
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

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
def delivering(session: Session, report: Report) -> Iterator[Deliverer]:
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

    def note_outcome(row: ResultRow, _: object) -> None:
        if row.state == DELIVERED:
            arrived.extend(row.mfids)
        elif row.error and row.error not in reasons:
            reasons[row.error] = None
            report(f"{row.step}: {row.error}")

    with delivering(session, note_outcome) as deliverer:
        total = deliverer.waiting()
        tell(f"delivering {amount(total, 'result')}", 0)
        deliverer.drain(patience_s, lambda left: tell(f"delivered: {total - left:,} of {amount(total, 'result')}", 0))
    return tuple(arrived), tuple(session.outbox.waiting())
