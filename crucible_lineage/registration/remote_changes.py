"""Registrations by other machines during a run, polled at intervals for all of its steps at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from crucible_lineage.errors import TRANSIENT, NotFoundError, RefusedError
from crucible_lineage.refs import ProjectChanges

EVERY_S = 1.0  # chosen: the polling interval, and the work that two machines may do twice
LATE_S = 3.0  # chosen: an older answer is refreshed first; steps are as long, so the wait is bearable
AWAY_S = 30.0

Changes = Callable[[str | None], ProjectChanges]


class RemoteChanges:
    """The datasets that may have appeared since construction. Thread-safe.

    `changes` returns what was changed since a moment by the service's clock, `since` is the latest known moment.
    """

    def __init__(self, changes: Changes, since: str | None) -> None:
        self._changes = changes
        self._since = since
        self._seen: set[str] = set()
        self._asked = time.monotonic()
        self._lock = threading.Lock()

    def may_have(self, mfid: str) -> bool:
        """Return whether somebody changed this dataset, from an answer that may be a few seconds old."""
        if mfid in self._seen:
            return True
        age_s = time.monotonic() - self._asked
        if age_s >= LATE_S:
            self._refresh()
        elif age_s >= EVERY_S and not self._lock.locked():  # one request at a time is enough, however slow
            threading.Thread(target=self._refresh_quietly, name="others", daemon=True).start()
        return mfid in self._seen

    def _refresh_quietly(self) -> None:
        with suppress(Exception):  # callers that wait for an answer see the error
            self._refresh()

    def _refresh(self) -> None:
        """Ask for changes, unless the last answer is less than EVERY_S old."""
        with self._lock:
            if time.monotonic() - self._asked < EVERY_S:  # another thread has just asked
                return
            now = time.monotonic()
            try:
                changes = self._changes(self._since)
            except (NotFoundError, RefusedError):  # the project is gone; registering reports it
                self._asked = now
                return
            except TRANSIENT:  # no step waits for a service that is away
                self._asked = now + AWAY_S
                return
            self._asked = now
            self._seen |= changes.modified.keys()
            self._since = max([*changes.modified.values(), self._since or ""]) or None
