"""Task runs of a registering flow, seen at the places where Prefect's engines call the function of a task.

Prefect resolves the arguments, knows by `task_inputs` which task run's result an argument holds, and whether its cache
answers. The hooks pass every other call on unchanged. With a task that is sent to another process go the destination of
its results, the task runs behind its arguments and its code; whoever unpickles them installs the hooks there.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from typing import Any
from uuid import UUID

import prefect
from prefect import Flow, Task, task_engine
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import EngineContext, FlowRunContext
from prefect.futures import PrefectFuture
from prefect.results import ResultRecord  # type: ignore[attr-defined]  # from a private module
from prefect.task_engine import AsyncTaskRunEngine, SyncTaskRunEngine
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import BaseAnnotation

from crucible_lineage.errors import InputError, OnHoldError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.opened import Effects, OpenedFiles, watching
from crucible_lineage.tasks.arguments import Arguments, Runs
from crucible_lineage.tasks.dataset import TaskResult, link_cached, record_result, require_free
from crucible_lineage.tasks.lineage import code_of, options_of
from crucible_lineage.tasks.recording import Recording, current, is_recording, sent_by, sent_with, warn
from crucible_lineage.text.masking import masked_text

MOST_FUTURES = 10_000  # in one argument
OWN = "crucible_lineage."  # modules whose tasks register what they make themselves
ENGINES = (SyncTaskRunEngine, AsyncTaskRunEngine)
PARAMETERS = {"call_task_fn": ["self", "transaction"], "handle_success": ["self", "result", "transaction"]}

_NOTHING = object()


@functools.cache
def install() -> None:
    """Put the hooks into this process. Raises InputError if Prefect's engines lack a place for one."""
    require_places()
    for (owner, name), hook in HOOKS.items():
        _replace(owner, name, hook)
    Task.__getstate__ = _with_code  # type: ignore[assignment, method-assign]


def require_places() -> None:
    """Raise InputError if Prefect has no place for one of the hooks."""
    for owner, name in HOOKS:
        place = getattr(owner, name, None)
        found = list(inspect.signature(place).parameters) if callable(place) else None
        if found is None or PARAMETERS.get(name, found) != found:
            raise InputError(
                f"registering cannot see the tasks of Prefect {prefect.__version__}: {owner.__name__} has no place "
                f"{name} like that of 3.9. Nothing was run; install a Prefect that this release is tested with"
            )


def _replace(owner: Any, name: str, hook: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(hook(original)))


# ---------------------------------------------------------------- around a run


