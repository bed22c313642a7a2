"""One call of a task that is being recorded: its arguments before, its effects meanwhile, its result after it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import FlowRunContext
from prefect.results import ResultRecord  # type: ignore[attr-defined]  # from a private module

from crucible_lineage.errors import OnHoldError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.tasks.arguments import ArgumentTrace, trace_arguments
from crucible_lineage.tasks.dataset import TaskResult, require_free
from crucible_lineage.tasks.description import code_of, description_of
from crucible_lineage.tasks.effects import OpenedFiles, watching
from crucible_lineage.tasks.lineage import Effects, declaring
from crucible_lineage.tasks.recording import Recording, run_logger, warn
from crucible_lineage.tasks.results import link_cached, record_result, reuse_result

_NOTHING = object()
Runs = Mapping[str, tuple[str, ...]]  # ids of task runs, by argument


class Call:
    """A call between its begin, before Prefect limits its time, and its end, when it has been stored."""

    def __init__(self, engine: Any, recording: Recording, given: Runs, enclosing: Runs) -> None:
        within = FlowRunContext.get()
        if within is not None and within.flow_run and within.flow_run.parent_task_run_id:
            recording.origins.note_copies(str(within.flow_run.id), (within.parameters or {}).values())
        task, run = engine.task, engine.task_run
        signature = inspect.signature(task.fn)
        named = by_name(signature, engine.parameters or {})
        recorded = {
            name: [str(one.id) for one in sources if isinstance(one, TaskRunResult)]
            for name, sources in run.task_inputs.items()
        }
        description = description_of(task)
        trace = ArgumentTrace(given, enclosing, recorded, tuple(asset.key for asset in task.asset_deps))
        arguments = trace_arguments(named, trace, recording, description)
        arguments.defaults = frozenset(
            name for name, known in signature.parameters.items() if named.get(name, signature) is known.default
        )
        self.effects = Effects(addresses=[asset.key for asset in getattr(task, "assets", ())])
        self.result = TaskResult(
            code=code_of(task),
            description=description,
            recording=recording,
            arguments=arguments,
            logger=run_logger(),
            flow_run_id=str(run.flow_run_id or ""),
            task_run_id=str(run.id),
            opened=OpenedFiles(tuple(arguments.paths.values()), is_local=recording.owner),
        )
        self.found = reuse_result(self.result) if self.result.reuses else None
        self._returned: Any = _NOTHING
        self._key = ""
        self._is_cached = False

    def reused(self, transaction: Any) -> tuple[Any] | None:
        """Return the result of an equal earlier call in a tuple, unless Prefect's cache answers."""
        self._is_cached = transaction.is_committed()
        if self._is_cached or self.found is None:
            return None
        self.result.recording.reused += 1
        return self.found

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Attribute files opened and effects declared in this block to the call, until it has returned."""
        with watching(self.result.opened), declaring(self.effects):
            yield

    def returned(self, value: Any, transaction: Any) -> None:
        """Take what the function, or Prefect's cache, has returned; in a strict flow, record it at once."""
        self.result.opened.is_over = True
        self._returned = value
        self._key = (transaction.key or "") if transaction.write_on_commit or self._is_cached else ""
        if not self._is_cached and transaction.get_parent() is not None:
            hook = functools.partial(_note_rollback, self.result.description.name)
            hook.log_on_run = False  # type: ignore[attr-defined]
            transaction.on_rollback_hooks.append(hook)
        if self.result.recording.destination.strict:
            self.end()

    def end(self) -> None:
        """Record what was returned, if anything was."""
        value, self._returned = self._returned, _NOTHING
        if value is _NOTHING:
            return
        if self._is_cached:
            value = value.result if isinstance(value, ResultRecord) else value
            self._record(lambda: link_cached(self.result, value, self._key))
        else:
            self.yielded(value, None)

    def yielded(self, returned: Any, number: int | None) -> None:
        """Record a result: what the call has returned, its item of this number, or else what it has changed."""
        value = returned.data if isinstance(returned, State) else returned
        if isinstance(value, ResultRecord):
            value = value.result
        if isinstance(returned, State) and not returned.is_completed():
            return
        self._record(lambda: self._stored(value, number))

    def _stored(self, value: Any, number: int | None) -> None:
        result = self.result.ended(self.effects, number, self._key)
        is_recorded = record_result(result, value)
        if not is_recorded and value is None and (changed := result.arguments.changed_objects(result.recording)):
            record_result(result, next(iter(changed.values())) if len(changed) == 1 else changed)

    def _record(self, record: Callable[[], None]) -> None:
        try:
            record()
        except Exception as error:
            if self.result.recording.destination.strict:
                raise
            name = self.result.description.name
            warn("the result of %s is not recorded: %s: %s", name, type(error).__name__, error)


def begin_call(engine: Any, recording: Recording, given: Runs, enclosing: Runs) -> Call | Exception | None:
    """Return the call that an engine is about to make, or the error that it must fail with.

    None if it cannot be recorded, with a warning.
    """
    try:
        call = Call(engine, recording, given, enclosing)
        if call.found is None:
            require_free(call.result)
        return call
    except Exception as error:
        if recording.destination.strict or isinstance(error, OnHoldError):
            return error
        warn("the run of %s is not recorded: %s: %s", engine.task.name, type(error).__name__, error)
        return None


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
