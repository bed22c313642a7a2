"""A process that a pool has started to make steps ends with the one that started it, even in the midst of a step."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

__all__ = ["end_with_parent"]

_watching = False


def end_with_parent() -> None:
    """From now on this process ends when its parent does, if `multiprocessing` has started it.

    A pool's process learns of that by itself only when it asks for the next step.
    """
    global _watching
    parent = multiprocessing.parent_process()
    if parent is None or _watching:
        return
    _watching = True

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
