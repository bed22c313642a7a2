"""Run and record a task's function: its arguments are traced, its result becomes a dataset.

Failures to record never stop a flow (unless it is strict): they are warnings in the log of the task's run.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import FlowRunContext, TaskRunContext
from prefect.task_engine import TaskRunTimeoutError
from prefect.transactions import TransactionState, get_transaction
from prefect.utilities.timeout import timeout, timeout_async

from crucible_lineage.errors import OnHoldError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.tasks.dropin.arguments import Arguments, ArgumentTrace, declared_inputs, trace_arguments
from crucible_lineage.tasks.dropin.description import TaskCode, TaskDescription, task_code
from crucible_lineage.tasks.dropin.effects import Effects, OpenedFiles, declaring, watched
from crucible_lineage.tasks.dropin.folders import files_at
from crucible_lineage.tasks.dropin.output_paths import learned_output_roles
from crucible_lineage.tasks.dropin.recording import Destination, PendingResult, Recording, current, run_logger, warn
from crucible_lineage.tasks.dropin.result import TaskResult, fingerprint, inputs_of
from crucible_lineage.tasks.dropin.results import link_cached, record_result, reuse_result


@dataclass(frozen=True)
class Call:
    """One call of a task, as sent to where it runs: the results' destination and the task runs behind its arguments.

    `code` is that of its function, if the call is sent to another process. `mapped` are the task runs of whose results
    its arguments are items.
    """

    description: TaskDescription
    destination: Destination | None = None
    futures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: TaskCode | None = None
    mapped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limit_s: float | None = None
    held: PendingResult | None = None


@dataclass(frozen=True)
class CacheHit:
    """Callback for a call whose result is in Prefect's cache."""

    function: Callable[..., Any]
    call: Call

    def __call__(self, context: TaskRunContext, key: str) -> None:
        """Link the cached value. Never raises: Prefect would ignore the key."""
        try:
            value = context.result_store.read(key).result
            run = _traced_run(self.function, self.call, current(self.call.destination), context.parameters)
            if run is not None:
                link_cached(run.result(), value, key)
        except Exception as error:
            name = self.call.description.name
            warn("the value in Prefect's cache for %s is not linked: %s: %s", name, type(error).__name__, error)


def run_sync(function: Callable[..., Any], call: Call, args: Any, kwargs: Any) -> Any:
    """Call the function."""
    run = _begin(function, call, args, kwargs)
    if run is not None and run.reused is not None:
        return run.reused[0]
    with _limited(call), _watched(run):
        result = function(*args, **kwargs)
    if run is not None:
        run.end(result)
    return result


async def run_async(function: Callable[..., Any], call: Call, args: Any, kwargs: Any) -> Any:
    """Call the async function; hashing and requests do not block the event loop."""
    run = await asyncio.to_thread(_begin, function, call, args, kwargs)
    if run is not None and run.reused is not None:
        return run.reused[0]
    with _limited_async(call), _watched(run):
        result = await function(*args, **kwargs)
    if run is not None:
        await asyncio.to_thread(run.end, result)
    return result


def run_generator(function: Callable[..., Any], call: Call, args: Any, kwargs: Any) -> Generator[Any, None, Any]:
    """Yield what the function yields; each is a result of its own."""
    run = _begin(function, call, args, kwargs, many=True)
    generator: Any = function(*args, **kwargs)
    number = 0
    while True:
        try:
            with _watched(run):
                item = next(generator)
        except StopIteration as end:
            return end.value
        if run is not None:
            run.end(item, number)
        number += 1
        try:
            yield item
        except GeneratorExit:
            generator.close()
            raise


