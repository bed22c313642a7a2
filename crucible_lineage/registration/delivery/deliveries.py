"""Deliverers: what waits in the outbox is registered at Crucible, several results at once, parents before children.

A result is taken up once each of its parents that waits here too is there and was begun by this machine, and marked
complete when they are. How many work at once follows from how long answers take: one while the service is
instant, since more would only get into each other's way. While the service is away they come back ever more rarely.

Where another machine was faster with a parent, and its bytes are others, what was made here from ours is no result of
what is registered: it is dropped, never delivered, and told as overtaken, so that it is made again from theirs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    CrucibleError,
    FileChangedError,
    IdTakenError,
    LineageError,
    NotFoundError,
    UnauthorizedError,
    WithdrawnError,
)
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.delivery.desk import Delivered, Desk, Trouble, registered_at
from crucible_lineage.registration.delivery.others import Others
from crucible_lineage.registration.delivery.under_way import UnderWay
from crucible_lineage.registration.outbox import Made
from crucible_lineage.registration.register import Stages, nothing

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["MOST_DELIVERERS", "Deliveries"]

MOST_DELIVERERS = 24
ONE_PER_S = 0.003  # measured: what a call costs this process; more deliverers than answers take of that only queue
TOLD_AFTER_S = 1.0
STUCK_S = 30.0  # chosen: how long another process that holds a result is given at least
LOOKS_A_STEP = 8.0  # chosen: a look adds at most an eighth to what a step takes
FRESH_S = 30.0  # chosen: in so short a time another machine does not make much of the same
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
Found = TypeVar("Found")


class _ParentWaitsError(LineageError):
    """A parent is not at Crucible yet; what was made from it comes later."""


class _OvertakenError(LineageError):
    """A parent is at Crucible with other bytes; what was made from ours is no result of it."""


class Deliveries:
    """Deliverers at work in threads of this process until they are stopped, or everything has arrived."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.adopted: dict[str, DatasetRef] = {}  # what another machine has registered first, with other bytes
        self.theirs: set[str] = set()  # what is there as another machine has registered it
        self.overtaken: list[str] = []  # what was made here from our bytes of these
        self.refusal: CrucibleError | None = None  # the service has refused for good, whatever is sent
        self._state = UnderWay()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopped = False
        self._away_until = 0.0
        self._away_tries = 0
        self._away_since: float | None = None
        self._began = time.monotonic()
        self._no_look_before = 0.0
        self._longest_s = 0.0  # that a step of this run took
        self.shared = False  # other machines may make the same at this service
        self.others: Others | None = None  # what tells it, if it can be told for all steps at once

    def is_worth_a_look(self, mfid: str) -> bool:
        """True if the service answers and may have a result meanwhile that it had not at the beginning.

        Where machines share it, also as soon as steps of this run take much longer than it takes to ask.
        """
        now = time.monotonic()
        if self._away_since is not None or now < self._no_look_before:
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
            self._state.add(made)
            self._staff()
            self._changed.notify_all()

    def take_up(self) -> int:
        """What waits in the outbox from before is delivered too; how many results that are."""
        found = self.desk.outbox.all(again=True)
        self._state.from_before |= {made.name for made in found}
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
            while self._state.waiting and not self._stopped and self.refusal is None:
                now = time.monotonic()
                if len(self._state.waiting) != left:
                    left, moved = len(self._state.waiting), now
                if told != left and now - began > TOLD_AFTER_S:
                    told = left
                    waiting(left)
                is_away = self._away_since is not None and now - max(self._away_since, began) >= patience_s
                is_stuck = not self._state.running and now - moved >= max(patience_s, STUCK_S)
                if is_away or is_stuck or not self._state.can_go_on() or stopped():
                    self._refuse_lacking()
                    break
                self._changed.wait(0.25)
            return not self._state.waiting

    def stop(self, wait_s: float = 5.0) -> None:
        """Nothing more is begun; what is being sent has had `wait_s` to end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        until = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _refuse_lacking(self) -> None:
        """Nobody brings any more what these lack."""
        lacking, self._state.lacking = self._state.lacking, {}
        for name, error in lacking.items():
            if name in self._state.waiting:
                self._state.refused.add(name)
                self._tell(self._state.waiting[name], error)

    def _staff(self) -> None:
        """There are as many deliverers as the answers' latency asks for."""
        wanted = min(MOST_DELIVERERS, max(1, int(self.desk.client.latency_s / ONE_PER_S)), len(self._state.waiting))
        for _ in range(wanted - len(self._threads) if not self._idle else 0):
            thread = threading.Thread(target=self._work, name="deliverer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (made := self._next()) is not None:
            self._deliver(made)

    def _next(self) -> Made | None:
        with self._changed:
            while not self._stopped and self.refusal is None:
                made, wait_s = self._choice()
                if made is not None:
                    self._state.running.add(made.name)
                    return made
                self._idle += 1
                self._changed.wait(wait_s)
                self._idle -= 1
            return None

    def _choice(self) -> tuple[Made | None, float | None]:
        """The oldest result that may be taken up now; else for how long to wait, None for a change of things."""
        now = time.monotonic()
        if self._away_until > now:
            return None, self._away_until - now
        if self._away_tries and self._state.running:  # one looks whether the service is back; the others wait for it
            return None, None
        return self._state.next(now)

    def _deliver(self, made: Made) -> None:
        from filelock import Timeout  # only what delivers pays for it

        try:
            with self.desk.turn(made.name).acquire(timeout=0):
                found = self._sent(made) if self.desk.outbox.waits(made) else []
        except Timeout:  # another process is at it
            self._again(made, 0.2)
        except _ParentWaitsError:
            self._again(made, 0.0)
        except _OvertakenError as error:
            if made.name in self._state.from_before:
                self._tell(made, str(error), refused=False)
            self._drop(made)
        except IdTakenError as error:  # under another id, or when the way is free, it is made again
            self._tell(made, str(error))
            self._drop(made, begun=False)
        except WithdrawnError as error:  # what is there instead is not to be relied on, and this cannot stand beside it
            self._tell(made, str(error))
            self._drop(made)
        except FileChangedError as error:  # a step wrote to what it was given; nothing is left of the result
            self._tell(made, f"{error}; it is made again by the next run", refused=True)
            self._drop(made)
        except TRANSIENT as error:
            self._away(made, error)
        except ConflictError as error:
            self._tell(made, str(error), refused=False)
            self._again(made, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** self._failed(made)))
        except UnauthorizedError as error:
            with self._changed:
                self.refusal = error
                self._ended(made)
            self._tell(made, str(error))
        except NotFoundError as error:  # a wiped service lacks the parents until somebody makes them again
            with self._changed:
                self._state.lacking[made.name] = str(error)
                self._ended(made)
        except Exception as error:
            if _is_damaged(made):
                self._tell(made, f"{error}; its files were damaged where they waited, it is made again", refused=False)
                self._lose(made)
                return
            said, log = (str(error), "") if isinstance(error, LineageError) else self.desk.told_fault(error)
            self._tell(made, said, log=log)
            with self._changed:
                self._state.refused.add(made.name)
                self._ended(made)
        else:
            self._arrived(made, found)

    def _sent(self, made: Made) -> list[Delivered]:
        found = []
        for new in made.datasets:
            theirs = partial(self.theirs.add, new.mfid)
            stages = Stages(partial(self._begun, new.mfid), partial(self._require_parents, made), theirs)
            self._require_not_overtaken(made)
            self._require_same_parents(made)
            found.append(Delivered(new.mfid, registered_at(self.desk, new, stages)))
            self._served()
        self.desk.delivered(found)
        self.desk.outbox.delivered(made)
        return found

    def _begun(self, mfid: str) -> None:
        self._served()
        with self._changed:
            self._state.begun.add(mfid)
            self._changed.notify_all()

    def _require_parents(self, made: Made) -> None:
        """All its parents are at Crucible, as they were used; else it waits for them, or is none."""
        with self._changed:
            while blocking := self._state.blocking(made):
                running = {new.mfid for name in self._state.running for new in self._state.waiting[name].datasets}
                if self._stopped or not blocking <= running:
                    raise _ParentWaitsError(f"{made.step} waits for {', '.join(sorted(blocking))}")
                self._changed.wait()
        self._require_not_overtaken(made)
        self._require_same_parents(made)

    def _require_not_overtaken(self, made: Made) -> None:
        with self._changed:
            if made.parents & self._state.overtaken:
                raise _OvertakenError(made.step)

    def _require_same_parents(self, made: Made) -> None:
        """Those parents of a result from before that are at Crucible have the bytes there that it was made from.

        A wiped service may have been filled again meanwhile, by a step that does not give the same bytes twice.
        """
        with self._changed:
            if made.name not in self._state.from_before:
                return
            blocking = {*self._state.blocking(made), *made.mfids}
        for used in (used for new in made.datasets for used in new.record.used):
            if not used.files or used.mfid in blocking:
                continue
            there = {file.filename: file.sha256_hash for file in self.desk.client.files.list(used.mfid)}
            for file in used.files:
                if file.name not in there or there[file.name] not in (file.sha256, None):
                    raise _OvertakenError(
                        f"it was made from {file.name} of {used.mfid}, of which Crucible has other bytes by now; it is "
                        "no result of that, and made anew by the next run"
                    )

    def _arrived(self, made: Made, found: Sequence[Delivered]) -> None:
        sent = {new.mfid: {(file.ref.name, file.ref.sha256) for file in new.files if file.ref.is_data}
                for new in made.datasets}  # fmt: skip
        is_ours = bool(found)  # and no other process or machine was faster
        with self._changed:
            for one in found:
                there = {(file.name, file.sha256) for file in one.ref.data_files}
                if one.ref.mfid != one.mfid or there != sent[one.mfid]:
                    self._state.overtaken.add(one.mfid)
                    self.adopted[one.mfid] = one.ref
                    is_ours = False
            self._state.leave(made)
            arrived = set(made.mfids)
            self._state.lacking = {
                name: error for name, error in self._state.lacking.items()
                if name in self._state.waiting and not self._state.waiting[name].parents & arrived
            }  # fmt: skip
            self._ended(made)
            self._drop_descendants()
        if is_ours:
            self.desk.arrived(made)

    def _drop(self, made: Made, *, begun: bool = True) -> None:
        """It is no result; with `begun`, the dataset that was begun for it is asked to be deleted."""
        with self._changed:
            left = [new.mfid for new in made.datasets if new.mfid in self._state.begun] if begun else []
            self._gone(made)
            self._ended(made)
        for mfid in left:
            with suppress(CrucibleError):
                self.desk.client.datasets.delete(mfid, "made from bytes that another registration has replaced")

    def _lose(self, made: Made) -> None:
        """It is made again under the same id, and so is what was made from it, since its bytes may become others."""
        with self._changed:
            lost, more = {made.name: made}, True
            while more:
                ids = {mfid for one in lost.values() for mfid in one.mfids}
                found = {name: other for name, other in self._state.waiting.items()
                         if other.parents & ids and name not in {*lost, *self._state.running}}  # fmt: skip
                lost, more = lost | found, bool(found)
            for one in lost.values():
                self.desk.outbox.delivered(one)
                self._state.leave(one)
                self.overtaken += one.mfids
            self._ended(made)

    def _gone(self, made: Made) -> None:
        """It is dropped, with all that was made from it."""
        self.desk.outbox.delivered(made)
        self._state.leave(made)
        for new in made.datasets:
            self.overtaken.append(new.mfid)
            self._state.overtaken.add(new.mfid)
        self._drop_descendants()

    def _drop_descendants(self) -> None:
        """What was made from overtaken datasets and is not under way is dropped; the rest finds out itself."""
        for other in list(self._state.waiting.values()):
            is_free = other.name in self._state.waiting and other.name not in self._state.running
            if is_free and other.parents & self._state.overtaken:
                self._gone(other)

    def _away(self, made: Made, error: CrucibleError) -> None:
        """The service cannot be had: everybody waits, ever longer."""
        self._tell(made, str(error), refused=False)
        with self._changed:
            if self._away_since is None:
                self._away_since = time.monotonic()
            if time.monotonic() >= self._away_until:  # else it was told already by who was at work beside
                self._away_tries += 1
                wait_s = error.retry_after_s or FIRST_WAIT_S * 2.0 ** min(self._away_tries, 10)
                self._away_until = time.monotonic() + min(wait_s, LONGEST_WAIT_S)
            self._ended(made)

    def _served(self) -> None:
        """The service answers."""
        with self._changed:
            self._away_until, self._away_tries, self._away_since = 0.0, 0, None
            self._staff()

    def _again(self, made: Made, wait_s: float) -> None:
        with self._changed:
            self._state.not_before[made.name] = time.monotonic() + wait_s
            self._ended(made)

    def _failed(self, made: Made) -> int:
        with self._changed:
            self._state.failures[made.name] = self._state.failures.get(made.name, 0) + 1
            return self._state.failures[made.name]

    def _ended(self, made: Made) -> None:
        self._state.running.discard(made.name)
        self._changed.notify_all()

    def _tell(self, made: Made, error: str, *, refused: bool = True, log: str = "") -> None:
        with suppress(OSError):  # a full disk keeps the note from being written; it is told all the same
            self.desk.outbox.failed(made, error, refused=refused)
        self.desk.troubled(Trouble(made, error, refused, self.refusal is not None, log))


def _is_damaged(made: Made) -> bool:
    """True if the bytes of a file that waits are no longer those that the step wrote."""
    return any(not file.path.exists() or file_sha256(file.path) != file.ref.sha256
               for new in made.datasets for file in new.files)  # fmt: skip
