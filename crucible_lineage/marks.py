"""Marks in a dataset's scientific metadata, which no older copy can undo.

A service may read the metadata, work for a while, and merge its whole copy back. Merging never removes a key, so a
lasting fact is a mark: a key of its own at the outermost level, written once and never with another value.

| key | value | meaning |
|---|---|---|
| `crucible_lineage` | record | the first registration started; its rank is 0 |
| `crucible_lineage_begun_NAME` | rank, record, metadata | registration NAME continues those of lower rank |
| `crucible_lineage_begun_NAME` | the same, `keeps` | once NAME is finished, the registration in `keeps` counts |
| `crucible_lineage_held_NAME` | true | none; the answer shows NAME whether it still holds the dataset |
| `crucible_lineage_complete_NAME` | when | registration NAME finished |
| `crucible_lineage_places` | slots | the slots that the dataset fills since its registration |
| `crucible_lineage_holds_DIGEST` | slots | the slots that it fills since then; the latest mark of a slot counts |
| `crucible_lineage_equals_DIGEST` | parents | these parents would give the same dataset |
| `crucible_lineage_corrected_NAME` | act | a value was corrected, by whom, when and why |

`settled` folds them into `crucible_lineage` and `crucible_lineage_places`, which all readers use. The state of a
dataset is a function of a set that only grows, so it does not matter when or how often an older copy arrives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, text
from crucible_lineage.text.times import is_same_value, utc

KEY = "crucible_lineage"
SLOTS_KEY = "crucible_lineage_places"
_BEGUN, _HELD, _COMPLETE = "crucible_lineage_begun_", "crucible_lineage_held_", "crucible_lineage_complete_"
_HOLDS, _EQUALS = "crucible_lineage_holds_", "crucible_lineage_equals_"
METADATA_PREFIX = "metadata."  # before the name of an entry, among fields
CORRECTIONS_KEY, _CORRECTED = "crucible_lineage_corrections", "crucible_lineage_corrected_"


def is_entry(field: str) -> bool:
    """Return whether a field is an entry of the metadata."""
    return field.startswith(METADATA_PREFIX) and field != METADATA_PREFIX


def is_own(key: str) -> bool:
    """Return whether this key of the metadata is reserved for crucible-lineage."""
    return key.startswith(KEY) and (key == KEY or key.startswith(f"{KEY}_"))


@dataclass(frozen=True)
class Registration:
    """One attempt to register the dataset. `metadata` is None if they are those of the dataset itself."""

    name: str
    rank: int
    record: JsonMapping = field(default_factory=dict)
    metadata: JsonMapping | None = None
    keeps: str = ""

    @property
    def order(self) -> tuple[int, bool, str]:
        """Sort key: the greatest registration holds the dataset. Taking over beats keeping."""
        return self.rank, not self.keeps, self.name


@dataclass(frozen=True)
class Registrations:
    """All attempts to register a dataset, by name, and when the finished ones ended."""

    by_name: Mapping[str, Registration]
    ended: Mapping[str, str]

    @cached_property
    def holder(self) -> Registration | None:
        """The registration that may continue."""
        return _greatest(self.by_name.values())

    @cached_property
    def complete(self) -> Registration | None:
        """The registration that completed the dataset, if one did."""
        last = _greatest(each for each in self.by_name.values() if not each.keeps or each.name in self.ended)
        if last is None or last.name not in self.ended:
            return None
        return replace(last, name=last.keeps, keeps="") if last.keeps else last

    @cached_property
    def contested(self) -> tuple[Registration, ...]:
        """The registrations that finished while another one took over: which came first is unknown."""
        if self.complete is not None:
            return ()
        return tuple(each for name, each in self.by_name.items() if name in self.ended and not each.keeps)

    @cached_property
    def shown(self) -> Registration | None:
        """The registration whose record counts: the complete one, else the latest with a record."""
        return self.complete or _greatest(each for each in self.by_name.values() if each.record)

    @property
    def next_rank(self) -> int:
        """The rank of the next registration to take over."""
        return max((each.rank for each in self.by_name.values()), default=0) + 1

    def without(self, *names: str) -> Registrations:
        """Return the registrations as if these had written nothing."""
        return Registrations({name: each for name, each in self.by_name.items() if name not in names}, self.ended)


def _greatest(among: Iterable[Registration]) -> Registration | None:
    """Return the one that outranks the others; None of none."""
    return max(among, key=lambda each: each.order, default=None)


def registrations(metadata: JsonMapping | None) -> Registrations:
    """Return the registrations in the metadata of a dataset."""
    metadata = metadata or {}
    first = mapping(metadata.get(KEY))
    ended = {name: str(when) for name, when in mapping(first.get("completed")).items()}
    by_name = {}
    if first:
        name = text(first.get("registrar"))
        by_name[name] = Registration(name, 0, first)
        if "registrar" not in first and first.get("status") == "complete":
            ended[name] = ""
    for key, value in metadata.items():
        if key.startswith(_COMPLETE):
            ended[key.removeprefix(_COMPLETE)] = text(value)
        elif key.startswith(_BEGUN) and isinstance(value, Mapping) and isinstance(value.get("rank"), int):
            name = key.removeprefix(_BEGUN)
            record, own = mapping(value.get("record")), mapping(value.get("metadata"))
            by_name[name] = Registration(name, value["rank"], record, own, text(value.get("keeps")))
    return Registrations(by_name, ended)


def begin_mark(name: str, rank: int, record: JsonMapping, metadata: JsonMapping, keeps: str = "") -> JsonObject:
    """Return the mark that a registration continues those of lower rank, or `keeps` one, whose record this is."""
    entry = {"rank": rank, "record": dict(record), "metadata": dict(metadata)}
    return {f"{_BEGUN}{name}": {**entry, "keeps": keeps} if keeps else entry}


def claim_mark(name: str) -> JsonObject:
    """Return a mark without meaning: the answer shows the registration whether it still holds the dataset."""
    return {f"{_HELD}{name}": True}


def completion_mark(name: str, when: str) -> JsonObject:
    """Return the mark that a registration finished."""
    return {f"{_COMPLETE}{name}": when}


def slots_mark(slots: JsonMapping) -> JsonObject:
    """Return the mark that the dataset fills these slots."""
    return {f"{_HOLDS}{_digest(slots)}": dict(slots)} if slots else {}


def equality_mark(parents: Mapping[str, str]) -> JsonObject:
    """Return the mark that these parents, each given with the actual one, would give the same dataset."""
    return {f"{_EQUALS}{_digest(parents)}": dict(parents)} if parents else {}


def record_in(metadata: JsonMapping | None) -> Any:
    """Return the record that all marks together give, or a value that is none unchanged; None if there is none."""
    metadata = metadata or {}
    if _is_plain(metadata):
        return metadata[KEY]
    known = registrations(metadata)
    shown = known.shown
    if shown is None:
        return metadata.get(KEY)
    record = dict(shown.record)
    equal_parents = {**mapping(record.get("equal_parents"))}
    for key, value in metadata.items():
        if key.startswith(_EQUALS):
            equal_parents |= mapping(value)
    if equal_parents:
        record["equal_parents"] = equal_parents
    if shown is known.complete and record.get("status") == "incomplete":
        record["status"] = "complete"
    if shown is known.complete and "registrar" in record:
        when = {shown.name: known.ended[shown.name]} if shown.name in known.ended else {}
        record["completed"] = {**mapping(record.get("completed")), **when} or {shown.name: ""}
    return record


def is_complete(record: JsonMapping) -> bool:
    """Return whether the registration that wrote this provenance record finished."""
    if record.get("status") != "complete":
        return False
    return "registrar" not in record or record["registrar"] in mapping(record.get("completed"))


def slots_in(metadata: JsonMapping | None) -> JsonObject:
    """Return the slots that a dataset fills, with the latest claim to each."""
    metadata = metadata or {}
    slots = dict(mapping(metadata.get(SLOTS_KEY)))
    for key in sorted(key for key in metadata if key.startswith(_HOLDS)):
        for slot, claim in mapping(metadata[key]).items():
            if slot not in slots or order_of_claims(_since(claim)) >= order_of_claims(_since(slots[slot])):
                slots[slot] = claim
    return slots


def correction_mark(name: str, act: JsonMapping) -> JsonObject:
    """Return the mark that a value was corrected; corrections apply in the order of their names."""
    return {f"{_CORRECTED}{name}": dict(act)}


def settled(metadata: JsonMapping | None) -> JsonObject:
    """Return the metadata that all marks together give: record, slots, corrections under a key each, and the rest."""
    metadata = metadata or {}
    acts = {key.removeprefix(_CORRECTED): value for key, value in metadata.items() if key.startswith(_CORRECTED)}
    corrections = {CORRECTIONS_KEY: acts} if acts else {}
    if _is_plain(metadata):
        own = {key: value for key, value in metadata.items() if not key.startswith((_COMPLETE, _HELD, _CORRECTED))}
        return own | corrections
    combined = {key: value for key, value in metadata.items() if not is_own(key)}
    shown = registrations(metadata).shown
    if shown is not None and shown.metadata is not None:
        combined |= shown.metadata
    if (record := record_in(metadata)) is not None:
        combined[KEY] = record
    if slots := slots_in(metadata):
        combined[SLOTS_KEY] = slots
    return combined | corrections


def correct(fields: JsonObject, metadata: JsonObject) -> None:
    """Set the corrected values in the fields of a dataset and its settled metadata, where another program wrote since.

    The corrections then name what was written.
    """
    acts = {name: mapping(act) for name, act in sorted(mapping(metadata.get(CORRECTIONS_KEY)).items())}
    for path, name in {str(act.get("field")): name for name, act in acts.items()}.items():
        home, key = (metadata, path.removeprefix(METADATA_PREFIX)) if is_entry(path) else (fields, path)
        now = acts[name].get("now")
        if (is_entry(path) or key in fields) and not is_same_value(path, home.get(key), now):
            acts[name] = {**acts[name], "overwritten": home.get(key)}
            home[key] = now
    if acts:
        metadata[CORRECTIONS_KEY] = acts


def _is_plain(metadata: JsonMapping) -> bool:
    """Return whether a single registration completed the dataset and no mark came later, which is the usual case."""
    if not is_complete(mapping(metadata.get(KEY))):
        return False
    return not any(key.startswith((_BEGUN, _HOLDS, _EQUALS)) for key in metadata)


def _since(claim: object) -> str:
    return text(mapping(claim).get("since"))


def order_of_claims(text: str) -> tuple[bool, object]:
    """Return a sort key for the times of claims; a text that is no time is before all others."""
    moment = moment_of(text)
    return (moment is not None, moment or text)


def moment_of(text: str) -> datetime | None:
    """Return the time of a claim; None for a text that is no time."""
    try:
        return utc(text)
    except ValueError:
        return None


def _digest(value: JsonMapping) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
