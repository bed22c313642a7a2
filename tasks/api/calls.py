"""What the tasks of the API have in common: when they are retried, how their runs are called, their async twins."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from prefect import Task, unmapped
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel

from crucible_lineage.tasks.retries import is_transient

__all__ = ["ApiTask", "api_task", "asynchronous", "words"]

P = ParamSpec("P")
R = TypeVar("R")

SHOWN_CHARACTERS = 60  # of one argument in the name of a run


class ApiTask(Task[P, R]):
    """A task that is mapped with one Crucible for all: a connection or a block is never one value for each run."""

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """As Prefect's; `crucible` needs no `unmapped`."""
        if isinstance(kwargs.get("crucible"), BaseModel):  # which can be iterated over: its fields
            kwargs["crucible"] = unmapped(kwargs["crucible"])
        return super().map(*args, **kwargs)

    def with_options(self, **options: Any) -> ApiTask[P, R]:
        """As Prefect's, which makes a plain task of it."""
        made = super().with_options(**options)
        made.__class__ = type(self)
        assert isinstance(made, ApiTask)
        return made


def api_task(run_name: str, **options: object) -> Callable[[Callable[P, R]], ApiTask[P, R]]:
    """The function as a task whose runs are called by `run_name`: a template of its parameters."""
    chosen: dict[str, Any] = {
        "cache_policy": NO_CACHE,  # what is there already is Crucible's to know, not a cache's
        "retries": 3,
        "retry_delay_seconds": [1, 5, 20],
        "retry_condition_fn": is_transient,
        "task_run_name": functools.partial(_run_name, run_name),
        **options,
    }

    def decorate(function: Callable[P, R]) -> ApiTask[P, R]:
        return ApiTask(function, log_prints=None, **chosen)

    return decorate


def asynchronous(sync: ApiTask[P, R]) -> ApiTask[P, Coroutine[Any, Any, R]]:
    """The same task, to be awaited: it waits in a thread, so that the event loop goes on."""
    function = sync.fn

    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(function, *args, **kwargs)

    run.__name__ = f"a{function.__name__}"
    run.__qualname__ = run.__name__
    return ApiTask(
        run,
        cache_policy=NO_CACHE,
        retries=sync.retries,
        retry_delay_seconds=sync.retry_delay_seconds,
        retry_condition_fn=sync.retry_condition_fn,
        task_run_name=sync.task_run_name,
        persist_result=sync.persist_result,
        log_prints=None,
    )


def words(value: str | Sequence[str]) -> tuple[str, ...]:
    """One text, or several: a text is one, and not its letters."""
    return (value,) if isinstance(value, str) else tuple(value)


def _run_name(template: str, parameters: dict[str, Any]) -> str:
    return template.format(**{name: _shown(value) for name, value in parameters.items()})


def _shown(value: object) -> str:
    """A path by the name of its file, several values by the first and how many more."""
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - 1} more" if len(value) > 1 else ""
        return f"{_shown(value[0])}{more}" if value else "nothing"
    if value is None:
        return ""
    text = value.name if isinstance(value, PurePath) else str(value)
    if isinstance(value, str) and ("/" in text or "\\" in text):
        text = PurePath(text.replace("\\", "/")).name or text
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