async def run_async_generator(function: Callable[..., Any], call: Call, args: Any, kwargs: Any) -> AsyncIterator[Any]:
    """Yield what the function yields; each is a result of its own."""
    run = await asyncio.to_thread(_begin, function, call, args, kwargs, many=True)
    items, number = aiter(function(*args, **kwargs)), 0
    while True:
        try:
            with _watched(run):
                item = await anext(items)
        except StopAsyncIteration:
            return
        if run is not None:
            await asyncio.to_thread(run.end, item, number)
        number += 1
        yield item


class _Run:
    """A call that is being recorded. `reused` holds an earlier result, if that is used instead of running."""

    def __init__(self, function: Callable[..., object], call: Call, recording: Recording, arguments: Arguments) -> None:
        self.function = function
        self.call = call
        self.recording = recording
        self.arguments = arguments
        self.logger = run_logger()
        self.opened = OpenedFiles(tuple(arguments.paths.values()), is_local=recording.owner)
        self.effects = Effects()
        running = TaskRunContext.get()
        self.task_run_id = str(running.task_run.id) if running else ""
        self.flow_run_id = str(running.task_run.flow_run_id or "") if running else ""
        self.reused: tuple[Any] | None = None

    def result(self, number: int | None = None) -> TaskResult:
        return TaskResult(
            code=self.call.code or task_code(self.function),
            description=self.description(),
            recording=self.recording,
            arguments=self.arguments,
            logger=self.logger,
            flow_run_id=self.flow_run_id,
            task_run_id=self.task_run_id,
            output="out" if number is None else f"item {number}",
            opened=self.opened,
            held=self.call.held,
            key=_key(),
            addresses=tuple(self.effects.addresses),
        )

    def description(self) -> TaskDescription:
        """Return the declared description of the task with the call's own declarations."""
        return TaskDescription(**self.effects.extend(vars(self.call.description)))

    def reuse(self) -> None:
        """Look up a result of an equal call, if reuse is enabled."""
        if not self.recording.reuses(self.call.description):
            return
        self.reused = reuse_result(self.result())
        if self.reused is not None:
            self.recording.reused += 1
            transaction = get_transaction()
            if transaction is not None:
                transaction.state = TransactionState.COMMITTED  # shown as Cached

    def require_free(self) -> None:
        """Raise OnHoldError if an input is on hold, or descends from a dataset on hold.

        Results of this flow that are still being registered need no check: their inputs were checked.
        """
        session = self.recording.session
        if not self.arguments.inputs or self.recording.undelivered.is_away():
            return
        session.refresh_statements()
        if not (stated := session.stated).holds_any:
            return
        result = self.result()
        futures = [
            parent.origin.future
            for parent in inputs_of(result, dict.fromkeys(learned_output_roles(result), ()))
            if parent.origin and (parent.unregistered is not None or parent.origin.future.done())
        ]
        mfids = [future.result().mfid for future in futures if not future.exception()]  # waits for the flow's own files
        stated.require_free(mfids, fingerprint(result), result.project)

    def end(self, result: object, number: int | None = None) -> None:
        value = result.data if isinstance(result, State) else result
        if isinstance(result, State) and not result.is_completed():
            return
        try:
            self.apply_effects()
            is_recorded = record_result(self.result(number), value)
            if not is_recorded and value is None and (changed := self.arguments.changed_objects(self.recording)):
                record_result(self.result(number), next(iter(changed.values())) if len(changed) == 1 else changed)
        except Exception as error:
            if self.recording.destination.strict:
                raise
            warn("the result of %s is not recorded: %s: %s", self.call.description.name, type(error).__name__, error)

    def apply_effects(self) -> None:
        """Apply the effects that the call has declared to its arguments and opened files."""
        if self.effects.used:
            self.arguments.inputs += declared_inputs(self.effects.used, self.recording, self.call.description)
            self.effects.used.clear()
        for index, path in enumerate(self.effects.paths):
            self.arguments.paths[f"wrote-{index}"] = path
            self.opened.wrote.update(map(os.path.abspath, files_at(path).paths))
            self.arguments.before |= dict.fromkeys(files_at(path).paths)


