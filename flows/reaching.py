"""Access to Prefect's API, with its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from crucible_lineage.errors import PrefectAwayError, RunError

# Prefixes of Prefect's plain RuntimeErrors when a flow run cannot begin.
UNREACHED = "Failed to reach API"
NOT_STARTED = "Timed out while attempting to connect to ephemeral Prefect API server"


@contextmanager
def reaching_prefect(action: str, remedy: str) -> Iterator[None]:
    """Convert errors of Prefect's API in this block: RunError if it refuses, PrefectAwayError if it is unreachable.

    Messages name the `action` that failed and its `remedy`.
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
        raise kind(f"could not {action}: {where}: {reason}\n{remedy}") from error
