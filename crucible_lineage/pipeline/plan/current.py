"""Current values of registered files at Crucible, and their differences from the declaration.

Declarations, headers and file names give the values at registration. A value that is corrected at Crucible later wins:
groups, partners, parameters and names use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import fields_of, value_of
from crucible_lineage.marks import METADATA_PREFIX
from crucible_lineage.pipeline.declare.inputs import DatasetFields
from crucible_lineage.pipeline.plan.corrections import corrections, overwritten
from crucible_lineage.pipeline.plan.inspect import RULES
from crucible_lineage.refs import CORRECTED
from crucible_lineage.session import Session
from crucible_lineage.text.times import is_same_value

if TYPE_CHECKING:
    from crucible_lineage.pipeline.plan.inputs import InputItem

MOST_SHOWN = 60  # characters of a value that a message shows
SAMPLES = "samples"


@dataclass(frozen=True)
class DeclaredDifference:
    """A field of an existing dataset whose declaration differs from Crucible, which counts if it has a value."""

    subject: str
    mfid: str
    field: str
    declared: Any
    at_crucible: Any

    def __str__(self) -> str:
        subject, declared = f"{self.subject} ({self.mfid}): {self.field}", _shown(self.declared)
        if self.at_crucible is None:
            return f"{subject} is not at Crucible, {declared} as declared"
        return f"{subject} is {_shown(self.at_crucible)} at Crucible, {declared} as declared; Crucible's counts"


def apply_current_values(
    name: str, items: Sequence[InputItem], project: str, session: Session, *, refresh: bool
) -> Iterator[InputItem]:
    """Yield the items of an input with their current values, and their differences from the declaration.

    With `refresh`, records are always read; otherwise not if they were found to agree before.
    """
    registered = {item.dataset.mfid: _declared(item) for item in items if item.dataset and item.new}
    if not registered or (not refresh and session.store.inspection(_key(registered), RULES)):
        yield from items
        return
    records, all_agree = _records(list(registered), project, session, ask=not session.is_away), True
    for item in items:
        record = records.get(item.dataset.mfid) if item.dataset and item.new else None
        if record is None or item.dataset is None:
            all_agree = all_agree and item.new is None
            yield item
            continue
        subject, current = f"input {name}, {item.label}", fields_of(record)
        differs = tuple(_differences(subject, item.dataset.mfid, registered[item.dataset.mfid], record))
        metadata = {**(item.fields.get("metadata") or {}), **current["metadata"]}
        fields = {**item.fields, **current, "metadata": metadata}  # Crucible's, then declared ones
        all_agree = all_agree and not differs
        dataset = replace(item.dataset, taken=fields.get("timestamp") or "")
        acts = overwritten(record.get("scientific_metadata"))
        notes = tuple(f"{subject} ({item.dataset.mfid}): {act.change}" for act in acts)
        yield replace(item, dataset=dataset, fields=fields, differs=differs, notes=(*item.notes, *notes))
    if all_agree:
        store_agreement(items, session)


def changed_descriptions(
    results: Iterable[tuple[str, str, DatasetFields]], project: str, session: Session
) -> Iterator[DeclaredDifference]:
    """Yield where the `output:` of a step differs from its existing result. Templates of names do not count.

    `results` are the step's instance, the id, and the declared output of each result.
    """
    described = {}
    for name, mfid, output in results:
        is_name = output.dataset_name and "{" not in output.dataset_name
        named = {"dataset_name": output.dataset_name} if is_name else {}
        if fields := {**named, **output.descriptive, **_entries(output.metadata)}:
            described[mfid] = name, fields
    records = _records(list(described), project, session, ask=False)
    for mfid, (name, declared) in described.items():
        if record := records.get(mfid):
            yield from _differences(f"step {name}", mfid, declared, record)


def store_agreement(items: Iterable[InputItem], session: Session) -> None:
    """Store that these items agree with Crucible."""
    registered = {item.dataset.mfid: _declared(item) for item in items if item.dataset and item.new}
    session.store.keep_inspections(RULES, [(_key(registered), (), True)])


def _key(declared: Mapping[str, JsonMapping]) -> str:
    """Return the key under which agreement is stored: a digest of each dataset with its declaration."""
    entries = json.dumps(sorted(declared.items()), sort_keys=True, default=str)
    return f"declared {hashlib.sha256(entries.encode()).hexdigest()}"


def _records(mfids: Sequence[str], project: str, session: Session, *, ask: bool) -> Mapping[str, JsonMapping]:
    """Return the records as Crucible has them; unless it is asked, as last read, and those never read."""
    known = {} if ask else session.mirror.records(mfids)
    return known | session.mirror.read_among(project, [mfid for mfid in mfids if mfid not in known])


def _declared(item: InputItem) -> JsonObject:
    """Return the declared fields of a dataset, without empty ones."""
    fields = {name: item.fields.get(name) for name in CORRECTED} | _entries(item.fields.get("metadata") or {})
    fields |= {SAMPLES: list(item.new.samples) or None} if item.new else {}
    return {name: value for name, value in fields.items() if value is not None}


def _entries(metadata: JsonMapping) -> JsonObject:
    return {f"{METADATA_PREFIX}{key}": value for key, value in metadata.items()}


def _differences(subject: str, mfid: str, declared: JsonMapping, record: JsonMapping) -> Iterator[DeclaredDifference]:
    """Yield where a record differs from its declaration; a declared value that was corrected is no difference."""
    linked = [link["unique_id"] for link in record.get("links") or () if link.get("resource_type") == "sample"]
    fields, acts = fields_of(record), corrections(record.get("scientific_metadata"))
    for name, value in declared.items():
        if name == SAMPLES:
            removed = [act.was for act in acts if act.field == "sample"]
            if missing := [sample for sample in value if sample not in (*linked, *removed)]:
                yield DeclaredDifference(subject, mfid, name, missing, linked or None)
            continue
        current = value_of(fields, name)
        is_corrected = any(act.field == name and is_same_value(name, act.was, value) for act in acts)
        if not is_same_value(name, current, value) and not is_corrected:
            yield DeclaredDifference(subject, mfid, name, value, current)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
