"""Prefect's `task` with all its options and methods; in a flow that is `registering`, results become datasets."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.transactions import get_transaction
from prefect.utilities.annotations import allow_failure, opaque, quote, unmapped
from prefect.utilities.callables import get_call_parameters

from crucible_lineage.json_types import JsonMapping
from crucible_lineage.tasks.dropin.description import (
    OURS,
    Named,
    TaskCode,
    TaskDescription,
    describe_task,
    link_cache_hits,
    task_code,
)
from crucible_lineage.tasks.dropin.recording import PendingResult, Recording, current
from crucible_lineage.tasks.dropin.running import CacheHit, Call, by_name

P = ParamSpec("P")
R = TypeVar("R")

MOST_FUTURES = 10_000  # in one argument


class LineageTask(Task[P, R]):
    """A Prefect task whose results are registered if its flow is `registering`; elsewhere a plain Prefect task.

    Calling its `fn` directly calls the plain function: a test of it needs neither Prefect nor Crucible.
    """

    def __init__(self, fn: Any, *, task_description: TaskDescription | None = None, **options: Any) -> None:
        bound: Any = fn if isinstance(fn, (classmethod, staticmethod)) else None
        function = bound.__func__ if bound else fn
        name = str(options.get("name") or getattr(function, "__name__", type(function).__name__))
        self.task_description = task_description or TaskDescription(name)
        if not inspect.isroutine(function):  # an object that can be called
            function = function.__call__
        wrapped = getattr(function, "__crucible_function__", function)
        recorded = _wrapped(wrapped, wrapped, Call(self.task_description))
        super().__init__(type(bound)(recorded) if bound else recorded, **{**options, "name": name})
        self.task_key = Task(wrapped).task_key  # releases before 3.9 read it from the wrapper

    def with_options(self, **options: Any) -> LineageTask[P, R]:
        """Return a copy with these options of Prefect and of ours."""
        ours = {name: options.pop(name) for name in OURS & options.keys()}
        copied = super().with_options(**options)
        copied.__class__ = type(self)
        assert isinstance(copied, LineageTask)
        copied.task_description = describe_task(copied.name, ours, self.task_description)
        copied.fn = _wrapped(_function_of(self.fn), self.fn, Call(copied.task_description))
        copied.task_key = self.task_key
        return copied

    if not TYPE_CHECKING:  # calls are typed as Prefect's

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call the task as Prefect does, with its result recorded."""
            recording = current()
            if recording is None:
                return super().__call__(*args, **kwargs)
            call_kwargs = {name: value for name, value in kwargs.items() if name not in ("return_state", "wait_for")}
            parameters = get_call_parameters(self.fn, args, call_kwargs)
            return Task.__call__(self.recorded(recording, parameters), *args, **kwargs)

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            """Submit the task as Prefect does, with its result recorded."""
            recording = current()
            with _delegating(recording):
                return super().submit(*args, **kwargs)

        def map(self, *args: Any, **kwargs: Any) -> Any:
            """Map the task as Prefect does, with its results recorded."""
            recording = current()
            with _delegating(recording):
                return super().map(*args, **kwargs)

    def recorded(
        self,
        recording: Recording,
        parameters: Mapping[str, object],
        code: TaskCode | None = None,
        mapped: Mapping[str, tuple[str, ...]] | None = None,
    ) -> LineageTask[P, R]:
        """Return a copy for one call that carries the result's destination and the task runs behind its arguments.

        `mapped` are the task runs of whose results its arguments are items.
        """
        futures = _runs_in(by_name(inspect.signature(self.fn), parameters))
        function = _function_of(self.fn)
        is_timed = self.timeout_seconds is not None and not self.isgenerator
        limit = self.timeout_seconds if is_timed else None
        held = PendingResult() if get_transaction() is not None and TaskRunContext.get() is None else None
        call = Call(self.task_description, recording.destination, futures, code, mapped or {}, limit, held)
        copied = copy(self)
        if held is not None:
            copied.on_commit_hooks = [*self.on_commit_hooks, held.commit]
            copied.on_rollback_hooks = [*self.on_rollback_hooks, held.roll_back]
        copied.__class__ = _TimedTask if is_timed else LineageTask
        copied.fn = _wrapped(function, self.fn, call)
        policy: Any = link_cache_hits(self, CacheHit(function, call))
        copied.cache_policy = policy
        return copied


class _TimedTask(LineageTask[P, R]):
    """The copy of a task for one call. The call enforces the time limit, so that tracing and storing do not count.

    Prefect reads the limit where it sets its own timer, and for the message of the attempt that exceeded it.
    """

    @property
    def timeout_seconds(self) -> float | None:
        running = TaskRunContext.get()
        exceeded = self.__dict__.get("exceeded")
        if running is None or exceeded is None or running.task_run.state is None:
            return None
        limit: float | None = self.__dict__["timeout_seconds"]
        return limit if exceeded == running.task_run.state.id else None

    @timeout_seconds.setter
    def timeout_seconds(self, value: float | None) -> None:
        self.__dict__["timeout_seconds"] = value


