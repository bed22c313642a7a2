"""The Crucible that a task uses (a connection, a block, or a block's name) and its session in this process."""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run, task_run
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import TRANSIENT, InputError
from crucible_lineage.ids import canonical_json, mfid_of_content, new_mfid, time_bits
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.process import leave_out_of_forks
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.tasks.credentials import CrucibleCredentials

_lock = threading.Lock()
_sessions: dict[tuple[Path, str | None, str | None], Session] = {}  # by data folder, address and block
leave_out_of_forks(_sessions)


class CrucibleConnection(BaseModel):
    """Where Crucible is. Without a block or an address, environment and configuration file of the machine that
    runs the flow decide. Never contains a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(
        default=None, title="Data folder", description="Alone, it means the Crucible embedded in that folder."
    )
    api_url: str | None = Field(default=None, title="API address", description="Its key is CRUCIBLE_API_KEY.")
    block: str | None = Field(
        default=None, title="Block", description="The name of a Crucible Credentials block: address and key."
    )

    def settled(self, settings: Settings) -> CrucibleConnection:
        """Return the connection with data folder and address filled in: it means the same in another process."""
        return self.model_copy(update={"data": str(settings.data), "api_url": settings.api_url})


Crucible = CrucibleConnection | CrucibleCredentials | str
"""What tasks take as `crucible`: a connection, a block, or a block's name."""


def connection_of(crucible: CrucibleConnection | str | None) -> CrucibleConnection:
    """Return the connection itself, or the one for a block's name; by default the one of this machine."""
    if isinstance(crucible, str):
        return CrucibleConnection(block=crucible)
    return crucible or CrucibleConnection()


def session_for(crucible: Crucible | None = None) -> Session:
    """Return this process's session for that Crucible; all tasks of the process share it, and it is closed at exit."""
    if isinstance(crucible, CrucibleCredentials):  # with another key it is another session, whatever its name
        digest = hashlib.sha256(crucible.api_key.get_secret_value().encode()).hexdigest()
        key = (_default_folder(), crucible.url, f"sha256:{digest}")
        return _shared(key, lambda: _BlockSession(_default_folder(), "given to the task", crucible))
    connection = connection_of(crucible)
    data = Path(connection.data).absolute() if connection.data else None
    if name := connection.block:
        folder = data or _default_folder()
        return _shared((folder, None, name), lambda: _BlockSession(folder, name, _block(name)))
    if connection.api_url:  # its key may be known to the shared session only
        known = _sessions.get((data or resolve_settings().data, connection.api_url, None))
        if known is not None:
            return known
    settings = resolve_settings(data=data, api_url=connection.api_url)
    return _shared((settings.data, settings.api_url, None), lambda: Session(settings))


def _shared(key: tuple[Path, str | None, str | None], opened: Callable[[], Session]) -> Session:
    with _lock:
        if key not in _sessions:
            _sessions[key] = opened()
            atexit.register(_sessions[key].close)
        return _sessions[key]


def _default_folder() -> Path:
    return default_data_folder().expanduser().absolute()


def share_session(session: Session) -> None:
    """Let tasks in this process use this session. Its opener closes it."""
    with _lock:
        _sessions[session.settings.data, session.settings.api_url, None] = session


class _BlockSession(Session):
    """A session whose client is the block's."""

    def __init__(self, data: Path, name: str, credentials: CrucibleCredentials) -> None:
        key = credentials.api_key.get_secret_value()
        super().__init__(Settings(data, credentials.url, key, source=f"block {name}"))
        self.credentials = credentials

    def _connect(self) -> CrucibleClient:
        return self.credentials.get_client(self.settings.data / "uploads")


def _block(name: str) -> CrucibleCredentials:
    try:
        return CrucibleCredentials.load(name, _sync=True)  # type: ignore[call-arg, return-value]  # also in an async flow
    except (ValueError, PrefectException) as error:
        raise InputError(
            f"there is no usable block crucible-credentials/{name} at this Prefect server: {error}\n"
            "create one in its UI, or correct the name"
        ) from error


def is_transient(task: Task[..., Any], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (Prefect's signature)
    """Return whether a failed call may succeed when repeated."""
    return isinstance(_error_of(state), TRANSIENT)


REPEATED: JsonObject = {
    "cache_policy": NO_CACHE,  # Crucible, not a cache, knows what exists
    "retries": 3,
    "retry_delay_seconds": [1, 5, 20],
    "retry_condition_fn": is_transient,
}
"""Options of tasks that call Crucible."""


def run_ids() -> dict[str, str]:
    """Return engine, flow run and task run of a step that Prefect executes now, for its record."""
    ids = {"flow_run_id": str(flow_run.get_id() or ""), "task_run_id": str(task_run.get_id() or "")}
    return {"engine": "prefect", **ids}


def is_worth_a_retry(task: Task[..., Any], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (likewise)
    """Return whether a step with retries is to be retried: not if it cannot succeed, nor if its run was stopped."""
    from crucible_lineage.pipeline.engines.local import is_worth_another  # most tasks make no steps

    error = _error_of(state)
    return error is not None and is_worth_another(error)


def _error_of(state: State[object]) -> Exception | None:
    try:
        state.result()
    except Exception as error:
        return error
    return None


# ---------------------------------------------------------------- tasks for steps of the API

P = ParamSpec("P")
R = TypeVar("R")

# Task runs with the same request, by flow run, its attempt, and the digest of the request.
_calls: dict[tuple[str, int, str], list[str]] = {}


class ApiTask(Task[P, R]):
    """A Prefect task whose `map` passes the same connection or block to every run. `settings` made it."""

    settings: JsonObject

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
    settings: JsonObject = {**REPEATED, "task_run_name": run_name, "log_prints": None, **options}

    def decorate(function: Callable[P, R]) -> ApiTask[P, R]:
        made = ApiTask(function, **settings)
        made.settings = settings
        return made

    return decorate


def asynchronous(sync: ApiTask[P, R]) -> ApiTask[P, Coroutine[Any, Any, R]]:
    """Return an awaitable version of a task. It runs in a thread, so the event loop is not blocked."""
    function = sync.fn

    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(function, *args, **kwargs)

    run.__name__ = run.__qualname__ = f"a{function.__name__}"
    return ApiTask(run, **sync.settings)


def words(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return a tuple of strings; a single string becomes a tuple of one."""
    return (value,) if isinstance(value, str) else tuple(value)


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
    plain = to_jsonable_python(dict(arguments), fallback=str)
    request = hashlib.sha256(canonical_json([kind, context.task.task_key, plain])).hexdigest()
    flow = FlowRunContext.get()
    if flow is None or flow.flow_run is None or flow.detached:  # on another machine, calls are not counted
        return _mfid([str(task_run.id), request], task_run.created)
    call = (str(flow.flow_run.id), flow.flow_run.run_count, request)
    with _lock:
        callers = _calls.setdefault(call, [])
        if str(task_run.id) not in callers:  # a retried task run keeps its index
            callers.append(str(task_run.id))
        parts = [call[0], request, callers.index(str(task_run.id))]
    return _mfid(parts, flow.flow_run.created or task_run.created)


def _mfid(parts: list[Any], moment: datetime | None) -> str:
    return mfid_of_content(canonical_json(parts), time_bits(moment or datetime.now(UTC)), version=7)
