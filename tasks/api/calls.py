"""What the tasks of the API have in common: when they are retried, how their runs are called, which ids they choose."""

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

from crucible_lineage.ids import canonical_json, mfid_from_bytes, new_mfid, time_bits
from crucible_lineage.tasks.sessions import is_transient

__all__ = ["api_task", "asynchronous", "chosen_mfid", "words"]


P = ParamSpec("P")
R = TypeVar("R")

SHOWN_CHARACTERS = 60  # of one argument in the name of a run


Call = tuple[str, int, str]  # flow run, its attempt, what is asked for

_lock = threading.Lock()
_calls: dict[Call, list[str]] = {}  # the task runs that asked for the same, in this attempt of their flow run


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


# Ids that a task chooses for what it creates: the same when the task, or its flow run, is tried again.
#
# They follow from the flow run, the task and its arguments; where a flow run calls it several times with the same
# ones, from which of the calls it is. So a repetition finds what an earlier try made, also where its answer was lost.


def chosen_mfid(kind: str, arguments: Mapping[str, object]) -> str:
    """The MFID of what this task run creates from these arguments. Outside of a task run, a new one at each call."""
    running = TaskRunContext.get()
    if running is None:
        return new_mfid()
    task_run = running.task_run
    asked = hashlib.sha256(canonical_json([kind, running.task.task_key, _plain(arguments)])).hexdigest()
    flow = FlowRunContext.get()
    if flow is None or flow.flow_run is None or flow.detached:  # on another machine nobody counts the calls of a flow
        return _mfid([str(task_run.id), asked], task_run.created)
    call = (str(flow.flow_run.id), flow.flow_run.run_count, asked)
    return _mfid([call[0], asked, _which(call, str(task_run.id))], flow.flow_run.created or task_run.created)


def _which(call: Call, task_run_id: str) -> int:
    """The number of this task run among those that ask for the same; a task that is tried again keeps its own."""
    with _lock:
        callers = _calls.setdefault(call, [])
        if task_run_id not in callers:
            callers.append(task_run_id)
        return callers.index(task_run_id)


def _mfid(parts: list[Any], moment: datetime | None) -> str:
    digest = int.from_bytes(hashlib.sha256(canonical_json(parts)).digest(), "big") >> (256 - 74)
    high = int.from_bytes(time_bits(moment or datetime.now(UTC)), "big")
    number = high << 80 | 7 << 76 | (digest >> 62) << 64 | 0b10 << 62 | digest & ((1 << 62) - 1)
    return mfid_from_bytes(number.to_bytes(16, "big"))


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int)) else str(value)
