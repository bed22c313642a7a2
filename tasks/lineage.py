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

import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prefect.context import TaskRunContext

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.opened import Effects, watched
from crucible_lineage.provenance.environment import git_state
from crucible_lineage.refs import DESCRIPTIVE
from crucible_lineage.tasks.arguments import keep_value, without_secret
from crucible_lineage.tasks.recording import current
from crucible_lineage.tasks.values import store_value
from crucible_lineage.text.masking import masked_text

__all__ = ["derived", "describe", "options", "used", "wrote"]

T = TypeVar("T")

OPTIONS = "__crucible_options__"  # of a function, as `options` has set them


def options(
    *,
    measurement: str | None = None,
    data_type: str | None = None,
    dataset_name: str | None = None,
    ignore: str | Sequence[str] = (),
) -> Callable[[T], T]:
    """Describe the results of a function, below or above `@task`.

    `measurement` and `data_type` describe the datasets, `dataset_name` is a template of the arguments' names. Arguments
    in `ignore` are not recorded.
    """
    given = {name: value for name, value in locals().items() if value}
    if isinstance(ignore, str):
        given["ignore"] = (ignore,)

    def described(target: T) -> T:
        function: Any = getattr(target, "fn", target)
        function = getattr(function, "__func__", function)
        setattr(function, OPTIONS, {**getattr(function, OPTIONS, {}), **given})
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
                effects.addresses.append(masked_text(str(target)))


def describe(**fields: Any) -> None:
    """Describe the result of the current task: its name, descriptive fields such as `measurement`, or metadata."""
    if (effects := _of_task("describe")) is not None:
        for name, value in fields.items():
            (effects.fields if name in ("dataset_name", *DESCRIPTIVE) else effects.metadata)[name] = value


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
    with recording.session.outbox.draft() as folder:
        stored = without_secret(store_value(value, folder), folder, "the derived value", recording)
        origin = keep_value("value", stored, "derived in the flow's code", recording, parents)
    recording.origins.note_object(value, origin)
    return value


def _of_task(function: str) -> Effects | None:
    call = watched.get()
    is_plain_call = TaskRunContext.get() is not None  # of a task that is not recorded, such as one called directly
    if call is None and current() is not None and not is_plain_call:
        raise InputError(f"lineage.{function} is for the body of a task; in a flow's own code, use lineage.derived")
    return call.declared if call else None


# ---------------------------------------------------------------- the function of a task


def options_of(task: Any) -> JsonObject:
    """Return the options of a task's function."""
    return {**getattr(_plain_function(task), OPTIONS, {})}


def _plain_function(task: Any) -> Any:
    """Return the function that a task calls, also by a partial one."""
    function = task.fn
    while isinstance(function, functools.partial):
        function = function.func
    return function


@dataclass(frozen=True)
class TaskCode:
    """The code of a function, as seen by the process that imported it.

    A function of the main program is pickled by value, without its source file. So its code is read where the flow runs
    and passed along.
    """

    name: str
    fingerprint: Fingerprint | None
    folder: Path | None

    @property
    def digest(self) -> str:
        """The code's form in a recipe."""
        return self.fingerprint.digest if self.fingerprint else f"name:{self.name}"

    @functools.cached_property
    def git(self) -> JsonMapping | None:
        """State of the Git checkout with the code, read once: before the code is sent to other machines."""
        return git_state(self.folder) if self.folder and self.folder.is_dir() else None


_codes: weakref.WeakKeyDictionary[Any, TaskCode] = weakref.WeakKeyDictionary()
_codes_lock = threading.Lock()


def code_of(task: Any) -> TaskCode:
    """Return the code of a task's function, read once, and where its flow runs: it may not be readable elsewhere."""
    if (code := task.__dict__.get("crucible_code")) is not None:
        known: TaskCode = code
        return known
    function = _plain_function(task)
    if not inspect.isroutine(function):  # an object that can be called
        function = type(function).__call__
    with _codes_lock:
        if function not in _codes:
            _codes[function] = _read_code(function)
        return _codes[function]


def _read_code(function: Callable[..., object]) -> TaskCode:
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    name = f"{getattr(function, '__module__', '')}:{qualname}"
    code = getattr(function, "__code__", None)
    folder = Path(code.co_filename).parent if code else None
    try:
        fingerprint = code_fingerprint(function)
    except Exception:  # built in, made by exec, or otherwise without source
        fingerprint = None
    return TaskCode(name, fingerprint, folder)
