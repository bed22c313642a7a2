"""Results whose bytes were let go since they can be made again: which of them are away now, and what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.lineage.records import provenance, text, used_mfids
from crucible_lineage.session import Session
from crucible_lineage.times import utc

__all__ = ["Away", "away", "made_in", "stored_file"]


@dataclass(frozen=True)
class Away:
    """A dataset whose bytes have to be made again before they can be read, and how many seconds its step took."""

    mfid: str
    name: str
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dict(vars(self))


def away(session: Session, wanted: Iterable[str]) -> list[Away]:
    """Return those of these datasets that were let go, with all that has to be made again for them, in this order."""
    asked = list(dict.fromkeys(wanted))
    evicted = session.stated.evicted() if asked else {}
    found: dict[str, Away] = {}
    records: dict[str, Mapping[str, Any]] = {}
    waiting = asked[::-1] if evicted else []
    while waiting:  # a chain may be longer than calls can be nested
        mfid = waiting[-1]
        gone = [sha256 for sha256 in evicted.get(mfid, ()) if not _is_here(session, sha256)]
        if gone and mfid not in records:
            records[mfid] = session.mirror.records([mfid]).get(mfid) or {}
            waiting += [one for one in reversed(list(used_mfids(records[mfid]))) if one not in records]
            continue
        waiting.pop()
        if gone and mfid not in found:
            found[mfid] = _away(mfid, records[mfid], gone)
    return list(found.values())


def _away(mfid: str, record: Mapping[str, Any], gone: Sequence[str]) -> Away:
    sizes = {one.get("sha256"): one.get("size") for one in provenance(record).get("generated") or ()}
    name = text(record.get("dataset_name")) or mfid
    return Away(mfid, name, sum(sizes.get(one) or 0 for one in gone), made_in(record))


def made_in(record: Mapping[str, Any]) -> float:
    """Return how many seconds the step took that made a result, by its record; 0 if that does not say it."""
    activity = provenance(record).get("activity") or {}
    began, ended = text(activity.get("started")), text(activity.get("ended"))
    return (utc(ended) - utc(began)).total_seconds() if began and ended else 0.0


def stored_file(session: Session, sha256: str) -> Path:
    """Return where the embedded Crucible has a file's bytes, or would have them."""
    return session.settings.data / "crucible" / "contents" / sha256[:2] / sha256[2:]


def _is_here(session: Session, sha256: str) -> bool:
    return session.cache.path(sha256).exists() or (session.settings.embedded and stored_file(session, sha256).exists())
