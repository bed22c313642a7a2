"""A task's function, run and recorded: what it is given is traced, what it gives becomes a dataset.

Nothing here keeps a flow from going on: what cannot be recorded is a warning in the log of the task's run.
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
from crucible_lineage.tasks.dropin.arguments import Arguments, ArgumentTrace, said_to_be_used, traced
from crucible_lineage.tasks.dropin.description import TaskCode, TaskDescription, task_code
from crucible_lineage.tasks.dropin.effects import Effects, OpenedFiles, saying, watched
from crucible_lineage.tasks.dropin.folders import files_at
from crucible_lineage.tasks.dropin.output_paths import learned
from crucible_lineage.tasks.dropin.recording import Destination, PendingResult, Recording, current, run_logger, warn
from crucible_lineage.tasks.dropin.result import TaskResult, fingerprint, inputs_of
from crucible_lineage.tasks.dropin.results import found_in_cache, reused, take


@dataclass(frozen=True)
class Call:
    """One call of a task, as it crosses to where it runs: where results go, and which task runs gave its arguments.

    `code` is that of its function, where that leaves the process that has it from its file. `mapped` are the task runs
    whose results its arguments are items of.
    """

    described: TaskDescription
    destination: Destination | None = None
    futures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: TaskCode | None = None
    mapped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limit_s: float | None = None
    held: PendingResult | None = None


@dataclass(frozen=True)
class CacheHit:
    """What is done where Prefect's cache has the result of a call."""

    function: Callable[..., Any]
    call: Call

    def __call__(self, context: TaskRunContext, key: str) -> None:
        """Link what the cache gives back. Never raises: Prefect would take no key."""
        try:
            value = context.result_store.read(key).result
            run = _begun(self.function, self.call, current(self.call.destination), context.parameters)
            if run is not None:
                found_in_cache(run.result(), value, key)
        except Exception as error:
            name = self.call.described.name
            warn("what Prefect's cache gives back for %s is not linked: %s: %s", name, type(error).__name__, error)


def run_sync(function: Callable[..., Any], call: Call, args: Any, kwargs: Any) -> Any:
    """Call the function."""
    run = _begin(function, call, args, kwargs)
    if run is not None and run.found is not None:
        return run.found[0]
    with _limited(call), _watched(run):
        result = function(*args, **kwargs)
    if run is not None:
        run.end(result)
    return result


