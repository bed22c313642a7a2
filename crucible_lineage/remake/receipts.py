"""Receipts: what came of making a result again, as an in-toto Statement v1, stated at Crucible and signed.

The text of a receipt is canonical JSON. Its signature is over just that text, so that `ssh-keygen -Y verify` and any
library for in-toto can check both without this package.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage import __version__
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.ids import canonical_json
from crucible_lineage.registration.claim import is_of_machine
from crucible_lineage.remake.driver import Outcome
from crucible_lineage.session import Session
from crucible_lineage.statements import REMAKE, About
from crucible_lineage.stating import Stating, project_of, signature_of, state

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


def state_receipts(session: Session, outcomes: Sequence[Outcome]) -> tuple[list[Stating], list[str]]:
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
