"""Errors of Prefect's API told as ours: an address where nobody answers, or an answer that is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from crucible_lineage.errors import PrefectAwayError, RunError

__all__ = ["reaching_prefect"]

# Begin what Prefect says, as a plain RuntimeError, when a flow run cannot begin.
UNREACHED = "Failed to reach API"
NOT_STARTED = "Timed out while attempting to connect to ephemeral Prefect API server"


@contextmanager
def reaching_prefect(what: str, way_out: str) -> Iterator[None]:
    """`what` is done in this block by asking Prefect.

    RunError, with the way out, if it refuses; PrefectAwayError if it is away.
    """
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith((UNREACHED, NOT_STARTED)):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f"Prefect at {PREFECT_API_URL.value()}"
        if str(error).startswith(NOT_STARTED):
            where = f"Prefect, which was started for this and keeps its database in {PREFECT_HOME.value()}"
        kind = RunError if isinstance(error, httpx.HTTPStatusError) else PrefectAwayError
        raise kind(f"could not {what}: {where}: {reason}\n{way_out}") from error