async def run_async(function: Callable[..., Any], call: Call, args: Any, kwargs: Any) -> Any:
    """Call the function, awaited; the event loop goes on while we hash and ask."""
    run = await asyncio.to_thread(_begin, function, call, args, kwargs)
    if run is not None and run.found is not None:
        return run.found[0]
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
    """A call that is being recorded. `found` holds its result, if that was there already."""

    def __init__(self, function: Callable[..., object], call: Call, recording: Recording, arguments: Arguments) -> None:
        self.function = function
        self.call = call
        self.recording = recording
        self.arguments = arguments
        self.logger = run_logger()
        self.opened = OpenedFiles(tuple(arguments.places.values()), is_here=recording.owner)
        self.effects = Effects()
        running = TaskRunContext.get()
        self.task_run_id = str(running.task_run.id) if running else ""
        self.flow_run_id = str(running.task_run.flow_run_id or "") if running else ""
        self.found: tuple[Any] | None = None

    def result(self, number: int | None = None) -> TaskResult:
        return TaskResult(
            code=self.call.code or task_code(self.function),
            described=self.described(),
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

    def described(self) -> TaskDescription:
        """The task as it is declared, with what the call has said."""
        return TaskDescription(**self.effects.described(vars(self.call.described)))

    def reuse(self) -> None:
        """If a result of the same call is there and is wanted, it is this run's."""
        wish = self.call.described.reuse
        if not (self.recording.destination.reuse if wish is None else wish):
            return
        self.found = reused(self.result())
        if self.found is not None:
            self.recording.reused += 1
            transaction = get_transaction()
            if transaction is not None:
                transaction.state = TransactionState.COMMITTED  # shown as Cached

    def require_free(self) -> None:
        """Raise OnHoldError if one of the datasets that it is given is on hold, or comes from one that is.

        What this flow has made and is still being registered was made of what is not.
        """
        session = self.recording.session
        if not self.arguments.inputs or self.recording.undelivered.is_away():
            return
        session.refresh_statements()
        if not (stated := session.stated).holds_any:
            return
        result = self.result()
        inputs = [one for one in inputs_of(result, dict.fromkeys(learned(result), ())) if one.origin is not None]
        made = [one.origin.made for one in inputs if one.origin and (one.given is not None or one.origin.made.done())]
        known = [one.result().mfid for one in made if not one.exception()]  # which waits for files that were given
        stated.require_free(known, fingerprint(result), result.project)

    def end(self, result: object, number: int | None = None) -> None:
        value = result.data if isinstance(result, State) else result
        if isinstance(result, State) and not result.is_completed():
            return
        try:
            self.hear()
            taken = take(self.result(number), value)
            if not taken and value is None and (changed := self.arguments.changed_objects(self.recording)):
                take(self.result(number), next(iter(changed.values())) if len(changed) == 1 else changed)
        except Exception as error:
            if self.recording.destination.strict:
                raise
            warn("the result of %s is not recorded: %s: %s", self.call.described.name, type(error).__name__, error)

    def hear(self) -> None:
        """Take in what the call has said of its effects."""
        if self.effects.used:
            self.arguments.inputs += said_to_be_used(self.effects.used, self.recording, self.call.described)
            self.effects.used.clear()
        for index, path in enumerate(self.effects.paths):
            self.arguments.places[f"wrote-{index}"] = path
            self.opened.wrote.update(map(os.path.abspath, files_at(path).paths))
            self.arguments.before |= dict.fromkeys(files_at(path).paths)


def _key() -> str:
    """The key under which Prefect stores the result of this run, if it does."""
    transaction, running = get_transaction(), TaskRunContext.get()
    is_stored = transaction is not None and running is not None and running.persist_result
    return (transaction.key or "") if transaction is not None and is_stored else ""


def _begin(function: Callable[..., Any], call: Call, args: Any, kwargs: Any, *, many: bool = False) -> _Run | None:
    """The call, to be recorded; None where nothing registers, or if it cannot be recorded, of which is warned."""
    if call.destination is None and not _is_called_by_prefect(call):
        return None
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        run = _begun(function, call, current(call.destination), bound.arguments)
        if run is not None and not many:
            run.reuse()
        if run is not None and run.found is None:
            run.require_free()
        return run
    except Exception as error:
        if _is_strict(call) or isinstance(error, OnHoldError):
            raise
        warn("the run of %s is not recorded: %s: %s", call.described.name, type(error).__name__, error)
        return None


def _begun(
    function: Callable[..., Any], call: Call, recording: Recording | None, arguments: Mapping[str, Any]
) -> _Run | None:
    """The call with its arguments traced; None where nothing registers."""
    if recording is None:
        return None
    if (within := FlowRunContext.get()) is not None and within.flow_run and within.flow_run.parent_task_run_id:
        recording.origins.note_copies(str(within.flow_run.id), (within.parameters or {}).values())
    signature = inspect.signature(function)
    named = by_name(signature, arguments)
    found = traced(named, ArgumentTrace(call.futures, call.mapped, _recorded_runs()), recording, call.described)
    defaults = ((name, one.default) for name, one in signature.parameters.items() if one.default is not one.empty)
    found.defaults = frozenset(name for name, default in defaults if named.get(name) is default)
    return _Run(function, call, recording, found)


def _is_strict(call: Call) -> bool:
    recording = current(call.destination)
    return recording is not None and recording.destination.strict


def _recorded_runs() -> dict[str, tuple[str, ...]]:
    """The task runs that Prefect's record of this run names as inputs, by argument."""
    running = TaskRunContext.get()
    inputs = running.task_run.task_inputs if running is not None else {}
    return {
        name: tuple(str(one.id) for one in found if isinstance(one, TaskRunResult)) for name, found in inputs.items()
    }


def _is_called_by_prefect(call: Call) -> bool:
    """True in a run of the task itself, as a worker of delayed tasks has it; not where `fn` is called by hand."""
    running = TaskRunContext.get()
    return running is not None and getattr(running.task.fn, "__crucible_call__", None) is call


@contextmanager
def _watched(run: _Run | None) -> Iterator[None]:
    """Files that are opened in this block, and what is said in it, are those of the call."""
    with watched(run.opened if run else None), saying(run.effects if run else None):
        yield


@contextmanager
def _limited(call: Call) -> Iterator[None]:
    """The time limit of the task, which its function has for itself alone."""
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
    """The same, of an async function."""
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
    """The arguments, what came by *args and **kwargs under names of their own."""
    named: dict[str, Any] = {}
    for name, value in arguments.items():
        kind = signature.parameters[name].kind if name in signature.parameters else None
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}[{index}]": item for index, item in enumerate(value)}
        else:
            named[name] = value
    return named
