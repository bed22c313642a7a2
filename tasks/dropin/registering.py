"""`registering`: within it, results of tasks and steps become datasets. A decorator of flows, or a `with` in them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from prefect import Flow
from prefect.context import FlowRunContext
from prefect.futures import resolve_futures_to_states

from crucible_lineage.amounts import amount
from crucible_lineage.errors import RunError
from crucible_lineage.step import open_runners, step_runner
from crucible_lineage.tasks.artifacts import lineage_artifact, lineage_of
from crucible_lineage.tasks.dropin.recording import ATTRIBUTE, Destination, Recording, open_recording, run_logger, warn
from crucible_lineage.tasks.sessions import Crucible, CrucibleConnection
from crucible_lineage.tasks.steps import steps_in

Function = TypeVar("Function", bound=Callable[..., Any])


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Register results of tasks called within in this project, as children of what they were made from.

    A decorator for the function of a flow, sync or async, below `@flow`; or a context manager inside a flow. With
    `reuse`, a task is not run again if there is a result for the same arguments and code. With
    `strict`, a task fails if lineage is uncertain: an argument without a known parent, a result that cannot be
    recorded. While the service is unreachable, results wait in the outbox; with `undelivered="fail"` the flow run fails
    at its end if some still do.
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
        self._open: list[Any] = []

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
        _resolve_annotations(wrapped, function)
        connection = CrucibleConnection() if self._request.crucible is None else self._request.crucible
        setattr(wrapped, ATTRIBUTE, replace(self._request, crucible=connection))
        return wrapped  # type: ignore[no-any-return]

    def __enter__(self) -> Recording:
        """Begin to record. The recording's `datasets()` are those registered so far."""
        within = _within(self._request)
        recording = within.__enter__()
        self._open.append(within)
        return recording

    def __exit__(self, *failure: object) -> None:
        self._open.pop().__exit__(*failure)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(self, *failure: object) -> None:
        within = self._open.pop()
        # Remaining registrations do not block the event loop.
        await asyncio.to_thread(partial(within.recording.close, failed=failure[0] is not None))
        within.__exit__(*failure)

    def _for_run(self) -> registering:
        """Return a copy for one run, since a flow may run several times at once."""
        request = self._request
        options: dict[str, Any] = {"reuse": request.reuse, "strict": request.strict}
        return registering(request.project, crucible=request.crucible, undelivered=request.undelivered, **options)


def _await_tasks(returned: Any) -> Any:
    """Return what a flow has returned once its tasks have ended: Prefect, too, waits for futures, but only later."""
    resolve_futures_to_states(returned)
    return returned


def _resolve_annotations(wrapped: Any, function: Callable[..., Any]) -> None:
    """Resolve string annotations in the flow's module: Prefect reads them from the wrapper, which is in another one."""
    with suppress(NameError, TypeError, SyntaxError):
        wrapped.__signature__ = inspect.signature(function, eval_str=True)
        wrapped.__annotations__ = inspect.get_annotations(function, eval_str=True)


class _within:  # noqa: N801
    """An open recording with its runner of steps, and what is done at its end."""

    def __init__(self, request: Destination) -> None:
        self._opened = open_recording(request)

    def __enter__(self) -> Recording:
        self.recording = self._opened.__enter__()
        self._runner = steps_in(self.recording)
        self._token = step_runner.set(self._runner)
        open_runners.append(self._runner)
        return self.recording

    def __exit__(self, *failure: Any) -> None:
        step_runner.reset(self._token)
        open_runners.remove(self._runner)
        try:
            self.recording.close(failed=failure[0] is not None)
            _show_results(self.recording)
            if failure[0] is None:
                _require_delivered(self.recording)
        finally:
            self._opened.__exit__(*failure)


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


def _require_delivered(recording: Recording) -> None:
    """Raise RunError if results wait in the outbox and the flow is configured to fail then."""
    waiting = recording.undelivered.left()
    if waiting and recording.destination.undelivered == "fail":
        raise RunError(_waiting_message(recording, len(waiting)))


def _waiting_message(recording: Recording, count: int) -> str:
    return (
        f"{amount(count, 'result')} in the outbox: {recording.undelivered.reason}; the next run of a flow here, or "
        "`crucible-lineage push`, delivers them"
    )
