"""News of Crucible as Prefect events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect.events import Event, get_events_client
from prefect.settings import PREFECT_API_URL

from crucible_lineage.errors import RunError
from crucible_lineage.tasks.events import dataset_resource_id
from crucible_lineage.watch.changes import News

__all__ = ["as_event", "emit_events"]


def emit_events(news: Sequence[News]) -> None:
    """Prefect has received an event for each of the news. RunError if it cannot be reached."""
    if not news:
        return
    try:
        asyncio.run(_sent([as_event(one) for one in news]))
    except Exception as error:  # of websockets, of the network, or Prefect's own
        reason = str(error) or type(error).__name__
        raise RunError(f"report {len(news)} events to Prefect at {PREFECT_API_URL.value()}: {reason}") from error


def as_event(news: News) -> Event:
    """The event that tells of it; the same news are the same event, however often they are told."""
    resource = {
        "prefect.resource.id": dataset_resource_id(news.mfid),
        "prefect.resource.name": news.name,
        **news.attributes,
    }
    return Event.model_validate(
        {"occurred": datetime.now(UTC), "event": news.event, "resource": resource, "id": news.id}
    )


async def _sent(events: Sequence[Event]) -> None:
    # emit_event would hand them to a thread that drops them when the server is away; here each is confirmed.
    async with get_events_client(reconnection_attempts=2, checkpoint_every=1) as client:
        for event in events:
            await client.emit(event)
