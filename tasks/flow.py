"""`registering`: within it, results of tasks and steps become datasets. A decorator of flows, or a `with` in them.

A step that is called in such a flow accepts paths (registered as raw data if they are new), dataset ids, or the results
of other steps; it runs as a Prefect task, its outputs are registered, and what it returns stands for them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from prefect import Flow
from prefect import task as prefect_task
from prefect.context import FlowRunContext
from prefect.futures import resolve_futures_to_states
from prefect.settings import get_current_settings

from crucible_lineage.errors import RunError
from crucible_lineage.machine.process import collector_sparing
from crucible_lineage.pipeline.plan.files import existing_dataset
from crucible_lineage.pipeline.step_call import called_step, file_of
from crucible_lineage.step import Step, steps_run_by
from crucible_lineage.tasks.artifacts import lineage_artifact, lineage_of
from crucible_lineage.tasks.credentials import CrucibleCredentials
from crucible_lineage.tasks.hook import install, note_sent_by
from crucible_lineage.tasks.recording import SHARE_WAIT_S, Destination, Recording, here, open_here, run_logger, warn
from crucible_lineage.tasks.sessions import REPEATED, Crucible, connection_of, run_ids, session_for
from crucible_lineage.text.amounts import amount

Function = TypeVar("Function", bound=Callable[..., Any])

# A loaded machine needs more than Prefect's 20 s to start a temporary server, which Prefect logs; a set value stands.
_ephemeral = get_current_settings().server.ephemeral
if "startup_timeout_seconds" not in _ephemeral.model_fields_set:
    _ephemeral.startup_timeout_seconds = 180


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Register results of tasks called within in this project, as children of what they were made from.

    A decorator for the function of a flow, sync or async, below `@flow`; or a context manager inside a flow. With
    `strict`, a task fails if lineage is uncertain: an argument without a known parent, a result that is not recorded.
    While the service is unreachable, results wait in the outbox; with `undelivered="fail"` the flow run fails at its
    end if some still do.
    """

    def __init__(
        self,
        project: str,
        *,
        crucible: Crucible | None = None,
        strict: bool = False,
        undelivered: Literal["warn", "fail"] = "warn",
    ) -> None:
        self._request = Destination(project, crucible, strict=strict, undelivered=undelivered)
        self._open: list[AbstractContextManager[Recording]] = []  # replaced, as a copy shares it

    def __call__(self, function: Function) -> Function:
        """Wrap the function of a flow."""
        if isinstance(function, Flow):
            function.fn = self(function.fn)
            return function
        if inspect.isasyncgenfunction(function):

            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                async with copy(self):
                    async for item in function(*args, **kwargs):
                        yield item

        elif inspect.iscoroutinefunction(function):

            async def wrapped(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                async with copy(self):
                    return await asyncio.to_thread(_await_tasks, await function(*args, **kwargs))

        elif inspect.isgeneratorfunction(function):

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with copy(self):
                    return _await_tasks((yield from function(*args, **kwargs)))

        else:

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with copy(self):
                    return _await_tasks(function(*args, **kwargs))

        made: Any = functools.update_wrapper(wrapped, function)
        with suppress(NameError, TypeError, SyntaxError):  # Prefect reads texts as annotations of the wrapper's module
            made.__signature__ = inspect.signature(function, eval_str=True)
            made.__annotations__ = inspect.get_annotations(function, eval_str=True)
        return made  # type: ignore[no-any-return]

    def __enter__(self) -> Recording:
        """Begin to record. The recording's `datasets()` are those registered so far."""
        within = _registered(self._request)
        recording = within.__enter__()
        self._open = [*self._open, within]
        return recording

    def __exit__(self, *failure: Any) -> None:
        *self._open, within = self._open
        within.__exit__(*failure)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(self, *failure: Any) -> None:
        if (recording := open_here.get()) is not None:  # remaining registrations do not block the event loop
            await asyncio.to_thread(functools.partial(recording.close, failed=failure[0] is not None))
        self.__exit__(*failure)


def _await_tasks(returned: Any) -> Any:
    """Return what a flow has returned once its tasks have ended: Prefect, too, waits for futures, but only later."""
    resolve_futures_to_states(returned)
    return returned


@contextmanager
def _registered(request: Destination) -> Iterator[Recording]:
    """Record tasks and steps called in this block, and show what was registered."""
    recording = _opened(request)
    here[recording.destination.run_id] = recording
    failed, opened = True, open_here.set(recording)
    try:
        with collector_sparing(), steps_run_by(functools.partial(_run_step, recording)):
            yield recording
        failed = False
    finally:
        try:
            recording.close(failed=failed)
            _show_results(recording)
        finally:
            open_here.reset(opened)
            del here[recording.destination.run_id]
    if (waiting := recording.left()) and recording.destination.undelivered == "fail":
        raise RunError(_waiting_message(recording, len(waiting)))


def _run_step(
    recording: Recording, called: Step[..., Any], inputs: Mapping[str, object], params: Mapping[str, object]
) -> Any:
    """Run a step and return its registered output, or a mapping if it has several."""
    session = recording.session
    prepared = called_step(session, recording.destination.project, called, inputs, params, recording.slots)

    @prefect_task(name=called.name, task_run_name=called.name, **REPEATED)
    def make() -> dict[str, str]:
        recording.deliverer.drain(SHARE_WAIT_S)  # the step's parents may wait
        run = {**run_ids(), "run_id": recording.destination.run_id}
        return {name: dataset.mfid for name, dataset in prepared(run).items()}

    outputs = {name: existing_dataset(mfid, session) for name, mfid in make().items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _show_results(recording: Recording) -> None:
    """Log what the flow run registered, and add the artifact `lineage`; a failure to do so is only a warning."""
    datasets = recording.datasets()
    if not datasets or FlowRunContext.get() is None:
        return
    project = recording.destination.project
    count = amount(len(datasets), "dataset")
    run_logger().info("registered in %s: %s, %d of them reused", project, count, recording.reused)
    try:
        waiting = recording.left()
        if waiting:
            recording.notices.append(_waiting_message(recording, len(waiting)))
            warn("%s", recording.notices[-1])
        shown = [dataset.mfid for dataset in datasets if dataset.mfid not in waiting]
        graph = lineage_of(shown, recording.session)
        last = datasets[-1].mfid if len(datasets) == 1 else None
        lineage_artifact(graph, last, recording.session, notes=recording.notices)
    except Exception as error:
        warn("the lineage cannot be shown: %s", error)


def _waiting_message(recording: Recording, count: int) -> str:
    return (
        f"{amount(count, 'result')} in the outbox: {recording.reason}; the next run of a flow here, or "
        "`crucible-lineage push`, delivers them"
    )


def _opened(request: Destination) -> Recording:
    """Begin to record for the running flow. Raises InputError if this Prefect has no place to see its tasks."""
    install()
    session = session_for(request.crucible)
    is_block = isinstance(request.crucible, CrucibleCredentials)
    settled = request.crucible if is_block else connection_of(request.crucible).settled(session.settings)
    running, within, run_id = FlowRunContext.get(), open_here.get(), uuid.uuid4().hex
    flow = running.flow if running else None
    if running is not None:
        note_sent_by(running.task_runner)
    name, file = (flow.name, file_of(flow.fn)) if flow else ("", "")
    outer = within if within and within.session is session else None  # the parent flow: they share known values
    # A task worker knows the flow run alone; within another Crucible's recording, its notes may be those of the run.
    shared_by = str(running.flow_run.id) if running and running.flow_run and not within else run_id
    notes, begun = outer.destination.notes if outer else shared_by, datetime.now(UTC).isoformat()
    destination = replace(request, crucible=settled, run_id=run_id, flow=name, file=file, begun=begun, notes=notes)
    recording = Recording(destination, session, owner=True, origins=outer.origins if outer else None)
    recording.begin()
    return recording
