"""Signatures of results: stated by whoever looked at them; with enough of them a candidate counts, and is current."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.core.slots import Filled, hold, later_than
from crucible_lineage.errors import ForbiddenError
from crucible_lineage.session import Session
from crucible_lineage.statements import AWAIT, SIGN, About, Statement, signatures_lacking, signatures_of
from crucible_lineage.stating import Stating, known_statements, project_of, state

__all__ = ["Signed", "sign"]


@dataclass(frozen=True)
class Signed:
    """A signature, and for each dataset how many more it needs; 0 too where it needed none."""

    stating: Stating
    lacking: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as `sign --json` prints it."""
        return {**self.stating.to_json(), "lacking": dict(self.lacking)}


def sign(session: Session, mfids: Collection[str], why: str = "", *, project: str = "") -> Signed:
    """Sign datasets. What has all its signatures then, is current from now on.

    Raises InputError if one is not there, or they lie in several projects.
    """
    where = project or project_of(session, mfids, "sign")
    stating = state(session, where, SIGN, About(tuple(mfids)), why=why)
    known, standing = known_statements(session)
    signed = signatures_of(standing)
    awaited = [one for one in known.values() if one.verb == AWAIT and one.mfid in standing.statements]
    lacking = dict.fromkeys(mfids, 0)
    for one in awaited:
        for mfid in set(one.about.datasets) & lacking.keys():
            lacking[mfid] = max(lacking[mfid], signatures_lacking(standing, one, signed))
            if not lacking[mfid] and stating.is_new:
                with suppress(ForbiddenError):  # the next run of its pipeline does
                    _make_current(session, mfid, one)
    return Signed(stating, lacking)


def _make_current(session: Session, mfid: str, awaited: Statement) -> None:
    """Let a result that was signed hold in the slots that it was made for."""
    said = awaited.body.get("slots")
    slots = {key: Filled.from_json(one) for key, one in said.items()} if isinstance(said, Mapping) else {}
    if slots:
        since = later_than(datetime.now(UTC), [one.since for one in slots.values()])
        now = {key: replace(one, since=since) for key, one in slots.items()}
        hold(session.mirror, session.client, awaited.project, mfid, now)
