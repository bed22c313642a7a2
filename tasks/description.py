"""Options of `@task` that describe a function and its effects, and the function's code."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.provenance.environment import git_state

_TEXTS = ("keywords", "reads", "writes", "ignore")  # options that are one text or several
OURS = frozenset(
    {*("measurement", "data_type", "project", "dataset_name", "metadata", "code_version", "reuse", "ingest"), *_TEXTS}
)


@dataclass(frozen=True)
class TaskDescription:
    """How the results of a task are described as datasets, and what the task reads and writes.

    `reads` and `writes` are names of arguments, `reads` patterns of file names too. Arguments in `ignore` are not
    recorded.
    """

    name: str
    measurement: str | None = None
    data_type: str | None = None
    project: str | None = None
    dataset_name: str | None = None
    keywords: tuple[str, ...] = ()
    metadata: JsonMapping = field(default_factory=dict)
    code_version: str | None = None
    reuse: bool | None = None
    ingest: bool = False
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def reads_files(self, role: str) -> bool:
        """Return whether files that this argument names may be inputs."""
        names = [name for name in self.reads if not _is_pattern(name)]
        return role in names if names else role not in self.writes

    def reads_file(self, path: Path) -> bool:
        """Return whether a file of this name may be an input."""
        patterns = [name for name in self.reads if _is_pattern(name)]
        return not patterns or any(fnmatch(path.name, pattern) for pattern in patterns)

    def may_write(self, role: str) -> bool:
        """Return whether the task may write to the path in this argument."""
        return not self.writes or role in self.writes


def describe_task(name: str, ours: JsonMapping, base: TaskDescription | None = None) -> TaskDescription:
    """Return a description with these options, based on an earlier one if given."""
    texts = {key: _texts(ours[key]) for key in _TEXTS if key in ours}
    return TaskDescription(**{**(vars(base) if base else {}), **ours, **texts, "name": name})


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


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


def task_code(function: Callable[..., object]) -> TaskCode:
    """Return the code of a function, read once."""
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
