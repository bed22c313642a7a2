"""Delivery: registering the results of the outbox at Crucible, several at once, parents before children, or one now.

A result is sent once the registration of each parent that waits here has begun, and is marked complete when they are.
The number of threads follows from the latency of the service: one while it is instant, since more would only get in
each other's way. While the service is away it is asked ever more rarely.

If another machine registers a parent first, with other bytes, what was made here from ours is not a result of the
registered parent: it is dropped, never delivered, and reported, so that it is made again from theirs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from crucible_lineage.core.journal import DELIVERED, FAILED, LACKING, OVERTAKEN, REFUSED, ResultRow
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    CrucibleError,
    FileChangedError,
    IdTakenError,
    LineageError,
    NotFoundError,
    StorageError,
    UnauthorizedError,
    WithdrawnError,
)
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import NewDataset, Payload
from crucible_lineage.registration.queue import DAMAGED, DROPPED, DeliveryQueue, other_bytes
from crucible_lineage.registration.register import RegistrationHooks, nothing, register_output, register_together

if TYPE_CHECKING:  # importing either costs time that planning should not pay
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import IngestionRequest

MIN_THREADS, MAX_THREADS = 3, 24  # measured: two leave a core idle while the embedded Crucible works
CALL_COST_S = 0.003  # measured: CPU time of a call; more threads than latency / cost only queue
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
GATHER_S = 0.25  # chosen: how long results wait for others that the embedded Crucible gets with them
STUCK_S = 30.0  # chosen: the least time that another process may hold a result


class _ParentWaitsError(LineageError):
    """A parent is not at Crucible yet, so that its child has to wait."""


class _OvertakenError(LineageError):
    """A parent is at Crucible with other bytes, so that its child made here is not a result of it."""


@dataclass(frozen=True)
class DeliveryContext:
    """The outbox, the service and the callbacks of a delivery. `turn` returns the lock of a result.

    `note` receives the datasets at Crucible by the id made here, `ingesting` the ingestion requests;
    `describe_fault` returns the message and the log file for an unexpected error.
    """

    outbox: Outbox
    client: CrucibleClient
    machine: str
    turn: Callable[[str], FileLock]
    note: Callable[[Mapping[str, DatasetRef]], None] = nothing
    ingesting: Callable[[DatasetRef, Mapping[str, IngestionRequest]], None] = nothing
    describe_fault: Callable[[BaseException], tuple[str, str]] = lambda error: (repr(error), "")

    def register(self, new: NewDataset, stages: RegistrationHooks) -> DatasetRef:
        """Register one dataset of a payload."""
        stages = replace(stages, ingesting=self.ingesting)
        return register_output(self.client, new, self.machine, stages=stages)

    def register_together(self, datasets: Sequence[NewDataset]) -> bool:
        """Register small datasets by one call, all or none. Return whether it did."""
        if (requests := register_together(self.client, datasets, self.machine)) is None:
            return False
        for new in datasets:
            self.ingesting(new.ref(new.mfid), requests[new.mfid])
        return True


Deliver = Callable[[ResultRow], object]
"""Queues a payload for delivery in the background, while dependent steps already run."""


def deliver_now(context: DeliveryContext, row: ResultRow) -> dict[str, DatasetRef]:
    """Register the outputs of one step, one after the other; raises the error of the first that fails.

    Return none if another process has delivered them.
    """
    outbox = context.outbox
    with context.turn(row.name):
        if not outbox.waits(row.name):
            return {}
        if (payload := outbox.opened(row)) is None:
            raise FileChangedError(f"the result of {row.step} was damaged in the outbox and set aside; run it again")
        try:
            refs = {new.mfid: context.register(new, RegistrationHooks()) for new in payload.datasets}
        except CrucibleError as error:
            with suppress(OSError):
                outbox.failed(row.name, str(error), refused=not isinstance(error, TRANSIENT))
            raise
        context.note(refs)
        outbox.delivered(row.name)
        return refs


Report = Callable[[ResultRow, Payload | None], object]
"""Receives a row as a delivery has left it, and the payload if that was sent.

