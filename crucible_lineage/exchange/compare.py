"""What a dataset lacks at another Crucible, and what contradicts there. Pure.

What is there is never overwritten: values that differ are a conflict, which a person decides. Of a result that two
machines registered on their own (the recipe is the same, so the id is) the first one there stands, and is completed.
Which slots it holds is no contradiction: the newest run has the last word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from crucible_lineage.core.slots import SlotClaim, slots_of
from crucible_lineage.exchange.model import Conflict, CopyComparison, HeldDataset, MissingParts, has_bytes, linked
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.provenance.record import ATTACHED_NAME, KEY, SLOTS_KEY, unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.times import without_default_time

FIELDS = (
    "dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "instrument_name",
)  # fmt: skip
SAMPLE_FIELDS = ("sample_name", "sample_type", "description", "timestamp")
Record = StepRecord | FilesRecord
Renamed = Callable[[str], str]
PUT_IN = timedelta(seconds=1)
MOST_CHARACTERS = 60  # of a value in a message


def compare(here: HeldDataset, there: HeldDataset | None, renamed: Renamed = str) -> CopyComparison:
    """Return what `there` lacks of `here`. `renamed` gives the id that a dataset has there."""
    if reason := unreadable(here.metadata):
        return _refused(here, f"its provenance record cannot be read here: {reason}")
    if there is None:
        return CopyComparison(MissingParts(whole=True))
    if reason := _taken(here, there):
        return _refused(here, reason)
    ours, theirs = here.record, there.record
    if ours is not None and (theirs is None or not theirs.is_complete):
        return CopyComparison(MissingParts(whole=True))
    twice = ours is not None and theirs is not None and not is_brought(ours, theirs)
    files, faults, other_files = _files(here, there, twice=twice)
    fields, other_fields = _fields(here.dataset, there.dataset)
    metadata, other_values = _added(_plain(here.metadata), _plain(there.metadata))
    differs = [*other_fields, *other_values, *other_files]
    if not twice:
        faults += differs
    lacking = MissingParts(
        fields=fields,
        metadata=metadata,
        slots=_later(slots_of(here.metadata), slots_of(there.metadata)),
        equal_parents=_equal_parents(ours, theirs, renamed),
        keywords=_keywords(here, there),
        parents=_parents(here, there, renamed),
        samples=tuple(sorted({renamed(one) for one in linked(here.dataset, "sample")} - set(_samples(there)))),
        pictures=frozenset(_names(here) - _names(there) - (_beside(ours) if twice else set())),
        files=files,
    )
    conflicts = tuple(Conflict(here.mfid, here.name, fault) for fault in faults)
    return CopyComparison(lacking, conflicts, tuple(differs) if twice else ())


def is_brought(ours: Record, theirs: Record) -> bool:
    """True if the one was brought from the other; False if two machines registered the same on their own."""
    return ours.registrar in (theirs.completed or {}) or theirs.registrar in (ours.completed or {})


def compare_sample(here: Mapping[str, Any], there: Mapping[str, Any] | None, renamed: Renamed = str) -> CopyComparison:
    """Return what a sample there lacks of the one here."""
    if there is None:
        return CopyComparison(MissingParts(whole=True))
    fields, differs = _fields(here, there, SAMPLE_FIELDS)
    ours, theirs = (one.get("scientific_metadata") or {} for one in (here, there))
    metadata, more = _added(ours, theirs)
    have = linked(there, "sample")
    parents = {renamed(one): how for one, how in linked(here, "sample").items() if renamed(one) not in have}
    mfid, name = str(here["unique_id"]), f"sample {here.get('sample_name') or ''}".strip()
    conflicts = tuple(Conflict(mfid, name, reason) for reason in (*differs, *more))
    return CopyComparison(MissingParts(fields=fields, metadata=metadata, parents=parents), conflicts)


def _refused(here: HeldDataset, reason: str) -> CopyComparison:
    return CopyComparison(conflicts=(Conflict(here.mfid, here.name, reason),))


def _taken(here: HeldDataset, there: HeldDataset) -> str:
    """Return why what is there is another dataset, or not to be relied on; empty if it is the same."""
    if is_withdrawn(there.dataset):
        return f"its deletion there is requested (request {there.dataset['deletion_request'].get('id')})"
    theirs_in, ours_in = (str(one.dataset.get("project_id") or "") for one in (there, here))
    if theirs_in.casefold() != ours_in.casefold():
        return f"its id is taken there by a dataset of project {theirs_in or 'none'!r}"
    if reason := unreadable(there.metadata):
        return f"the target's provenance record cannot be read: {reason}"
    ours, theirs = here.record, there.record
    if ours is None and theirs is not None:
        return "the target has a provenance record, the source has none"
    if ours is not None and theirs is not None and ours.recipe_sha256 != theirs.recipe_sha256:
        return "the target has another recipe: a record was edited or copied; `crucible-lineage verify` shows which"
    if ours is not None and theirs is None and (there.files or there.metadata):
        return "the target has files or metadata, but no provenance record"
    return ""


def _plain(metadata: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in metadata.items() if key not in (KEY, SLOTS_KEY)}


def _fields(
    here: Mapping[str, object], there: Mapping[str, object], names: tuple[str, ...] = FIELDS
) -> tuple[dict[str, object], list[str]]:
    """Fields that are empty there, and those that have another value, in words."""
    added, differs = {}, []
    if names is FIELDS:  # of data it counts when they were taken, if somebody has said it
        here, there = without_default_time(here), without_default_time(there)
    for name in names:
        ours, theirs = _said(here, name), _said(there, name)
        if ours is None or _moment(here.get(name)) == _moment(there.get(name)):
            continue
        if theirs is None:
            added[name] = ours
        else:
            differs.append(f"{name} is {_short(theirs)} there and {_short(ours)} here")
    return added, differs


def _said(record: Mapping[str, object], name: str) -> object:
    """Return the value that somebody gave; None for the time of creation, which a Crucible puts in by itself."""
    value = record.get(name)
    if name != "timestamp" or value is None:
        return value
    given, made = _moment(value), _moment(record.get("creation_time"))
    is_put_in = isinstance(given, datetime) and isinstance(made, datetime) and abs(given - made) < PUT_IN
    return None if is_put_in else value


def _added(here: Mapping[str, Any], there: Mapping[str, Any], above: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return what of the one document is not in the other, and the differences in words."""
    added: dict[str, Any] = {}
    differs: list[str] = []
    for key, ours in here.items():
        if key not in there:
            added[key] = ours
        elif isinstance(ours, Mapping) and isinstance(there[key], Mapping):
            inner, others = _added(ours, there[key], f"{above}{key}.")
            added |= {key: inner} if inner else {}
            differs += others
        elif not _equal(ours, there[key]):
            differs.append(f"metadata {above}{key} is {_short(there[key])} there and {_short(ours)} here")
    return added, differs


