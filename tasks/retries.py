"""When a task is tried again: after transient errors only. What was refused once is refused again."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from crucible_lineage.errors import RateLimitedError, ServerError, UnreachableError

__all__ = ["TRANSIENT", "is_transient"]

TRANSIENT = (UnreachableError, RateLimitedError, ServerError)


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 (Prefect's signature)
    """True if the failed call may succeed when it is made again."""
    try:
        state.result()
    except TRANSIENT:
        return True
    except Exception:
        return False
    return False
