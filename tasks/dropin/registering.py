"""`registering`: within it, results of tasks and steps become datasets. A decorator of flows, or a `with` in them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from prefect import Flow
from prefect.context import FlowRunContext

from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.step import open_runners, step_runner
from crucible_lineage.tasks.artifacts import lineage_artifact
from crucible_lineage.tasks.dropin.recording import ATTRIBUTE, Destination, Recording, opened, run_logger, warn
from crucible_lineage.tasks.sessions import Crucible, CrucibleConnection
from crucible_lineage.tasks.steps import steps_in

__all__ = ["registering"]

Function = TypeVar("Function", bound=Callable[..., Any])


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Results of tasks called within are registered in this project, as children of what they were made of.

    A decorator for the function of a flow, sync or async, below `@flow`; or a context manager inside of one. With
    `reuse`, a task whose result is there for the same arguments and code is not run again. A `salt`, any text, gives
    results other ids, where somebody else has taken those without it.
    """

    def __init__(
        self, project: str, *, crucible: Crucible | None = None, reuse: bool = False, salt: str | None = None
    ) -> None:
        self.project = project
        self.crucible = crucible
        self.reuse = reuse
        self.salt = salt
        self._open: list[Any] = []

    def __call__(self, function: Function) -> Function:
        """The function of a flow, within."""
        if isinstance(function, Flow):
            function.fn = self(function.fn)
            return function
        wrapped: Any
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def yields_async(*args: Any, **kwargs: Any) -> Any:
                async with self._again():
                    async for item in function(*args, **kwargs):
                        yield item

            wrapped = yields_async
        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                async with self._again():
                    return await function(*args, **kwargs)

            wrapped = awaited
        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def yields(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return (yield from function(*args, **kwargs))

            wrapped = yields
        else:

            @functools.wraps(function)
            def called(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return function(*args, **kwargs)

            wrapped = called
        _resolve_annotations(wrapped, function)
        connection = self.crucible if self.crucible is not None else CrucibleConnection()
        setattr(wrapped, ATTRIBUTE, Destination(self.project, connection, self.reuse, salt=self.salt))
        return wrapped  # type: ignore[no-any-return]

    def __enter__(self) -> Recording:
        """What is recorded; its `datasets()` are those that have been registered by now."""
        within = _within(self.project, self.crucible, self.reuse, self.salt)
        recording = within.__enter__()
        self._open.append(within)
        return recording

    def __exit__(self, *failure: object) -> None:
        self._open.pop().__exit__(*failure)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(self, *failure: object) -> None:
        within = self._open.pop()
        # What is left of registering does not hold up the event loop.
        await asyncio.to_thread(partial(within.recording.close, failed=failure[0] is not None))
        within.__exit__(*failure)

    def _again(self) -> registering:
        """One for each run: a flow may run several times at once."""
        return registering(self.project, crucible=self.crucible, reuse=self.reuse, salt=self.salt)


def _resolve_annotations(wrapped: Any, function: Callable[..., Any]) -> None:
    """Annotations that are text mean what they mean in the flow's module: Prefect makes its form of the parameters, and
    its check of them, from those of the wrapper, which lies in another one.
    """
    with suppress(NameError, TypeError, SyntaxError):
        wrapped.__signature__ = inspect.signature(function, eval_str=True)
        wrapped.__annotations__ = inspect.get_annotations(function, eval_str=True)


class _within:  # noqa: N801
    """A recording that is open, and the way in which it is left."""

    def __init__(self, project: str, crucible: Crucible | None, reuse: bool, salt: str | None) -> None:
        self._opened = opened(project, crucible, reuse, salt)

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
            if failure[0] is None:
                _leave_behind(self.recording)
        finally:
            self._opened.__exit__(*failure)


def _leave_behind(recording: Recording) -> None:
    """The flow run says what it registered, and has the artifact `lineage`. That it cannot is a warning."""
    datasets = recording.datasets()
    if not datasets or FlowRunContext.get() is None:
        return
    project = recording.destination.project
    run_logger().info("registered in %s: %d datasets, %d of them reused", project, len(datasets), recording.reused)
    try:
        last = datasets[-1].mfid
        lineage_artifact(fetch_lineage(recording.session, last), last, recording.session)
    except Exception as error:
        warn("the lineage cannot be shown: %s", error)
