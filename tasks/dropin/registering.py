"""`registering`: within it, results of tasks and steps become datasets. A decorator of flows, or a `with` in them.

A step that is called in such a flow accepts paths (registered as raw data if they are new), dataset ids, or the results
of other steps; it runs as a Prefect task, its outputs are registered, and what it returns stands for them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from dataclasses import replace
from typing import Any, Literal, TypeVar

from prefect import Flow
from prefect import task as prefect_task
from prefect.context import FlowRunContext
from prefect.futures import resolve_futures_to_states

from crucible_lineage.amounts import amount
from crucible_lineage.errors import RunError
from crucible_lineage.pipeline.plan.files import existing_dataset
from crucible_lineage.pipeline.step_call import called_step
from crucible_lineage.step import Step, open_runners, step_runner
from crucible_lineage.tasks.artifacts import lineage_artifact, lineage_of
from crucible_lineage.tasks.dropin.recording import ATTRIBUTE, Destination, Recording, open_recording, run_logger, warn
from crucible_lineage.tasks.sessions import REPEATED, Crucible, CrucibleConnection, run_ids

Function = TypeVar("Function", bound=Callable[..., Any])


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Register results of tasks called within in this project, as children of what they were made from.

    A decorator for the function of a flow, sync or async, below `@flow`; or a context manager inside a flow. With
    `reuse`, a task is not run again if there is a result for the same arguments and code. With `strict`, a task fails
    if lineage is uncertain: an argument without a known parent, a result that cannot be recorded. While the service is
    unreachable, results wait in the outbox; with `undelivered="fail"` the flow run fails at its end if some still do.
    """

    def __init__(
        self,
        project: str,
        *,
        crucible: Crucible | None = None,
        reuse: bool = False,
        strict: bool = False,
        undelivered: Literal["warn", "fail"] = "warn",
    ) -> None:
        self._request = Destination(project, crucible, reuse, strict=strict, undelivered=undelivered)
        self._open: list[tuple[AbstractContextManager[Recording], Recording]] = []

    def __call__(self, function: Function) -> Function:
        """Wrap the function of a flow."""
        if isinstance(function, Flow):
            function.fn = self(function.fn)
            return function
        wrapped: Any
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def yields_async(*args: Any, **kwargs: Any) -> Any:
                async with self._for_run():
                    async for item in function(*args, **kwargs):
                        yield item

            wrapped = yields_async
        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                async with self._for_run():
                    return await asyncio.to_thread(_await_tasks, await function(*args, **kwargs))

            wrapped = awaited
        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def yields(*args: Any, **kwargs: Any) -> Any:
                with self._for_run():
                    return _await_tasks((yield from function(*args, **kwargs)))

            wrapped = yields
        else:

            @functools.wraps(function)
            def called(*args: Any, **kwargs: Any) -> Any:
                with self._for_run():
                    return _await_tasks(function(*args, **kwargs))

            wrapped = called
        with suppress(NameError, TypeError, SyntaxError):  # Prefect reads texts as annotations of the wrapper's module
            wrapped.__signature__ = inspect.signature(function, eval_str=True)
            wrapped.__annotations__ = inspect.get_annotations(function, eval_str=True)
        connection = CrucibleConnection() if self._request.crucible is None else self._request.crucible
        setattr(wrapped, ATTRIBUTE, replace(self._request, crucible=connection))
        return wrapped  # type: ignore[no-any-return]

    def __enter__(self) -> Recording:
        """Begin to record. The recording's `datasets()` are those registered so far."""
        within = _registered(self._request)
        recording = within.__enter__()
        self._open.append((within, recording))
        return recording

    def __exit__(self, *failure: Any) -> None:
        within, _ = self._open.pop()
        within.__exit__(*failure)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(self, *failure: Any) -> None:
        _, recording = self._open[-1]
        # Remaining registrations do not block the event loop.
        await asyncio.to_thread(functools.partial(recording.close, failed=failure[0] is not None))
        self.__exit__(*failure)

    def _for_run(self) -> registering:
        """Return a copy for one run, since a flow may run several times at once."""
        copied = copy(self)
        copied._open = []
        return copied


def _await_tasks(returned: Any) -> Any:
    """Return what a flow has returned once its tasks have ended: Prefect, too, waits for futures, but only later."""
    resolve_futures_to_states(returned)
    return returned


@contextmanager
def _registered(request: Destination) -> Iterator[Recording]:
    """Record tasks and steps called in this block, and show what was registered."""
    with open_recording(request) as recording:
        runner = functools.partial(_run_step, recording)
        token = step_runner.set(runner)
        open_runners.append(runner)
        failed = True
        try:
            yield recording
            failed = False
        finally:
            step_runner.reset(token)
            open_runners.remove(runner)
            recording.close(failed=failed)
            _show_results(recording)
        if (waiting := recording.undelivered.left()) and recording.destination.undelivered == "fail":
            raise RunError(_waiting_message(recording, len(waiting)))


def _run_step(
    recording: Recording,
    called: Step[..., Any],
    inputs: Mapping[str, object],
    params: Mapping[str, object],
) -> Any:
    """Run a step and return its registered output, or a mapping if it has several."""
    session = recording.session
    prepared = called_step(session, recording.destination.project, called, inputs, params, recording.slots)

    @prefect_task(name=called.name, task_run_name=called.name, **REPEATED)
    def make() -> dict[str, str]:
        run = {**run_ids(), "run_id": recording.destination.run_id}
        return {name: dataset.mfid for name, dataset in prepared.make(run).items()}

    outputs = {name: existing_dataset(mfid, session) for name, mfid in make().items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _show_results(recording: Recording) -> None:
    """Log what the flow run registered and add the artifact `lineage`, even if the flow has failed.

    A failure to do so is only a warning.
    """
    datasets = recording.datasets()
    if not datasets or FlowRunContext.get() is None:
        return
    project = recording.destination.project
    count = amount(len(datasets), "dataset")
    run_logger().info("registered in %s: %s, %d of them reused", project, count, recording.reused)
    try:
        waiting = recording.undelivered.left()
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
        f"{amount(count, 'result')} in the outbox: {recording.undelivered.reason}; the next run of a flow here, or "
        "`crucible-lineage push`, delivers them"
    )
