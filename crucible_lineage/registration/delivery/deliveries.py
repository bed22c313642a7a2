"""Deliverers: what waits in the outbox is registered at Crucible, several results at once, parents before children.

A result is taken up once each of its parents that waits here too is there and was begun by this machine, and marked
complete when they are. How many work at once follows from how long answers take: one while the service is
instant, since more would only get into each other's way. While the service is away they come back ever more rarely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.errors import TRANSIENT
from crucible_lineage.registration.delivery.absence import LONGEST_WAIT_S, Absence
from crucible_lineage.registration.delivery.desk import Desk, Trouble
from crucible_lineage.registration.delivery.others import Others
from crucible_lineage.registration.delivery.sending import Sending
from crucible_lineage.registration.delivery.under_way import UnderWay
from crucible_lineage.registration.made import Made
from crucible_lineage.registration.register import nothing

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["MOST_DELIVERERS", "Deliveries"]

MOST_DELIVERERS = 24
ONE_PER_S = 0.003  # measured: what a call costs this process; more deliverers than answers take of that only queue
TOLD_AFTER_S = 1.0
STUCK_S = 30.0  # chosen: how long another process that holds a result is given at least
LOOKS_A_STEP = 8.0  # chosen: a look adds at most an eighth to what a step takes
FRESH_S = 30.0  # chosen: in so short a time another machine does not make much of the same
Found = TypeVar("Found")


class Deliveries:
    """Deliverers at work in threads of this process until they are stopped, or everything has arrived.

    `under_way` tells what others had registered first, and what was dropped for that.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.under_way = UnderWay()
        self.shared = False  # other machines may make the same at this service
        self.others: Others | None = None  # what tells it, if it can be told for all steps at once
        self._changed = self.under_way.changed
        self._absence = Absence()
        self._sending = Sending(desk, self.under_way, self._absence, self._served)
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._began = time.monotonic()
        self._no_look_before = 0.0
        self._longest_s = 0.0  # that a step of this run took

    def is_worth_a_look(self, mfid: str) -> bool:
        """True if the service answers and may have a result meanwhile that it had not at the beginning.

        Where machines share it, also as soon as steps of this run take much longer than it takes to ask.
        """
        now = time.monotonic()
        if self._absence.since is not None or now < self._no_look_before:
            return False
        is_dear = self.shared and self._longest_s > LOOKS_A_STEP * self.desk.client.latency_s
        if not is_dear and now - self._began < FRESH_S:
            return False
        return self.others is None or self.others.may_have(mfid)

    def took(self, seconds: float) -> None:
        """A step took so long."""
        self._longest_s = max(self._longest_s, seconds)

    def look(self, ask: Callable[[CrucibleClient], Found | None]) -> Found | None:
        """What `ask` finds at the service; None if it is away, which keeps no step from being made."""
        try:
            return ask(self.desk.client)
        except TRANSIENT:
            self._no_look_before = time.monotonic() + LONGEST_WAIT_S
            return None

    def add(self, made: Made) -> None:
        """It is delivered as soon as may be."""
        with self._changed:
            self.under_way.add(made)
            self._staff()
            self._changed.notify_all()

    def take_up(self) -> int:
        """What waits in the outbox from before is delivered too; how many results that are."""
        found = self.desk.outbox.all(again=True)
        self.under_way.from_before |= {made.name for made in found}
        for made in found:
            self.add(made)
        return len(found)

    def drain(
        self,
        patience_s: float,
        waiting: Callable[[int], None] = nothing,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """True once everything has arrived.

        False if some is refused, if it is `stopped`, or if the service is away for `patience_s`.
        """
        left, told = -1, -1
        began = moved = time.monotonic()
        with self._changed:
            while self.under_way.waiting and not self.under_way.stopped and self.under_way.refusal is None:
                now = time.monotonic()
                if len(self.under_way.waiting) != left:
                    left, moved = len(self.under_way.waiting), now
                if told != left and now - began > TOLD_AFTER_S:
                    told = left
                    waiting(left)
                is_away = self._absence.since is not None and now - max(self._absence.since, began) >= patience_s
                is_stuck = not self.under_way.running and now - moved >= max(patience_s, STUCK_S)
                if is_away or is_stuck or not self.under_way.can_go_on() or stopped():
                    self._refuse_lacking()
                    break
                self._changed.wait(0.25)
            return not self.under_way.waiting

    def stop(self, wait_s: float = 5.0) -> None:
        """Nothing more is begun; what is being sent has had `wait_s` to end."""
        with self._changed:
            self.under_way.stopped = True
            self._changed.notify_all()
        until = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _refuse_lacking(self) -> None:
        """Nobody brings any more what these lack."""
        lacking, self.under_way.lacking = self.under_way.lacking, {}
        for name, error in lacking.items():
            if name in self.under_way.waiting:
                self.under_way.refused.add(name)
                self.desk.tell(Trouble(self.under_way.waiting[name], error, refused=True))

    def _staff(self) -> None:
        """There are as many deliverers as the answers' latency asks for."""
        wanted = min(MOST_DELIVERERS, max(1, int(self.desk.client.latency_s / ONE_PER_S)), len(self.under_way.waiting))
        for _ in range(wanted - len(self._threads) if not self._idle else 0):
            thread = threading.Thread(target=self._work, name="deliverer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (made := self._next()) is not None:
            self._sending.send(made)

    def _next(self) -> Made | None:
        with self._changed:
            while not self.under_way.stopped and self.under_way.refusal is None:
                made, wait_s = self._choice()
                if made is not None:
                    self.under_way.running.add(made.name)
                    return made
                self._idle += 1
                self._changed.wait(wait_s)
                self._idle -= 1
            return None

    def _choice(self) -> tuple[Made | None, float | None]:
        """The oldest result that may be taken up now; else for how long to wait, None for a change of things."""
        now = time.monotonic()
        if self._absence.until > now:
            return None, self._absence.until - now
        if self._absence.tries and self.under_way.running:  # one looks whether it is back; the others wait for that
            return None, None
        return self.under_way.next(now)

    def _served(self) -> None:
        """The service answers."""
        with self._changed:
            self._absence.end()
            self._staff()
