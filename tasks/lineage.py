"""Functions by which a task or flow declares effects that its arguments and results do not show.

    from prefect import task
    from crucible_lineage.tasks import lineage

    @task
    @lineage.options(ignore="password")
    def reduce(uid: str, password: str) -> None:
        lineage.used(f"tiled://catalogue/{uid}")
        path = write(uid)
        lineage.wrote(path)
        lineage.describe(sample="polystyrene", measurement="SAXS")

Outside of a flow that is `registering` these do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect.context import TaskRunContext

from crucible_lineage.errors import InputError
from crucible_lineage.tasks.arguments import keep_derived
from crucible_lineage.tasks.description import OPTIONS, checked_options
from crucible_lineage.tasks.effects import Effects, watched
from crucible_lineage.tasks.recording import current

__all__ = ["derived", "describe", "options", "used", "wrote"]

T = TypeVar("T")

_FIELDS = ("measurement", "data_type", "dataset_name")


def options(**given: Any) -> Callable[[T], T]:
    """Describe the results of a function, below or above `@task`.

    `measurement` and `data_type` describe the datasets, `dataset_name` is a template of the arguments' names. Arguments
    in `ignore` are not recorded. Raises InputError for other options.
    """
    checked = checked_options(given)

    def described(target: T) -> T:
        function: Any = getattr(target, "fn", target)
        function = getattr(function, "__func__", function)
        setattr(function, OPTIONS, {**getattr(function, OPTIONS, {}), **checked})
        return target

    return described


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
    parents = [parent for source in sources for parent in recording.origins.parents_of(source)]
    if not parents:
        raise InputError(
            "lineage.derived: none of the sources is a result of this run; pass what a task returned, or a value "
            "that was derived from it"
        )
    keep_derived(value, parents, recording)
    return value


def _of_task(function: str) -> Effects | None:
    call = watched.get()
    is_plain_call = TaskRunContext.get() is not None  # of a task that is not recorded, such as one called directly
    if call is None and current() is not None and not is_plain_call:
        raise InputError(f"lineage.{function} is for the body of a task; in a flow's own code, use lineage.derived")
    return call.declared if call else None
