"""`registering`: within it, results of tasks and steps become datasets. A decorator of flows, or a `with` in them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from prefect import Flow
from prefect.context import FlowRunContext

from crucible_lineage.amounts import amount
from crucible_lineage.errors import RunError
from crucible_lineage.lineage import Edge, LineageGraph, Node
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session
from crucible_lineage.step import open_runners, step_runner
from crucible_lineage.tasks.artifacts import lineage_artifact
from crucible_lineage.tasks.dropin.recording import ATTRIBUTE, Destination, Recording, opened, run_logger, warn
from crucible_lineage.tasks.sessions import Crucible, CrucibleConnection
from crucible_lineage.tasks.steps import steps_in

Function = TypeVar("Function", bound=Callable[..., Any])


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Results of tasks called within are registered in this project, as children of what they were made of.

    A decorator for the function of a flow, sync or async, below `@flow`; or a context manager inside of one. With
    `reuse`, a task whose result is there for the same arguments and code is not run again. A `salt`, any text, gives
    results other ids, where somebody else has taken those without it. `strict`, what is not certain fails the task: an
    argument without a known parent, a result that cannot be recorded. While the service is away results wait in the
    outbox; with `undelivered="fail"` the flow run fails at its end if some still do.
    """

    def __init__(
        self,
        project: str,
        *,
        crucible: Crucible | None = None,
        reuse: bool = False,
        salt: str | None = None,
        strict: bool = False,
        undelivered: Literal["warn", "fail"] = "warn",
    ) -> None:
        self._wish = Destination(project, crucible, reuse, salt=salt, strict=strict, undelivered=undelivered)
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
        connection = CrucibleConnection() if self._wish.crucible is None else self._wish.crucible
        setattr(wrapped, ATTRIBUTE, replace(self._wish, crucible=connection))
        return wrapped  # type: ignore[no-any-return]

    def __enter__(self) -> Recording:
        """Begin to record. The recording's `datasets()` are those registered by now."""
        within = _within(self._wish)
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
        wish = self._wish
        options: dict[str, Any] = {"reuse": wish.reuse, "salt": wish.salt, "strict": wish.strict}
        return registering(wish.project, crucible=wish.crucible, undelivered=wish.undelivered, **options)


def _resolve_annotations(wrapped: Any, function: Callable[..., Any]) -> None:
    """Annotations that are text mean what they mean in the flow's module: Prefect makes its form of the parameters, and
    its check of them, from those of the wrapper, which lies in another one.
    """
    with suppress(NameError, TypeError, SyntaxError):
        wrapped.__signature__ = inspect.signature(function, eval_str=True)
        wrapped.__annotations__ = inspect.get_annotations(function, eval_str=True)


class _within:  # noqa: N801
    """A recording that is open, and the way in which it is left."""

    def __init__(self, wish: Destination) -> None:
        self._opened = opened(wish)

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
            _leave_behind(self.recording)
            if failure[0] is None:
                _require_delivered(self.recording)
        finally:
            self._opened.__exit__(*failure)


def _leave_behind(recording: Recording) -> None:
    """Say in the flow run's log what it registered, and leave the artifact `lineage`, also where the flow has failed.

    A failure to do so is a warning.
    """
    datasets = recording.datasets()
    if not datasets or FlowRunContext.get() is None:
        return
    project = recording.destination.project
    run_logger().info("registered in %s: %d datasets, %d of them reused", project, len(datasets), recording.reused)
    try:
        waiting = recording.undelivered.left()
        if waiting:
            recording.said.append(_waiting(recording, len(waiting)))
            warn("%s", recording.said[-1])
        graph = _lineage_of([one for one in datasets if one.mfid not in waiting], recording.session)
        last = datasets[-1].mfid if len(datasets) == 1 else None
        lineage_artifact(graph, last, recording.session, notes=recording.said)
    except Exception as error:
        warn("the lineage cannot be shown: %s", error)


def _require_delivered(recording: Recording) -> None:
    """RunError if results wait in the outbox, and the flow is to fail then."""
    left = recording.undelivered.left()
    if left and recording.destination.undelivered == "fail":
        raise RunError(_waiting(recording, len(left)))


def _waiting(recording: Recording, number: int) -> str:
    return (
        f"{amount(number, 'result')} in the outbox: {recording.undelivered.reason}; the next run of a flow here, or "
        "`crucible-lineage push`, delivers them"
    )


def _lineage_of(datasets: Sequence[DatasetRef], session: Session) -> LineageGraph:
    """The lineages of all of them, also where they are not connected."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}
    for dataset in reversed(datasets):
        if dataset.mfid not in nodes:
            graph = fetch_lineage(session, dataset.mfid)
            nodes |= graph.nodes
            edges |= graph.edges
    return LineageGraph(nodes.values(), edges.values())
