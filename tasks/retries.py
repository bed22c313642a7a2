"""When a task is tried again: after transient errors only. What was refused once is refused again."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from crucible_lineage.errors import TRANSIENT, InputError, StoppedError

__all__ = ["is_transient", "is_worth_another"]


def is_transient(task: Task[..., Any], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (Prefect's signature)
    """True if the failed call may succeed when it is made again."""
    try:
        state.result()
    except TRANSIENT:
        return True
    except Exception:
        return False
    return False


def is_worth_another(task: Task[..., Any], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (likewise)
    """True if a step that declares retries is to be tried again: unless it cannot succeed, or its run was stopped."""
    try:
        state.result()
    except (InputError, StoppedError):
        return False
    except Exception:
        return True
    return False
