"""Who registers a dataset, where two machines do the same work at once: one of them, from its first byte to its last.

A record says which registration it is of (`registrar`) and which registrations came to their end (`completed`); it is
complete if its own did. Crucible has no locks, but one call that only the first of many can make (POST of metadata),
and one that merges and tells the outcome (PATCH). So:

- whoever created the dataset writes the record with the first, and so does whoever finds a dataset without metadata;
- an unfinished record of another machine is taken over when nobody has written to the dataset for `patience_s`. If it
  was completed in that moment, the answer tells, and it is put back;
- completing writes nothing but that this registration is complete. If another one has taken over, that changes nothing
  for it, and the answer tells that this one has lost.

What is left is a request that takes effect later than `patience_s` after it was sent. Then the dataset is still of one
registration, but perhaps not of the one that was told so first.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import ConflictError
from crucible_lineage.provenance.record import COMPLETE, KEY, read_record
from crucible_lineage.registration.trust import require_own

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

__all__ = [
    "PATIENCE_S",
    "Claim",
    "claim",
    "complete",
    "new_registrar",
    "require_held",
    "start_over",
]

PATIENCE_S = 4.0  # chosen: many times what two calls of a registration are apart, and still bearable after a crash
FIRST_POLL_S = 0.1
LONGEST_POLL_S = 1.0
MOST_LATE = 3  # chosen: how often an answer that took long is asked for again; then the network is just slow
RECENT = timedelta(minutes=10)  # chosen: what has stood still for so long needs no watching, whatever the clocks say

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A dataset that is this registration's to finish.

    `taken_over` says that somebody may have begun to fill it; `found` is the unfinished record that was there then, if
    one was.
    """

    mfid: str
    record: StepRecord | FilesRecord
    metadata: Metadata
    patience_s: float
    taken_over: bool = False
    found: StepRecord | FilesRecord | None = None

    @property
    def is_same(self) -> bool:
        """True if what an earlier registration left there may stand: it registered the same."""
        return self.found is None or self.found.result == self.record.result

    @property
    def registrar(self) -> str:
        """The name of this registration."""
        return str(self.record.registrar)


def new_registrar(machine: str | None) -> str:
    """The name of a registration; without a `machine`, those of this process count as one."""
    return f"{machine or _this_process()}-{secrets.token_hex(4)}"


def claim(
    client: CrucibleClient,
    mfid: str,
    name: str,
    record: StepRecord | FilesRecord,
    metadata: Metadata,
    *,
    project: str,
    created: bool,
    patience_s: float,
) -> Claim | Dataset:
    """The dataset, to be finished by this registration; or, read with its links, as somebody else has completed it.

    `created` says that this process has just made it. IdTakenError if it lies elsewhere, or is of another recipe.
    """
    document = {**metadata, KEY: record.document()}
    if created and _is_first_to_write(client, mfid, document):
        return Claim(mfid, record, metadata, patience_s)
    tried = created
    while True:
        dataset = _settled(client, mfid, str(record.registrar), created, patience_s)
        require_own(client, dataset, project, record.recipe_sha256, f"registering {name!r}")
        found = read_record(dataset.scientific_metadata)
        if found is not None and found.is_complete:
            return dataset
        if dataset.scientific_metadata is None and not tried:
            tried = True
            if _is_first_to_write(client, mfid, document):
                return Claim(mfid, record, metadata, patience_s)
        elif found is not None and found.registrar == record.registrar:  # written, and the answer was lost
            return Claim(mfid, record, metadata, patience_s)
        elif _is_taken_over(client, mfid, dataset.scientific_metadata or {}, document):
            return Claim(mfid, record, metadata, patience_s, taken_over=True, found=found)