class _Delegating(TaskRunner[Any]):
    """A wrapper of the flow's runner that passes it the copy of a task made for the call."""

    def __init__(
        self, runner: TaskRunner[Any], recording: Recording, mapped: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runner = runner
        self.recording = recording
        self.mapped = mapped

    def duplicate(self) -> _Delegating:
        return _Delegating(self.runner.duplicate(), self.recording)

    def submit(self, task: Any, parameters: dict[str, Any], wait_for: Any = None, dependencies: Any = None) -> Any:
        if isinstance(task, LineageTask):
            is_here = isinstance(self.runner, ThreadPoolTaskRunner)
            code = None if is_here else task_code(_function_of(task.fn)).packed()
            task = task.recorded(self.recording, parameters, code, self.mapped)
        return self.runner.submit(task, parameters, wait_for, dependencies)

    def map(self, task: Any, parameters: dict[str, Any], wait_for: Any = None) -> Any:
        """Map as Prefect does, and keep the origin of futures: Prefect awaits them and passes on bare items."""
        single = {name: value for name, value in parameters.items() if not isinstance(value, (list, tuple, set, dict))}
        with _Delegating(self.runner, self.recording, _runs_in(single)) as delegating:
            return TaskRunner.map(delegating, task, parameters, wait_for)


@contextmanager
def _delegating(recording: Recording | None) -> Iterator[None]:
    """Submit tasks to the flow's runner through ours, within this block."""
    running = FlowRunContext.get()
    if recording is None or running is None or isinstance(running.task_runner, _Delegating):
        yield
        return
    if not isinstance(running.task_runner, ThreadPoolTaskRunner):
        recording.share()
    with _Delegating(running.task_runner, recording) as delegating:
        # the copy shares what Prefect counts in the original
        with running.model_copy(update={"task_runner": delegating}):
            yield


def _function_of(fn: Any) -> Callable[..., Any]:
    """Return the user's function inside our wrapper."""
    function: Callable[..., Any] = fn.__crucible_function__
    return function


def _wrapped(function: Callable[..., object], like: object, call: Call) -> Any:
    """Wrap a function with recording, keeping its kind and Prefect's notes on the wrapper `like`.

    The wrapper is pickled by value for other processes, so it imports what it needs and uses no globals.
    """
    wrapper: Any
    if inspect.isasyncgenfunction(function):

        async def yields_async(*args: object, **kwargs: object) -> Any:
            from crucible_lineage.tasks.dropin.running import run_async_generator

            async for item in run_async_generator(function, call, args, kwargs):
                yield item

        wrapper = yields_async
    elif inspect.isgeneratorfunction(function):

        def yields(*args: object, **kwargs: object) -> Any:
            from crucible_lineage.tasks.dropin.running import run_generator

            return (yield from run_generator(function, call, args, kwargs))

        wrapper = yields
    elif inspect.iscoroutinefunction(function):

        async def awaited(*args: object, **kwargs: object) -> Any:
            from crucible_lineage.tasks.dropin.running import run_async

            return await run_async(function, call, args, kwargs)

        wrapper = awaited
    else:

        def called(*args: object, **kwargs: object) -> Any:
            from crucible_lineage.tasks.dropin.running import run_sync

            return run_sync(function, call, args, kwargs)

        wrapper = called
    functools.update_wrapper(wrapper, function)
    wrapper.__dict__.update({name: value for name, value in vars(like).items() if name.startswith("__prefect_")})
    wrapper.__prefect_task_source__ = function
    wrapper.__crucible_function__ = function
    wrapper.__crucible_call__ = call
    return wrapper


def _runs_in(parameters: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    return {name: runs for name, value in parameters.items() if (runs := tuple(_task_runs(value)))}


def _task_runs(value: object, depth: int = 4) -> Iterator[str]:
    """Yield the task runs whose futures or states are in the value."""
    if isinstance(value, PrefectFuture):
        yield str(value.task_run_id)
    elif isinstance(value, State):
        if value.state_details.task_run_id:
            yield str(value.state_details.task_run_id)
    elif isinstance(value, (unmapped, allow_failure, opaque, quote)):
        yield from _task_runs(value.unwrap(), depth)
    elif depth and isinstance(value, (list, tuple, set, dict)) and len(value) <= MOST_FUTURES:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _task_runs(item, depth - 1)


@overload
def task(function: Callable[P, R], /, **options: Any) -> LineageTask[P, R]: ...
@overload
def task(
    function: Literal[None] = None,
    /,
    *,
    name: str | None = None,
    measurement: str | None = None,
    data_type: str | None = None,
    project: str | None = None,
    dataset_name: str | None = None,
    keywords: str | Sequence[str] = (),
    metadata: JsonMapping | None = None,
    code_version: str | None = None,
    reuse: bool | None = None,
    ingest: bool = False,
    reads: Named | None = None,
    writes: Named | None = None,
    parents: Named | None = None,
    ignore: Sequence[str] = (),
    **options: Any,
) -> Callable[[Callable[P, R]], LineageTask[P, R]]: ...
def task(function: Callable[P, R] | None = None, /, **options: object) -> Any:
    """Make a function a Prefect task, with Prefect's options; in a flow that is `registering`, with lineage.

    Our options: `measurement`, `data_type`, `keywords` and `metadata` describe the datasets of the results,
    `dataset_name` is a template of the arguments' names, `project` overrides the flow's. With `reuse`, an existing
    result of the same arguments and code is used instead of running (default: the setting of `registering`);
    `code_version` replaces the fingerprint of the code; with `ingest` Crucible reads the files.

    Effects: `reads` and `writes` name the arguments that files are read from and written to (`reads` patterns of file
    names too), or are functions of the arguments that return paths, ids or addresses; `parents` are ids, paths or
    addresses, or such a function; arguments in `ignore` are not recorded.
    """
    ours = {name: value for name, value in options.items() if name in OURS and value is not None}
    prefects: dict[str, Any] = {"log_prints": None, **{k: v for k, v in options.items() if k not in OURS}}

    def decorate(wrapped: Callable[P, R]) -> LineageTask[P, R]:
        name = str(prefects.get("name") or getattr(wrapped, "__name__", type(wrapped).__name__))
        return LineageTask(wrapped, task_description=describe_task(name, ours), **prefects)

    return decorate if function is None else decorate(function)
