"""Processes that one test leaves are used by the next: those that call functions of steps, and those that ingest.

To start an interpreter and import what they need takes a third of a second of a core, several times a test.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping

from crucible_lineage.pipeline.functions import inspect
from crucible_lineage.pipeline.processes import worker
from crucible_lineage.server.ingest import isolation

__all__ = ["end_ingesting", "end_workers", "forget_folders", "free_workers", "share_ingesting"]

_ForkServer = isolation._ForkServer
_idle: list[_Shared] = []
_lock = threading.Lock()
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
        one.process.finish()


def share_ingesting() -> None:
    """Let the servers of this process hand the interpreter that ingests from one to the next."""
    isolation._ForkServer = _taken  # type: ignore[assignment, misc]
    isolation._environment = _environment


def _taken(environment: Mapping[str, str]) -> _Shared:
    with _lock:
        for one in _idle:
            if one.serves(environment):
                _idle.remove(one)
                return one
    return _Shared(environment)


def _environment() -> dict[str, str]:
    """Return what ingestors are given, without the folders of declarations, of which each test has its own."""
    path = os.pathsep.join(entry for entry in sys.path if entry and entry not in inspect._searched)
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _Shared(_ForkServer):
    """One that outlives its server, unless it is ended with an errand in hand."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._said = 0

    def number(self) -> int | None:
        self._said += 1
        return super().number()

    def end(self) -> None:
        is_busy = self._said % 2  # it says a process id, and then its exit code
        if is_busy or self._process.poll() is not None:
            super().end()
            return
        with _lock:
            _idle.append(self)


def end_ingesting() -> None:
    """End the interpreters that ingest for nobody."""
    with _lock:
        while _idle:
            _ForkServer.end(_idle.pop())