def _key() -> str:
    """Return the key under which Prefect stores the result of this run; empty if it does not."""
    transaction, running = get_transaction(), TaskRunContext.get()
    is_stored = transaction is not None and running is not None and running.persist_result
    return (transaction.key or "") if transaction is not None and is_stored else ""


def _begin(function: Callable[..., Any], call: Call, args: Any, kwargs: Any, *, many: bool = False) -> _Run | None:
    """Begin to record a call; None if nothing registers, or if it cannot be recorded, with a warning."""
    if call.destination is None and not _is_called_by_prefect(call):
        return None
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        run = _traced_run(function, call, current(call.destination), bound.arguments)
        if run is not None and not many:
            run.reuse()
        if run is not None and run.reused is None:
            run.require_free()
        return run
    except Exception as error:
        if _is_strict(call) or isinstance(error, OnHoldError):
            raise
        warn("the run of %s is not recorded: %s: %s", call.description.name, type(error).__name__, error)
        return None


def _traced_run(
    function: Callable[..., Any], call: Call, recording: Recording | None, arguments: Mapping[str, Any]
) -> _Run | None:
    """Trace the arguments of a call and return its run; None if nothing registers."""
    if recording is None:
        return None
    if (within := FlowRunContext.get()) is not None and within.flow_run and within.flow_run.parent_task_run_id:
        recording.origins.note_copies(str(within.flow_run.id), (within.parameters or {}).values())
    signature = inspect.signature(function)
    named = by_name(signature, arguments)
    traced = trace_arguments(
        named, ArgumentTrace(call.futures, call.mapped, _recorded_runs()), recording, call.description
    )
    defaults = {name: known.default for name, known in signature.parameters.items() if known.default is not known.empty}
    traced.defaults = frozenset(name for name, default in defaults.items() if named.get(name) is default)
    return _Run(function, call, recording, traced)


def _is_strict(call: Call) -> bool:
    recording = current(call.destination)
    return recording is not None and recording.destination.strict


def _recorded_runs() -> dict[str, tuple[str, ...]]:
    """Return the task runs that Prefect's record of this run names as inputs, by argument."""
    running = TaskRunContext.get()
    inputs = running.task_run.task_inputs if running is not None else {}
    return {
        name: tuple(str(source.id) for source in sources if isinstance(source, TaskRunResult))
        for name, sources in inputs.items()
    }


def _is_called_by_prefect(call: Call) -> bool:
    """Whether Prefect runs the task itself, as in a worker of delayed tasks; False if `fn` is called directly."""
    running = TaskRunContext.get()
    return running is not None and getattr(running.task.fn, "__crucible_call__", None) is call


@contextmanager
def _watched(run: _Run | None) -> Iterator[None]:
    """Attribute files opened and effects declared in this block to the call."""
    with watched(run.opened if run else None), declaring(run.effects if run else None):
        yield


@contextmanager
def _limited(call: Call) -> Iterator[None]:
    """Apply the time limit of the task to its function alone."""
    if call.limit_s is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        run_logger().warning(
            "the limit of %s s does not interrupt what blocks in a worker thread (sleep, network, files); it takes "
            "effect after that",
            call.limit_s,
        )
    try:
        with timeout(call.limit_s, TaskRunTimeoutError):
            yield
    except TaskRunTimeoutError:
        _note_exceeded()
        raise


@contextmanager
def _limited_async(call: Call) -> Iterator[None]:
    """Apply the time limit of the task to its async function alone."""
    try:
        with timeout_async(call.limit_s, TaskRunTimeoutError):
            yield
    except TaskRunTimeoutError:
        _note_exceeded()
        raise


def _note_exceeded() -> None:
    running = TaskRunContext.get()
    if running is not None and running.task_run.state is not None:
        vars(running.task)["exceeded"] = running.task_run.state.id


def by_name(signature: inspect.Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
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
