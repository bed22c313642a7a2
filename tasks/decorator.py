"""Prefect's `task` with all its options and methods; in a flow that is `registering`, results become datasets.

Failures to record never stop a flow (unless it is strict): they are warnings in the log of the task's run.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import PrefectFuture
from prefect.results import ResultRecord  # type: ignore[attr-defined]  # from a private module
from prefect.task_engine import AsyncTaskRunEngine, SyncTaskRunEngine, TaskRunTimeoutError
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.transactions import TransactionState, get_transaction
from prefect.utilities.annotations import allow_failure, opaque, quote, unmapped
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.timeout import timeout, timeout_async

from crucible_lineage.errors import OnHoldError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.tasks.arguments import ArgumentTrace, trace_arguments
from crucible_lineage.tasks.dataset import TaskResult, require_free
from crucible_lineage.tasks.description import OURS, TaskCode, TaskDescription, describe_task, task_code
from crucible_lineage.tasks.files import OpenedFiles, watched
from crucible_lineage.tasks.lineage import Effects, declaring
from crucible_lineage.tasks.recording import Destination, Recording, current, run_logger, warn
from crucible_lineage.tasks.results import link_cached, record_result, reuse_result

P = ParamSpec("P")
R = TypeVar("R")

MOST_FUTURES = 10_000  # in one argument


@dataclass(frozen=True)
class Call:
    """One call of a task, as sent to where it runs: the results' destination and the task runs behind its arguments.

    `code` is that of its function, if the call is sent to another process. `runs` returned the arguments; for `map`,
    those `among` returned one argument each, and `mapped` lists of which the arguments are items.
    """

    description: TaskDescription
    destination: Destination | None = None
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    among: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mapped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: TaskCode | None = None
    limit_s: float | None = None


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
            return Task.__call__(self._recorded(args, kwargs), *args, **kwargs)

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            """Submit the task as Prefect does, with its result recorded."""
            return Task.submit(self._recorded(args, kwargs, is_sent=True), *args, **kwargs)

        def map(self, *args: Any, **kwargs: Any) -> Any:
            """Map the task as Prefect does, with its results recorded."""
            return Task.map(self._recorded(args, kwargs, is_sent=True, is_mapped=True), *args, **kwargs)

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            """Send the task to a task worker as Prefect does, once that can find the results that it is given."""
            if (recording := current()) is not None:
                recording.share()
            return Task.apply_async(self, *args, **kwargs)

    def _recorded(
        self, args: tuple[Any, ...], kwargs: JsonObject, *, is_sent: bool = False, is_mapped: bool = False
    ) -> LineageTask[P, R]:
        """Return a copy for one call that carries the result's destination and the task runs behind its arguments."""
        recording = current()
        if recording is None:
            return self
        call_kwargs = {name: value for name, value in kwargs.items() if name not in ("return_state", "wait_for")}
        if is_mapped:
            call_kwargs.pop("deferred", None)
        named = by_name(inspect.signature(self.fn), get_call_parameters(self.fn, args, call_kwargs))
        runs: dict[str, tuple[str, ...]] = {}
        among: dict[str, tuple[str, ...]] = {}
        mapped: dict[str, tuple[str, ...]] = {}
        for name, value in named.items():
            is_static = not is_mapped or isinstance(value, unmapped)
            kind = runs if is_static else mapped if isinstance(value, (PrefectFuture, State)) else among
            if found := tuple(dict.fromkeys(_task_runs(value))):
                kind[name] = found
        function, running = _function_of(self.fn), FlowRunContext.get()
        code = None
        if is_sent and running is not None and not isinstance(running.task_runner, ThreadPoolTaskRunner):
            recording.origins.share()
            code = task_code(function)
            _ = code.git  # read here, for other machines
        copied = copy(self)
        call = Call(
            self.task_description,
            recording.destination,
            runs,
            among,
            mapped,
            code,
            None if self.isgenerator else self.timeout_seconds,
        )
        if call.limit_s is not None:
            copied.timeout_seconds = None  # the call enforces it, so that tracing and storing do not count
        if get_transaction() is not None and TaskRunContext.get() is None:
            copied.on_rollback_hooks = [*self.on_rollback_hooks, functools.partial(_note_rollback, self.name)]
        copied.fn = _wrapped(function, self.fn, call)
        return copied


def _function_of(fn: Any) -> Callable[..., Any]:
    """Return the user's function inside our wrapper."""
    function: Callable[..., Any] = fn.__crucible_function__
    return function


def _note_rollback(name: str, _: object) -> None:
    run_logger().warning("the result of %s stays registered, though its transaction was rolled back", name)


def by_name(signature: inspect.Signature, arguments: Mapping[str, Any]) -> JsonObject:
    """Return the arguments by name, with those of *args and **kwargs under names of their own."""
    named: JsonObject = {}
    for name, value in arguments.items():
        kind = signature.parameters[name].kind if name in signature.parameters else None
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}[{index}]": item for index, item in enumerate(value)}
        else:
            named[name] = value
    return named


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


