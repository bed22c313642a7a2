"""The description of a task's results, by `lineage.options` of its function, and the function's code."""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.provenance.environment import git_state

OPTIONS = "__crucible_options__"  # of a function, as `lineage.options` has set them


@dataclass(frozen=True)
class TaskDescription:
    """How the results of a task are described as datasets. Arguments in `ignore` are not recorded."""

    name: str
    measurement: str | None = None
    data_type: str | None = None
    dataset_name: str | None = None
    metadata: JsonMapping = field(default_factory=dict)  # what the call has declared by `lineage.describe`
    ignore: tuple[str, ...] = ()


def description_of(task: Any) -> TaskDescription:
    """Return the description of a task: its name, and the options of its function."""
    return TaskDescription(task.name, **getattr(_plain(task.fn), OPTIONS, {}))


def checked_options(options: JsonMapping) -> JsonObject:
    """Return options of a function, with `ignore` as a tuple. Raises InputError for one that there is not."""
    known = [option.name for option in fields(TaskDescription) if option.name not in ("name", "metadata")]
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"lineage.options has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    ignore = options.get("ignore", ())
    return {**options, "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore)}


def _plain(function: Any) -> Any:
    """Return the function that a partial one calls."""
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
    function = _plain(task.fn)
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
