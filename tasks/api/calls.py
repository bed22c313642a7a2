"""Behaviour that all API tasks share: retries, names of task runs, and ids that survive a retry."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from prefect import Task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from pydantic import BaseModel

from crucible_lineage.ids import canonical_json, mfid_of_content, new_mfid, time_bits
from crucible_lineage.json_types import JsonObject
from crucible_lineage.tasks.sessions import REPEATED

P = ParamSpec("P")
R = TypeVar("R")

SHOWN_CHARACTERS = 60  # per argument in the name of a task run


Call = tuple[str, int, str]  # flow run, its attempt, digest of the request

_lock = threading.Lock()
_calls: dict[Call, list[str]] = {}  # task runs with the same request in this attempt of the flow run


class ApiTask(Task[P, R]):
    """A Prefect task whose `map` passes the same connection or block to every run."""

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Map as Prefect does; `crucible` needs no `unmapped`."""
        if isinstance(kwargs.get("crucible"), BaseModel):  # Prefect would iterate over its fields
            kwargs["crucible"] = unmapped(kwargs["crucible"])
        return super().map(*args, **kwargs)

    def with_options(self, **options: Any) -> ApiTask[P, R]:
        """Return a copy with these options, still an `ApiTask`: Prefect's method returns a plain `Task`."""
        copy = super().with_options(**options)
        copy.__class__ = type(self)
        assert isinstance(copy, ApiTask)
        return copy


def api_task(run_name: str, **options: object) -> Callable[[Callable[P, R]], ApiTask[P, R]]:
    """Make a function a task whose runs are named by `run_name`, a template of its parameters."""
    settings: JsonObject = {
        **REPEATED,
        "task_run_name": functools.partial(_run_name, run_name),
        **options,
    }

    def decorate(function: Callable[P, R]) -> ApiTask[P, R]:
        return ApiTask(function, log_prints=None, **settings)

    return decorate


def asynchronous(sync: ApiTask[P, R]) -> ApiTask[P, Coroutine[Any, Any, R]]:
    """Return an awaitable version of a task. It runs in a thread, so the event loop is not blocked."""
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
    """Return a tuple of strings; a single string becomes a tuple of one."""
    return (value,) if isinstance(value, str) else tuple(value)


def _run_name(template: str, parameters: JsonObject) -> str:
    return template.format(**{name: _shown(value) for name, value in parameters.items()})


def _shown(value: object) -> str:
    """Shorten an argument for display: a path to its file name, a list to its first item and a count."""
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - 1} more" if len(value) > 1 else ""
        return f"{_shown(value[0])}{more}" if value else "nothing"
    if value is None:
        return ""
    text = value.name if isinstance(value, PurePath) else str(value)
    if isinstance(value, str) and ("/" in text or "\\" in text):
        text = PurePath(text.replace("\\", "/")).name or text
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


# Ids that a task chooses for what it creates stay the same when the task or its flow run is retried.
#
# They follow from the flow run, the task, its arguments, and the number of the call among calls with equal arguments.
# So a retry finds what an earlier attempt created, even if the answer was lost.


def chosen_mfid(kind: str, arguments: Mapping[str, object]) -> str:
    """Return the MFID for what this task run creates from these arguments; outside a task run, a new one each time."""
    context = TaskRunContext.get()
    if context is None:
        return new_mfid()
    task_run = context.task_run
    request = hashlib.sha256(canonical_json([kind, context.task.task_key, _plain(arguments)])).hexdigest()
    flow = FlowRunContext.get()
    if flow is None or flow.flow_run is None or flow.detached:  # on another machine, calls are not counted
        return _mfid([str(task_run.id), request], task_run.created)
    call = (str(flow.flow_run.id), flow.flow_run.run_count, request)
    return _mfid([call[0], request, _call_number(call, str(task_run.id))], flow.flow_run.created or task_run.created)


def _call_number(call: Call, task_run_id: str) -> int:
    """Return the index of this task run among those with the same request. A retried task run keeps its index."""
    with _lock:
        callers = _calls.setdefault(call, [])
        if task_run_id not in callers:
            callers.append(task_run_id)
        return callers.index(task_run_id)


def _mfid(parts: list[Any], moment: datetime | None) -> str:
    return mfid_of_content(canonical_json(parts), time_bits(moment or datetime.now(UTC)), version=7)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int)) else str(value)
