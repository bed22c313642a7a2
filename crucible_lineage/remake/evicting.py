"""Free space in the embedded Crucible by evicting bytes that can be made again, never the last copy of others.

Evicted results were made again before with the same bytes, according to receipts; their source is kept, and their
parents' bytes are present or evicted by the same rule. Evictions are stated first, so that no bytes count as lost.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.records import mapping, mappings, provenance, text, used_files
from crucible_lineage.pipeline.files.fetch import made_in, stored_file
from crucible_lineage.remake.driver import IDENTICAL  # the only verdict that proves that bytes can be restored
from crucible_lineage.remake.receipts import receipts_in, vary
from crucible_lineage.session import Session
from crucible_lineage.statements import EVICT, REMAKE, About
from crucible_lineage.stating import known_statements, state
from crucible_lineage.times import utc

FOREVER = "forever"  # declared for steps whose results are kept
LEAST_S = 0.01  # lower limit for a step's duration


@dataclass(frozen=True)
class EvictionCandidate:
    """A result to evict: its files, their size, and the duration of its step."""

    mfid: str
    name: str
    project: str
    files: tuple[str, ...]
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, object]:
        """Return the candidate as JSON."""
        fields = {"mfid": self.mfid, "name": self.name, "project": self.project}
        return {**fields, "files": len(self.files), "bytes": self.bytes, "seconds": self.seconds}


@dataclass(frozen=True)
class Eviction:
    """Results to evict, those with the most bytes per second of work first, and the bytes that stay by reason."""

    candidates: tuple[EvictionCandidate, ...]
    kept_bytes: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Number of bytes freed."""
        return sum(candidate.bytes for candidate in self.candidates)

    @property
    def seconds(self) -> float:
        """Time to make all evicted results again."""
        return sum(candidate.seconds for candidate in self.candidates)

    def to_json(self) -> dict[str, object]:
        """Return it as JSON."""
        candidates = [one.to_json() for one in self.candidates]
        return {"evicted": candidates, "bytes": self.bytes, "seconds": self.seconds, "stays": dict(self.kept_bytes)}


def plan_eviction(session: Session, to_free: int, *, trust_own: bool = False) -> Eviction:
    """Select the results to evict so that `to_free` bytes are freed, or all candidates.

    With `trust_own`, receipts from the machine that made a result count, too. Raises InputError unless Crucible is
    embedded.
    """
    if not session.settings.embedded:
        raise InputError(
            f"evict from {session.settings.api_url}: only the embedded Crucible evicts bytes. The API of a service "
            "deletes a file together with its record, whose hash is needed to remake it; nothing was changed. "
            "To free copies in the data folder: crucible-lineage clean --cache"
        )
    store = _Store(session)
    possible = store.candidates(trust_own=trust_own)
    selected: list[EvictionCandidate] = []
    freed = 0
    evicted: set[str] = set()  # SHA-256 of files
    by_gain = sorted(possible.values(), key=lambda item: item.bytes / max(item.seconds, LEAST_S), reverse=True)
    for item in by_gain:
        if freed >= to_free:
            store.kept_bytes["not needed"] += item.bytes
            continue
        files = tuple(sha256 for sha256 in item.files if sha256 not in evicted)
        size = sum(store.size(sha256) for sha256 in files)
        if size:
            selected.append(EvictionCandidate(item.mfid, item.name, item.project, files, size, item.seconds))
            evicted |= set(files)
            freed += size
    mfids = {item.mfid for item in selected}
    for item in possible.values():  # results that share evicted bytes lose these, too
        if item.mfid not in mfids and (shared := tuple(sha256 for sha256 in item.files if sha256 in evicted)):
            selected.append(EvictionCandidate(item.mfid, item.name, item.project, shared, 0, item.seconds))
    return Eviction(tuple(selected), {reason: size for reason, size in store.kept_bytes.items() if size})


def possible_eviction(session: Session) -> Eviction | None:
    """Return everything that can be evicted; None if no result was made again, or Crucible is not embedded."""
    if not session.settings.embedded or all(one.verb != REMAKE for one in session.mirror.statements().values()):
        return None
    return plan_eviction(session, sys.maxsize)


def evict(session: Session, plan: Eviction) -> int:
    """State the evictions of a plan, then remove the bytes. Return how many bytes were freed.

    Bytes that other datasets have obtained meanwhile are kept.
    """
    for candidate in plan.candidates:
        body = {"files": sorted(candidate.files), "bytes": candidate.bytes}
        state(session, candidate.project, EVICT, About((candidate.mfid,)), why="can be made again", body=body)
    mfids = {candidate.mfid for candidate in plan.candidates}
    holders = _Store(session).holders if plan.candidates else {}
    freed = 0
    for sha256 in dict.fromkeys(sha256 for candidate in plan.candidates for sha256 in candidate.files):
        path = stored_file(session, sha256)
        if holders[sha256] <= mfids and path.exists():
            size = path.stat().st_size
            path.unlink(missing_ok=True)
            freed += size
            session.cache.evict(sha256)
    return freed