It is DELIVERED, DROPPED, REFUSED (sending it again unchanged is useless), or still MADE if it could not be sent now.
"""


class Deliverer:
    """Delivers payloads in threads of this process until it is stopped. `report` receives the outcome of each."""

    def __init__(self, context: DeliveryContext, report: Report = nothing) -> None:
        self.context = context
        self._report = report
        self._outcomes: deque[tuple[ResultRow, Payload | None]] = deque()  # to be reported in this order
        self._reporting = threading.RLock()
        self._changed = threading.Condition()
        self.queue = DeliveryQueue(context.outbox.opened)
        self._idle = 0
        self._sending = 0  # threads that send, or have not reported the outcome yet
        self.refuses_all = False  # the service does, for good
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._away_since: float | None = None
        self._away_until, self._away_tries = 0.0, 0
        self._moved = time.monotonic()

    # The queue

    def add(self, row: ResultRow, /) -> None:
        """Queue a payload for delivery."""
        wait_s = GATHER_S if self.context.client.is_embedded else 0.0
        self._admit([row], from_before=False, due=time.monotonic() + wait_s)

    def take_up(self) -> None:
        """Queue the payloads that wait in the outbox from before."""
        self._admit(self.context.outbox.all(again=True), from_before=True)

    def _admit(self, rows: Iterable[ResultRow], *, from_before: bool, due: float = 0.0) -> None:
        with self._changed:
            for row in rows:
                self.queue.admit(row, from_before=from_before, due=due)
            self._staff()
            self._changed.notify_all()

    def waiting(self) -> int:
        """Return the number of payloads that wait."""
        with self._changed:
            return len(self.queue.rows)

    def is_settled(self, patience_s: float, since: float, own: set[str] | None = None) -> bool:
        """Return whether waiting is over: all is delivered or blocked, or the service was away for `patience_s`.

        Times count from `since` on. If only some datasets are `own`, the others only count while the service answers.
        """
        with self._changed:
            if self._stopped:
                return True
            can_go_on = not self.refuses_all and any(True for _ in self.queue.free())
            if not self._sending and not can_go_on:
                return True
            now = time.monotonic()
            mine = own is None or self.queue.holds_any(own)
            if self._away_since is not None and now - max(self._away_since, since) >= (patience_s if mine else 0.0):
                return True
            return not self._sending and now - max(self._moved, since) >= max(patience_s, STUCK_S)

    def drain(self, patience_s: float, report_left: Callable[[int], None] = nothing) -> bool:
        """Wait until everything is delivered. Return False if some is refused, or the service is away `patience_s`."""
        began, reported = time.monotonic(), -1
        with self._changed:
            for row in self.queue.rows.values():
                row.due = min(row.due, began)
            self._changed.notify_all()
        while not self.is_settled(patience_s, began):
            with self._changed:
                self._changed.wait(0.25)
                number = len(self.queue.rows)
            if number != reported and time.monotonic() - began > 1.0:
                reported = number
                report_left(number)
        self.give_up_lacking()
        return not self.queue.rows

    def give_up_lacking(self) -> None:
        """Report payloads with a missing parent as refused: nobody delivers that parent."""
        with self._changed:
            blocked = [row for row in self.queue.rows.values() if row.state == LACKING]
            for row in blocked:
                row.state = REFUSED
        for row in blocked:
            self._report(replace(row), None)

    def stop(self, wait_s: float = 5.0) -> None:
        """Start no more deliveries; those under way have `wait_s` to finish."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        until = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    # Threads

    def _staff(self) -> None:
        """Start as many threads as the latency of the service calls for."""
        useful = max(MIN_THREADS, int(self.context.client.latency_s / CALL_COST_S))
        number = min(MAX_THREADS, useful, len(self.queue.rows))
        for _ in range(number - len(self._threads) if not self._idle else 0):
            thread = threading.Thread(target=self._work, name="deliverer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while rows := self._next():
            try:
                self._send_all(rows)
            finally:
                with self._changed:
                    self._sending -= len(rows)
                    self._changed.notify_all()

    def _next(self) -> list[ResultRow]:
        """Wait for the oldest payload that may be sent and return its row, with others if they are sent together.

        Return nothing when delivery is over.
        """
        with self._changed:
            while not self._stopped and not self.refuses_all:
                now, wait_s = time.monotonic(), None
                if self._away_until > now:
                    wait_s = self._away_until - now
                elif not (self._away_tries and self._sending):  # one thread tries the service; the others wait for it
                    for row in self.queue.free():
                        if row.due <= now:
                            together = self.queue.together(row, is_embedded=self.context.client.is_embedded)
                            self._sending += len(together)
                            return together
                        wait_s = min(row.due - now, wait_s or LONGEST_WAIT_S)
                self._idle += 1
                self._changed.wait(wait_s)
                self._idle -= 1
            return []

    # Sending

    def _send_all(self, rows: Sequence[ResultRow]) -> None:
        """Send payloads together if that is possible, else one after the other."""
        if len(rows) == 1 or not self._send_together(rows):
            for row in rows:
                self._send(row)

    def _send(self, row: ResultRow) -> None:
        """Register a payload; on an error, decide whether to retry, refuse or drop it."""
        from filelock import Timeout  # only delivery pays for this import

        outbox = self.context.outbox
        try:
            with self.context.turn(row.name).acquire(timeout=0):
                if not outbox.waits(row.name):
                    self._arrived(row, None, {})
                    return
                payload = outbox.checked(row) if row.from_before else outbox.opened(row)
                if payload is None:
                    self._drop(row, DAMAGED)
                    return
                refs = self._register(row, payload)
                self.context.note(refs)
                outbox.delivered(row.name)
                self._arrived(row, payload, refs)
        except Timeout:  # another process is sending it
            self._retry(row, 0.2)
        except _ParentWaitsError:  # sent again when the parents are begun again or delivered
            self._retry(row, 0.0)
        except _OvertakenError as error:
            self._drop(row, str(error), OVERTAKEN, delete=True)
        except (IdTakenError, WithdrawnError) as error:  # made again under another id, or when the id is free
            self._drop(row, str(error), told=REFUSED, delete=isinstance(error, WithdrawnError))
        except FileChangedError as error:  # the result is lost
            self._drop(row, f"{error}; the next run makes it again", told=REFUSED)
        except TRANSIENT as error:
            self._away(row, error)
        except ConflictError as error:
            self._fail(row, str(error))
            row.tries += 1
            self._retry(row, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**row.tries))
        except UnauthorizedError as error:
            with self._changed:
                self.refuses_all = True
            self._refuse(row, str(error))
        except NotFoundError as error:  # a wiped service lacks the parents until somebody makes them again
            with self._changed:
                row.state, row.error = LACKING, str(error)
                self._ended(row)
            outbox.journal.move_waiting(row.name, LACKING, error=str(error))
        except Exception as error:
            if not row.from_before and outbox.checked(row) is None:
                self._drop(row, DAMAGED)
                return
            message, log = (str(error), "") if isinstance(error, LineageError) else self.context.describe_fault(error)
            self._refuse(row, message, log)

    def _send_together(self, rows: Sequence[ResultRow]) -> bool:
        """Register payloads by one call, all or none. Return whether it did; else each has to be sent on its own."""
        outbox, payloads = self.context.outbox, list[Payload]()
        try:
            with ExitStack() as turns:
                for row in rows:
                    turns.enter_context(self.context.turn(row.name).acquire(timeout=0))
                    payload = outbox.opened(row) if outbox.waits(row.name) else None
                    if payload is None:
                        return False
                    payloads.append(payload)
                    self._require_same_parents(row, payload)
                new = [dataset for payload in payloads for dataset in payload.datasets]
                if not self.context.register_together(new):
                    return False
                refs = {dataset.mfid: dataset.ref(dataset.mfid) for dataset in new}
                self._served()
                self.context.note(refs)
                outbox.delivered(*(row.name for row in rows))
        except Exception:  # which sending them one at a time meets again
            return False
        for row, payload in zip(rows, payloads, strict=True):
            self._arrived(row, payload, {mfid: refs[mfid] for mfid in row.mfids})
        return True

    def _register(self, row: ResultRow, payload: Payload) -> dict[str, DatasetRef]:
        refs = {}
        for new in payload.datasets:
            stages = RegistrationHooks(
                begun=partial(self._note_begun, new.mfid),
                before_complete=partial(self._require_parents, row, payload),
                adopted=partial(setattr, row, "is_ours", False),
            )
            self._require_same_parents(row, payload)
            refs[new.mfid] = self.context.register(new, stages)
            self._served()
        return refs

    def _note_begun(self, mfid: str) -> None:
        self._served()
        with self._changed:
            self.queue.begun.add(mfid)
            self._changed.notify_all()

    def _require_parents(self, row: ResultRow, payload: Payload) -> None:
        """Wait until all parents are at Crucible. Raises _ParentWaitsError, or _OvertakenError if they differ."""
        with self._changed:
            while blocking := self.queue.blocking(row):
                if self._stopped or not self.queue.are_under_way(blocking):
                    raise _ParentWaitsError(f"{row.step} waits for {', '.join(sorted(blocking))}")
                self._changed.wait()
        self._require_same_parents(row, payload)

    def _require_same_parents(self, row: ResultRow, payload: Payload) -> None:
        """Raise _OvertakenError if a parent at Crucible is known to have other bytes than the payload was made from.

        For a payload of an earlier run, ask the service: it may have been wiped, and filled again by a step that does
        not produce the same bytes twice.
        """
        with self._changed:
            if reason := self.queue.reason_to_drop(row, payload):
                raise _OvertakenError(reason)
            unchecked = self.queue.unchecked(row, payload) if row.from_before else []
        for used in unchecked:
            stored = {file.filename: file.sha256_hash for file in self.context.client.files.list(used.mfid)}
            if reason := other_bytes(used, stored):
                raise _OvertakenError(reason)

    # Outcomes

    def _arrived(self, row: ResultRow, payload: Payload | None, refs: Mapping[str, DatasetRef]) -> None:
        with self._changed:
            self._moved, is_other = time.monotonic(), self.queue.arrived(row, payload, refs)
            self._ended(row)
            is_ours = bool(refs) and not is_other and row.is_ours
            self._outcomes.append((replace(row, state=DELIVERED, error="", refs=refs, is_ours=is_ours), payload))
            if is_other:
                self._drop_overtaken()
        self._report_outcomes()

    def _drop(
        self, row: ResultRow, reason: str, state: str = FAILED, *, told: str = DROPPED, delete: bool = False
    ) -> None:
        """Remove an invalid payload and all that was made from it; the report has the state that is `told`.

        With `delete`, request deletion of datasets that were begun: nothing is made again under their ids.
        """
        self.context.outbox.dropped(row.name, state, reason)
        with self._changed:
            unfinished = self.queue.begun.intersection(row.mfids) if delete else ()
            self._moved = time.monotonic()
            self.queue.drop(row)
            self._ended(row)
            self._outcomes.append((replace(row, state=told, error=reason), None))
            self._drop_overtaken()
        for mfid in unfinished:
            with suppress(CrucibleError):
                self.context.client.datasets.delete(mfid, "made from bytes that another registration has replaced")
        self._report_outcomes()

    def _report_outcomes(self) -> None:
        """Report what has ended, parents first: a child reported earlier would be made of its old parent again."""
        with self._reporting:
            while self._outcomes:
                self._report(*self._outcomes.popleft())

    def _drop_overtaken(self) -> None:
        """Drop what was made from it; what is being sent checks that itself."""
        for other, reason in self.queue.overtaken():
            self.context.outbox.dropped(other.name, OVERTAKEN, reason)
            self._outcomes.append((replace(other, state=DROPPED, error=reason), None))

    def _ended(self, row: ResultRow) -> None:
        row.is_running = False
        self._changed.notify_all()

    def _retry(self, row: ResultRow, wait_s: float) -> None:
        with self._changed:
            row.due = time.monotonic() + wait_s
            self._ended(row)

    def _refuse(self, row: ResultRow, error: str, log: str = "") -> None:
        self._fail(row, error, refused=True)
        with self._changed:
            row.state = REFUSED
            self._ended(row)
        self._report(replace(row, error=error, log=log), None)

    def _away(self, row: ResultRow, error: CrucibleError) -> None:
        self._fail(row, str(error))
        with self._changed:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
            if now >= self._away_until:  # else another thread noted it already
                self._away_tries += 1
                wait_s = error.retry_after_s or FIRST_WAIT_S * 2.0 ** min(self._away_tries, 10)
                self._away_until = now + min(wait_s, LONGEST_WAIT_S)
        self._retry(row, 0.0)
        self._report(replace(row, error=str(error)), None)

    def _fail(self, row: ResultRow, error: str, *, refused: bool = False) -> None:
        with suppress(OSError, StorageError):  # a full disk prevents the record; the outcome is still reported
            self.context.outbox.failed(row.name, error, refused=refused)

    def _served(self) -> None:
        """Record that the service answers."""
        with self._changed:
            self._away_since, self._away_until, self._away_tries = None, 0.0, 0
            self._staff()
