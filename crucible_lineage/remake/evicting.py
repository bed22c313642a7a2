"""Room in the embedded Crucible, by letting go of bytes that can be made again: never of the last copy of others.

What goes was made again before with the same bytes, by its receipts; it rests on kept source, and on data that are
there or go by the same rule. It is stated before it goes, so that nobody takes it for lost.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.records import mapping, mappings, provenance, text
from crucible_lineage.pipeline.files.fetch import made_in, stored_file
from crucible_lineage.remake.driver import NOT_DETERMINISTIC
from crucible_lineage.session import Session
from crucible_lineage.statements import EVICT, REMAKE, About
from crucible_lineage.stating import known_statements, state
from crucible_lineage.times import utc

IDENTICAL = "identical"  # the only verdict after which bytes can come back
FOREVER = "forever"  # of a step whose results stay
LEAST_S = 0.01  # no step is free


@dataclass(frozen=True)
class EvictionCandidate:
    """The bytes of a result that go: of which files, how many, and how long its step took."""

    mfid: str
    name: str
    project: str
    files: tuple[str, ...]
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        named = {"mfid": self.mfid, "name": self.name, "project": self.project}
        return {**named, "files": len(self.files), "bytes": self.bytes, "seconds": self.seconds}


@dataclass(frozen=True)
class Eviction:
    """What may go, the most bytes for a second of work first; and how many bytes of results stay, by the reason."""

    goes: tuple[EvictionCandidate, ...]
    stays: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Return the number of bytes freed."""
        return sum(one.bytes for one in self.goes)

    @property
    def seconds(self) -> float:
        """Return the time that remaking everything takes."""
        return sum(one.seconds for one in self.goes)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        goes = [one.to_json() for one in self.goes]
        return {"evicted": goes, "bytes": self.bytes, "seconds": self.seconds, "stays": dict(self.stays)}


def plan_eviction(session: Session, to_free: int, *, trust_own: bool = False) -> Eviction:
    """Return what is to go so that `to_free` bytes are free, or all that may.

    With `trust_own`, receipts from the machine that made a result count, too. InputError unless Crucible is the
    embedded one.
    """
    if not session.settings.embedded:
        raise InputError(
            f"evict from {session.settings.api_url}: only the embedded Crucible evicts bytes. The API of a service "
            "deletes a file together with its record, whose hash is needed to remake it; nothing was changed. "
            "To free copies in the data folder: crucible-lineage clean --cache"
        )
    store = _Store(session)
    candidates = store.candidates(trust_own=trust_own)
    goes: list[EvictionCandidate] = []
    free = 0
    gone: set[str] = set()
    for one in sorted(candidates.values(), key=lambda one: one.bytes / max(one.seconds, LEAST_S), reverse=True):
        if free >= to_free:
            store.stays["not needed"] += one.bytes
            continue
        files = tuple(sha256 for sha256 in one.files if sha256 not in gone)
        size = sum(store.size(sha256) for sha256 in files)
        if size:
            goes.append(EvictionCandidate(one.mfid, one.name, one.project, one.files, size, one.seconds))
            gone |= set(files)
            free += size
    going = {one.mfid for one in goes}
    for one in candidates.values():  # results of the same bytes go with them, as far as these are shared
        if one.mfid not in going and (shared := tuple(sha256 for sha256 in one.files if sha256 in gone)):
            goes.append(EvictionCandidate(one.mfid, one.name, one.project, shared, 0, one.seconds))
    return Eviction(tuple(goes), {reason: size for reason, size in store.stays.items() if size})


def could_go(session: Session) -> Eviction | None:
    """Return all that may go; None where nothing does, since no result was made again or Crucible is not embedded."""
    if not session.settings.embedded or all(one.verb != REMAKE for one in session.mirror.statements().values()):
        return None
    return plan_eviction(session, sys.maxsize)


def evict(session: Session, plan: Eviction) -> int:
    """Let go of what the plan names: first all is stated, then the bytes go. Return how many bytes that has freed.

    Bytes that something else has got meanwhile stay.
    """
    for one in plan.goes:
        body = {"files": sorted(one.files), "bytes": one.bytes}
        state(session, one.project, EVICT, About((one.mfid,)), why="can be made again", body=body)
    going = {one.mfid for one in plan.goes}
    holders = _Store(session).holders if plan.goes else {}
    freed = 0
    for sha256 in dict.fromkeys(sha256 for one in plan.goes for sha256 in one.files):
        path = stored_file(session, sha256)
        if holders[sha256] <= going and path.exists():
            size = path.stat().st_size
            path.unlink(missing_ok=True)
            freed += size
            session.cache.evict(sha256)
    return freed