class _Store:
    """The results of the embedded Crucible, with everything that decides whether they can be evicted."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.copy = session.mirror.snapshot(EVERYTHING)
        self.kept_bytes: dict[str, int] = defaultdict(int)
        _, self.in_force = known_statements(session)
        self.evicted = session.stated.evicted()
        self.files = {mfid: dict(_data_files(record)) for mfid, record in self.copy.records.items()}
        self.holders: dict[str, set[str]] = defaultdict(set)
        for mfid, record in self.copy.records.items():
            for sha256 in self.files[mfid].values():
                self.holders[sha256].add(mfid)
            for sha256 in self._other_files(mfid, record):
                self.holders[sha256].add(f"also {mfid}")  # never evicted

    def _other_files(self, mfid: str, record: Mapping[str, object]) -> Iterator[str]:
        """Yield the SHA-256 of a step's log, and of files that no record lists."""
        written = provenance(record)
        if isinstance(written.get("generated"), list):
            yield from (text(file.get("sha256")) for file in mappings(written["generated"]) if file.get("log"))
        elif not self.copy.summaries[mfid].statement:
            yield from (file.sha256_hash for file in self.session.client.files.list(mfid) if file.sha256_hash)

    def size(self, sha256: str) -> int:
        path = stored_file(self.session, sha256)
        return path.stat().st_size if path.exists() else 0

    def candidates(self, *, trust_own: bool) -> dict[str, EvictionCandidate]:
        """Return all results that can be evicted."""
        reproduced = self._reproduced(trust_own=trust_own)
        doubtful = self.session.stated.doubts(list(self.copy.records), "", self.copy.summaries)
        candidates: dict[str, EvictionCandidate] = {}
        for mfid, record in self.copy.records.items():
            size = sum(self.size(sha256) for sha256 in set(self.files[mfid].values()))
            if reason := self._reason_to_keep(mfid, record, reproduced, set(doubtful)):
                self.kept_bytes[reason] += size
            elif size:
                summary, files = self.copy.summaries[mfid], tuple(sorted(set(self.files[mfid].values())))
                candidates[mfid] = EvictionCandidate(
                    mfid, summary.name, summary.status.project, files, size, made_in(record)
                )
        return self._with_obtainable_parents(candidates)

    def _reproduced(self, *, trust_own: bool) -> set[str]:
        """Return the results that were last made again byte for byte, and that do not vary according to receipts."""
        found = set()
        for mfid, receipts in receipts_in(self.in_force).items():
            counting = [one for one in receipts if trust_own or not one.body.get("own")]
            last = max(counting, key=lambda one: (utc(one.when), one.body.get("verdict") != IDENTICAL), default=None)
            if last is not None and last.body.get("verdict") == IDENTICAL and not vary(receipts):
                found.add(mfid)
        return found

    def _reason_to_keep(self, mfid: str, record: Mapping[str, object], reproduced: set[str], doubtful: set[str]) -> str:
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
        if mfid not in reproduced:
            return "not reproduced elsewhere yet (reproduce; or --trust-own)"
        return ""

    def _with_obtainable_parents(self, candidates: dict[str, EvictionCandidate]) -> dict[str, EvictionCandidate]:
        """Remove candidates whose parents' bytes cannot be obtained, and those with bytes that kept datasets need."""
        while True:
            kept = {}
            for mfid in candidates:
                used = used_files(self.copy.records[mfid]).items()
                lost = [one for one, files in used if one not in candidates and not self._has(one, files.values())]
                if lost:
                    kept[mfid] = f"made from {lost[0]}, whose bytes are not here"
                elif any(self.holders[sha256] - candidates.keys() for sha256 in candidates[mfid].files):
                    kept[mfid] = "the same bytes as of something that stays"
            for mfid, reason in kept.items():
                self.kept_bytes[reason] += candidates.pop(mfid).bytes
            if not kept:
                return candidates

    def _has(self, mfid: str, files: Collection[str]) -> bool:
        """Return whether the used bytes of a dataset are here, or were evicted before by the same rule."""
        evicted = self.evicted.get(mfid, set())
        return bool(files) and all(sha256 in evicted or self.size(sha256) for sha256 in files)


def _data_files(record: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield name and SHA-256 of the files that a step wrote, without its log."""
    for file in mappings(provenance(record).get("generated")):
        if not file.get("log"):
            yield text(file.get("name")), text(file.get("sha256"))
