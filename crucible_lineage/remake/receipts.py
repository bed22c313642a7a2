"""Receipts: the outcome of making a result again, as an in-toto Statement v1, stated at Crucible.

Any in-toto library can read one without this package. Receipts, and earlier attempts at the same recipe, are the
evidence that a step is not deterministic.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from crucible_lineage import __version__
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.errors import LineageError
from crucible_lineage.json_types import JsonMapping, JsonObject, mapping
from crucible_lineage.lineage.records import activity_code, provenance
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.claim import is_of_machine
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.driver import NOT_DETERMINISTIC, Outcome
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import REMAKE, About, Statement, in_force
from crucible_lineage.statements.stating import StatementOutcome, project_of, state

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://w3id.org/crucible-lineage/remake/v1"
MOST_DIFFERENCES = 20  # chosen: keeps statements small


def receipt_of(outcome: Outcome, mfid: str, when: datetime) -> JsonObject:
    """Return the receipt for one result of a step that was made again."""
    files = outcome.recorded.get(mfid, [])
    environment = outcome.environment
    differences = [
        {name: file[name] for name in ("name", "verdict", "said")}
        | ({"made": sha256} if (sha256 := outcome.made.get(f"{mfid}/{file['name']}")) else {})
        for file in outcome.files
        if file["verdict"] != "identical"
    ]
    largest = max((file["largest"] for file in outcome.files), default=0.0)
    return {
        "_type": STATEMENT,
        "subject": [{"name": f"{mfid}/{file['name']}", "digest": {"sha256": file["sha256"]}} for file in files],
        "predicateType": PREDICATE,
        "predicate": {
            "dataset": mfid,
            "step": outcome.name,
            "comparedWith": outcome.compared_with,
            "verdict": outcome.verdict,
            "said": outcome.note,
            "largestDifference": largest if math.isfinite(largest) else None,
            "differences": differences[:MOST_DIFFERENCES],
            "causes": list(outcome.causes),
            "environment": {name: environment[name] for name in ("python", "packages", "blas") if name in environment},
            "machine": {
                "architecture": environment.get("machine") or platform.machine(),
                "system": environment.get("system") or platform.system(),
                "cpu": environment.get("cpu") or "",
            },
            "seconds": outcome.seconds,
            "timeCreated": when.isoformat(timespec="seconds"),
            "tool": f"crucible-lineage {__version__}",
        },
    }


def state_receipts(session: Session, outcomes: Sequence[Outcome]) -> tuple[list[StatementOutcome], list[str]]:
    """State a receipt for each result that was made again. Return the statements, and why some could not be stated.

    Outcomes without an attempt are not stated.
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
                project = project_of(session, [mfid], "state a receipt")
                stated.append(state(session, project, REMAKE, About((mfid,)), why=_summary(outcome), body=body))
            except LineageError as error:
                faults.append(f"no receipt for {mfid}: {str(error).partition(chr(10))[0]}")
    return stated, faults


def _summary(outcome: Outcome) -> str:
    note = outcome.note or next((file["said"] for file in outcome.files if file["verdict"] not in ("identical",)), "")
    return f"{outcome.verdict}: {note}"[:200] if note else outcome.verdict


def _is_own(session: Session, mfid: str) -> bool:
    """Return whether the result was registered from this data folder: making it again here then proves little."""
    metadata: JsonMapping = session.client.metadata.get(mfid) or {}
    registrar = (metadata.get("crucible_lineage") or {}).get("registrar")
    return is_of_machine(registrar, session.machine)


def known_to_vary(session: Session, mfid: str, record: JsonMapping) -> str:
    """Return why the step of a result is known to be non-deterministic; empty if there is no evidence.

    Evidence is several results of the same recipe with different bytes, or a receipt of this result, or of another one
    of the same code, that found it.
    """
    step_record = read_record(record.get("scientific_metadata"))
    if step_record is None or step_record.as_step is None:
        return ""
    if others := list(_other_attempts(session, mfid, record)):
        return f"{NOT_DETERMINISTIC}: the same code, parameters and inputs gave other bytes in {', '.join(others)}"
    active = in_force(session.mirror.statements().values())
    receipts: dict[str, list[Statement]] = {}
    for statement in active.within(str(record.get("project_id") or "")).statements.values():
        for other in statement.about.datasets if statement.verb == REMAKE else ():
            receipts.setdefault(other, []).append(statement)
    own = receipts.get(mfid, ())
    if any(map(_found_to_vary, own)):
        last = max(receipt.when for receipt in own if _found_to_vary(receipt))
        return f"{NOT_DETERMINISTIC}, as was found on {last[:10]}"
    code = activity_code(record)
    varying = [other for other, some in receipts.items() if other != mfid and any(map(_found_to_vary, some))]
    summaries = session.mirror.summaries(varying, ask=False) if varying and code else {}
    same = next((other for other, summary in summaries.items() if summary.code == code), "")
    return f"{NOT_DETERMINISTIC}, as was found of {same}, which the same code made" if same else ""


def _other_attempts(session: Session, mfid: str, record: JsonMapping) -> Iterator[str]:
    """Yield other attempts at the same recipe whose files have different bytes."""
    recipe = mapping(provenance(record).get("recipe"))
    if not recipe.get("inputs"):
        return
    first, own_number = first_attempt(recipe)
    latest = max(own_number, session.mirror.attempts().get(first, 0))
    numbered = (derived_mfid({**recipe, "attempt": number}) for number in range(1, latest + 1))
    others = [attempt for attempt in (first, *numbered) if attempt != mfid]
    if not others:
        return
    own = data_files(session, mfid, record)
    for other, found in fetch_datasets(session.client, others).found.items():
        if (made := data_files(session, other, found)) and made != own:
            yield other


def data_files(session: Session, mfid: str, record: JsonMapping) -> dict[str, str]:
    """Return the SHA-256 of the files that a step wrote, without its log."""
    stored_record = read_record(record.get("scientific_metadata"))
    if stored_record is None:
        return {}
    return {file.name: file.sha256 for file in whole_record(session.client, mfid, stored_record).files if file.is_data}


def _found_to_vary(receipt: Statement) -> bool:
    predicate = mapping(mapping(receipt.body.get("receipt")).get("predicate"))
    return any(str(cause).startswith(NOT_DETERMINISTIC) for cause in predicate.get("causes") or ())
