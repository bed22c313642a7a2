"""A result is sent to Crucible, and what becomes of it: arrived, tried again, refused, or no result at all.

Where another machine was faster with a parent, and its bytes are others, what was made here from ours is no result of
what is registered: it is dropped, never delivered, and told as overtaken, so that it is made again from theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

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
from crucible_lineage.registration.delivery.absence import FIRST_WAIT_S, LONGEST_WAIT_S, Absence
from crucible_lineage.registration.delivery.desk import Delivered, Desk, Trouble, registered_at
from crucible_lineage.registration.delivery.under_way import UnderWay
from crucible_lineage.registration.made import Made
from crucible_lineage.registration.register import Stages

__all__ = ["Sending"]


class _ParentWaitsError(LineageError):
    """A parent is not at Crucible yet; what was made from it comes later."""


class _OvertakenError(LineageError):
    """A parent is at Crucible with other bytes; what was made from ours is no result of it."""


class Sending:
    """How each deliverer sends a result; `served` hears that the service answers. What it finds stands in `under_way`.

    For several threads at once.
    """

    def __init__(self, desk: Desk, under_way: UnderWay, absence: Absence, served: Callable[[], None]) -> None:
        self._desk = desk
        self._state = under_way
        self._changed = under_way.changed
        self._absence = absence
        self._served = served

    def send(self, made: Made) -> None:
        """It has arrived, or it is known what is to be done about it."""
        from filelock import Timeout  # only what delivers pays for it

        try:
            with self._desk.turn(made.name).acquire(timeout=0):
                found = self._sent(made) if self._desk.outbox.waits(made) else []
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
                self._state.refusal = error
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
            said, log = (str(error), "") if isinstance(error, LineageError) else self._desk.told_fault(error)
            self._tell(made, said, log=log)
            with self._changed:
                self._state.refused.add(made.name)
                self._ended(made)
        else:
            self._arrived(made, found)

    def _sent(self, made: Made) -> list[Delivered]:
        found = []
        for new in made.datasets:
            theirs = partial(self._state.theirs.add, new.mfid)
            stages = Stages(partial(self._begun, new.mfid), partial(self._require_parents, made), theirs)
            self._require_not_overtaken(made)
            self._require_same_parents(made)
            found.append(Delivered(new.mfid, registered_at(self._desk, new, stages)))
            self._served()
        self._desk.delivered(found)
        self._desk.outbox.delivered(made)
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
                if self._state.stopped or not blocking <= running:
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
            there = {file.filename: file.sha256_hash for file in self._desk.client.files.list(used.mfid)}
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
                    self._state.adopted[one.mfid] = one.ref
                    is_ours = False
            if is_ours and made.name in self._state.from_before:
                self._state.delivered += made.mfids
            self._state.arrive(made)
            self._ended(made)
            self._drop_descendants()
        if is_ours:
            self._desk.arrived(made)

    def _drop(self, made: Made, *, begun: bool = True) -> None:
        """It is no result; with `begun`, the dataset that was begun for it is asked to be deleted."""
        with self._changed:
            left = [new.mfid for new in made.datasets if new.mfid in self._state.begun] if begun else []
            self._gone(made)
            self._ended(made)
        for mfid in left:
            with suppress(CrucibleError):
                self._desk.client.datasets.delete(mfid, "made from bytes that another registration has replaced")

    def _lose(self, made: Made) -> None:
        """It is made again under the same id, and so is what was made from it, since its bytes may become others."""
        with self._changed:
            for one in self._state.with_descendants(made):
                self._desk.outbox.delivered(one)
                self._state.leave(one)
                self._state.dropped += one.mfids
            self._ended(made)

    def _gone(self, made: Made) -> None:
        """It is dropped, with all that was made from it."""
        self._desk.outbox.delivered(made)
        self._state.leave(made)
        for new in made.datasets:
            self._state.dropped.append(new.mfid)
            self._state.overtaken.add(new.mfid)
        self._drop_descendants()

    def _drop_descendants(self) -> None:
        """What was made from overtaken datasets and is not under way is dropped; the rest finds out itself."""
        for other in list(self._state.waiting.values()):
            is_free = other.name in self._state.waiting and other.name not in self._state.running
            if is_free and other.parents & self._state.overtaken:
                self._gone(other)

    def _away(self, made: Made, error: CrucibleError) -> None:
        self._tell(made, str(error), refused=False)
        with self._changed:
            self._absence.note(error)
            self._ended(made)

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
        self._desk.tell(Trouble(made, error, refused, self._state.refusal is not None, log))


def _is_damaged(made: Made) -> bool:
    """True if the bytes of a file that waits are no longer those that the step wrote."""
    return any(not file.path.exists() or file_sha256(file.path) != file.ref.sha256
               for new in made.datasets for file in new.files)  # fmt: skip
