"""The code of a task: what it is called, its fingerprint, and the checkout that it lies in."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.provenance.environment import git_state

__all__ = ["TaskCode", "task_code"]

_codes: weakref.WeakKeyDictionary[Any, TaskCode] = weakref.WeakKeyDictionary()
_codes_lock = threading.Lock()


@dataclass(frozen=True)
class TaskCode:
    """The code of a function, as the process knows it that has imported it.

    A function of the program itself crosses to other processes by value, without the file that it is from. So it is
    read where the flow runs, and taken along.
    """

    name: str
    fingerprint: Fingerprint | None
    folder: Path | None

    @property
    def digest(self) -> str:
        """Return what stands for it in a recipe."""
        return self.fingerprint.digest if self.fingerprint else f"name:{self.name}"

    @functools.cached_property
    def git(self) -> Mapping[str, Any] | None:
        """The checkout that it lies in, asked once."""
        return git_state(self.folder) if self.folder and self.folder.is_dir() else None

    def packed(self) -> TaskCode:
        """The same, with all that is to be known of it on other machines."""
        _ = self.git
        return self


def task_code(function: Callable[..., object]) -> TaskCode:
    """The code of a function, read once."""
    with _codes_lock:
        if function not in _codes:
            _codes[function] = TaskCode(_name(function), _fingerprint(function), _folder(function))
        return _codes[function]


def _fingerprint(function: Callable[..., object]) -> Fingerprint | None:
    try:
        return code_fingerprint(function)
    except Exception:  # built in, made by exec, or otherwise without source
        return None


def _name(function: Callable[..., object]) -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def _folder(function: Callable[..., object]) -> Path | None:
    code = getattr(function, "__code__", None)
    return Path(code.co_filename).parent if code else None
