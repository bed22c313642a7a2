"""Claims to a dataset: of several machines that do the same work, one registers it, from the first byte to the last.

Crucible has no locks. Two of its calls reveal what came before them: POST of metadata, which succeeds for the first
caller only, and PATCH, which merges and returns all of the metadata. Everything written here are marks (marks.py), a
set that only grows: the answer to a mark shows all earlier ones, and no older copy of the metadata can remove it.
A registration that takes over has a higher rank, and never changes the marks of earlier ones.

| seen at the service | owner | still | files | move |
|---|---|---|---|---|
| complete | | | | USE |
| complete but for the marks of this registration | | | | KEEP: they were written after the completion |
| contested: one finished while another took over | | | unknown | LOOK |
| contested | | no | known | WAIT |
| contested | | yes | all of one that finished | KEEP: it may be in use; confirmed if all is still there |
| contested | this registration holds | yes | not all | GO_ON |
| contested | other | yes | not all | TAKE_OVER |
| begun | this registration holds | | | GO_ON |
| begun | this machine, with the same result | | | RESUME: it died or gave up |
| begun | this machine | | | TAKE_OVER |
| begun | another machine | no | | WAIT |
| begun | another machine | yes | | TAKE_OVER |
| no metadata, no attempt to write it | created here | | | BEGIN |
| no metadata, no attempt to write it | other | no | | WAIT |
| no metadata, no attempt to write it | other | yes | | BEGIN |
| no record, or somebody else was first | created here | | | TAKE_OVER |
| no record, or somebody else was first | other | no | | WAIT |
| no record, or somebody else was first | other | yes | | TAKE_OVER |

A dataset is still if nobody has written to it for `patience_s`, or for `RECENT`; a contested one, if its files have not
changed for `patience_s` either. One gap remains: a request that takes effect later than `patience_s` after it was sent.
Then the dataset still has a single registration, but perhaps not the one that was first confirmed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from crucible_lineage.errors import ChecksumError, ConflictError, NotFoundError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import returned_values
from crucible_lineage.marks import (
    KEY,
    SLOTS_KEY,
    Registration,
    Registrations,
    begin_mark,
    claim_mark,
    completion_mark,
    is_own,
    registrations,
    slots_mark,
)
from crucible_lineage.provenance.recipe import changed_keys
from crucible_lineage.provenance.record import COMPLETE, read_record
from crucible_lineage.registration.read import other_files, require_own, whole_record
from crucible_lineage.text.times import utc

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, FileRecord
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord
    from crucible_lineage.registration.payload import NewDataset

THIS_PROCESS = secrets.token_hex(8)  # the machine of those who name none
PATIENCE_S = 4.0  # chosen: many times the gap between two calls of a registration, and bearable after a crash
FIRST_POLL_S = 0.1
LONGEST_POLL_S = 1.0
MAX_RETRIES = 3  # chosen: slow answers are asked for again so often; after that the network is just slow
RECENT = timedelta(minutes=10)  # chosen: a dataset unchanged for so long needs no watching, whatever the clocks say


class State(Enum):
    """State of a dataset according to its metadata."""

    COMPLETE = "complete"
    COMPLETE_BUT_FOR_OURS = "complete but for the marks of this registration"
    CONTESTED = "contested"
    BEGUN = "begun"
    WITHOUT_RECORD = "no record"
    EMPTY = "no metadata"


class Ownership(Enum):
    """Owner of an incomplete dataset."""

    OURS = "this registration"
    SAME = "this machine, with the same result"
    MACHINE = "this machine"
    OTHER = "another machine"


class NextMove(Enum):
    """What a registration does next."""

    USE = "take the dataset as it is complete"
    KEEP = "confirm a registration that finished"
    GO_ON = "fill the dataset: it is this registration's"
    TAKE_OVER = "write the marks of this registration, of a higher rank"
    RESUME = "repeat the marks of a registration of this machine"
    BEGIN = "write the first metadata"
    LOOK = "list the files"
    WAIT = "look again later"


@dataclass(frozen=True)
class ClaimEvidence:
    """The facts that decide the next move. `has_files` is None until the files were listed.

    A dataset without a record is ours if this process created it.
    """

    state: State
    owner: Ownership = Ownership.OTHER
    is_still: bool = False
    has_files: bool | None = None
    tried: bool = False


def next_move(seen: ClaimEvidence) -> NextMove:
    """Return the next move according to the table."""
    match seen.state:
        case State.COMPLETE:
            return NextMove.USE
        case State.COMPLETE_BUT_FOR_OURS:
            return NextMove.KEEP
        case State.CONTESTED if seen.has_files is None:
            return NextMove.LOOK
        case State.CONTESTED if not seen.is_still:
            return NextMove.WAIT
        case State.CONTESTED if seen.has_files:
            return NextMove.KEEP
        case State.CONTESTED | State.BEGUN if seen.owner is Ownership.OURS:
            return NextMove.GO_ON
        case State.BEGUN if seen.owner is Ownership.SAME:
            return NextMove.RESUME
        case State.BEGUN if seen.owner is Ownership.OTHER and not seen.is_still:
            return NextMove.WAIT
        case State.CONTESTED | State.BEGUN:
            return NextMove.TAKE_OVER
    if seen.owner is Ownership.OTHER and not seen.is_still:
        return NextMove.WAIT
    return NextMove.BEGIN if seen.state is State.EMPTY and not seen.tried else NextMove.TAKE_OVER


def claim(client: CrucibleClient, new: NewDataset, own: Claim, *, created: bool) -> Claim | Dataset:
    """Claim the dataset for a new registration; if another one completed it, return it, read with its links.

    `created` says that this process just created it. Raises IdTakenError if it is elsewhere or has another recipe.
    """
    if created and (first := own.begin(client)) is not None:
        return first
    watch = _Watch(created, own.patience_s)
    while True:
        dataset = watch.read(client, new.mfid)
        require_own(client, dataset, new.project, own.record.recipe_sha256, f"registering {new.name!r}")
        known = registrations(dataset.stored_metadata)
        move = next_move(watch.evidence(known, dataset, own))
        if move is NextMove.LOOK:
            watch.list_files(client, dataset, known)
            move = next_move(watch.evidence(known, dataset, own))
        if move in (NextMove.TAKE_OVER, NextMove.RESUME):
            known = (own.take_over if move is NextMove.TAKE_OVER else own.resume)(client, known)
            move = next_move(watch.evidence(known, dataset, own))
        match move:
            case NextMove.USE if registrations(dataset.stored_metadata).complete is not None:
                return dataset
            case NextMove.GO_ON:
                return own.hold(known, dataset)
            case NextMove.BEGIN:
                watch.tried = True
                if (first := own.begin(client)) is not None:
                    return first
            case NextMove.KEEP:
                if (kept := own.keep(client, dataset, known, watch.finished)) is not None:
                    return kept
                watch.start_again()
            case _:
                watch.wait()


def require_claim(client: CrucibleClient, claimed: Claim) -> JsonMapping:
    """Return the metadata. Raises ConflictError if another registration has taken over.

    Call this right before removing anything. It writes the claim again, because the answer to a write is current, and
    the answer to a read may be old.
    """
    for _ in range(MAX_RETRIES):
        asked_at = time.time()
        metadata = client.metadata.merge(claimed.mfid, claimed.mark)
        known = registrations(metadata)
        if known.complete is not None or known.holder is None or known.holder.name != claimed.registrar:
            raise ConflictError(f"dataset {claimed.mfid} is registered by another process", mfid=claimed.mfid)
        if _is_prompt(asked_at, claimed.patience_s):
            break
    return metadata


def start_over(client: CrucibleClient, claimed: Claim) -> None:
    """Replace the records and metadata of earlier registrations by those of this one.

    Nobody relies on those of an unfinished dataset. Of each, its rank stays, so that an older copy of its mark does not
    count more than before, and the list of what is to be tidied up.
    """
    now = require_claim(client, claimed)
    marks: JsonObject = {}
    for other in registrations(now).by_name.values():
        if other.name and other.name != claimed.registrar:
            kept = {key: other.record[key] for key in ("generated", "attached", "result") if key in other.record}
            marks |= begin_mark(other.name, other.rank, kept, {}, other.keeps)
    lasting = {key: value for key, value in now.items() if key.startswith((f"{KEY}_holds_", f"{KEY}_equals_"))}
    plain = {key: value for key, value in now.items() if not is_own(key)} if claimed.is_same else {}
    own = {**claimed.mark, **claimed.metadata, KEY: claimed.record.document()}
    client.metadata.replace(claimed.mfid, {**lasting, **marks, **plain, **own})


def complete(client: CrucibleClient, claimed: Claim) -> bool:
    """Mark this registration as complete. Return False if another one has taken over."""
    won = registrations(client.metadata.merge(claimed.mfid, _completed(claimed.record))).complete
    return won is not None and won.name == claimed.registrar


def whole_metadata(record: StepRecord | FilesRecord, metadata: JsonMapping, machine: str) -> JsonMapping:
    """Return the metadata of a dataset that is registered by one call."""
    own = Claim("", record, metadata, machine, 0.0)
    return {**metadata, **_completed(own.record_as(own.new_name()))}


def _completed(record: StepRecord | FilesRecord) -> JsonMapping:
    when, registrar = _now().isoformat(timespec="seconds"), str(record.registrar)
    document = {**record.document(), "status": COMPLETE, "completed": {registrar: when}}
    return {KEY: document, **completion_mark(registrar, when)}


@dataclass(eq=False)
class Claim:
    """The claim of this registration to a dataset, and once it holds, the right to fill it.

    It takes a new name each time it takes over, since marks never change. `mark` is the metadata that states it.
    `others` are the records of earlier registrations that began to fill the dataset; the claim `is_alone` if the
    dataset's own record and metadata are this registration's.
    """

    mfid: str
    record: StepRecord | FilesRecord
    metadata: JsonMapping
    machine: str
    patience_s: float
    mark: JsonMapping = field(default_factory=dict)
    taken_over: bool = False
    is_alone: bool = True
    others: tuple[JsonMapping, ...] = ()

    def __post_init__(self) -> None:
        self._own_metadata = {key: value for key, value in self.metadata.items() if key != SLOTS_KEY}
        self._names: set[str] = set()
        self._resumed: set[str] = set()

    @property
    def is_same(self) -> bool:
        """Whether files of earlier registrations may stay, because they registered the same result."""
        result = self.record.document().get("result")
        return all(other.get("result") == result for other in self.others)

    @property
    def registrar(self) -> str:
        """The name of this registration."""
        return str(self.record.registrar)

    @property
    def own_marks(self) -> tuple[str, ...]:
        """The names of this process's own marks, without those that it resumed."""
        return tuple(self._names - self._resumed)

    def begin(self, client: CrucibleClient) -> Claim | None:
        """Write the first metadata of the dataset. Return None if it has some already."""
        first = self.record_as(self.new_name())
        try:
            client.metadata.create(self.mfid, {**self.metadata, KEY: first.document()})
        except ConflictError:
            return None
        self.record, self.mark = first, claim_mark(str(first.registrar))
        return self

    def owner(self, holder: Registration | None, dataset: Dataset, *, created: bool) -> Ownership:
        """Return the owner of an incomplete dataset, given the registration that holds it."""
        if holder is None:
            return Ownership.OURS if created else Ownership.OTHER
        if holder.name in self._names and not holder.keeps:
            return Ownership.OURS
        if not is_of_machine(holder.name, self.machine):
            return Ownership.OTHER
        return Ownership.SAME if self._is_record_of(holder, dataset) else Ownership.MACHINE

    def take_over(self, client: CrucibleClient, known: Registrations) -> Registrations:
        """Write marks of this registration that outrank all others. Return the registrations afterwards."""
        name = self.new_name()
        mark = begin_mark(name, known.next_rank, self.record_as(name).document(), self._own_metadata)
        self.taken_over = True
        after = client.metadata.merge(self.mfid, {**mark, **slots_mark(self.metadata.get(SLOTS_KEY) or {})})
        return registrations(after)

    def resume(self, client: CrucibleClient, known: Registrations) -> Registrations:
        """Repeat the marks of a registration of this machine. Return the registrations afterwards."""
        assert known.holder is not None
        self._names.add(known.holder.name)
        self._resumed.add(known.holder.name)
        self.taken_over = True
        return registrations(client.metadata.merge(self.mfid, self._mark_of(known.holder)))

    def hold(self, known: Registrations, dataset: Dataset) -> Claim:
        """Return the claim to a dataset that this registration holds."""
        holder = known.holder
        assert holder is not None
        first = (dataset.stored_metadata or {}).get(KEY)
        self.record, self.mark = self.record_as(holder.name), self._mark_of(holder)
        self.is_alone = isinstance(first, Mapping) and first.get("registrar") == holder.name
        others = (registration for registration in known.by_name.values() if registration.name != holder.name)
        self.others = tuple(registration.record for registration in others if registration.record)
        return self

    def keep(
        self, client: CrucibleClient, dataset: Dataset, known: Registrations, finished: Registration | None
    ) -> Dataset | None:
        """Confirm a registration that finished. Return the dataset once that is certain.

        A contested one is certain when the registration that took over has had time to see this and removed nothing.
        """
        holder, before = known.holder, known.without(*self.own_marks).complete
        kept = before or finished
        assert holder is not None
        assert kept is not None
        when = _now().isoformat(timespec="seconds")
        if holder.name in self._names and holder.keeps == kept.name:
            mark = completion_mark(holder.name, when)
        else:
            metadata = kept.metadata
            if metadata is None:  # as it is now: there is no older copy
                metadata = returned_values(
                    {"scientific_metadata": {**(dataset.stored_metadata or {}), KEY: kept.record}}
                )
            name = self.new_name()
            mark = begin_mark(name, known.next_rank, kept.record, metadata, keeps=kept.name)
            mark |= completion_mark(name, when) if before is not None else {}
        self.taken_over = True
        after = client.metadata.merge(self.mfid, mark)
        won = registrations(after).complete
        if won is None:
            return None
        return type(dataset).model_validate({**dataset.model_dump(), "scientific_metadata": after})

    def _is_record_of(self, registration: Registration, dataset: Dataset) -> bool:
        """Return whether a registration has written exactly what this one would write."""
        changing = ("registrar", "status", "completed", "equal_parents")
        theirs, ours = (
            {key: value for key, value in record.items() if key not in changing}
            for record in (registration.record, self.record.document())
        )
        stored = registration.metadata if registration.metadata is not None else dataset.stored_metadata or {}
        own = self._own_metadata
        is_same = theirs == ours and all(key in stored and stored[key] == own[key] for key in own)
        return is_same and not registration.keeps

    def _mark_of(self, holder: Registration) -> JsonMapping:
        """Return the unchanged marks of a registration that has begun."""
        if not holder.rank:
            return claim_mark(holder.name)
        return begin_mark(holder.name, holder.rank, holder.record, holder.metadata or {})

    def new_name(self) -> str:
        name = f"{self.machine}-{secrets.token_hex(4)}"
        self._names.add(name)
        return name

    def record_as(self, name: str) -> StepRecord | FilesRecord:
        return self.record.model_copy(update={"registrar": name})