def require_held(client: CrucibleClient, held: Claim) -> Metadata:
    """The dataset's metadata; ConflictError if another registration has taken over.

    To be called right before something is taken away.
    """
    for _ in range(MOST_LATE):
        asked = time.time()
        metadata = client.metadata.get(held.mfid) or {}
        if (metadata.get(KEY) or {}).get("registrar") != held.registrar:
            raise ConflictError(f"dataset {held.mfid} is registered by another process", mfid=held.mfid)
        if _is_prompt(asked, held.patience_s):
            break
    return metadata


def start_over(client: CrucibleClient, held: Claim) -> None:
    """What merging has left of another registration's record is gone, and of its metadata, if it registered other ones.

    With these goes what was read out of its files.
    """
    now = require_held(client, held)
    wanted = {**(now if held.is_same else held.metadata), KEY: held.record.document()}
    if now != wanted:
        client.metadata.replace(held.mfid, wanted)


def complete(client: CrucibleClient, held: Claim) -> bool:
    """True if the dataset is now complete as this registration made it, False if another one has taken over."""
    registrar = held.registrar
    done = {"status": COMPLETE, "completed": {registrar: datetime.now(UTC).isoformat(timespec="seconds")}}
    now = client.metadata.merge(held.mfid, {KEY: done})[KEY]
    if "schema" not in now:  # a server that merges only the outermost level: the record is given whole
        now = client.metadata.merge(held.mfid, {KEY: {**held.record.document(), **done}})[KEY]
    return bool(now["registrar"] == registrar)


@functools.cache
def _this_process() -> str:
    return secrets.token_hex(8)


def _is_first_to_write(client: CrucibleClient, mfid: str, document: Metadata) -> bool:
    """True if the dataset had no metadata and has these now."""
    try:
        client.metadata.create(mfid, document)
    except ConflictError:
        return False
    return True


def _settled(client: CrucibleClient, mfid: str, registrar: str, created: bool, patience_s: float) -> Dataset:
    """The dataset with metadata and links, once nobody else is at work on it as far as one can see."""
    seen, still_since, wait_s, late = None, time.monotonic(), FIRST_POLL_S, 0
    while True:
        asked = time.time()
        dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
        record = read_record(dataset.scientific_metadata)
        other = (record and record.registrar) or ""
        if record is not None and record.is_complete:
            return dataset
        if (other, dataset.modification_time) != seen:
            seen, still_since, wait_s = (other, dataset.modification_time), time.monotonic(), FIRST_POLL_S
        if (
            (created and record is None)
            or _machine(other) == _machine(registrar)
            or not _is_recent(dataset.modification_time)
            or time.monotonic() - still_since >= patience_s
        ):
            if late == MOST_LATE or _is_prompt(asked, patience_s):
                return dataset
            late += 1
            continue
        time.sleep(min(wait_s, patience_s))
        wait_s = min(wait_s * 1.6, LONGEST_POLL_S)


def _is_prompt(asked: float, patience_s: float) -> bool:
    """True if the answer to what was asked then is still sure to hold; not if this machine slept meanwhile."""
    return 0 <= time.time() - asked < patience_s / 2


def _machine(registrar: str) -> str:
    return registrar.partition("-")[0]


def _is_recent(modified: str | None) -> bool:
    """False only if it was certainly long ago; a time in the future is another clock's."""
    try:
        return modified is None or datetime.now(UTC) - datetime.fromisoformat(modified) < RECENT
    except (TypeError, ValueError):  # no time, or one without zone
        return True


def _is_taken_over(client: CrucibleClient, mfid: str, before: Metadata, document: Metadata) -> bool:
    """True if the record is ours now, merged into what was there.

    False if it was completed meanwhile: then it stands as it was.
    """
    after = client.metadata.merge(mfid, document)
    theirs = before.get(KEY) or {}
    completed = after[KEY].get("completed") or {}
    if theirs.get("registrar") in completed.keys() - (theirs.get("completed") or {}).keys():
        added = {key: value for key, value in after.items() if key not in document}
        client.metadata.replace(
            mfid, {**added, **before, KEY: {**theirs, "status": COMPLETE, "completed": dict(completed)}}
        )
        return False
    return True