def _equal(ours: object, theirs: object) -> bool:
    """JSON values, of which databases may return 1e22 as the whole number that it is."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(_equal(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    return bool(ours == theirs)


def _files(here: HeldDataset, there: HeldDataset, *, twice: bool) -> tuple[frozenset[str], list[str], list[str]]:
    """Names of files that are not there; in words, files whose bytes contradict, and files that may well differ.

    Where the same was registered `twice`, that is what stands beside the data: pictures, and what the step printed.
    """
    theirs = {file.filename: file for file in there.files}
    beside = _beside(here.record) if twice else set()
    made = {file.name for file in (here.record and here.record.generated) or ()} if twice else set()
    missing: set[str] = set()
    faults: list[str] = []
    differs: list[str] = []
    for file in here.files:
        name, found = file.filename, theirs.get(file.filename)
        if name == ATTACHED_NAME:  # the long part of a record; the record itself was compared
            continue
        if found is None and name in made:
            (differs if name in beside else faults).append(f"its file {name} is not there, where it was made, too")
        elif found is None or (has_bytes(file) and not found.storage_path and found.sha256_hash == file.sha256_hash):
            missing.add(name)
        elif file.sha256_hash and found.sha256_hash and file.sha256_hash != found.sha256_hash:
            (differs if name in beside else faults).append(f"its file {name} has other bytes there")
    return frozenset(missing), faults, differs


def _beside(record: Record | None) -> set[str]:
    """Names of the files of a result that are no data: pictures, and what the step printed."""
    return {file.name for file in (record and record.generated) or () if file.preview or file.log}


def _later(here: Mapping[str, SlotClaim], there: Mapping[str, SlotClaim]) -> dict[str, SlotClaim]:
    """The slots that it holds here as of a later run than there."""
    return {
        key: filled
        for key, filled in here.items()
        if key not in there or _since(filled.since) > _since(there[key].since)
    }


def _since(text: str) -> tuple[bool, str]:
    moment = _moment(text)
    return isinstance(moment, datetime), moment.isoformat(timespec="microseconds") if isinstance(
        moment, datetime
    ) else text


def _equal_parents(ours: Record | None, theirs: Record | None, renamed: Renamed) -> dict[str, str]:
    if ours is None or theirs is None:
        return {}
    noted = theirs.equal_parents or {}
    wanted = {renamed(one): renamed(other) for one, other in (ours.equal_parents or {}).items()}
    return {one: other for one, other in wanted.items() if one not in noted and one not in theirs.parents}


def _keywords(here: HeldDataset, there: HeldDataset) -> tuple[str, ...]:
    theirs = {keyword.casefold() for keyword in there.keywords}
    return tuple(keyword for keyword in here.keywords if keyword.casefold() not in theirs)


def _parents(here: HeldDataset, there: HeldDataset, renamed: Renamed) -> dict[str, str | None]:
    theirs = linked(there.dataset, "dataset")
    wanted = {renamed(parent): relationship for parent, relationship in linked(here.dataset, "dataset").items()}
    return {parent: relationship for parent, relationship in wanted.items() if parent not in theirs}


def _samples(held: HeldDataset) -> Iterator[str]:
    return iter(linked(held.dataset, "sample"))


def _names(held: HeldDataset) -> set[str]:
    return {picture.thumbnail_name or "" for picture in held.pictures}


def _moment(value: object) -> Any:
    """Times as moments, so that their spelling does not matter; anything else as it is."""
    if not isinstance(value, str) or len(value) < len("2024-01-01T00:00"):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
