"""Ingestion requests: stored, followed without waiting, and reported when they end."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING

from crucible_lineage.core.store import Ingestion, Store
from crucible_lineage.errors import NotFoundError
from crucible_lineage.refs import DatasetRef

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest

OPEN = ("requested", "started")
OTHERWISE = "not as asked"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 0.5
LISTED_FOR_ONE = 10  # chosen: an entry of a listing costs a tenth of a call
LOOK_S = 2.0  # chosen: the time that a run with nothing else to do may spend on it


def note_ingestions(store: Store, dataset: DatasetRef, requests: Mapping[str, IngestionRequest]) -> None:
    """Store these requests, so that they are followed."""
    about, now = (dataset.mfid, dataset.name), datetime.now(UTC).isoformat(timespec="seconds")
    store.note_ingestions(
        Ingestion(each.id, *about, name, _status(each), each.ingestion_class, each.error_message, now)
        for name, each in requests.items()
    )


def follow_ingestions(client: CrucibleClient, store: Store, *, at_most_s: float = 0.0) -> list[Ingestion]:
    """Return the ingestions that have ended since the last call; ask repeatedly for open ones until `at_most_s`.

    A pass ends after `LOOK_S`, since the service may have thousands in its queue; the rest is left for a later pass. A
    request that the service no longer has counts as ended.
    """
    until = time.monotonic() + at_most_s
    wait_s = FIRST_WAIT_S
    ended: list[Ingestion] = []
    while left := store.open_ingestions():
        found = _ended(client, left, max(until, time.monotonic() + LOOK_S))
        store.note_ingestions(found)
        ended += found
        if len(found) == len(left) or time.monotonic() + wait_s > until:
            break
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    return ended


def _ended(client: CrucibleClient, left: list[Ingestion], until: float) -> list[Ingestion]:
    """Return the ingestions that have ended, as far as there is time to ask: several by a listing, newest first.

    What the listing does not show is asked for by id.
    """
    listed: dict[int, IngestionRequest] = {}
    if len(left) > 1:
        newest = client.ingestions.iter(limit=LISTED_FOR_ONE * len(left))
        listed = {request.id: request for request in takewhile(lambda request: request.id >= left[0].request, newest)}
    ended: list[Ingestion] = []
    for ingestion in random.SystemRandom().sample(left, len(left)):  # stuck ones do not block the others
        found = listed.get(ingestion.request)
        if found is None and time.monotonic() > until:
            continue
        try:
            found = found or client.ingestions.get(ingestion.request)
        except NotFoundError:
            ended.append(replace(ingestion, status="gone", error="the service no longer has this request"))
            continue
        if (status := _status(found)) not in OPEN:
            ingestor = found.ingestion_class or ingestion.ingestor
            ended.append(replace(ingestion, status=status, ingestor=ingestor, error=found.error_message))
    return ended


def in_words(ingestion: Ingestion) -> str:
    """Describe an ingestion that did not succeed or has not ended: file, ingestor, and reason."""
    file, status = f"{ingestion.file} of {ingestion.dataset!r} ({ingestion.mfid})", ingestion.status
    if status in OPEN:
        return f"{file} is not ingested yet ({status}); `status` follows it"
    if status == OTHERWISE:
        return f"{file} was not ingested as asked: {ingestion.error}"
    by = f" by {ingestion.ingestor}" if ingestion.ingestor else ""
    reason = f": {ingestion.error}" if ingestion.error else ""
    return f"{file} was not ingested{by} ({status}){reason}; the file is stored"


def _status(request: IngestionRequest) -> str:
    """Return the request's status; OTHERWISE if it succeeded, but with another ingestor than requested."""
    is_otherwise = request.status == "complete" and request.error_message and request.ingestion_class
    return OTHERWISE if is_otherwise else request.status