class _Store:
    """The results of the embedded Crucible, with what decides whether their bytes may go."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.copy = session.mirror.snapshot(EVERYTHING)
        self.stays: dict[str, int] = defaultdict(int)
        _, self.standing = known_statements(session)
        self.evicted = session.stated.evicted()
        self.files = {mfid: dict(_data_files(record)) for mfid, record in self.copy.records.items()}
        self.holders: dict[str, set[str]] = defaultdict(set)
        for mfid, record in self.copy.records.items():
            for sha256 in self.files[mfid].values():
                self.holders[sha256].add(mfid)
            for sha256 in self._other_files(mfid, record):
                self.holders[sha256].add(f"also {mfid}")  # which stays

    def _other_files(self, mfid: str, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield the SHA-256 of what a step printed, and of files that no record lists."""
        written = provenance(record)
        if isinstance(written.get("generated"), list):
            yield from (text(file.get("sha256")) for file in mappings(written["generated"]) if file.get("log"))
        elif not self.copy.summaries[mfid].statement:
            yield from (file.sha256_hash for file in self.session.client.files.list(mfid) if file.sha256_hash)

    def size(self, sha256: str) -> int:
        path = stored_file(self.session, sha256)
        return path.stat().st_size if path.exists() else 0

    def candidates(self, *, trust_own: bool) -> dict[str, EvictionCandidate]:
        """Return all that may go, whatever is needed."""
        proved = self._proved(trust_own=trust_own)
        doubtful = self.session.stated.doubts(list(self.copy.records), "", self.copy.summaries)
        found: dict[str, EvictionCandidate] = {}
        for mfid, record in self.copy.records.items():
            size = sum(self.size(sha256) for sha256 in set(self.files[mfid].values()))
            if reason := self._why_stays(mfid, record, proved, set(doubtful)):
                self.stays[reason] += size
            elif size:
                summary, files = self.copy.summaries[mfid], tuple(sorted(set(self.files[mfid].values())))
                found[mfid] = EvictionCandidate(
                    mfid, summary.name, summary.status.project, files, size, made_in(record)
                )
        return self._whose_parents_can_be_had(found)

    def _proved(self, *, trust_own: bool) -> set[str]:
        """Return what was made again byte for byte, and by no later or other receipt with other bytes."""
        last: dict[str, str] = {}
        other: set[str] = set()
        receipts = [one for one in self.standing.statements.values() if one.verb == REMAKE]
        for one in sorted(receipts, key=lambda one: (utc(one.when), one.body.get("verdict") != IDENTICAL)):
            verdict = text(one.body.get("verdict"))
            for mfid in one.about.datasets:
                if trust_own or not one.body.get("own"):
                    last[mfid] = verdict
                predicate = mapping(mapping(one.body.get("receipt")).get("predicate"))
                if any(NOT_DETERMINISTIC in str(cause) for cause in predicate.get("causes") or ()):
                    other.add(mfid)
        return {mfid for mfid, verdict in last.items() if verdict == IDENTICAL and mfid not in other}

    def _why_stays(self, mfid: str, record: Mapping[str, Any], proved: set[str], doubtful: set[str]) -> str:
        written = provenance(record)
        activity = mapping(written.get("activity"))
        if not written.get("step"):
            return "measured, or made manually"
        declared = mapping(activity.get("declared"))
        if declared.get("keep") == FOREVER:
            return "keep: forever"
        if mapping(declared.get("output")).get("publish"):
            return "published"
        if not mapping(activity.get("code")).get("archive"):
            return "its source was not kept"
        if written.get("attached"):
            return "its record does not say in itself what it was made from"
        if mfid in doubtful:
            return "on hold"
        if mfid not in proved:
            return "not reproduced elsewhere yet (reproduce; or --trust-own)"
        return ""

    def _whose_parents_can_be_had(self, found: dict[str, EvictionCandidate]) -> dict[str, EvictionCandidate]:
        """Leave out what needs bytes that are neither here nor can go themselves, and bytes that others need, too."""
        while True:
            bad = {}
            for mfid in found:
                used = _used_files(self.copy.records[mfid])
                if lost := [one for one, files in used if one not in found and not self._has(one, files)]:
                    bad[mfid] = f"made from {lost[0]}, whose bytes are not here"
                elif any(self.holders[sha256] - found.keys() for sha256 in found[mfid].files):
                    bad[mfid] = "the same bytes as of something that stays"
            for mfid, reason in bad.items():
                self.stays[reason] += found.pop(mfid).bytes
            if not bad:
                return found

    def _has(self, mfid: str, files: tuple[str, ...]) -> bool:
        """Whether the bytes that were used of a dataset are here, or were let go before, by the same rule."""
        evicted = self.evicted.get(mfid, set())
        return bool(files) and all(sha256 in evicted or self.size(sha256) for sha256 in files)


def _used_files(record: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a step was given: a dataset, and the SHA-256 of its files."""
    for used in mappings(provenance(record).get("used")):
        yield text(used.get("mfid")), tuple(text(file.get("sha256")) for file in mappings(used.get("files")))


def _data_files(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and SHA-256 of the files that a step wrote; what it printed stays."""
    for file in mappings(provenance(record).get("generated")):
        if not file.get("log"):
            yield text(file.get("name")), text(file.get("sha256"))
