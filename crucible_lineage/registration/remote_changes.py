"""What other machines have registered meanwhile: asked for now and then, for all steps of a run at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from crucible_lineage.errors import TRANSIENT, NotFoundError, RefusedError
from crucible_lineage.refs import ProjectChanges

EVERY_S = 1.0  # chosen: so much of a step may be made twice, and so rarely is it asked
LATE_S = 3.0  # chosen: an answer older than that is waited for, which a step that took so long can bear
AWAY_S = 30.0

Changes = Callable[[str | None], ProjectChanges]


class RemoteChanges:
    """Which datasets may be there that were not when this was begun. Thread-safe.

    `changes` tells what was changed since a moment of the service's clock, `since` is the last one that is known of.
    """

    def __init__(self, changes: Changes, since: str | None) -> None:
        self._changes = changes
        self._since = since
        self._seen: set[str] = set()
        self._asked = time.monotonic()
        self._lock = threading.Lock()

    def may_have(self, mfid: str) -> bool:
        """True if somebody has changed this dataset since then. The answer may be a few seconds old, and costs none."""
        if mfid in self._seen:
            return True
        age_s = time.monotonic() - self._asked
        if age_s >= LATE_S:
            self._ask()
        elif age_s >= EVERY_S and not self._lock.locked():  # one that asks is enough, however slowly it is answered
            threading.Thread(target=self._quietly, name="others", daemon=True).start()
        return mfid in self._seen

    def _quietly(self) -> None:
        with suppress(Exception):  # who waits for an answer is told
            self._ask()

    def _ask(self) -> None:
        """The answer is no older than a second."""
        with self._lock:
            if time.monotonic() - self._asked < EVERY_S:  # somebody else has asked meanwhile
                return
            now = time.monotonic()
            try:
                found = self._changes(self._since)
            except (NotFoundError, RefusedError):  # the project is gone; who registers is told so
                self._asked = now
                return
            except TRANSIENT:  # no step waits for a service that is away
                self._asked = now + AWAY_S
                return
            self._asked = now
            self._seen |= found.modified.keys()
            self._since = max([*found.modified.values(), self._since or ""]) or None
