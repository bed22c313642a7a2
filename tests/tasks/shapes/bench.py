"""The bench on which shapes of flows are run, plain or converted: what is called, with what, and what becomes of it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import re
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prefect

SHAPES: dict[str, Shape] = {}


class Shape:
    """One flow as people write it, and the parents that a person wrote down for it."""

    def __init__(
        self, run: Callable[[Lab], Any], edges: tuple[str, ...], says: tuple[str, ...], *, in_order: bool, fast: bool
    ) -> None:
        self.run = run
        self.name = run.__name__
        self.room = run.__module__.rpartition("_shapes_")[2]
        self.edges = sorted(edges)
        self.says = says
        self.in_order = in_order
        self.fast = fast


def shape(
    *edges: str, says: tuple[str, ...] | str = (), in_order: bool = True, fast: bool = False
) -> Callable[[Callable[[Lab], Any]], Callable[[Lab], Any]]:
    """Add a flow: `edges` are its lineage, "parent -> child" by the names of tasks and files.

    `says` are words of warnings that it gives, `in_order` is False where tasks run at once, `fast` ones run every time.
    """

    def add(run: Callable[[Lab], Any]) -> Callable[[Lab], Any]:
        assert run.__name__ not in SHAPES, run.__name__
        told = (says,) if isinstance(says, str) else says
        SHAPES[run.__name__] = Shape(run, edges, told, in_order=in_order, fast=fast)
        return run

    return add


class Lab:
    """What a shape is given: `task` and `flow` of Prefect, the flow plain or registering, and a folder of its own."""

    def __init__(self, name: str, folder: Path, *, converted: bool, options: dict[str, Any] | None = None) -> None:
        self.name = name
        self.folder = folder
        self.converted = converted
        self.project = f"{name[:16].strip('_')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        self.options = options or {}
        self._unique = uuid.uuid4().hex
        self.calls: list[tuple[str, str]] = []
        self.states: list[str] = []
        self._given: list[tuple[str, Any]] = []  # objects that tasks gave, in their order
        self._counts: Counter[str] = Counter()
        folder.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------ what shapes use

    def file(self, name: str, text: str | bytes = "1\n2\n6\n3\n") -> Path:
        """A file of the flow's, with a content of its own."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def out(self, name: str = "out") -> Path:
        """An empty folder."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def key(self, name: str) -> str:
        """A key of Prefect's cache that no other run has."""
        return f"{self._unique}-{name}"

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """`@task` of Prefect; what it is called with is noted."""
        if function is None:
            return functools.partial(self.task, **options)
        made: Any = prefect.task
        if isinstance(function, (staticmethod, classmethod)):
            return made(type(function)(self._noting(function.__func__)), **options)
        return made(self._noting(function), **options)

    def flow(self, function: Any = None, /, **options: Any) -> Any:
        """`@flow`, and `@registering` below it where it is converted; how it ends is noted."""
        if function is None:
            return functools.partial(self.flow, **options)
        inner = function
        if self.converted:
            from crucible_lineage.tasks import registering

            inner = registering(self.project, **self.options)(function)
        return self.plain_flow(inner, **options)

    def plain_flow(self, function: Any, **options: Any) -> Any:
        """A flow that registers nothing; how it ends is noted."""

        def note(flow: Any, run: Any, state: Any) -> None:
            self.states.append(f"{flow.name}: {state.type.value} {self._shown(state.message or '')}")

        hooks = {"on_completion": [note], "on_failure": [note], "on_crashed": [note]}
        return prefect.flow(function, **{**hooks, **options})

    # ------------------------------------------------------------ what is noted

    def told(self) -> dict[str, Any]:
        by_task: dict[str, list[str]] = {}
        for name, shown in self.calls:
            by_task.setdefault(name, []).append(shown)
        return {"calls": by_task, "states": self.states}

    def _noting(self, function: Any) -> Any:
        name = getattr(function, "__name__", type(function).__name__)
        called: Any

        def note(args: Any, kwargs: Any) -> None:
            shown = [self._argument(one) for one in args]
            shown += [f"{key}={self._argument(one)}" for key, one in kwargs.items()]
            self.calls.append((name, ", ".join(shown)))

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def yields_async(*args: Any, **kwargs: Any) -> Any:
                note(args, kwargs)
                async for item in function(*args, **kwargs):
                    yield self._gave(name, item)

            called = yields_async
        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                note(args, kwargs)
                return self._gave(name, await function(*args, **kwargs))

            called = awaited
        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def yields(*args: Any, **kwargs: Any) -> Iterator[Any]:
                note(args, kwargs)
                for item in function(*args, **kwargs):
                    yield self._gave(name, item)

            called = yields
        else:

            @functools.wraps(function)
            def returns(*args: Any, **kwargs: Any) -> Any:
                note(args, kwargs)
                return self._gave(name, function(*args, **kwargs))

            called = returns
        return called

    def _gave(self, name: str, value: Any) -> Any:
        if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            self._counts[name] += 1
            try:
                held: Any = weakref.ref(value)
            except TypeError:
                held = functools.partial(lambda one: one, value)
            self._given.append((f"{name}#{self._counts[name]}", held))
        return value

    def _argument(self, value: Any) -> str:
        """The task run that gave this very object, else the value."""
        found = next((told for told, held in self._given if held() is value), None)
        return found or self._shown(repr(value))[:300]

    def _shown(self, text: str) -> str:
        text = text.replace(str(self.folder), "FOLDER")
        text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID", text)
        text = text.replace(self._unique, "KEY")
        return re.sub(r" at 0x[0-9a-f]+|<locals>\.", "", text)


class Heard(logging.Handler):
    """What is warned of meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
