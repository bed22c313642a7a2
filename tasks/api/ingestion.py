"""Ingestion as tasks: asked for once for a file, and waited for; one that failed is a failure unless told otherwise."""

from __future__ import annotations

from typing import Literal

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.errors import RunError
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = [
    "OnFailure",
    "asked_once",
    "ended",
    "request_ingestion",
    "wait_for_ingestion",
]

OnFailure = Literal["fail", "warn"]
"""What an ingestion that failed is: a failure of the task, or a warning in its log."""

GOOD = ("complete", "not_requested")


@api_task("ingest {file_mfid}")
def request_ingestion(
    file_mfid: str, ingestor: str | None = None, *, again: bool = False, crucible: Crucible | None = None
) -> int:
    """The number of the request to ingest the file: the one that is there for it, or with `again` a new one.

    A request that failed is never taken for one that is there.
    """
    client = session_for(crucible).client
    if again:
        return client.ingestions.request(file_mfid, ingestor).id
    return asked_once(client, file_mfid, ingestor).id


@api_task("ingested {request}")
def wait_for_ingestion(
    request: int, timeout_s: float = 600.0, *, on_failure: OnFailure = "fail", crucible: Crucible | None = None
) -> str:
    """The status with which the ingestion ended. RunError if it failed, or if the ingestor that was asked for did not
    read the file, unless `on_failure` is "warn".
    """
    found = session_for(crucible).client.ingestions.wait(request, timeout_s=timeout_s)
    ended(found, on_failure)
    return found.status


def asked_once(client: CrucibleClient, file_mfid: str, ingestor: str | None) -> IngestionRequest:
    """The request to ingest the file with that class: one that waits, works or has succeeded, else a new one."""
    for known in client.ingestions.list(file_mfid=file_mfid):
        if (known.is_open or known.status in GOOD) and ingestor in (None, known.ingestion_class):
            return known
    return client.ingestions.request(file_mfid, ingestor)


def ended(request: IngestionRequest, on_failure: OnFailure) -> None:
    """RunError, or a warning, if the ingestion has failed."""
    is_otherwise = request.error_message and request.ingestion_class  # not by the ingestor that was asked for
    if request.status in GOOD and not is_otherwise:
        return
    reason = f": {request.error_message}" if request.error_message else ""
    ended_as = "did not go as was asked" if request.status in GOOD else f"ended as {request.status!r}"
    told = (
        f"ingestion request {request.id} of file {request.file_mfid} {ended_as}{reason}\n"
        'the file is stored; name an ingestor that reads it, or take this as a warning with "warn"'
    )
    if on_failure == "fail":
        raise RunError(told)
    try:
        get_run_logger().warning(told)
    except MissingContextError:  # called as a plain function
        get_logger(__name__).warning(told)
