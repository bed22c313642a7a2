"""Who registers a dataset where several machines do the same work at once: one of them, from first byte to last.

Crucible has no locks. Two of its calls tell what they met: POST of metadata, which only the first of many can make, and
PATCH, which merges and answers with the whole. All that is written here are statements (statements.py), a set that only
grows: the answer to a statement shows all that came before it, and nobody's older copy of the metadata takes it back.
A registration that takes over has a higher rank, and never touches what those before have stated.

| seen at the service | whose | still | files | move |
|---|---|---|---|---|
| complete | | | | USE |
| complete but for what this registration stated | | | | KEEP: its answer came when that was complete |
| contested: one came to its end while another took over | | | unknown | LOOK |
| contested | | no | known | WAIT |
| contested | | yes | all of one that came to its end | KEEP: it may be relied on; when all is still there, for good |
| contested | this registration holds | yes | not all | GO_ON |
| contested | other | yes | not all | TAKE_OVER |
| begun | this registration holds | | | GO_ON |
| begun | this machine | | | TAKE_OVER: it died, or gave up |
| begun | another machine | no | | WAIT |
| begun | another machine | yes | | TAKE_OVER |
| no metadata, not tried to write | created here | | | BEGIN |
| no metadata, not tried to write | other | no | | WAIT |
| no metadata, not tried to write | other | yes | | BEGIN |
| no record, or somebody else was first | created here | | | TAKE_OVER |
| no record, or somebody else was first | other | no | | WAIT |
| no record, or somebody else was first | other | yes | | TAKE_OVER |

Still is what nobody has written to for `patience_s`, or for `RECENT`; contested, what has had the same files, too, for
`patience_s`. What is left is a request that takes effect later than `patience_s` after it was sent. Then the dataset is
still of one registration, but perhaps not of the one that was told so first.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import ChecksumError, ConflictError, NotFoundError
from crucible_lineage.provenance.record import COMPLETE, KEY, read_record
from crucible_lineage.registration.read import whole_record
from crucible_lineage.registration.trust import other_files, require_own
from crucible_lineage.statements import (
    PLACES_KEY,
    Document,
    Registration,
    Registrations,
    begun,
    holds,
    registrations,
    settled,
)
from crucible_lineage.statements import (
    complete as completed,
)

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, FileRecord
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

__all__ = [
    "PATIENCE_S",
    "Claim",
    "Move",
    "Seen",
    "State",
    "Whose",
    "claim",
    "complete",
    "is_of_machine",
    "next_move",
    "require_held",
    "tidied",
]

PATIENCE_S = 4.0  # chosen: many times what two calls of a registration are apart, and still bearable after a crash
FIRST_POLL_S = 0.1
LONGEST_POLL_S = 1.0
MOST_LATE = 3  # chosen: how often an answer that took long is asked for again; then the network is just slow
RECENT = timedelta(minutes=10)  # chosen: what has stood still for so long needs no watching, whatever the clocks say


class State(Enum):
    """How a dataset stands, as its metadata tell."""

    COMPLETE = "complete"
    COMPLETE_BUT_FOR_OURS = "complete but for what this registration stated"
    CONTESTED = "contested"
    BEGUN = "begun"
    WITHOUT_RECORD = "no record"
    EMPTY = "no metadata"


class Whose(Enum):
    """Whose a dataset is that is not complete."""

    OURS = "this registration"
    MACHINE = "this machine"
    OTHER = "another machine"


class Move(Enum):
    """What a registration does next."""

    USE = "take the dataset as it is complete"
    KEEP = "state that a registration stands which came to its end"
    GO_ON = "fill the dataset: it is this registration's"
    TAKE_OVER = "state that this registration goes on from here"
    BEGIN = "write the first metadata"
    LOOK = "list the files"
    WAIT = "look again later"


@dataclass(frozen=True)
class Seen:
    """What decides about the next move. `files_there` is None as long as nobody looked.

    A dataset without a record is ours if this process has created it.
    """

    state: State
    whose: Whose = Whose.OTHER
    is_still: bool = False
    files_there: bool | None = None
    tried: bool = False


def next_move(seen: Seen) -> Move:
    """Decide what to do next, as the table says."""
    match seen.state:
        case State.COMPLETE:
            return Move.USE
        case State.COMPLETE_BUT_FOR_OURS:
            return Move.KEEP
        case State.CONTESTED if seen.files_there is None:
            return Move.LOOK
        case State.CONTESTED if not seen.is_still:
            return Move.WAIT
        case State.CONTESTED if seen.files_there:
            return Move.KEEP
        case State.CONTESTED | State.BEGUN if seen.whose is Whose.OURS:
            return Move.GO_ON
        case State.BEGUN if seen.whose is Whose.OTHER and not seen.is_still:
            return Move.WAIT
        case State.CONTESTED | State.BEGUN:
            return Move.TAKE_OVER
    if seen.whose is Whose.OTHER and not seen.is_still:
        return Move.WAIT
    return Move.BEGIN if seen.state is State.EMPTY and not seen.tried else Move.TAKE_OVER


@dataclass(frozen=True)
class Claim:
    """A dataset that is this registration's to finish.

    `statement` is what says so. `others` are the records of registrations that have begun to fill it before; none where
    somebody has taken their metadata away.
    """

    mfid: str
    record: StepRecord | FilesRecord
    metadata: Document
    patience_s: float
    statement: Document
    taken_over: bool = False
    others: tuple[Document, ...] = ()

    @property
    def is_same(self) -> bool:
        """True if what earlier registrations left there may stand: they registered the same."""
        result = self.record.document().get("result")
        return all(other.get("result") == result for other in self.others)

    @property
    def registrar(self) -> str:
        """The name of this registration."""
        return str(self.record.registrar)


def claim(
    client: CrucibleClient,
    mfid: str,
    name: str,
    record: StepRecord | FilesRecord,
    metadata: Document,
    *,
    machine: str | None,
    project: str,
    created: bool,
    patience_s: float,
) -> Claim | Dataset:
    """Claim the dataset for a new registration; or, read with its links, return it as another one has completed it.

    `created` says that this process has just made it. Raises IdTakenError if it lies elsewhere or has another recipe.
    """
    ours = _Ours(mfid, record, metadata, machine, patience_s)
    if created and ours.is_first_to_write(client):
        return ours.first_claim()
    watch = _Watch(created, patience_s)
    while True:
        dataset = watch.look(client, mfid)
        require_own(client, dataset, project, record.recipe_sha256, f"registering {name!r}")
        known = registrations(dataset.stored_metadata)
        move = next_move(watch.seen(known, dataset, ours))
        if move is Move.LOOK:
            watch.list_files(client, mfid, known)
            move = next_move(watch.seen(known, dataset, ours))
        if move is Move.TAKE_OVER:
            known = ours.take_over(client, dataset, known)
            move = next_move(watch.seen(known, dataset, ours))
        match move:
            case Move.USE if registrations(dataset.stored_metadata).complete is not None:
                return dataset
            case Move.GO_ON:
                return ours.claim_of(known)
            case Move.BEGIN:
                watch.tried = True
                if ours.is_first_to_write(client):
                    return ours.first_claim()
            case Move.KEEP:
                if (kept := ours.keep(client, dataset, known, watch.whole)) is not None:
                    return kept
                watch.start_again()
            case _:
                watch.wait()


def require_held(client: CrucibleClient, held: Claim) -> None:
    """Raise ConflictError if another registration has taken over. To be called right before something is taken away.

    The claim is stated once more: what answers a write is no older than that, as what answers a read may be.
    """
    for _ in range(MOST_LATE):
        asked = time.time()
        holder = registrations(client.metadata.merge(held.mfid, held.statement)).holder
        if holder is None or holder.name != held.registrar:
            raise ConflictError(f"dataset {held.mfid} is registered by another process", mfid=held.mfid)
        if _is_prompt(asked, held.patience_s):
            break


def complete(client: CrucibleClient, held: Claim) -> Document | None:
    """State that this registration came to its end. Returns the metadata; None if another one has taken over."""
    when = _now().isoformat(timespec="seconds")
    done: dict[str, Any] = completed(held.registrar, when)
    if not held.taken_over:  # what others wrote there is left alone until it is certain who has won
        done[KEY] = _complete_record(held, when)
    after = client.metadata.merge(held.mfid, done)
    won = registrations(after).complete
    return after if won is not None and won.name == held.registrar else None


def tidied(held: Claim, after: Document) -> Document:
    """Return the metadata of a completed dataset without what other registrations left there.

    The record stands under the key where other programs look for it. What says that it is complete stays.
    """
    (said,) = held.statement.values()
    own = tuple(filter(None, (held.registrar, said.get("same_as"), "_holds_", "_equals_")))
    kept = {key: value for key, value in after.items() if key.startswith(f"{KEY}_") and any(one in key for one in own)}
    plain = {k: v for k, v in settled(after).items() if not k.startswith(KEY)} if held.is_same else {}
    when = registrations(after).ended[held.registrar]
    return {**kept, **plain, **held.metadata, KEY: _complete_record(held, when)}


def _complete_record(held: Claim, when: str) -> dict[str, Any]:
    return {**held.record.document(), "status": COMPLETE, "completed": {held.registrar: when}}


class _Ours:
    """What this registration states. Each time that it takes over it has a new name, as no statement ever changes."""

    def __init__(
        self, mfid: str, record: StepRecord | FilesRecord, metadata: Document, machine: str | None, patience_s: float
    ) -> None:
        self._mfid = mfid
        self._metadata = metadata
        self._patience_s = patience_s
        self._machine = machine or _this_process()
        self._plain_record = record
        self._statements: dict[str, Document] = {}  # by the name of the registration
        self.took_over = False
        self._name(f"{self._machine}-{secrets.token_hex(4)}")

    def is_first_to_write(self, client: CrucibleClient) -> bool:
        """Write the first metadata of the dataset. Returns False if it has some already."""
        self._statements[self.name] = begun(self.name, 0, same_as=self.name)
        try:
            client.metadata.create(self._mfid, {**self._metadata, KEY: self._record.document()})
        except ConflictError:
            return False
        return True

    def first_claim(self) -> Claim:
        """Return the claim of the first registration."""
        return Claim(self._mfid, self._record, self._metadata, self._patience_s, self._statements[self.name])

    def whose(self, holder: Registration | None, *, created: bool) -> Whose:
        """Whose a dataset is that this registration holds."""
        if holder is None:
            return Whose.OURS if created else Whose.OTHER
        if holder.name in self._statements and not holder.keeps:
            return Whose.OURS
        return Whose.MACHINE if is_of_machine(holder.name, self._machine) else Whose.OTHER

    @property
    def names(self) -> tuple[str, ...]:
        """The names that this registration has had."""
        return tuple(self._statements)

    def take_over(self, client: CrucibleClient, dataset: Dataset, known: Registrations) -> Registrations:
        """State that this registration goes on from here. Returns what is known from then on."""
        if self._statements:
            self._name(f"{self._machine}-{secrets.token_hex(4)}")
        own = {key: value for key, value in self._metadata.items() if key != PLACES_KEY}
        same = next((one.base for one in known.by_name.values() if self._is_record_of(one, dataset, own)), "")
        said = (
            begun(self.name, known.next_rank, same_as=same)
            if same
            else begun(self.name, known.next_rank, record=self._record.document(), metadata=own)
        )
        self._statements[self.name], self.took_over = said, True
        after = client.metadata.merge(self._mfid, {**said, **holds(self._metadata.get(PLACES_KEY) or {})})
        return registrations(after)

    def claim_of(self, known: Registrations) -> Claim:
        """Return the claim to a dataset that this registration holds."""
        holder = known.holder
        assert holder is not None
        record = self._plain_record.model_copy(update={"registrar": holder.name})
        others = tuple(one.record for one in known.by_name.values() if one.record and one.name != holder.name)
        return Claim(
            self._mfid, record, self._metadata, self._patience_s, self._statements[holder.name], holder.rank > 0, others
        )

    def keep(
        self, client: CrucibleClient, dataset: Dataset, known: Registrations, whole: Registration | None
    ) -> Dataset | None:
        """State that a registration stands which came to its end. Returns the dataset once that is certain.

        Of a contested one it is certain when whoever took over has had time to see this, and has removed nothing.
        """
        holder, before = known.holder, known.without(*self.names).complete
        kept = before or whole
        assert holder is not None
        assert kept is not None
        if holder.name in self._statements and holder.keeps == kept.name:
            said = completed(holder.name, _now().isoformat(timespec="seconds"))
        else:
            name = f"{self._machine}-{secrets.token_hex(4)}"
            self._statements[name] = said = begun(name, known.next_rank, keeps=kept.name)
            if before is not None:
                said = {**said, **completed(name, _now().isoformat(timespec="seconds"))}
        self.took_over = True
        after = client.metadata.merge(self._mfid, said)
        won = registrations(after).complete
        if won is None:
            return None
        return type(dataset).model_validate({**dataset.model_dump(), "scientific_metadata": after})

    def _is_record_of(self, one: Registration, dataset: Dataset, own: Document) -> bool:
        """True if a registration has written down just what this one would write."""
        changing = ("registrar", "status", "completed", "equal_parents")
        theirs, ours = (
            {key: value for key, value in record.items() if key not in changing}
            for record in (one.record, self._record.document())
        )
        stored = one.metadata if one.metadata is not None else dataset.stored_metadata or {}
        return bool(one.base) and theirs == ours and all(key in stored and stored[key] == own[key] for key in own)

    def _name(self, name: str) -> None:
        self.name = name
        self._record = self._plain_record.model_copy(update={"registrar": name})


class _Watch:
    """Looks at the dataset until nobody else is at work on it, as far as one can see."""

    def __init__(self, created: bool, patience_s: float) -> None:
        self._created = created
        self._patience_s = patience_s
        self.tried = created
        self._last: object = None
        self._still_since = time.monotonic()
        self._wait_s = FIRST_POLL_S
        self._files: frozenset[str] = frozenset()  # their ids, as they were listed last
        self._whole: tuple[Registration | None] | None = None  # None while they are not listed

    @property
    def whole(self) -> Registration | None:
        """The registration that came to its end and whose files are all there, as far as somebody looked."""
        return self._whole[0] if self._whole else None

    def look(self, client: CrucibleClient, mfid: str) -> Dataset:
        """Read the dataset; again if the answer took so long that it may not hold any more."""
        self._whole = None
        for _ in range(MOST_LATE + 1):
            asked = time.time()
            dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
            if _is_prompt(asked, self._patience_s) or registrations(dataset.stored_metadata).complete:
                break
        return dataset

    def seen(self, known: Registrations, dataset: Dataset, ours: _Ours) -> Seen:
        """Sum up what decides about the next move."""
        others = known.without(*ours.names)
        what = (others.by_name.keys(), others.ended.keys(), dataset.modification_time)
        if is_news := what != self._last:
            self._last = what
            self.start_again()
        is_doubtful = bool(known.contested) or (is_news and ours.took_over)
        is_old = not is_doubtful and not _is_recent(dataset.modification_time)
        return Seen(
            _state(known, others, dataset),
            ours.whose(known.holder, created=self._created),
            is_old or time.monotonic() - self._still_since >= self._patience_s,
            None if self._whole is None else self._whole[0] is not None,
            self.tried,
        )

    def list_files(self, client: CrucibleClient, mfid: str, known: Registrations) -> None:
        """Find a registration that came to its end, and whose files are all there."""
        listed = client.files.list(mfid)
        if (files := frozenset(file.mfid for file in listed)) != self._files:
            self._files = files
            self.start_again()
        self._whole = (next((one for one in known.contested if _has_its_files(client, mfid, one, listed)), None),)

    def start_again(self) -> None:
        """Count the time for which nobody has written from now on."""
        self._still_since, self._wait_s = time.monotonic(), FIRST_POLL_S

    def wait(self) -> None:
        """Wait, the longer the longer nothing has changed."""
        time.sleep(min(self._wait_s, self._patience_s))
        self._wait_s = min(self._wait_s * 1.6, LONGEST_POLL_S)


def _state(known: Registrations, others: Registrations, dataset: Dataset) -> State:
    if known.complete is not None:
        return State.COMPLETE
    if others.complete is not None:
        return State.COMPLETE_BUT_FOR_OURS
    if known.contested:
        return State.CONTESTED
    if known.holder is not None:
        return State.BEGUN
    return State.EMPTY if dataset.stored_metadata is None else State.WITHOUT_RECORD


def _has_its_files(client: CrucibleClient, mfid: str, one: Registration, listed: Sequence[FileRecord]) -> bool:
    record = read_record({KEY: one.record})
    if record is None:
        return False
    with suppress(ChecksumError, NotFoundError):
        return not other_files(whole_record(client, mfid, record), listed)
    return False


def is_of_machine(registrar: str | None, machine: str | None) -> bool:
    """True if a registration is one of this machine; without `machine`, those of this process count as one."""
    return (registrar or "").partition("-")[0] == (machine or _this_process())


@functools.cache
def _this_process() -> str:
    return secrets.token_hex(8)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _is_prompt(asked: float, patience_s: float) -> bool:
    """True if the answer to what was asked then is still sure to hold; not if this machine slept meanwhile."""
    return 0 <= time.time() - asked < patience_s / 2


def _is_recent(modified: str | None) -> bool:
    """False only if it was certainly long ago; a time in the future is another clock's."""
    try:
        return modified is None or _now() - datetime.fromisoformat(modified) < RECENT
    except (TypeError, ValueError):  # no time, or one without zone
        return True