class _Watch:
    """Observation of a dataset until nobody else appears to work on it."""

    def __init__(self, created: bool, patience_s: float) -> None:
        self._created = created
        self._patience_s = patience_s
        self.tried = created
        self._last: object = None
        self._still_since = time.monotonic()
        self._wait_s = FIRST_POLL_S
        self._files: frozenset[str] = frozenset()  # their ids, as last listed
        self._is_listed = False
        self.finished: Registration | None = None  # whose files are all present, once they were listed

    def read(self, client: CrucibleClient, mfid: str) -> Dataset:
        """Read the dataset; again if the answer took so long that it may be outdated."""
        self._is_listed, self.finished = False, None
        for _ in range(MAX_RETRIES + 1):
            asked_at = time.time()
            dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
            if _is_prompt(asked_at, self._patience_s) or registrations(dataset.stored_metadata).complete:
                break
        return dataset

    def evidence(self, known: Registrations, dataset: Dataset, own: Claim) -> ClaimEvidence:
        """Return the facts that decide the next move."""
        others = known.without(*own.own_marks)
        current = (others.by_name.keys(), others.ended.keys(), dataset.modification_time)
        if is_news := current != self._last:
            self._last = current
            self.start_again()
        is_doubtful = bool(known.contested) or (is_news and own.taken_over)
        is_old = not is_doubtful and not _is_recent(dataset.modification_time)
        return ClaimEvidence(
            _state(known, others, dataset),
            own.owner(known.holder, dataset, created=self._created),
            is_old or time.monotonic() - self._still_since >= self._patience_s,
            self.finished is not None if self._is_listed else None,
            self.tried,
        )

    def list_files(self, client: CrucibleClient, dataset: Dataset, known: Registrations) -> None:
        """Find a registration that finished, and whose files and metadata are all present."""
        mfid, stored = dataset.unique_id, dataset.stored_metadata or {}
        listed = client.files.list(mfid)
        if (files := frozenset(file.mfid for file in listed)) != self._files:
            self._files = files
            self.start_again()
        finished = (
            registration
            for registration in known.contested
            if _has_all(client, mfid, registration, listed, {**stored, **(registration.metadata or {})})
        )
        self._is_listed, self.finished = True, next(finished, None)

    def start_again(self) -> None:
        """Restart the measurement of how long nobody has written."""
        self._still_since, self._wait_s = time.monotonic(), FIRST_POLL_S

    def wait(self) -> None:
        """Wait, longer each time nothing has changed."""
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


def _has_all(
    client: CrucibleClient, mfid: str, registration: Registration, listed: Sequence[FileRecord], metadata: JsonMapping
) -> bool:
    """Return whether all files and metadata of a registration are present."""
    record = read_record({KEY: registration.record})
    if record is None or (record.result and changed_keys(record.result.document(), metadata)):
        return False
    with suppress(ChecksumError, NotFoundError):
        return not other_files(whole_record(client, mfid, record), listed)
    return False


def is_of_machine(registrar: str | None, machine: str) -> bool:
    """Return whether a registration is this machine's."""
    return (registrar or "").partition("-")[0] == machine


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _is_prompt(asked_at: float, patience_s: float) -> bool:
    """Return whether the answer to a request of that time is still valid; not if this machine slept meanwhile."""
    return 0 <= time.time() - asked_at < patience_s / 2


def _is_recent(modified: str | None) -> bool:
    """Return False only if the time was certainly long ago; a time in the future comes from another clock."""
    try:
        return modified is None or _now() - utc(modified) < RECENT
    except ValueError:  # no time
        return True
