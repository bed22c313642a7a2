"""What Crucible says now of measured files that are registered, and where a declaration says something else.

What a declaration, a header or a name of a file says is the value at registration. Whoever corrects it at Crucible is
right from then on: groups, partners, parameters and names go by it. `metadata: declared` turns that round.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.datasets import ONE_BY_ONE
from crucible_lineage.lineage.records import OWN_KEYS
from crucible_lineage.pipeline.functions.inspection import RULES
from crucible_lineage.pipeline.spec.inputs import MATCHED
from crucible_lineage.session import Session
from crucible_lineage.times import measured_at, utc

if TYPE_CHECKING:
    from crucible_lineage.pipeline.inputs.inputs import InputItem

CRUCIBLE, DECLARED = "crucible", "declared"
MOST_SHOWN = 60  # symbols of a value that a message shows
SAMPLES, KEYWORDS = "samples", "keywords"


@dataclass(frozen=True)
class DeclaredDifference:
    """A field of a registered dataset in which its declaration differs from Crucible; `holds` is whose value counts."""

    input: str
    mfid: str
    name: str
    field: str
    declared: Any
    at_crucible: Any
    holds: str

    def __str__(self) -> str:
        there = f"is {_shown(self.at_crucible)} at Crucible" if self.at_crucible is not None else "is not at Crucible"
        which = "Crucible's holds" if self.holds == CRUCIBLE else "the declared one holds"
        said = f"{self.field} {there}, {_shown(self.declared)} as declared; {which}"
        return f"input {self.input}, {self.name} ({self.mfid}): {said}"

    def to_json(self) -> dict[str, Any]:
        """The entry in `plan --json`."""
        return dict(vars(self))


def as_at_crucible(
    name: str, items: Sequence[InputItem], project: str, holds: str, session: Session, *, asked: bool
) -> Iterator[InputItem]:
    """The items of an input with what holds of them now, each with the fields in which declaration and Crucible differ.

    What is `asked` for is read each time; else only what was not found to agree before.
    """
    known = {item.dataset.mfid: item for item in items if item.dataset and item.new}
    if not known or (not asked and session.store.inspection(_key(known.values()), RULES)):
        yield from items
        return
    records, agreeing = _records(list(known), project, session), True
    for item in items:
        record = records.get(item.dataset.mfid) if item.dataset and item.new else None
        if record is None or item.dataset is None:
            agreeing = agreeing and item.new is None
            yield item
            continue
        differs, fields = tuple(_differences(name, item, record, holds)), _holding(item, record, holds)
        agreeing = agreeing and not differs
        dataset = replace(item.dataset, taken=fields.get("timestamp") or "")
        yield replace(item, dataset=dataset, fields=fields, differs=differs)
    if agreeing:
        note_agreeing(items, session)


def apply_declared(differences: Iterable[DeclaredDifference], session: Session) -> list[DeclaredDifference]:
    """Write what is declared of registered files to Crucible, noted as corrections; return what was written.

    InputError, before anything is changed, for a value that cannot be set.
    """
    from crucible_lineage.pipeline.inputs.corrections import (  # a plan corrects nothing
        apply_changes,
        changes_of,
        note_act,
    )

    applied = list(differences)
    values: dict[str, dict[str, Any]] = {}
    for one in applied:
        if one.field != SAMPLES:
            values.setdefault(one.mfid, {})[one.field] = one.declared
    changes = [change for mfid, some in values.items() for change in changes_of(session, mfid, some)]
    apply_changes(session, changes, "as declared")
    for one in applied:
        for sample in one.declared if one.field == SAMPLES else ():
            session.client.datasets.add_sample(one.mfid, sample)
            note_act(session, one.mfid, f"measured on sample {sample}", "as declared")
    return applied


def note_agreeing(items: Iterable[InputItem], session: Session) -> None:
    """Remember that these are at Crucible as they are declared."""
    known = [item for item in items if item.dataset and item.new]
    if known:
        session.store.keep_inspection(_key(known), RULES, (), True)


def _key(items: Iterable[InputItem]) -> str:
    """Return the key under which that is cached: each dataset with its declaration."""
    said = sorted(
        (item.dataset.mfid, json.dumps(_declared(item), sort_keys=True, default=str)) for item in items if item.dataset
    )
    return f"declared {hashlib.sha256(json.dumps(said).encode()).hexdigest()}"


def _records(mfids: Sequence[str], project: str, session: Session) -> Mapping[str, Mapping[str, Any]]:
    records: Mapping[str, Mapping[str, Any]] = session.mirror.records(mfids) if session.is_away else {}
    if len(records) < len(set(mfids)):
        few = len(mfids) <= ONE_BY_ONE
        records = session.mirror.read(mfids) if few else session.mirror.snapshot(project).records
    return {mfid: records[mfid] for mfid in mfids if mfid in records}


def _declared(item: InputItem) -> dict[str, Any]:
    """Return the declaration of a dataset, field by field, without empty ones."""
    fields = {name: item.fields.get(name) for name in (*MATCHED, "timestamp")}
    fields |= {f"metadata.{key}": value for key, value in (item.fields.get("metadata") or {}).items()}
    if item.new is not None:
        fields |= {SAMPLES: list(item.new.samples) or None, KEYWORDS: list(item.new.keywords) or None}
    return {name: value for name, value in fields.items() if value is not None}


def _differences(name: str, item: InputItem, record: Mapping[str, Any], holds: str) -> Iterator[DeclaredDifference]:
    assert item.dataset
    metadata = record.get("scientific_metadata") or {}
    for field, declared in _declared(item).items():
        there: Any
        if field.startswith("metadata."):
            there = metadata.get(field.removeprefix("metadata."))
        elif field == SAMPLES:
            there = [one["unique_id"] for one in record.get("links") or () if one.get("resource_type") == "sample"]
            declared = [one for one in declared if one not in there]
            if not declared:
                continue
            there = there or None
        elif field == KEYWORDS:
            continue  # ingestion adds its own, and lists of datasets do not tell them
        else:
            there = record.get(field)
        if not _equal(field, declared, there):
            which = CRUCIBLE if holds == CRUCIBLE and there is not None else DECLARED
            yield DeclaredDifference(name, item.dataset.mfid, item.label, field, declared, there, which)


def _equal(field: str, declared: object, there: object) -> bool:
    if field != "timestamp" or there is None:
        return declared == there
    try:
        return utc(str(declared)) == utc(str(there))
    except ValueError:
        return False


def _holding(item: InputItem, record: Mapping[str, Any], holds: str) -> dict[str, Any]:
    """The fields that groups and partners go by: what Crucible says, and what is declared beside it; or the reverse."""
    moment = measured_at(record)
    there = {name: record.get(name) for name in MATCHED} | {"timestamp": moment.isoformat() if moment else None}
    said = {name: value for name, value in there.items() if value is not None}
    metadata = {k: v for k, v in (record.get("scientific_metadata") or {}).items() if k not in OWN_KEYS}
    declared = {name: value for name, value in item.fields.items() if value is not None}
    of_declared = item.fields.get("metadata") or {}
    if holds == DECLARED:
        return {**said, **declared, "metadata": {**metadata, **of_declared}}
    return {**declared, **said, "metadata": {**of_declared, **metadata}}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
