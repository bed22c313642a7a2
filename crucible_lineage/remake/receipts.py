"""Receipts: what came of making a result again, as an in-toto Statement v1, stated at Crucible and signed.

The text of a receipt is canonical JSON. Its signature is over just that text, so that `ssh-keygen -Y verify` and any
library for in-toto can check both without this package. Receipts and earlier attempts at the same recipe are the
evidence that a step is not deterministic.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage import __version__
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.ids import canonical_json
from crucible_lineage.lineage.records import activity_code, mapping, provenance
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.claim import is_of_machine
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.driver import DIFFERS, EXCHANGED, NOT_DETERMINISTIC, Outcome
from crucible_lineage.session import Session
from crucible_lineage.statements import REMAKE, SAME, About, Statement, in_force
from crucible_lineage.stating import StatementOutcome, project_of, signature_of, state

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://w3id.org/crucible-lineage/remake/v1"
MOST_DIFFERENCES = 20  # chosen: a statement stays small


def receipt_of(outcome: Outcome, mfid: str, when: datetime) -> dict[str, Any]:
    """Return the receipt for one of the results of a step that was made again."""
    files = outcome.recorded.get(mfid, [])
    found = outcome.environment
    differences = [
        {"name": one["name"], "verdict": one["verdict"], "said": one["said"]}
        for one in outcome.files
        if one["verdict"] != "identical"
    ]
    largest = max((one["largest"] for one in outcome.files), default=0.0)
    return {
        "_type": STATEMENT,
        "subject": [{"name": f"{mfid}/{file['name']}", "digest": {"sha256": file["sha256"]}} for file in files],
        "predicateType": PREDICATE,
        "predicate": {
            "dataset": mfid,
            "step": outcome.name,
            "verdict": outcome.verdict,
            "said": outcome.said,
            "largestDifference": largest if math.isfinite(largest) else None,
            "differences": differences[:MOST_DIFFERENCES],
            "causes": list(outcome.causes),
            "environment": {name: found[name] for name in ("python", "packages", "blas") if name in found},
            "machine": {
                "architecture": found.get("machine") or platform.machine(),
                "system": found.get("system") or platform.system(),
                "cpu": found.get("cpu") or "",
            },
            "seconds": outcome.seconds,
            "timeCreated": when.isoformat(timespec="seconds"),
            "tool": f"crucible-lineage {__version__}",
        },
    }


def state_receipts(session: Session, outcomes: Sequence[Outcome]) -> tuple[list[StatementOutcome], list[str]]:
    """State what came of making results again, one statement for each; return also why some could not be stated.

    Of what was not tried nothing is stated.
    """
    stated, faults = [], []
    when = datetime.now(UTC)
    for outcome in outcomes:
        for mfid in outcome.mfids if outcome.is_tried else ():
            receipt = receipt_of(outcome, mfid, when)
            try:
                body = {
                    "verdict": outcome.verdict,
                    "own": _is_own(session, mfid),
                    "machine": hashlib.sha256(session.machine.encode()).hexdigest()[:12],
                    "architecture": receipt["predicate"]["machine"]["architecture"],
                    "receipt": receipt,
                }
                if signature := signature_of(canonical_json(receipt)):
                    body["signature"] = signature
                project = project_of(session, [mfid], "state a receipt")
                stated.append(state(session, project, REMAKE, About((mfid,)), why=_why(outcome), body=body))
            except LineageError as error:
                faults.append(f"no receipt for {mfid}: {str(error).partition(chr(10))[0]}")
    return stated, faults


def write_receipts(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Write receipts into a folder, MFID.json each, and beside it MFID.json.sig if an ssh key is configured.

    InputError if there is one of that name already, or the key cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    when, written = datetime.now(UTC), []
    for outcome in outcomes:
        for mfid in outcome.mfids if outcome.is_tried else ():
            path, text = folder / f"{mfid}.json", canonical_json(receipt_of(outcome, mfid, when))
            if path.exists():
                raise InputError(f"write a receipt to {path}: the file already exists; name another folder")
            signature = signature_of(text)
            path.write_bytes(text)
            written.append(path)
            if signature:
                path.with_name(f"{path.name}.sig").write_text(signature, encoding="ascii")
    return written


def _why(outcome: Outcome) -> str:
    said = outcome.said or next((one["said"] for one in outcome.files if one["verdict"] not in ("identical",)), "")
    return f"{outcome.verdict}: {said}"[:200] if said else outcome.verdict


def _is_own(session: Session, mfid: str) -> bool:
    """Whether the result was registered from this data folder, so that making it again here proves little."""
    found: Mapping[str, Any] = session.client.metadata.get(mfid) or {}
    registrar = (found.get("crucible_lineage") or {}).get("registrar")
    return is_of_machine(registrar, session.machine)


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
