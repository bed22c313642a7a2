"""Reads what the graph needs from a record of a dataset or sample; a missing or odd field reads as absent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.ids import canonical_json

__all__ = [
    "PROVENANCE_KEY",
    "activity_code",
    "generated_files",
    "instruments",
    "lists_all_used",
    "moment",
    "provenance",
    "recipe_digest",
    "run_ids",
    "state",
    "text",
    "told_run",
    "used_files",
    "used_mfids",
    "used_roles",
]

PROVENANCE_KEY = "crucible_lineage"  # in the scientific metadata
Record = Mapping[str, Any]


def provenance(record: Record | None) -> Record:
    """The provenance record in a dataset's scientific metadata, or an empty mapping."""
    return _mapping(_mapping(_mapping(record).get("scientific_metadata")).get(PROVENANCE_KEY))


def state(record: Record | None) -> str:
    """What the provenance says of the registration: complete only if the one that the record is of came to its end."""
    written = provenance(record)
    said = text(written.get("status"))
    if said == "complete" and "registrar" in written:
        return said if written["registrar"] in _mapping(written.get("completed")) else "incomplete"
    return said


def used_mfids(record: Record | None) -> tuple[str, ...]:
    """The datasets that the provenance says were used, each once, in its order."""
    entries = _mappings(provenance(record).get("used"))
    return tuple(dict.fromkeys(mfid for entry in entries if (mfid := text(entry.get("mfid")))))


def lists_all_used(record: Record | None) -> bool:
    """False for a long record that names fewer parents than it counts: the rest are in its attached file."""
    count = _mapping(provenance(record).get("attached")).get("used")
    return not isinstance(count, int) or len(list(_mappings(provenance(record).get("used")))) >= count


def recipe_digest(record: Record | None) -> str:
    """SHA-256 of the recipe, also where that is in the attached file; empty if there is none, or it is no JSON."""
    written = provenance(record)
    recipe = _mapping(written.get("recipe"))
    try:
        digest = hashlib.sha256(canonical_json(recipe)).hexdigest() if recipe else ""
    except (TypeError, ValueError):
        return ""
    return digest or text(_mapping(written.get("attached")).get("recipe_sha256"))


def used_files(record: Record | None) -> dict[str, dict[str, str]]:
    """{MFID: {file name: SHA-256}} of what was used; a dataset that was used without named files has an empty value."""
    found: dict[str, dict[str, str]] = {}
    for entry in _mappings(provenance(record).get("used")):
        if mfid := text(entry.get("mfid")):
            found.setdefault(mfid, {}).update(_named_hashes(entry.get("files")))
    return found


def used_roles(record: Record | None) -> dict[str, tuple[str, ...]]:
    """{role: MFIDs} of what was used."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in _mappings(provenance(record).get("used")):
        if mfid := text(entry.get("mfid")):
            role = text(entry.get("role"))
            found[role] = (*found.get(role, ()), mfid)
    return found


def generated_files(record: Record | None) -> dict[str, str]:
    """{file name: SHA-256} of the files a dataset has: as its provenance says, else as its `files` list does."""
    return _named_hashes(provenance(record).get("generated")) or _named_hashes(_mapping(record).get("files"))


def activity_code(record: Record | None) -> str:
    """The fingerprint of the code that made the dataset, or an empty text."""
    written = provenance(record)
    code = _mapping(written.get("activity")).get("code")
    return text(_mapping(code).get("fingerprint")) or text(code) or text(_mapping(written.get("recipe")).get("code"))


def run_ids(record: Record | None) -> frozenset[str]:
    """Every id that the provenance gives for the run that made the dataset: of a flow run, of a task run."""
    run = _mapping(provenance(record).get("activity")).get("run")
    return frozenset(filter(None, map(text, [run, *_mapping(run).values()])))


def told_run(record: Record | None) -> str:
    """The id of the run that a dataset tells of, whose parts are what the run relied on; empty for other datasets."""
    activity = _mapping(provenance(record).get("activity"))
    return text(activity.get("run_id")) if activity.get("kind") == "pipeline run" else ""


def instruments(record: Record | None) -> frozenset[str]:
    """Every name a dataset's instrument goes by: its name, its slug, its MFID."""
    keys = ("instrument_name", "instrument_id", "instrument_mfid")
    return frozenset(found for key in keys if (found := text(_mapping(record).get(key))))


def moment(record: Record | None) -> datetime | None:
    """When the data were taken, or else recorded; a time without zone counts as UTC."""
    for key in ("timestamp", "creation_time"):
        try:
            found = datetime.fromisoformat(text(_mapping(record).get(key)))
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def text(value: Any) -> str:
    """`value` if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Record:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> Iterator[Record]:
    return (entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list | tuple) else iter(())


def _named_hashes(files: Any) -> dict[str, str]:
    """{name: SHA-256} of a mapping, of a provenance record's entries, or of Crucible's file records."""
    if isinstance(files, Mapping):
        return {name: text(sha256) for name, sha256 in files.items() if isinstance(name, str)}
    return {
        name: text(entry.get("sha256")) or text(entry.get("sha256_hash"))
        for entry in _mappings(files)
        if (name := text(entry.get("name")) or text(entry.get("filename")))
    }
