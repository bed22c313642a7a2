"""Evidence that a step is not deterministic: earlier attempts at the same recipe, and receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.ids import canonical_json
from crucible_lineage.lineage.records import activity_code, mapping, provenance
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.driver import DIFFERS, EXCHANGED, NOT_DETERMINISTIC
from crucible_lineage.session import Session
from crucible_lineage.statements import REMAKE, SAME, Statement, in_force

Record = Mapping[str, Any]


def known_to_vary(session: Session, mfid: str, record: Record) -> str:
    """Return why the step of a result is known as not deterministic; empty if nothing says so.

    It was made several times by the same recipe, with other bytes; or it was made again several times in the same
    environment, otherwise each time; or that was found of another result of the same code.
    """
    written = read_record(record.get("scientific_metadata"))
    if written is None or written.as_step is None:
        return ""
    if others := list(_other_attempts(session, mfid, record)):
        return f"{NOT_DETERMINISTIC}: the same code, parameters and inputs gave other bytes in {', '.join(others)}"
    receipts = _receipts(session)
    own = receipts.get(mfid, ())
    if any(map(_found_to_vary, own)):
        return f"{NOT_DETERMINISTIC}, as was found on {max(one.when for one in own if _found_to_vary(one))[:10]}"
    if _vary(own):
        return f"{NOT_DETERMINISTIC}: made again in one environment, it gave different results by its receipts"
    code = activity_code(record)
    found = [other for other, some in receipts.items() if other != mfid and any(map(_found_to_vary, some))]
    known = session.mirror.summaries(found, ask=False) if found and code else {}
    same = next((other for other, one in known.items() if one.code == code), "")
    return f"{NOT_DETERMINISTIC}, as was found of {same}, which the same code made" if same else ""


def _other_attempts(session: Session, mfid: str, record: Record) -> Iterator[str]:
    """Yield attempts at the same recipe that have files with other bytes."""
    recipe = mapping(provenance(record).get("recipe"))
    if not recipe.get("inputs"):
        return
    first, own_number = first_attempt(recipe)
    latest = max(own_number, session.mirror.attempts().get(first, 0))
    numbered = (derived_mfid({**recipe, "attempt": number}) for number in range(1, latest + 1))
    others = [one for one in (first, *numbered) if one != mfid]
    if not others:
        return
    own = _data_files(session, mfid, record)
    for other, found in fetch_datasets(session.client, others).found.items():
        if (made := _data_files(session, other, found)) and made != own:
            yield other


def _data_files(session: Session, mfid: str, record: Record) -> dict[str, str]:
    """Return the SHA-256 of the files that a step wrote, without what it printed."""
    found = read_record(record.get("scientific_metadata"))
    if found is None:
        return {}
    return {file.name: file.sha256 for file in whole_record(session.client, mfid, found).files if file.is_data}


def _receipts(session: Session) -> dict[str, list[Statement]]:
    found: dict[str, list[Statement]] = {}
    for one in in_force(session.mirror.statements().values()).statements.values():
        for mfid in one.about.datasets if one.verb == REMAKE else ():
            found.setdefault(mfid, []).append(one)
    return found


def _said(one: Statement) -> Mapping[str, Any]:
    return mapping(mapping(one.body.get("receipt")).get("predicate"))


def _found_to_vary(one: Statement) -> bool:
    return any(str(cause).startswith(NOT_DETERMINISTIC) for cause in _said(one).get("causes") or ())


def _vary(receipts: Sequence[Statement]) -> bool:
    """Whether receipts of one environment and machine say that something else was made, and not always the same."""
    outcomes: dict[bytes, set[bytes]] = {}
    for one in receipts:
        said = _said(one)
        verdict = said.get("verdict")
        if verdict not in (*SAME, DIFFERS) or any(EXCHANGED in str(cause) for cause in said.get("causes") or ()):
            continue
        place = canonical_json([said.get("environment"), said.get("machine"), one.body.get("machine")])
        outcomes.setdefault(place, set()).add(canonical_json([verdict, said.get("differences")]))
    return any(len(some) > 1 for some in outcomes.values())
