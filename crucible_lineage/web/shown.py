"""What of a dataset's metadata a reader is shown: nothing about parents that the reader may not see."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.lineage.records import PLACES_KEY, PROVENANCE_KEY, provenance

__all__ = ["blotted", "named_mfids", "shown_record"]

Record = Mapping[str, Any]
_MFID = re.compile(r"(?<![0-9a-z])[0-9a-hjkmnp-tv-z]{26}(?![0-9a-z])")


def named_mfids(record: Record) -> frozenset[str]:
    """The other datasets that a record's provenance names: used, in its recipe, superseded."""
    written = provenance(record)
    entries = [*_entries(written.get("used")), *_entries(written.get("recipe"))]
    return frozenset(filter(is_mfid, (*entries, written.get("supersedes")))) - {record.get("unique_id")}


def shown_record(record: Record, hidden: Collection[str]) -> dict[str, Any]:
    """The record; of the datasets that are hidden there stays only that each was used, and as what."""
    if not hidden:
        return dict(record)
    metadata = record.get("scientific_metadata")
    if isinstance(metadata, Mapping):  # places tell by which data they are named, facts what these are called
        shown = {k: v for k, v in metadata.items() if k != PLACES_KEY}
        written = provenance(record)
        if isinstance(recipe := written.get("recipe"), Mapping) and "facts" in recipe:
            without = {k: v for k, v in recipe.items() if k != "facts"}
            shown[PROVENANCE_KEY] = {**written, "recipe": without}
        record = {**record, "scientific_metadata": shown}
    return dict(_without(record, frozenset(hidden)))


def blotted(text: str, hidden: Collection[str]) -> str:
    """`text` with the ids of what is hidden replaced."""
    return _MFID.sub(lambda found: HIDDEN_NAME if found.group() in hidden else found.group(), text)


def _without(value: object, hidden: frozenset[str]) -> Any:
    if isinstance(value, str):
        return blotted(value, hidden)
    if isinstance(value, Mapping):
        if isinstance(mfid := value.get("mfid"), str) and mfid in hidden:
            return {"mfid": HIDDEN_NAME} | {key: value[key] for key in value if key == "role"}
        return {_without(key, hidden): _without(inner, hidden) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without(inner, hidden) for inner in value]
    return value


def _entries(value: object) -> Iterator[Any]:
    """Every `mfid` in a part of the provenance, however deep."""
    if isinstance(value, Mapping):
        yield value.get("mfid")
        for inner in value.values():
            yield from _entries(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _entries(inner)
