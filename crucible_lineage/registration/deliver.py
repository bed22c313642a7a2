"""Delivery: registering the results of the outbox at Crucible, several at once, parents before children.

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
from dataclasses import replace
from functools import partial

from crucible_lineage.core.journal import DELIVERED, FAILED, LACKING, MADE, OVERTAKEN, REFUSED
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
from crucible_lineage.registration.delivery import DROPPED, Delivery, DeliveryContext
from crucible_lineage.registration.payload import Payload
from crucible_lineage.registration.queue import DAMAGED, DeliveryQueue, other_bytes
from crucible_lineage.registration.register import RegistrationHooks, nothing

MIN_THREADS, MAX_THREADS = 3, 24  # measured: two leave a core idle while the embedded Crucible works
CALL_COST_S = 0.003  # measured: CPU time of a call; more threads than latency / cost only queue
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
GATHER_S = 0.25  # chosen: how long results wait for others that the embedded Crucible gets with them
STUCK_S = 30.0  # chosen: the least time that another process may hold a result


class _ParentWaitsError(LineageError):
    """A parent is not at Crucible yet, so that its child has to wait."""


class _OvertakenError(LineageError):
    """A parent is at Crucible with other bytes, so that its child made here is not a result of it."""


class Deliverer:
    """Delivers payloads in threads of this process until it is stopped. `report` receives the outcome of each."""

    def __init__(self, context: DeliveryContext, report: Callable[[Delivery], None] = nothing) -> None:
        self.context = context
        self._report = report
        self._outcomes: deque[Delivery] = deque()  # to be reported in this order
        self._reporting = threading.RLock()
        self._changed = threading.Condition()
        self.queue = DeliveryQueue(context.outbox.opened)
        self._idle = 0
        self._sending = 0  # threads that send, or have not reported the outcome yet
        self._refusal: CrucibleError | None = None  # the service refuses everything for good
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._away_since: float | None = None
        self._away_until, self._away_tries = 0.0, 0
        self._moved = time.monotonic()

    # The queue

    def add(self, label: Payload, /) -> None:
        """Queue a payload for delivery."""
        wait_s = GATHER_S if self.context.client.is_embedded else 0.0
        self._admit([label], from_before=False, due=time.monotonic() + wait_s)

    def take_up(self) -> None:
        """Queue the payloads that wait in the outbox from before."""
        self._admit(self.context.outbox.all(again=True), from_before=True)

    def _admit(self, labels: Iterable[Payload], *, from_before: bool, due: float = 0.0) -> None:
        with self._changed:
            for label in labels:
                self.queue.admit(label, from_before=from_before, due=due)
            self._staff()
            self._changed.notify_all()

    def waiting(self) -> int:
        """Return the number of payloads that wait."""
        with self._changed:
            return len(self.queue.entries)

    def is_settled(self, patience_s: float, since: float, own: set[str] | None = None) -> bool:
        """Return whether waiting is over: all is delivered or blocked, or the service was away for `patience_s`.

        Times count from `since` on. If only some payloads are `own`, the others only count while the service answers.
        """
        with self._changed:
            if self._stopped:
                return True
            can_go_on = self._refusal is None and any(True for _ in self.queue.free())
            if not self._sending and not can_go_on:
                return True
            now = time.monotonic()
            mine = own is None or not self.queue.entries.keys().isdisjoint(own)
            if self._away_since is not None and now - max(self._away_since, since) >= (patience_s if mine else 0.0):
                return True
            return not self._sending and now - max(self._moved, since) >= max(patience_s, STUCK_S)

    def drain(self, patience_s: float, report_left: Callable[[int], None] = nothing) -> bool:
        """Wait until everything is delivered. Return False if some is refused, or the service is away `patience_s`."""
        began, reported = time.monotonic(), -1
        with self._changed:
            for entry in self.queue.entries.values():
                entry.due = min(entry.due, began)
            self._changed.notify_all()
        while not self.is_settled(patience_s, began):
            with self._changed:
                self._changed.wait(0.25)
                number = len(self.queue.entries)
            if number != reported and time.monotonic() - began > 1.0:
                reported = number
                report_left(number)
        self.give_up_lacking()
        return not self.queue.entries

    def give_up_lacking(self) -> None:
        """Report payloads with a missing parent as refused: nobody delivers that parent."""
        with self._changed:
            blocked = [entry for entry in self.queue.entries.values() if entry.state == LACKING]
            for entry in blocked:
                entry.state = REFUSED
        for entry in blocked:
            self._report(replace(entry, outcome=REFUSED))

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
        number = min(MAX_THREADS, useful, len(self.queue.entries))
        for _ in range(number - len(self._threads) if not self._idle else 0):
            thread = threading.Thread(target=self._work, name="deliverer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while entries := self._next():
            try:
                self._send_all(entries)
            finally:
                with self._changed:
                    self._sending -= len(entries)
                    self._changed.notify_all()

    def _next(self) -> list[Delivery]:
        """Wait for the oldest payload that may be sent and return it, with others if they are sent together.

        Return nothing when delivery is over.
        """
        with self._changed:
            while not self._stopped and self._refusal is None:
                now, wait_s = time.monotonic(), None
                if self._away_until > now:
                    wait_s = self._away_until - now
                elif not (self._away_tries and self._sending):  # one thread tries the service; the others wait for it
                    for entry in self.queue.free():
                        if entry.due <= now:
                            together = self.queue.together(entry, is_embedded=self.context.client.is_embedded)
                            self._sending += len(together)
                            return together
                        wait_s = min(entry.due - now, wait_s or LONGEST_WAIT_S)
                self._idle += 1
                self._changed.wait(wait_s)
                self._idle -= 1
            return []

    # Sending

    def _send_all(self, entries: Sequence[Delivery]) -> None:
        """Send payloads together if that is possible, else one after the other."""
        if len(entries) == 1 or not self._send_together(entries):
            for entry in entries:
                self._send(entry)

    def _send(self, entry: Delivery) -> None:
        """Register a payload; on an error, decide whether to retry, refuse or drop it."""
        from filelock import Timeout  # only delivery pays for this import

        outbox, label = self.context.outbox, entry.payload
        try:
            with self.context.turn(label.name).acquire(timeout=0):
                if not outbox.waits(label):
                    self._arrived(entry, {})
                    return
                payload = outbox.checked(label) if entry.from_before else outbox.opened(label)
                if payload is None:
                    self._drop(entry, DAMAGED)
                    return
                entry.payload = payload
                refs = self._register(entry)
                self.context.note(refs)
                outbox.delivered(label)
                self._arrived(entry, refs)
        except Timeout:  # another process is sending it
            self._retry(entry, 0.2)
        except _ParentWaitsError:  # sent again when the parents are begun again or delivered
            self._retry(entry, 0.0)
        except _OvertakenError as error:
            self._drop(entry, str(error), state=OVERTAKEN, delete=True)
        except (IdTakenError, WithdrawnError) as error:  # made again under another id, or when the id is free
            self._drop(entry, str(error), outcome=REFUSED, delete=isinstance(error, WithdrawnError))
        except FileChangedError as error:  # the result is lost
            self._drop(entry, f"{error}; the next run makes it again", outcome=REFUSED)
        except TRANSIENT as error:
            self._away(entry, error)
        except ConflictError as error:
            self._fail(entry, str(error))
            entry.failures += 1
            self._retry(entry, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**entry.failures))
        except UnauthorizedError as error:
            with self._changed:
                self._refusal = error
            self._refuse(entry, str(error))
        except NotFoundError as error:  # a wiped service lacks the parents until somebody makes them again
            with self._changed:
                entry.state, entry.error = LACKING, str(error)
                self._ended(entry)
            outbox.journal.move_waiting(label.name, LACKING, error=str(error))
        except Exception as error:
            if not entry.from_before and outbox.checked(label) is None:
                self._drop(entry, DAMAGED)
                return
            message, log = (str(error), "") if isinstance(error, LineageError) else self.context.describe_fault(error)
            self._refuse(entry, message, log)

    def _send_together(self, entries: Sequence[Delivery]) -> bool:
        """Register payloads by one call, all or none. Return whether it did; else each has to be sent on its own."""
        outbox, labels = self.context.outbox, [entry.payload for entry in entries]
        try:
            with ExitStack() as turns:
                for entry, label in zip(entries, labels, strict=True):
                    turns.enter_context(self.context.turn(label.name).acquire(timeout=0))
                    payload = outbox.opened(label) if outbox.waits(label) else None
                    if payload is None:
                        return False
                    entry.payload = payload
                    self._require_same_parents(entry)
                new = [dataset for entry in entries for dataset in entry.payload.datasets]
                if not self.context.register_together(new):
                    return False
                refs = {dataset.mfid: dataset.ref(dataset.mfid) for dataset in new}
                self._served()
                self.context.note(refs)
                outbox.delivered(*labels)
        except Exception:  # which sending them one at a time meets again
            return False
        for entry, label in zip(entries, labels, strict=True):
            self._arrived(entry, {mfid: refs[mfid] for mfid in label.mfids})
        return True

    def _register(self, entry: Delivery) -> dict[str, DatasetRef]:
        refs = {}
        for new in entry.payload.datasets:
            stages = RegistrationHooks(
                begun=partial(self._note_begun, new.mfid),
                before_complete=partial(self._require_parents, entry),
                adopted=partial(setattr, entry, "is_ours", False),
            )
            self._require_same_parents(entry)
            refs[new.mfid] = self.context.register(new, stages)
            self._served()
        return refs

    def _note_begun(self, mfid: str) -> None:
        self._served()
        with self._changed:
            self.queue.begun.add(mfid)
            self._changed.notify_all()

    def _require_parents(self, entry: Delivery) -> None:
        """Wait until all parents are at Crucible. Raises _ParentWaitsError, or _OvertakenError if they differ."""
        with self._changed:
            while blocking := self.queue.blocking(entry.payload):
                if self._stopped or not self.queue.are_under_way(blocking):
                    raise _ParentWaitsError(f"{entry.payload.step} waits for {', '.join(sorted(blocking))}")
                self._changed.wait()
        self._require_same_parents(entry)

    def _require_same_parents(self, entry: Delivery) -> None:
        """Raise _OvertakenError if a parent at Crucible is known to have other bytes than the payload was made from.

        For a payload of an earlier run, ask the service: it may have been wiped, and filled again by a step that does
        not produce the same bytes twice.
        """
        with self._changed:
            if reason := self.queue.reason_to_drop(entry):
                raise _OvertakenError(reason)
            unchecked = self.queue.unchecked(entry.payload) if entry.from_before else []
        for used in unchecked:
            stored = {file.filename: file.sha256_hash for file in self.context.client.files.list(used.mfid)}
            if reason := other_bytes(used, stored):
                raise _OvertakenError(reason)

    # Outcomes

    def _arrived(self, entry: Delivery, refs: Mapping[str, DatasetRef]) -> None:
        payload = entry.payload
        with self._changed:
            self._moved, is_other = time.monotonic(), self.queue.arrived(payload, refs)
            self._ended(entry)
            is_ours = bool(refs) and not is_other and entry.is_ours
            self._outcomes.append(replace(entry, payload=payload, outcome=DELIVERED, refs=refs, is_ours=is_ours))
            if is_other:
                self._drop_overtaken()
        self._report_outcomes()

    def _drop(
        self, entry: Delivery, reason: str, *, state: str = FAILED, outcome: str = DROPPED, delete: bool = False
    ) -> None:
        """Remove an invalid payload and all that was made from it.

        With `delete`, request deletion of datasets that were begun: nothing is made again under their ids.
        """
        label = entry.payload
        self.context.outbox.dropped(label, state, reason)
        with self._changed:
            unfinished = self.queue.begun.intersection(label.mfids) if delete else ()
            self._moved = time.monotonic()
            self.queue.drop(label)
            self._ended(entry)
            self._outcomes.append(replace(entry, outcome=outcome, error=reason))
            self._drop_overtaken()
        for mfid in unfinished:
            with suppress(CrucibleError):
                self.context.client.datasets.delete(mfid, "made from bytes that another registration has replaced")
        self._report_outcomes()

    def _report_outcomes(self) -> None:
        """Report what has ended, parents first: a child reported earlier would be made of its old parent again."""
        with self._reporting:
            while self._outcomes:
                self._report(self._outcomes.popleft())

    def _drop_overtaken(self) -> None:
        """Drop what was made from it; what is being sent checks that itself."""
        for other, reason in self.queue.overtaken():
            self.context.outbox.dropped(other.payload, OVERTAKEN, reason)
            self._outcomes.append(replace(other, outcome=DROPPED, error=reason))

    def _ended(self, entry: Delivery) -> None:
        entry.payload = entry.payload.label
        entry.is_running = False
        self._changed.notify_all()

    def _retry(self, entry: Delivery, wait_s: float) -> None:
        with self._changed:
            entry.due = time.monotonic() + wait_s
            self._ended(entry)

    def _refuse(self, entry: Delivery, error: str, log: str = "") -> None:
        self._fail(entry, error, refused=True)
        with self._changed:
            entry.state = REFUSED
            self._ended(entry)
        self._report(replace(entry, outcome=REFUSED, error=error, log=log, stops=self._refusal is not None))

    def _away(self, entry: Delivery, error: CrucibleError) -> None:
        self._fail(entry, str(error))
        with self._changed:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
            if now >= self._away_until:  # else another thread noted it already
                self._away_tries += 1
                wait_s = error.retry_after_s or FIRST_WAIT_S * 2.0 ** min(self._away_tries, 10)
                self._away_until = now + min(wait_s, LONGEST_WAIT_S)
        self._retry(entry, 0.0)
        self._report(replace(entry, outcome=MADE, error=str(error)))

    def _fail(self, entry: Delivery, error: str, *, refused: bool = False) -> None:
        with suppress(OSError, StorageError):  # a full disk prevents the record; the outcome is still reported
            self.context.outbox.failed(entry.payload, error, refused=refused)

    def _served(self) -> None:
        """Record that the service answers."""
        with self._changed:
            self._away_since, self._away_until, self._away_tries = None, 0.0, 0
            self._staff()
