"""Processes that one test leaves are used by the next: those that call functions of steps.

To start an interpreter and import what they need takes a third of a second of a core, several times a test.
"""

from __future__ import annotations

import os
import sys

from crucible_lineage.pipeline.job import worker
from crucible_lineage.pipeline.plan import inspect

__all__ = ["end_workers", "forget_folders", "free_workers"]

_INSTALLED = (sys.prefix, sys.base_prefix)
_installed: set[str] = set()  # names of modules that come from no folder of a test: there are thousands


def forget_folders() -> None:
    """Let modules of steps be looked for in no folder of a test that is over, nor be those that were found there."""
    folders = tuple(f"{folder}{os.sep}" for folder in inspect._searched)
    if not folders:
        return
    for name in [name for name in sys.modules if name not in _installed]:
        path = str(getattr(sys.modules[name], "__file__", None) or "")
        if path.startswith(folders):
            del sys.modules[name]
        elif path.startswith(_INSTALLED):
            _installed.add(name)
    sys.path[:] = [entry for entry in sys.path if entry not in inspect._searched]
    inspect._searched.clear()


def free_workers(prefix: str) -> None:
    """Let idle workers that have seen no modules but those of such names, which no other test has, serve any folder."""
    with worker._lock:
        for one in worker._idle:
            if one.folder and all(path.name.startswith(prefix) for path in one.folder.rglob("*.py")):
                one.folder = None


def end_workers() -> None:
    """End the idle workers: the next call starts its own."""
    with worker._lock:
        idle, worker._idle[:] = list(worker._idle), []
    for one in idle:
        one.finish()