# ---------------------------------------------------------------- one call


def _wrapped(function: Callable[..., Any], like: object, call: Call) -> Any:
    """Wrap a function with recording, keeping its kind and Prefect's notes on the wrapper `like`."""
    if inspect.isasyncgenfunction(function):
        wrapper = _yielding_async(function, call)
    elif inspect.isgeneratorfunction(function):
        wrapper = _yielding(function, call)
    elif inspect.iscoroutinefunction(function):
        wrapper = _awaiting(function, call)
    else:
        wrapper = _calling(function, call)
    functools.update_wrapper(wrapper, function)
    wrapper.__dict__.update({name: value for name, value in vars(like).items() if name.startswith("__prefect_")})
    wrapper.__prefect_task_source__ = function
    wrapper.__crucible_function__ = function
    wrapper.__crucible_call__ = call
    return wrapper


def _calling(function: Callable[..., Any], call: Call) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        run = _begin(function, call, args, kwargs)
        if run is not None and run.reused is not None:
            return run.reused[0]
        with _limited(call), _watched(run):
            result = function(*args, **kwargs)
        if run is not None:
            run.end(result)
        return result

    return called


def _awaiting(function: Callable[..., Any], call: Call) -> Any:
    async def called(*args: Any, **kwargs: Any) -> Any:  # hashing and requests do not block the event loop
        run = await asyncio.to_thread(_begin, function, call, args, kwargs)
        if run is not None and run.reused is not None:
            return run.reused[0]
        with _limited(call, timeout_async), _watched(run):
            result = await function(*args, **kwargs)
        if run is not None:
            await asyncio.to_thread(run.end, result)
        return result

    return called


def _yielding(function: Callable[..., Any], call: Call) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:  # each item is a result of its own
        run = _begin(function, call, args, kwargs, many=True)
        generator = function(*args, **kwargs)
        for number in itertools.count():
            try:
                with _watched(run):
                    item = next(generator)
            except StopIteration as end:
                return end.value
            if run is not None:
                run.end(item, number)
            try:
                yield item
            except GeneratorExit:
                generator.close()
                raise

    return called


def _yielding_async(function: Callable[..., Any], call: Call) -> Any:
    async def called(*args: Any, **kwargs: Any) -> Any:
        run = await asyncio.to_thread(_begin, function, call, args, kwargs, many=True)
        items = aiter(function(*args, **kwargs))
        for number in itertools.count():
            try:
                with _watched(run):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            if run is not None:
                await asyncio.to_thread(run.end, item, number)
            yield item

    return called


class _Run:
    """A call that is being recorded. `reused` holds an earlier result, if that is used instead of running."""

    def __init__(self, function: Callable[..., object], call: Call, recording: Recording, bound: JsonMapping) -> None:
        within, running = FlowRunContext.get(), TaskRunContext.get()
        if within is not None and within.flow_run and within.flow_run.parent_task_run_id:
            recording.origins.note_copies(str(within.flow_run.id), (within.parameters or {}).values())
        signature = inspect.signature(function)
        named = by_name(signature, bound)
        trace = ArgumentTrace(call.runs, call.among, call.mapped, running.task_run.task_inputs if running else {})
        arguments = trace_arguments(named, trace, recording, call.description)
        arguments.defaults = frozenset(
            name for name, known in signature.parameters.items() if named.get(name, signature) is known.default
        )
        self.effects = Effects()
        self.reused: tuple[Any] | None = None
        self.result = TaskResult(
            code=call.code or task_code(function),
            description=call.description,
            recording=recording,
            arguments=arguments,
            logger=run_logger(),
            flow_run_id=str(running.task_run.flow_run_id or "") if running else "",
            task_run_id=str(running.task_run.id) if running else "",
            opened=OpenedFiles(tuple(arguments.paths.values()), is_local=recording.owner),
        )

    def reuse(self) -> None:
        """Look up a result of an equal call, if reuse is enabled."""
        if not self.result.reuses:
            return
        self.reused = reuse_result(self.result)
        if self.reused is not None:
            self.result.recording.reused += 1
            if (transaction := get_transaction()) is not None:
                transaction.state = TransactionState.COMMITTED  # shown as Cached

    def end(self, returned: object, number: int | None = None) -> None:
        """Record what the call has returned, or else what it has changed."""
        value = returned.data if isinstance(returned, State) else returned
        if isinstance(returned, State) and not returned.is_completed():
            return
        try:
            result = self.result.ended(self.effects, number, _cache_key())
            is_recorded = record_result(result, value)
            if not is_recorded and value is None and (changed := result.arguments.changed_objects(result.recording)):
                record_result(result, next(iter(changed.values())) if len(changed) == 1 else changed)
        except Exception as error:
            if self.result.recording.destination.strict:
                raise
            name = self.result.description.name
            warn("the result of %s is not recorded: %s: %s", name, type(error).__name__, error)


