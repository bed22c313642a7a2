"""Functions by which a task or flow declares effects that its arguments and results do not show.

    from crucible_lineage.tasks import lineage, registering, task

    @task
    def reduce(uid: str) -> None:
        lineage.used(f"tiled://catalogue/{uid}")
        path = write(uid)
        lineage.wrote(path)
        lineage.describe(sample="polystyrene", measurement="SAXS")

Outside of a flow that is `registering` these do nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from crucible_lineage.errors import InputError
from crucible_lineage.tasks.dropin.effects import Effects, current_effects
from crucible_lineage.tasks.dropin.recording import current

__all__ = ["derived", "deriving", "describe", "used", "wrote"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_FIELDS = ("measurement", "data_type", "dataset_name")


def used(*sources: object) -> None:
    """Declare sources of the current task: ids of datasets, paths of files, or addresses in another catalogue."""
    if (effects := _of_task("used")) is not None:
        effects.used.extend(sources)


def wrote(*targets: object) -> None:
    """Declare what the current task has written: paths of files, or addresses of data elsewhere."""
    if (effects := _of_task("wrote")) is not None:
        for target in targets:
            if isinstance(target, Path) or "://" not in str(target):
                effects.paths.append(Path(str(target)))
            else:
                effects.addresses.append(str(target))


def describe(**fields: Any) -> None:
    """Describe the result of the current task: `measurement`, `data_type`, `dataset_name`, or metadata."""
    if (effects := _of_task("describe")) is not None:
        for name, value in fields.items():
            (effects.fields if name in _FIELDS else effects.metadata)[name] = value


def derived(value: T, *sources: object) -> T:
    """Declare that the flow's own code derived a value from these results of tasks, or values derived from them.

    Returns the value. Raises InputError if none of the sources is known.
    """
    recording = current()
    if recording is None:
        return value
    origins = recording.origins
    parents = [parent for source in sources for parent in origins.parents_of(source)]
    if not parents:
        raise InputError(
            "lineage.derived: none of the sources is a result of this run; pass what a task returned, or a value "
            "that was derived from it"
        )
    origins.note_derived(value, parents)
    return value


def deriving(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function of the flow's own code so that its value is derived from its known arguments."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        value = function(*args, **kwargs)
        recording = current()
        if recording is not None:
            parents = [parent for one in (*args, *kwargs.values()) for parent in recording.origins.parents_of(one)]
            if parents:
                recording.origins.note_derived(value, parents)
        return value

    return called


def _of_task(function: str) -> Effects | None:
    effects = current_effects()
    if effects is None and current() is not None and not _is_plain_call():
        raise InputError(f"lineage.{function} is for the body of a task; in a flow's own code, use lineage.derived")
    return effects


def _is_plain_call() -> bool:
    """Return whether this is a task whose call is not recorded, such as one called directly."""
    from prefect.context import TaskRunContext

    return TaskRunContext.get() is not None
