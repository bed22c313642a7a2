"""Ingestion: what was asked for is written down, followed, and told how it ended. Nobody waits for it."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
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
LOOK_S = 2.0  # chosen: what a run that has nothing else to do may spend on it


def note_ingestions(store: Store, dataset: DatasetRef, requests: Mapping[str, IngestionRequest]) -> None:
    """Follow these ingestions from now on."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    store.note_ingestions(
        Ingestion(one.id, dataset.mfid, dataset.name, name, _status(one), one.ingestion_class, one.error_message, now)
        for name, one in requests.items()
    )


def follow_ingestions(client: CrucibleClient, store: Store, *, at_most_s: float = 0.0) -> list[Ingestion]:
    """Return the ingestions that have ended since the last look.

    What is open is asked for, again and again while there is time.
    A look asks once for each dataset, and ends after `LOOK_S`: the service may have thousands in its queue. Whatever
    it did not come to is asked for another time. A request that is gone from the service counts as ended.
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
    """Those that have ended, as far as there is time to ask."""
    by_dataset: defaultdict[str, list[Ingestion]] = defaultdict(list)
    for one in left:
        by_dataset[one.mfid].append(one)
    ended: list[Ingestion] = []
    for mfid in random.sample(list(by_dataset), len(by_dataset)):  # what is stuck keeps nobody from the others
        now = _now(client, mfid, by_dataset[mfid])
        ended += [one for one in now if one.status not in OPEN]
        if time.monotonic() > until:
            break
    return ended


def in_words(one: Ingestion) -> str:
    """Describe an ingestion that did not succeed or has not ended: of which file, by which ingestor, and why."""
    if one.status in OPEN:
        return f"{one.file} of {one.dataset!r} ({one.mfid}) is not ingested yet ({one.status}); `status` follows it"
    if one.status == OTHERWISE:
        return f"{one.file} of {one.dataset!r} ({one.mfid}) was not ingested as asked: {one.error}"
    by = f" by {one.ingestor}" if one.ingestor else ""
    reason = f": {one.error}" if one.error else ""
    return f"{one.file} of {one.dataset!r} ({one.mfid}) was not ingested{by} ({one.status}){reason}; the file is stored"


def _status(request: IngestionRequest) -> str:
    """Return its status; OTHERWISE if it ended well, but not by the ingestor that was asked for."""
    is_otherwise = request.status == "complete" and request.error_message and request.ingestion_class
    return OTHERWISE if is_otherwise else request.status


def _now(client: CrucibleClient, mfid: str, asked: list[Ingestion]) -> list[Ingestion]:
    """Ask for the present state of these ingestions of one dataset."""
    found: dict[int, IngestionRequest] = {}
    if len(asked) == 1:
        with suppress(NotFoundError):
            found[asked[0].request] = client.ingestions.get(asked[0].request)
    else:
        found = {one.id: one for one in client.ingestions.iter(dataset_mfid=mfid)}
    return [_as_found(one, found.get(one.request)) for one in asked]


def _as_found(one: Ingestion, found: IngestionRequest | None) -> Ingestion:
    if found is None:
        return replace(one, status="gone", error="the service no longer has this request")
    ingestor = found.ingestion_class or one.ingestor
    return replace(one, status=_status(found), ingestor=ingestor, error=found.error_message)
