"""Attempts at the same recipe: other bytes are the evidence that a step is not deterministic."""

from __future__ import annotations

from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.json_types import JsonMapping, mapping
from crucible_lineage.lineage.records import provenance
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.driver import NOT_DETERMINISTIC
from crucible_lineage.session import Session


def known_to_vary(session: Session, mfid: str, record: JsonMapping) -> str:
    """Return why the step of a result is known to be non-deterministic: other bytes of the same recipe.

    Empty if there is no evidence.
    """
    step_record = read_record(record.get("scientific_metadata"))
    recipe = mapping(provenance(record).get("recipe"))
    if step_record is None or step_record.as_step is None or not recipe.get("inputs"):
        return ""
    first, own_number = first_attempt(recipe)
    latest = max(own_number, session.mirror.attempts().get(first, 0))
    numbered = (derived_mfid({**recipe, "attempt": number}) for number in range(1, latest + 1))
    attempts = [attempt for attempt in (first, *numbered) if attempt != mfid]
    if not attempts:
        return ""
    own = data_files(session, mfid, record)
    made = {
        other: data_files(session, other, found)
        for other, found in fetch_datasets(session.client, attempts).found.items()
    }
    others = ", ".join(other for other, files in made.items() if files and files != own)
    return f"{NOT_DETERMINISTIC}: the same code, parameters and inputs gave other bytes in {others}" if others else ""


def data_files(session: Session, mfid: str, record: JsonMapping) -> dict[str, str]:
    """Return the SHA-256 of the files that a step wrote, without its log."""
    stored_record = read_record(record.get("scientific_metadata"))
    if stored_record is None:
        return {}
    return {file.name: file.sha256 for file in whole_record(session.client, mfid, stored_record).files if file.is_data}
