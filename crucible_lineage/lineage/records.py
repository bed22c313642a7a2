"""Reads what the graph needs from a record of a dataset or sample; a missing or odd field reads as absent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from crucible_lineage.calibrations import certified_text
from crucible_lineage.ids import canonical_json
from crucible_lineage.refs import asks_for_deletion
from crucible_lineage.times import measured_at, span_text

PROVENANCE_KEY = "crucible_lineage"  # in the scientific metadata
SLOTS_KEY = "crucible_lineage_places"  # beside it: what the dataset is a result of
CORRECTIONS_KEY = "crucible_lineage_corrections"  # beside it: what was changed after the registration, by whom and why
OWN_KEYS = frozenset((PROVENANCE_KEY, SLOTS_KEY, CORRECTIONS_KEY))  # what crucible-lineage itself keeps there
Record = Mapping[str, Any]


def provenance(record: Record | None) -> Record:
    """The provenance record in a dataset's scientific metadata, or an empty mapping."""
    return mapping(mapping(mapping(record).get("scientific_metadata")).get(PROVENANCE_KEY))


def state(record: Record | None) -> str:
    """Return the registration's state by its provenance: complete only if that of the record came to its end."""
    written = provenance(record)
    said = text(written.get("status"))
    if said == "complete" and "registrar" in written:
        return said if written["registrar"] in mapping(written.get("completed")) else "incomplete"
    return said


def used_mfids(record: Record | None) -> tuple[str, ...]:
    """The datasets that the provenance says were used, or would be the same to it, each once, in its order."""
    written = provenance(record)
    used = (text(entry.get("mfid")) for entry in mappings(written.get("used")))
    return tuple(dict.fromkeys(mfid for mfid in (*used, *mapping(written.get("equal_parents"))) if mfid))


def equal_parents(record: Record | None) -> dict[str, str]:
    """{dataset of the same bytes and origin: the one that was used}: a result stays what it is with either."""
    named = mapping(provenance(record).get("equal_parents"))
    return {mfid: text(was) for mfid, was in named.items() if text(was)}


