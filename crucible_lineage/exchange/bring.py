"""A plan carried out: several datasets at a time, parents before children, until all is there or nothing goes on.

While the service is away everybody waits, ever longer, for as long as `patience_s` says. What is refused keeps back
what was made of it, and nothing else. Stopped at any point, the next plan has what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from crucible_lineage.core.store import Brought
from crucible_lineage.errors import (
    TRANSIENT,
    CrucibleError,
    LineageError,
    UnauthorizedError,
)
from crucible_lineage.exchange.model import Conflict
from crucible_lineage.exchange.plan import CopyPlan, ItemToCopy
from crucible_lineage.exchange.send import Sender
from crucible_lineage.session import Session

__all__ = ["Outcome", "bring"]

AT_ONCE = 6  # what one client should ask of a shared service at a time
ONE_CALL_S = 5.0  # chosen: after that it is known that the service is away
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
HEARD_S = 1.0  # a signal that comes just before a wait does not end it; so it is heard after this
NOTED_EVERY = 50  # chosen: what is lost of it costs a comparison

Listen = Callable[[ItemToCopy, int, int], None]  # what has arrived, how many have, of how many


@dataclass
class Outcome:
    """What has arrived, in the order in which it did, and what did not, each with the reason."""

    sent: list[ItemToCopy] = field(default_factory=list)
    left: list[Conflict] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)


def bring(
    source: Session,
    target: Session,
    plan: CopyPlan,
    *,
    ingests: bool,
    patience_s: float,
    listen: Listen,
    troubled: Callable[[str], None],
) -> Outcome:
    """Copy what the plan names, as far as possible. `troubled` hears each reason for waiting once."""
    target.store.note_brought(source.store.instance, plan.brought)
    if not plan.items:
        return Outcome(ids=dict(plan.ids))
    target.require_usable()
    with target.connect(at_most_s=ONE_CALL_S) as client:
        sender = Sender(source, target, client, dict(plan.ids), ingests)
        sender.ingested = _ingested(source) if ingests else frozenset()
        sender.instruments = plan.instruments
        return _Bringing(sender, plan, patience_s, listen, troubled).run()


def _ingested(source: Session) -> frozenset[str]:
    """The files that were asked to be ingested."""
    asked = source.client.ingestions.iter()
    return frozenset(str(one.file_mfid) for one in asked if one.status != "not_requested")


class _Bringing:
    def __init__(
        self, sender: Sender, plan: CopyPlan, patience_s: float, listen: Listen, troubled: Callable[[str], None]
    ) -> None:
        self.sender = sender
        self.patience_s = patience_s
        self.listen = listen
        self.troubled = troubled
        self.total = len(plan.items)
        self.outcome = Outcome(ids=sender.ids)
        self._waiting = {item.mfid: item for item in plan.items}
        self._open = {item.mfid: {one for one in item.parents if one in self._waiting} for item in plan.items}
        self._noted: list[Brought] = []
        self._told: set[str] = set()
        self._stopped: CrucibleError | None = None
        self._away_since: float | None = None
        self._tries = 0
        self._retry_after_s: float | None = None
        self._over = threading.Event()

    def run(self) -> Outcome:
        running: dict[Future[Brought | None], ItemToCopy] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bring") as pool:
            try:
                while True:
                    self._start(pool, running)
                    if not running:
                        break
                    ended, _ = wait(running, timeout=HEARD_S, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._ended(running.pop(future), future)
                    if self._away_since is not None and not running and self._waiting and self._stopped is None:
                        self._over.wait(self._pause())
            except BaseException:
                self.sender.client.close()  # what is under way ends with the call that it makes
                pool.shutdown(cancel_futures=True)
                self._note()
                raise
        self._note()
        reason = str(self._stopped).splitlines()[0] if self._stopped else "what it was made of is not there"
        self.outcome.left += [Conflict(item.mfid, item.name, reason) for item in self._waiting.values()]
        return self.outcome

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future[Brought | None], ItemToCopy]) -> None:
        """Send what is ready; one dataset alone while the service is away."""
        if self._stopped is not None:
            return
        most = AT_ONCE if self._away_since is None else 1
        ids = {item.mfid for item in running.values()}
        for mfid, item in self._waiting.items():
            if len(running) >= most:
                return
            if mfid not in ids and not self._open[mfid]:
                running[pool.submit(self.sender.send, item)] = item

    def _ended(self, item: ItemToCopy, future: Future[Brought | None]) -> None:
        try:
            brought = future.result()
        except TRANSIENT as error:
            self._away(error)
        except UnauthorizedError as error:
            self._stopped = error
        except LineageError as error:
            self._served()
            del self._waiting[item.mfid]
            self.outcome.left.append(Conflict(item.mfid, item.name, str(error)))
        else:
            self._served()
            del self._waiting[item.mfid]
            for parents in self._open.values():
                parents.discard(item.mfid)
            self.outcome.sent.append(item)
            if brought is not None:
                self._noted.append(brought)
            if len(self._noted) >= NOTED_EVERY:
                self._note()
            self.listen(item, len(self.outcome.sent), self.total)

    def _away(self, error: CrucibleError) -> None:
        said = str(error).splitlines()[0]
        if said not in self._told:
            self._told.add(said)
            self.troubled(str(error))
        now = time.monotonic()
        self._away_since = self._away_since or now
        self._tries += 1
        self._retry_after_s = error.retry_after_s
        if now - self._away_since >= self.patience_s:
            self._stopped = error

    def _pause(self) -> float:
        assert self._away_since is not None
        left_s = max(0.0, self.patience_s - (time.monotonic() - self._away_since))
        wait_s = self._retry_after_s or FIRST_WAIT_S * 2.0 ** min(self._tries, 10)
        return min(wait_s, LONGEST_WAIT_S, left_s)

    def _served(self) -> None:
        self._away_since, self._tries = None, 0

    def _note(self) -> None:
        noted, self._noted = self._noted, []
        self.sender.target.store.note_brought(self.sender.source.store.instance, noted)
