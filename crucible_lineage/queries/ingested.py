"""Files that Crucible was asked to read and could not, or did not read as was asked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.errors import ForbiddenError, NotFoundError, RefusedError
from crucible_lineage.lineage import Finding, LineageGraph
from crucible_lineage.session import Session

__all__ = ["not_ingested"]

ONE_BY_ONE = 10  # datasets whose requests are asked for one by one
PER_PAGE = 1000
MOST_NAMED = 100  # files whose names are asked for


def not_ingested(session: Session, graph: LineageGraph) -> Iterator[Finding]:
    """A finding for each file of the graph's datasets whose newest ingestion failed, or went otherwise than was asked.

    That nothing reads its kind is none, where nobody named an ingestor. Of many datasets as many of the newest requests
    are looked at as cost a tenth of a call a dataset.
    """
    mfids = [node.id for node in graph.nodes.values() if node.kind == "dataset"]
    newest: dict[str, IngestionRequest] = {}
    for request in _requests(session.client, mfids):
        if request.file_mfid and request.dataset_mfid in graph:
            known = newest.setdefault(request.file_mfid, request)
            newest[request.file_mfid] = max(known, request, key=lambda one: one.id)
    bad = [one for one in newest.values() if _is_bad(one)]
    for number, request in enumerate(bad):
        mfid = str(request.dataset_mfid)
        file = _name(session.client, str(request.file_mfid)) if number < MOST_NAMED else f"file {request.file_mfid}"
        reason = request.error_message or request.status
        message = f"{graph.label(mfid)}: {file} was not read as was asked: {reason}"
        yield Finding("not-ingested", "warning", (mfid,), message, f"crucible get {mfid}")


_OPEN = ("requested", "started", "not_requested")


def _is_bad(one: IngestionRequest) -> bool:
    if one.status == "complete":
        return bool(one.error_message and one.ingestion_class)
    return one.status not in _OPEN


def _requests(client: CrucibleClient, mfids: list[str]) -> Iterator[IngestionRequest]:
    try:
        if len(mfids) <= ONE_BY_ONE:
            for mfid in mfids:
                yield from client.ingestions.iter(dataset_mfid=mfid)
        else:
            yield from islice(client.ingestions.iter(), (len(mfids) // 10 + 1) * PER_PAGE)
    except (ForbiddenError, NotFoundError, RefusedError):  # a service that tells nobody
        return


def _name(client: CrucibleClient, file_mfid: str) -> str:
    try:
        return client.files.get(file_mfid).filename
    except (ForbiddenError, NotFoundError):
        return f"file {file_mfid}"