def _starting(start: Any) -> Any:
    """Note the task runs behind the arguments before the engine resolves futures."""

    def started(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _may_record(self):
            sent = kwargs.get("dependencies") or {}
            named = by_name(inspect.signature(self.task.fn), self.parameters or {})
            self.crucible_given = futures_in(named) or _ids(sent, lambda run: isinstance(run, GivenRun))
            self.crucible_enclosing = _ids(sent, lambda run: type(run) is TaskRunResult)
        return start(self, *args, **kwargs)

    return started


class GivenRun(TaskRunResult):
    """A task run whose future is an argument, as it goes to another process with Prefect's dependencies."""


def _ids(inputs: Mapping[str, Iterable[Any]], is_meant: Callable[[object], bool]) -> Runs:
    return {name: tuple(str(run.id) for run in runs if is_meant(run)) for name, runs in inputs.items()}


def futures_in(parameters: Mapping[str, Any]) -> Runs:
    """Return the task runs whose futures or states are among the arguments."""
    found = {name: tuple(dict.fromkeys(_task_runs(value))) for name, value in parameters.items()}
    return {name: runs for name, runs in found.items() if runs}


def _task_runs(value: object, depth: int = 4) -> Iterator[str]:
    """Yield the task runs whose futures or states are in the value."""
    if isinstance(value, PrefectFuture):
        yield str(value.task_run_id)
    elif isinstance(value, State):
        if value.state_details.task_run_id:
            yield str(value.state_details.task_run_id)
    elif isinstance(value, BaseAnnotation):
        yield from _task_runs(value.unwrap(), depth)
    elif depth and isinstance(value, (list, tuple, set, dict)) and len(value) <= MOST_FUTURES:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _task_runs(item, depth - 1)


def _may_record(engine: Any) -> bool:
    return is_recording() or sent_with(engine.context) is not None


def _begin(engine: Any) -> TaskCall | Exception | None:
    """Begin to record a run. Returns the error that it must fail with, if any.

    None if its flow registers nothing, the task registers what it makes itself, or it cannot be recorded (a warning).
    """
    if (getattr(engine.task.fn, "__module__", None) or "").startswith(OWN):
        return None
    recording = None
    try:
        recording = current(sent_with(engine.context))
        if recording is None:
            return None
        call = TaskCall(engine, recording)
        require_free(call.result)
    except Exception as error:
        if recording is None or recording.destination.strict or isinstance(error, OnHoldError):
            return error
        warn("the run of %s is not recorded: %s: %s", engine.task.name, type(error).__name__, error)
        return None
    engine.task.__dict__.get("crucible_calls", []).append(call)
    return call


def _within(run_context: Any) -> Any:
    """Trace and store outside of what Prefect limits in time."""

    @contextmanager
    def within(self: Any) -> Iterator[Any]:
        self.crucible_call = call = _begin(self) if _may_record(self) else None
        with run_context(self) as engine:
            yield engine
        if isinstance(call, TaskCall):
            call.end()

    return within


def _within_async(run_context: Any) -> Any:
    @asynccontextmanager
    async def within(self: Any) -> AsyncIterator[Any]:  # hashing and requests do not block the event loop
        self.crucible_call = call = await asyncio.to_thread(_begin, self) if _may_record(self) else None
        async with run_context(self) as engine:
            yield engine
        if isinstance(call, TaskCall):
            await asyncio.to_thread(call.end)

    return within


# ---------------------------------------------------------------- a call


class TaskCall:
    """A call between its begin, before Prefect limits its time, and its end, when it has been stored."""

    def __init__(self, engine: Any, recording: Recording) -> None:
        task, run = engine.task, engine.task_run
        options = options_of(task)
        ignored = options.pop("ignore", ())
        signature = inspect.signature(task.fn)
        bound = by_name(signature, engine.parameters or {})
        named = {name: value for name, value in bound.items() if name not in ignored}
        arguments = Arguments(recording, task.name)
        arguments.defaults = frozenset(
            name for name, known in signature.parameters.items() if named.get(name, signature) is known.default
        )
        given, enclosing = getattr(engine, "crucible_given", {}), getattr(engine, "crucible_enclosing", {})
        arguments.trace(named, given, enclosing, [asset.key for asset in task.asset_deps])
        assets = [masked_text(asset.key) for asset in getattr(task, "assets", ())]
        declared = Effects(addresses=assets, fields=options)
        self.result = TaskResult(
            task=task.name,
            code=code_of(task),
            recording=recording,
            arguments=arguments,
            run={"flow_run_id": str(run.flow_run_id or ""), "task_run_id": str(run.id)},
            opened=OpenedFiles(tuple(arguments.paths.values()), declared, is_local=recording.owner),
        )
        self._returned: Any = _NOTHING

    def returned(self, value: Any, transaction: Any) -> None:
        """Take what the function, or Prefect's cache, has returned; in a strict flow, record it at once."""
        self._returned, is_cached = value, transaction.is_committed()
        self.result.opened.is_over = True
        key = (transaction.key or "") if transaction.write_on_commit or is_cached else ""
        self.result = replace(self.result, key=key, is_cached=is_cached)
        if not is_cached and transaction.get_parent() is not None:
            hook = functools.partial(_note_rollback, self.result.task)
            hook.log_on_run = False  # type: ignore[attr-defined]
            transaction.on_rollback_hooks.append(hook)
        if self.result.recording.destination.strict:
            self.end()

    def end(self) -> None:
        """Record what was returned, if anything was."""
        value, self._returned = self._returned, _NOTHING
        if value is not _NOTHING:
            self.record(value)

    def record(self, returned: Any, output: str = "out") -> None:
        """Record what the call has returned or, as an `output`, one of the items that it yields."""
        if isinstance(returned, State) and not returned.is_completed():
            return
        value = returned.data if isinstance(returned, State) else returned
        value = value.result if isinstance(value, ResultRecord) else value
        try:
            store = link_cached if self.result.is_cached else record_result
            store(replace(self.result, output=output), value)
        except Exception as error:
            if self.result.recording.destination.strict:
                raise
            warn("the result of %s is not recorded: %s: %s", self.result.task, type(error).__name__, error)


def _note_rollback(name: str, _: object) -> None:
    warn("the result of %s stays registered, though its transaction was rolled back", name)


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


# ---------------------------------------------------------------- where the function is called


def _required(call: TaskCall | Exception | None, transaction: Any = None) -> TaskCall | None:
    """Return the call; None if none is recorded. Raises the error that it must fail with, unless it is cached."""
    if not isinstance(call, Exception):
        return call
    if transaction is None or not transaction.is_committed():
        raise call
    return None


def _watched(call: TaskCall | None) -> AbstractContextManager[None]:
    return watching(call.result.opened) if call else nullcontext()


def _calling(call_task_fn: Any) -> Any:
    def called(self: Any, transaction: Any) -> Any:
        with _watched(_required(getattr(self, "crucible_call", None), transaction)):
            return call_task_fn(self, transaction)

    return called


def _awaiting(call_task_fn: Any) -> Any:
    async def called(self: Any, transaction: Any) -> Any:
        with _watched(_required(getattr(self, "crucible_call", None), transaction)):
            return await call_task_fn(self, transaction)

    return called


def _succeeding(handle_success: Any) -> Any:
    """Let the call take what the engine hands on as the result of the function; a generator's items were recorded."""

    def succeeded(self: Any, result: Any, transaction: Any) -> Any:
        call = getattr(self, "crucible_call", None)  # none if the task began before the hooks were there
        if isinstance(call, TaskCall) and "crucible_calls" not in vars(self.task):
            call.returned(result, transaction)
        return handle_success(self, result, transaction=transaction)

    return succeeded


def _generating(wrapped: Callable[..., Any], run_generator: Any) -> Any:
    """Record each item of a generator as a result of its own; Prefect's engine calls the function itself."""

    def run(task: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_recording():
            return run_generator(task, *args, **kwargs)
        copied = copy(task)
        copied.crucible_calls = calls = []  # type: ignore[var-annotated]  # the one that the engine has begun
        copied.fn = functools.update_wrapper(wrapped(task.fn, calls), task.fn)
        return run_generator(copied, *args, **kwargs)

    return run


def _yielding(function: Callable[..., Any], calls: list[TaskCall | Exception | None]) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        call = _required(calls[-1])
        generator = function(*args, **kwargs)
        for number in itertools.count():
            try:
                with _watched(call):
                    item = next(generator)
            except StopIteration as end:
                return end.value
            if call is not None:
                call.record(item, f"item {number}")
            try:
                yield item
            except GeneratorExit:
                generator.close()
                raise

    return called


def _yielding_async(function: Callable[..., Any], calls: list[TaskCall | Exception | None]) -> Any:
    async def called(*args: Any, **kwargs: Any) -> Any:
        call = _required(calls[-1])
        items = aiter(function(*args, **kwargs))
        for number in itertools.count():
            try:
                with _watched(call):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            if call is not None:
                await asyncio.to_thread(call.record, item, f"item {number}")
            yield item

    return called


def _validating(validate: Any) -> Any:
    """Know the parameters of a subflow again, which Prefect copies where it checks them."""

    def validated(self: Any, parameters: Mapping[str, Any]) -> Any:
        copies = validate(self, parameters)
        if is_recording() and FlowRunContext.get() is not None and (recording := current()) is not None:
            for name, copied in copies.items():
                recording.origins.note_copy(parameters.get(name), copied)
        return copies

    return validated


# ---------------------------------------------------------------- what goes to other processes


def note_sent_by(runner: object) -> None:
    """Let a task runner send the task runs behind the arguments along, if its tasks run in other processes."""
    kind: Any = type(runner)
    if not isinstance(runner, ThreadPoolTaskRunner) and not hasattr(kind.submit, "crucible_sends"):
        _replace(kind, "submit", _sending)
        kind.submit.crucible_sends = True


def _sending(submit: Any) -> Any:
    def sent(self: Any, task: Any, parameters: Any, *args: Any, dependencies: Any = None, **kwargs: Any) -> Any:
        if is_recording():
            given = {name: {GivenRun(id=UUID(run)) for run in runs} for name, runs in futures_in(parameters).items()}
            known = dependencies or {}
            dependencies = {name: {*known.get(name, ()), *given.get(name, ())} for name in {**known, **given}}
        return submit(self, task, parameters, *args, dependencies=dependencies, **kwargs)

    return sent


def _serializing(serialize: Any) -> Any:
    def serialized(self: Any, *args: Any, **kwargs: Any) -> Any:
        fields = serialize(self, *args, **kwargs)
        recording = current() if is_recording() else None
        if recording is None or fields.get("flow") is None:
            return fields
        recording.share()
        return {**fields, "flow": sent_by(fields["flow"], recording.destination)}

    return serialized


def _with_code(task: Task[..., Any]) -> dict[str, Any]:
    """Return the state of a task for a pickle; with its code, which may not be readable in another process."""
    state = vars(task)
    return {**state, "crucible_code": code_of(task)} if is_recording() and "fn" in state else state


HOOKS: dict[tuple[Any, str], Callable[[Any], Any]] = {
    **{(engine, "start"): _starting for engine in ENGINES},
    **{(engine, "handle_success"): _succeeding for engine in ENGINES},
    (SyncTaskRunEngine, "run_context"): _within,
    (AsyncTaskRunEngine, "run_context"): _within_async,
    (SyncTaskRunEngine, "call_task_fn"): _calling,
    (AsyncTaskRunEngine, "call_task_fn"): _awaiting,
    (task_engine, "run_generator_task_sync"): functools.partial(_generating, _yielding),
    (task_engine, "run_generator_task_async"): functools.partial(_generating, _yielding_async),
    (EngineContext, "serialize"): _serializing,
    (Flow, "validate_parameters"): _validating,
}
"""The places in Prefect, and what is put around them."""
