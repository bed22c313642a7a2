"""Delivery: what waits in the outbox is registered at Crucible, several results at once, parents before children.

A result is taken up once each of its parents that waits here too is there and was begun by this machine, and marked
complete when they are. How many are sent at once follows from how long answers take: one while the service is instant,
since more would only get into each other's way. While the service is away it is asked ever more rarely.

Where another machine was faster with a parent and its bytes are others, what was made here from ours is no result of
what is registered: it is dropped, never delivered, and reported, so that it is made again from theirs.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from crucible_lineage.core.journal import FAILED, LACKING, MADE, OVERTAKEN
from crucible_lineage.core.journal import REFUSED as ROW_REFUSED
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
from crucible_lineage.registration.delivery import (
    ADOPTED,
    DELIVERED,
    DROPPED,
    REFUSED,
    WAITS,
    Delivery,
    DeliveryContext,
)
from crucible_lineage.registration.payload import Label, Payload
from crucible_lineage.registration.register import RegistrationHooks, nothing
from crucible_lineage.registration.remote_changes import RemoteChanges

if TYPE_CHECKING:  # importing either costs time that planning should not pay
    from crucible_lineage.client import CrucibleClient

FEWEST, MOST_AT_ONCE = 3, 24  # measured: two leave a core idle while the embedded Crucible works
ONE_PER_S = 0.003  # measured: what a call costs this process; more threads than answers take of that only queue
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STUCK_S = 30.0  # chosen: how long another process that holds a result is given at least
LOOKS_A_STEP = 8.0  # chosen: a look adds at most an eighth to what a step takes
LOOK_S = 1.0  # chosen: no step waits longer for an answer that it can do without
FRESH_S = 30.0  # chosen: in so short a time another machine does not make much of the same
_DAMAGED = "its files were damaged in the outbox; they were set aside, and the step is rerun"


@dataclass(slots=True)
class _Entry:
    """A payload on its way; `needs` are the parents that wait here and are not begun at Crucible yet.

    `state` is that of its row: MADE, REFUSED or LACKING. Payloads `from_before` were made by an earlier run. It is
    `opened` while it is sent.
    """

    label: Label
    number: int
    needs: set[str]
    from_before: bool = False
    state: str = MADE
    error: str = ""
    failures: int = 0
    opened: Payload | None = None
    is_running: bool = False
    is_adopted: bool = False  # another registration completed it


Found = TypeVar("Found")


class _ParentWaitsError(LineageError):
    """A parent is not at Crucible yet; what was made from it comes later."""


class _OvertakenError(LineageError):
    """A parent is at Crucible with other bytes; what was made from ours is no result of it."""


class Deliverer:
    """Delivers payloads in threads of this process until it is stopped. `heard` is called with what became of each."""

    def __init__(self, context: DeliveryContext, heard: Callable[[Delivery], None] = nothing) -> None:
        self.context = context
        self.shared = False  # other machines may make the same at this service
        self.others: RemoteChanges | None = None  # which datasets they changed, if one call tells it of all
        self._heard = heard
        self._changed = threading.Condition()
        self._entries: dict[str, _Entry] = {}
        self._where: dict[str, str] = {}  # dataset that waits -> the payload that it is part of
        self._children: dict[str, set[str]] = {}  # dataset -> payloads that need it to be begun first
        self._ready: list[tuple[int, str]] = []
        self._later: list[tuple[float, int, str]] = []
        self._begun: set[str] = set()
        self._theirs: dict[str, DatasetRef] = {}  # what is there with other bytes, or another id, than was made here
        self._void: set[str] = set()  # what was made here and never comes to Crucible
        self._running = self._idle = self._numbers = 0
        self._sending = 0  # threads that send, or have not told yet what became of it
        self._refusal: CrucibleError | None = None  # the service refuses for good, whatever is sent
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._away_since: float | None = None
        self._away_until, self._away_tries = 0.0, 0
        self._began = self._moved = time.monotonic()
        self._no_look_before = 0.0
        self._longest_s = 0.0  # that a step of this run took

    # What steps ask

    def is_worth_a_look(self, mfid: str, /) -> bool:
        """Whether the service answers and may have a result meanwhile that it had not at the beginning.

        Where machines share it, also as soon as steps of this run take much longer than it takes to ask.
        """
        now = time.monotonic()
        if self._away_since is not None or now < self._no_look_before:
            return False
        is_dear = self.shared and self._longest_s > LOOKS_A_STEP * self.context.client.latency_s
        if not is_dear and now - self._began < FRESH_S:
            return False
        return self.others is None or self.others.may_have(mfid)

    def took(self, seconds: float, /) -> None:
        """Record how long a step took."""
        self._longest_s = max(self._longest_s, seconds)

    def look(self, ask: Callable[[CrucibleClient], Found | None], /) -> Found | None:
        """Ask the service; None if it does not answer within a second, which keeps no step from being made."""
        answer: queue.SimpleQueue[tuple[Found | None, Exception | None]] = queue.SimpleQueue()

        def asking() -> None:
            try:
                answer.put((ask(self.context.client), None))
            except Exception as error:
                answer.put((None, error))

        threading.Thread(target=asking, name="look", daemon=True).start()
        try:
            found, error = answer.get(timeout=LOOK_S)
        except queue.Empty:
            found, error = None, TimeoutError()
        if isinstance(error, (TimeoutError, *TRANSIENT)):
            self._no_look_before = time.monotonic() + LONGEST_WAIT_S
        elif error is not None:
            raise error
        return found

    # What waits

    def add(self, label: Label, /) -> None:
        """Deliver a payload as soon as may be."""
        self._admit([label], from_before=False)

    def take_up(self) -> int:
        """Deliver what waits in the outbox from before, too; returns how many payloads that are."""
        found = self.context.outbox.all(again=True)
        self._admit(found, from_before=True)
        return len(found)

    def _admit(self, payloads: Iterable[Label], *, from_before: bool) -> None:
        """Let payloads be sent, once it is known of all of them which are parents of which."""
        with self._changed:
            new = [one for one in payloads if one.name not in self._entries or self._is_other(one)]
            for payload in new:
                self._void.difference_update(payload.mfids)  # made again
                self._where |= dict.fromkeys(payload.mfids, payload.name)
            for payload in new:
                self._numbers += 1
                needs = self._blocking(payload) - self._begun
                self._entries[payload.name] = _Entry(payload, self._numbers, needs, from_before)
                for parent in needs:
                    self._children.setdefault(parent, set()).add(payload.name)
                if not needs:
                    heapq.heappush(self._ready, (self._numbers, payload.name))
            self._staff()
            self._changed.notify_all()

    def _is_other(self, label: Label) -> bool:
        """Whether a payload was made again under the name of one that waits."""
        return self._entries[label.name].label.made != label.made

    def waiting(self) -> int:
        """Return how many payloads wait."""
        with self._changed:
            return len(self._entries)

    def is_settled(self, patience_s: float, since: float, own: set[str] | None = None) -> bool:
        """Whether waiting longer brings nothing: all has arrived, or cannot, or the service is away for `patience_s`.

        Counted from `since` on. Where some payloads are `own`, the others only count while it answers.
        """
        with self._changed:
            if self._stopped:
                return True
            if not self._sending and (not self._entries or self._refusal is not None or not self._can_go_on()):
                return True
            now = time.monotonic()
            mine = own is None or not self._entries.keys().isdisjoint(own)
            if self._away_since is not None and now - max(self._away_since, since) >= (patience_s if mine else 0.0):
                return True
            return not self._running and now - max(self._moved, since) >= max(patience_s, STUCK_S)

    def drain(self, patience_s: float, left: Callable[[int], None] = nothing) -> bool:
        """Wait until everything has arrived. False if some is refused, or the service is away for `patience_s`."""
        began, said = time.monotonic(), -1
        while not self.is_settled(patience_s, began):
            with self._changed:
                self._changed.wait(0.25)
                number = len(self._entries)
            if number != said and time.monotonic() - began > 1.0:
                said = number
                left(number)
        self.give_up_lacking()
        return not self._entries

    def give_up_lacking(self) -> None:
        """Report what lacks a parent that nobody brings as refused."""
        with self._changed:
            lacking = [entry for entry in self._entries.values() if entry.state == LACKING]
            for entry in lacking:
                entry.state = ROW_REFUSED
        for entry in lacking:
            self._heard(Delivery(entry.label, REFUSED, error=entry.error))

    def stop(self, wait_s: float = 5.0) -> None:
        """Begin nothing more; what is being sent has `wait_s` to end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        until = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    # Threads

    def _staff(self) -> None:
        """Start as many threads as the answers' latency asks for."""
        wanted = min(MOST_AT_ONCE, max(FEWEST, int(self.context.client.latency_s / ONE_PER_S)), len(self._entries))
        for _ in range(wanted - len(self._threads) if not self._idle else 0):
            thread = threading.Thread(target=self._work, name="deliverer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            try:
                self._send(entry)
            finally:
                with self._changed:
                    self._sending -= 1
                    self._changed.notify_all()

    def _next(self) -> _Entry | None:
        """The oldest payload that may be sent now, once there is one; None when it is all over."""
        with self._changed:
            while not self._stopped and self._refusal is None:
                now, wait_s = time.monotonic(), None
                while self._later and self._later[0][0] <= now:
                    _, number, name = heapq.heappop(self._later)
                    heapq.heappush(self._ready, (number, name))
                if self._away_until > now:
                    wait_s = self._away_until - now
                elif self._away_tries and self._running:
                    wait_s = None  # one looks whether it is back; the others wait for that
                elif self._ready:
                    if entry := self._sendable(*heapq.heappop(self._ready)):
                        entry.is_running = True
                        self._running += 1
                        self._sending += 1
                        return entry
                    continue
                elif self._later:
                    wait_s = self._later[0][0] - now
                self._idle += 1
                self._changed.wait(wait_s)
                self._idle -= 1
            return None

    def _sendable(self, number: int, name: str) -> _Entry | None:
        entry = self._entries.get(name)
        is_it = entry is not None and entry.number == number and entry.state == MADE and not entry.is_running
        return entry if is_it and entry is not None and not entry.needs else None

    def _can_go_on(self) -> bool:
        waiting = [(number, name) for _, number, name in self._later]
        return bool(self._running or any(self._sendable(*one) for one in (*self._ready, *waiting)))

    # Sending

    def _send(self, entry: _Entry) -> None:
        """Register a payload, and decide what is to be done about whatever keeps it from being registered."""
        from filelock import Timeout  # only what delivers pays for it

        outbox, label = self.context.outbox, entry.label
        try:
            with self.context.turn(label.name).acquire(timeout=0):
                if not outbox.waits(label):
                    self._arrived(entry, {})
                    return
                entry.opened = outbox.checked(label) if entry.from_before else outbox.opened(label)
                if entry.opened is None:
                    self._drop(entry, _DAMAGED)
                    return
                outbox.sending(label)
                refs = self._registered(entry)
                self.context.note(refs)
                outbox.delivered(label)
                self._arrived(entry, refs)
        except Timeout:  # another process is at it
            self._again(entry, 0.2)
        except _ParentWaitsError:
            self._wait_for_parents(entry)
        except _OvertakenError as error:
            self._drop(entry, str(error), state=OVERTAKEN, delete=True)
        except (IdTakenError, WithdrawnError) as error:  # under another id, or when the way is free, it is made again
            self._drop(entry, str(error), outcome=REFUSED, delete=isinstance(error, WithdrawnError))
        except FileChangedError as error:  # nothing is left of the result
            self._drop(entry, f"{error}; the next run makes it again", outcome=REFUSED)
        except TRANSIENT as error:
            self._away(entry, error)
        except ConflictError as error:
            self._fail(entry, str(error))
            entry.failures += 1
            self._again(entry, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**entry.failures))
        except UnauthorizedError as error:
            with self._changed:
                self._refusal = error
            self._refuse(entry, str(error))
        except NotFoundError as error:  # a wiped service lacks the parents until somebody makes them again
            with self._changed:
                entry.state, entry.error = LACKING, str(error)
                self._ended(entry)
            outbox.lacks(label, str(error))
        except Exception as error:
            if entry.from_before or self._is_whole(entry):
                message, log = (
                    (str(error), "") if isinstance(error, LineageError) else self.context.describe_fault(error)
                )
                self._refuse(entry, message, log)

    def _registered(self, entry: _Entry) -> dict[str, DatasetRef]:
        refs = {}
        assert entry.opened is not None
        for new in entry.opened.datasets:
            stages = RegistrationHooks(
                begun=partial(self._note_begun, new.mfid),
                before_complete=partial(self._require_parents, entry),
                adopted=partial(setattr, entry, "is_adopted", True),
            )
            self._require_same_parents(entry)
            refs[new.mfid] = self.context.register(new, stages)
            self._served()
        return refs

    def _is_whole(self, entry: _Entry) -> bool:
        """Hash the files of a payload. False if one is damaged: then the payload is set aside, and dropped."""
        if self.context.outbox.checked(entry.label) is not None:
            return True
        self._drop(entry, _DAMAGED)
        return False

    def _note_begun(self, mfid: str) -> None:
        self._served()
        with self._changed:
            self._begun.add(mfid)
            self._release(mfid)
            self._changed.notify_all()

    def _release(self, mfid: str) -> None:
        """Payloads that waited for this dataset to be begun no longer do."""
        for name in self._children.pop(mfid, ()):
            if entry := self._entries.get(name):
                entry.needs.discard(mfid)
                if not entry.needs:
                    heapq.heappush(self._ready, (entry.number, name))

    def _require_parents(self, entry: _Entry) -> None:
        """All its parents are at Crucible, as they were used; else it waits for them, or is no result."""
        with self._changed:
            while blocking := self._blocking(entry.label):
                parents = [self._entries[self._where[mfid]] for mfid in blocking]
                if self._stopped or not all(parent.is_running for parent in parents):
                    raise _ParentWaitsError(f"{entry.label.step} waits for {', '.join(sorted(blocking))}")
                self._changed.wait()
        self._require_same_parents(entry)

    def _blocking(self, label: Label) -> set[str]:
        """Its parents that wait here as well."""
        return {one for one in label.parents if self._where.get(one, label.name) != label.name}

    def _require_same_parents(self, entry: _Entry) -> None:
        """Raise _OvertakenError unless its parents at Crucible have the bytes that it was made from, as far as known.

        For a payload from before the service is asked: it may have been wiped, and filled again by a step that does not
        give the same bytes twice.
        """
        assert entry.opened is not None
        with self._changed:
            if why := self._why_overtaken(entry):
                raise _OvertakenError(why)
            if not entry.from_before:
                return
            skip = {*self._blocking(entry.label), *entry.label.mfids, *self._theirs}
        for used in (used for new in entry.opened.datasets for used in new.record.used):
            if not used.files or used.mfid in skip:
                continue
            there = {file.filename: file.sha256_hash for file in self.context.client.files.list(used.mfid)}
            for file in used.files:
                if file.name not in there or there[file.name] not in (file.sha256, None):
                    raise _OvertakenError(_other_bytes(file.name, used.mfid))

    def _why_overtaken(self, entry: _Entry) -> str:
        """Return why a payload is no result of what is at Crucible; empty if it is one, as far as known here."""
        if void := sorted(entry.label.parents & self._void):
            return f"it was made from {void[0]}, which is no result"
        if self._theirs.keys().isdisjoint(entry.label.parents):
            return ""
        payload = entry.opened or self.context.outbox.opened(entry.label)
        if payload is None:
            return _DAMAGED
        for used in (used for new in payload.datasets for used in new.record.used):
            theirs = self._theirs.get(used.mfid)
            if theirs is None:
                continue
            if theirs.mfid != used.mfid:
                return f"it was made from {used.mfid}, which is registered as {theirs.mfid}"
            there = {file.name: file.sha256 for file in theirs.files}
            for file in used.files or ():
                if there.get(file.name) != file.sha256:
                    return _other_bytes(file.name, used.mfid)
        return ""

    # What becomes of it

    def _arrived(self, entry: _Entry, refs: Mapping[str, DatasetRef]) -> None:
        payload = entry.opened or entry.label
        datasets = entry.opened.datasets if entry.opened else ()
        sent = {new.mfid: _data(file.ref for file in new.files) for new in datasets}
        theirs = {mfid: ref for mfid, ref in refs.items() if ref.mfid != mfid or _data(ref.files) != sent[mfid]}
        dropped: list[Delivery] = []
        with self._changed:
            self._theirs |= theirs
            self._leave(payload)
            self._ended(entry)
            for mfid in payload.mfids:
                self._release(mfid)
            arrived = set(payload.mfids)
            for other in self._entries.values():
                if other.state == LACKING and other.label.parents & arrived:
                    other.state = MADE
                    heapq.heappush(self._ready, (other.number, other.label.name))
            if theirs:
                dropped = self._drop_descendants()
        is_ours = bool(refs) and not theirs and not entry.is_adopted
        self._heard(Delivery(payload, ADOPTED if theirs else DELIVERED, refs, is_ours=is_ours))
        for one in dropped:
            self._heard(one)

    def _drop(
        self, entry: _Entry, why: str, *, state: str = FAILED, outcome: str = DROPPED, delete: bool = False
    ) -> None:
        """Remove a payload that is no result, and all that was made from it.

        With `delete`, ask for what was begun to be deleted: what is never made again under these ids.
        """
        label = entry.label
        self.context.outbox.dropped(label, state, why)
        with self._changed:
            left = [mfid for mfid in label.mfids if mfid in self._begun] if delete else []
            self._leave(label)
            self._void |= set(label.mfids)
            self._ended(entry)
            for mfid in label.mfids:
                self._release(mfid)
            dropped = self._drop_descendants()
        for mfid in left:
            with suppress(CrucibleError):
                self.context.client.datasets.delete(mfid, "made from bytes that another registration has replaced")
        for one in (Delivery(label, outcome, error=why), *dropped):
            self._heard(one)

    def _drop_descendants(self) -> list[Delivery]:
        """Drop what is overtaken and not being sent; what is being sent finds out itself."""
        dropped: list[Delivery] = []
        found = True
        while found:
            found = False
            for other in list(self._entries.values()):
                if not other.is_running and (why := self._why_overtaken(other)):
                    self.context.outbox.dropped(other.label, OVERTAKEN, why)
                    self._leave(other.label)
                    self._void |= set(other.label.mfids)
                    dropped.append(Delivery(other.label, DROPPED, error=why))
                    found = True
        return dropped

    def _leave(self, payload: Label | Payload) -> None:
        self._entries.pop(payload.name, None)
        self._moved = time.monotonic()
        for mfid in payload.mfids:
            self._where.pop(mfid, None)

    def _ended(self, entry: _Entry) -> None:
        entry.opened = None
        if entry.is_running:
            entry.is_running = False
            self._running -= 1
        self._changed.notify_all()

    def _wait_for_parents(self, entry: _Entry) -> None:
        """Send it again when a parent that waits here has been begun once more, or has arrived."""
        with self._changed:
            entry.needs = self._blocking(entry.label)
            for parent in entry.needs:
                self._children.setdefault(parent, set()).add(entry.label.name)
            if not entry.needs:
                heapq.heappush(self._ready, (entry.number, entry.label.name))
            self._ended(entry)

    def _again(self, entry: _Entry, wait_s: float) -> None:
        with self._changed:
            heapq.heappush(self._later, (time.monotonic() + wait_s, entry.number, entry.label.name))
            self._ended(entry)

    def _refuse(self, entry: _Entry, error: str, log: str = "") -> None:
        self._fail(entry, error, refused=True)
        with self._changed:
            entry.state = ROW_REFUSED
            self._ended(entry)
        self._heard(Delivery(entry.label, REFUSED, error=error, log=log, stops=self._refusal is not None))

    def _away(self, entry: _Entry, error: CrucibleError) -> None:
        self._fail(entry, str(error))
        with self._changed:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
            if now >= self._away_until:  # else another thread noted it already
                self._away_tries += 1
                wait_s = error.retry_after_s or FIRST_WAIT_S * 2.0 ** min(self._away_tries, 10)
                self._away_until = now + min(wait_s, LONGEST_WAIT_S)
        self._again(entry, 0.0)
        self._heard(Delivery(entry.label, WAITS, error=str(error)))

    def _fail(self, entry: _Entry, error: str, *, refused: bool = False) -> None:
        with suppress(OSError):  # a full disk keeps the note from being written; it is reported all the same
            self.context.outbox.failed(entry.label, error, refused=refused)

    def _served(self) -> None:
        """Note that the service answers."""
        with self._changed:
            self._away_since, self._away_until, self._away_tries = None, 0.0, 0
            self._staff()


def _data(files: Iterable[Any]) -> set[tuple[str, str]]:
    return {(file.name, file.sha256) for file in files if file.is_data}


def _other_bytes(name: str, mfid: str) -> str:
    return f"it was made from {name} of {mfid}, of which Crucible has other bytes now"