def _begin(function: Callable[..., Any], call: Call, args: Any, kwargs: Any, *, many: bool = False) -> _Run | None:
    """Begin to record a call; None if nothing registers, or if it cannot be recorded, with a warning."""
    if call.destination is None and not _is_called_by_prefect(call):
        return None
    recording = current(call.destination)
    if recording is None:
        return None
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        run = _Run(function, call, recording, bound.arguments)
        if not many:
            run.reuse()
        if run.reused is None:
            require_free(run.result)
        return run
    except Exception as error:
        if recording.destination.strict or isinstance(error, OnHoldError):
            raise
        warn("the run of %s is not recorded: %s: %s", call.description.name, type(error).__name__, error)
        return None


def _is_called_by_prefect(call: Call) -> bool:
    """Whether Prefect runs the task itself, as in a worker of delayed tasks; False if `fn` is called directly."""
    running = TaskRunContext.get()
    return running is not None and getattr(running.task.fn, "__crucible_call__", None) is call


def _cache_key() -> str:
    """Return the key under which Prefect stores the result of this run; empty if it does not."""
    transaction, running = get_transaction(), TaskRunContext.get()
    is_stored = transaction is not None and running is not None and running.persist_result
    return (transaction.key or "") if transaction is not None and is_stored else ""


@contextmanager
def _watched(run: _Run | None) -> Iterator[None]:
    """Attribute files opened and effects declared in this block to the call."""
    with watched(run.result.opened if run else None), declaring(run.effects if run else None):
        yield


@contextmanager
def _limited(call: Call, limit: Any = timeout) -> Iterator[None]:
    """Apply the time limit of the task to its function alone."""
    if call.limit_s is not None and limit is timeout and threading.current_thread() is not threading.main_thread():
        run_logger().warning(
            "the limit of %s s does not interrupt what blocks in a worker thread (sleep, network, files); it takes "
            "effect after that",
            call.limit_s,
        )
    try:
        with limit(call.limit_s, TaskRunTimeoutError):
            yield
    except TaskRunTimeoutError:
        if (running := TaskRunContext.get()) is not None:
            running.task.timeout_seconds = call.limit_s  # for Prefect's message
        raise


# ---------------------------------------------------------------- results from Prefect's cache


def _link_cached_results() -> None:
    """Let Prefect's engines link a value that its cache has to the dataset of it."""
    call_sync, call_async = SyncTaskRunEngine.call_task_fn, AsyncTaskRunEngine.call_task_fn

    @functools.wraps(call_sync)
    def linking(self: Any, transaction: Any) -> Any:
        is_cached = transaction.is_committed()
        result = call_sync(self, transaction)
        if is_cached:
            _link(self, transaction.key, result)
        return result

    @functools.wraps(call_async)
    async def linking_async(self: Any, transaction: Any) -> Any:
        is_cached = transaction.is_committed()
        result = await call_async(self, transaction)
        if is_cached:
            await asyncio.to_thread(_link, self, transaction.key, result)
        return result

    SyncTaskRunEngine.call_task_fn = linking  # type: ignore[method-assign]
    AsyncTaskRunEngine.call_task_fn = linking_async  # type: ignore[method-assign]


_link_cached_results()


def _link(engine: Any, key: str, result: Any) -> None:
    call: Call | None = getattr(engine.task.fn, "__crucible_call__", None)
    recording = current(call.destination) if call is not None else None
    if call is None or recording is None:
        return
    try:
        run = _Run(_function_of(engine.task.fn), call, recording, engine.parameters)
        link_cached(run.result, result.result if isinstance(result, ResultRecord) else result, key)
    except Exception as error:
        name = call.description.name
        warn("the value in Prefect's cache for %s is not linked: %s: %s", name, type(error).__name__, error)


# ---------------------------------------------------------------- the decorator


@overload
def task(function: Callable[P, R], /, **options: Any) -> LineageTask[P, R]: ...
@overload
def task(function: Literal[None] = None, /, **options: Any) -> Callable[[Callable[P, R]], LineageTask[P, R]]: ...
def task(function: Callable[P, R] | None = None, /, **options: object) -> Any:
    """Make a function a Prefect task, with Prefect's options; in a flow that is `registering`, with lineage.

    Our options: `measurement`, `data_type`, `keywords` and `metadata` describe the datasets of the results,
    `dataset_name` is a template of the arguments' names, `project` overrides the flow's. With `reuse`, an existing
    result of the same arguments and code is used instead of running (default: the setting of `registering`);
    `code_version` replaces the fingerprint of the code; with `ingest` Crucible reads the files.

    Effects: `reads` and `writes` name the arguments that files are read from and written to (`reads` patterns of file
    names too); arguments in `ignore` are not recorded.
    """
    ours = {name: value for name, value in options.items() if name in OURS and value is not None}
    prefects: dict[str, Any] = {"log_prints": None, **{k: v for k, v in options.items() if k not in OURS}}

    def decorate(wrapped: Callable[P, R]) -> LineageTask[P, R]:
        name = str(prefects.get("name") or getattr(wrapped, "__name__", type(wrapped).__name__))
        return LineageTask(wrapped, task_description=describe_task(name, ours), **prefects)

    return decorate if function is None else decorate(function)