def parents_as_used(record: Record | None, parents: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return linked parents in their order, each with the other linked ones that stand for it with equal bytes.

    The one that was used goes first; if only others that stand for it are linked, the first of them does.
    """
    equal, found = equal_parents(record), dict[str, list[str]]()
    for mfid in parents:
        found.setdefault(_as_used(equal, mfid), []).append(mfid)
    ordered = {was: sorted(mfids, key=lambda one: one != was) for was, mfids in found.items()}
    return {mfids[0]: tuple(mfids[1:]) for mfids in ordered.values()}


def _as_used(equal: Mapping[str, str], mfid: str) -> str:
    seen = set[str]()
    while mfid in equal and mfid not in seen:
        seen.add(mfid)
        mfid = equal[mfid]
    return mfid


def lists_all_used(record: Record | None) -> bool:
    """False for a long record that names fewer parents than it counts: the rest are in its attached file."""
    count = mapping(provenance(record).get("attached")).get("used")
    return not isinstance(count, int) or len(list(mappings(provenance(record).get("used")))) >= count


def recipe_digest(record: Record | None) -> str:
    """SHA-256 of the recipe, also where that is in the attached file; empty if there is none, or it is no JSON."""
    written = provenance(record)
    recipe = mapping(written.get("recipe"))
    try:
        digest = hashlib.sha256(canonical_json(recipe)).hexdigest() if recipe else ""
    except (TypeError, ValueError):
        return ""
    return digest or text(mapping(written.get("attached")).get("recipe_sha256"))


def used_files(record: Record | None) -> dict[str, dict[str, str]]:
    """{MFID: {file name: SHA-256}} of what was used; a dataset that was used without named files has an empty value."""
    found: dict[str, dict[str, str]] = {}
    for entry in mappings(provenance(record).get("used")):
        if mfid := text(entry.get("mfid")):
            found.setdefault(mfid, {}).update(_named_hashes(entry.get("files")))
    return found


def used_roles(record: Record | None) -> dict[str, tuple[str, ...]]:
    """{role: MFIDs} of what was used."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in mappings(provenance(record).get("used")):
        if mfid := text(entry.get("mfid")):
            role = text(entry.get("role"))
            found[role] = (*found.get(role, ()), mfid)
    return found


def chosen_in_time(record: Record | None, mfid: str) -> str:
    """Return how far in time a parent is from its child (`2 h before`), or the range in which it is certified.

    Empty if it was not chosen in time.
    """
    for entry in mappings(provenance(record).get("used")):
        chosen = mapping(entry.get("chosen"))
        if entry.get("mfid") == mfid and (certificate := mapping(chosen.get("certificate"))):
            return certified_text(certificate)
        if entry.get("mfid") == mfid and (side := text(chosen.get("side"))):
            seconds = chosen.get("seconds")
            return f"{span_text(seconds)} {side}" if isinstance(seconds, int | float) and seconds else side
    return ""


def generated_files(record: Record | None) -> dict[str, str]:
    """{file name: SHA-256} of the files a dataset has: as its provenance says, else as its `files` list does."""
    return _named_hashes(provenance(record).get("generated")) or _named_hashes(mapping(record).get("files"))


def place_keys(record: Record | None) -> tuple[str, ...]:
    """The places that a result fills or has filled."""
    return tuple(map(str, mapping(mapping(mapping(record).get("scientific_metadata")).get(SLOTS_KEY))))


def returned_values(record: Record | None) -> dict[str, Any]:
    """Return the metadata that the dataset was registered with: of a result, what its step returned.

    Nothing of what came later.
    Where the record does not tell what that was, all but what crucible-lineage itself keeps there.
    """
    metadata = {k: v for k, v in mapping(mapping(record).get("scientific_metadata")).items() if k not in OWN_KEYS}
    keys = mapping(provenance(record).get("result")).get("keys")
    if not isinstance(keys, list):
        return metadata
    outermost = {text(key).split("/")[1].replace("~1", "/").replace("~0", "~") for key in keys if "/" in text(key)}
    return {key: value for key, value in metadata.items() if key in outermost}


def activity_code(record: Record | None) -> str:
    """The fingerprint of the code that made the dataset, or an empty text."""
    written = provenance(record)
    code = mapping(written.get("activity")).get("code")
    return text(mapping(code).get("fingerprint")) or text(code) or text(mapping(written.get("recipe")).get("code"))


def run_ids(record: Record | None) -> frozenset[str]:
    """Every id that the provenance gives for the run that made the dataset: of a flow run, of a task run."""
    run = mapping(provenance(record).get("activity")).get("run")
    return frozenset(filter(None, map(text, [run, *mapping(run).values()])))


def recorded_run(record: Record | None) -> str:
    """The id of the run that a dataset tells of, whose parts are what the run relied on; empty for other datasets."""
    activity = mapping(provenance(record).get("activity"))
    return text(activity.get("run_id")) if activity.get("kind") == "pipeline run" else ""


def is_support(record: Record | None) -> bool:
    """Return whether results rest on the dataset: the source of their steps, or the environment of these."""
    kind = mapping(provenance(record).get("activity")).get("kind")
    return kind in ("source of steps", "environment of steps")


def is_withdrawn(record: Record | None) -> bool:
    """Return whether the dataset is to be deleted."""
    return asks_for_deletion(((record or {}).get("deletion_request") or {}).get("status"))


def recorded_project(record: Record | None) -> str:
    """The project in which the provenance says that the dataset was made; empty if it does not say it."""
    return text(mapping(provenance(record).get("recipe")).get("project"))


def instruments(record: Record | None) -> frozenset[str]:
    """Every name a dataset's instrument goes by: its name, its slug, its MFID."""
    keys = ("instrument_name", "instrument_id", "instrument_mfid")
    return frozenset(found for key in keys if (found := text(mapping(record).get(key))))


def moment(record: Record | None) -> datetime | None:
    """When the data were taken, as far as somebody said it; a time without zone counts as UTC."""
    return measured_at(mapping(record))


def text(value: object) -> str:
    """`value` if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Record:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> Iterator[Record]:
    """The mappings in `value` if it is a list, else none."""
    return (entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list | tuple) else iter(())


def _named_hashes(files: object) -> dict[str, str]:
    """{name: SHA-256} of a mapping, of a provenance record's entries, or of Crucible's file records."""
    if isinstance(files, Mapping):
        return {name: text(sha256) for name, sha256 in files.items() if isinstance(name, str)}
    return {
        name: text(entry.get("sha256")) or text(entry.get("sha256_hash"))
        for entry in mappings(files)
        if (name := text(entry.get("name")) or text(entry.get("filename")))
    }
