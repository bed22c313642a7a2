"""Fields that the graph and exports need from records of datasets, samples and projects; invalid ones count as absent.

Owners and licence are in the metadata of a dataset under `license`, `creators` and `rights`; those of its project fill
gaps.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from crucible_lineage.ids import ORCID, canonical_json
from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, text
from crucible_lineage.marks import CORRECTIONS_KEY, KEY, SLOTS_KEY, is_complete
from crucible_lineage.refs import CONTEXT, MATCHED, asks_for_deletion
from crucible_lineage.statements.calibrations import certified_text
from crucible_lineage.text.amounts import distinct
from crucible_lineage.text.times import measured_at, span_text, utc

SOURCE, SURROUNDINGS = "source of steps", "environment of steps"  # kinds of datasets that results rely on
UNKNOWN_INPUTS = "inputs not known"  # end of the note about a call that wrote files, and was not seen to read any
_SWEPT = re.compile(r"[A-Za-z_]\w*=")  # the label of a combination begins with a parameter
DEEPEST = 8  # levels of nested values with names of their own
OWN_KEYS = frozenset((KEY, SLOTS_KEY, CORRECTIONS_KEY))  # of the scientific metadata, of crucible-lineage itself


def gaps(record: JsonMapping | None) -> tuple[str, ...]:
    """Return the parents that were left out of a result's lists, each with the reason."""
    found = mapping(provenance(record).get("activity")).get("gaps")
    return tuple(map(text, found)) if isinstance(found, list | tuple) else ()


def provenance(record: JsonMapping | None) -> JsonMapping:
    """Return the provenance record in a dataset's scientific metadata, or an empty mapping."""
    return mapping(mapping(mapping(record).get("scientific_metadata")).get(KEY))


def inherited_fields(record: JsonMapping) -> set[str]:
    """Return the fields that a result still has as it inherited them; everywhere, those of its data count instead."""
    copies: list[tuple[object, object]] = [
        (name, values[0]) for name, values in mapping(provenance(record).get("inherited")).items()
    ]
    if not copies:
        return set()
    acts = mapping(mapping(record.get("scientific_metadata")).get(CORRECTIONS_KEY)).values()
    copies += [(act.get("field"), act.get("now")) for act in acts if isinstance(act, Mapping) and act.get("inherited")]
    kept = {name for name, value in copies if record.get(str(name)) == value}
    return {name for names in CONTEXT.values() if kept.intersection(names) for name in names}


def state(record: JsonMapping | None) -> str:
    """Return the registration's state from provenance: complete only if the record's registrar completed it."""
    written = provenance(record)
    status = text(written.get("status"))
    return "incomplete" if status == "complete" and not is_complete(written) else status


def used_mfids(record: JsonMapping | None) -> tuple[str, ...]:
    """Return the used datasets in the provenance and those with equal bytes, each once, in its order."""
    used = (mfid for mfid, _ in _used(record))
    return tuple(dict.fromkeys((*used, *mapping(provenance(record).get("equal_parents")))))


def _used(record: JsonMapping | None) -> Iterator[tuple[str, JsonMapping]]:
    """Yield the used datasets in the provenance, each with its entry."""
    for entry in mappings(provenance(record).get("used")):
        if mfid := text(entry.get("mfid")):
            yield mfid, entry


def equal_parents(record: JsonMapping | None) -> dict[str, str]:
    """Return {dataset of equal bytes and origin: the used one}: the result would be the same with either."""
    named = mapping(provenance(record).get("equal_parents"))
    return {mfid: text(used) for mfid, used in named.items() if text(used)}


def parents_as_used(record: JsonMapping | None, parents: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return linked parents in order: the used one, or else the first, with the others of equal bytes."""
    equal, groups = equal_parents(record), dict[str, list[str]]()
    for mfid in parents:
        used, seen = mfid, set[str]()
        while used in equal and used not in seen:
            seen.add(used)
            used = equal[used]
        groups.setdefault(used, []).append(mfid)
    ordered = {used: sorted(mfids, key=lambda mfid: mfid != used) for used, mfids in groups.items()}
    return {mfids[0]: tuple(mfids[1:]) for mfids in ordered.values()}


def lists_all_used(record: JsonMapping | None) -> bool:
    """Return whether the record lists all parents: a long one lists only some, and the rest is in its attached file."""
    count = mapping(provenance(record).get("attached")).get("used")
    return not isinstance(count, int) or len(list(mappings(provenance(record).get("used")))) >= count


def recipe_digest(record: JsonMapping | None) -> str:
    """Return the SHA-256 of the recipe, also of one in the attached file; empty if there is none or it is invalid."""
    written = provenance(record)
    recipe = mapping(written.get("recipe"))
    try:
        digest = hashlib.sha256(canonical_json(recipe)).hexdigest() if recipe else ""
    except (TypeError, ValueError):
        return ""
    return digest or text(mapping(written.get("attached")).get("recipe_sha256"))


def used_files(record: JsonMapping | None) -> dict[str, dict[str, str]]:
    """Return {MFID: {file name: SHA-256}} of used datasets; the value is empty if no files are named."""
    files: dict[str, dict[str, str]] = {}
    for mfid, entry in _used(record):
        files.setdefault(mfid, {}).update({name: sha256 for name, sha256, _ in _files(entry.get("files"))})
    return files


def used_roles(record: JsonMapping | None) -> dict[str, tuple[str, ...]]:
    """Return {role: MFIDs} of the used datasets."""
    roles: dict[str, tuple[str, ...]] = {}
    for mfid, entry in _used(record):
        role = text(entry.get("role"))
        roles[role] = (*roles.get(role, ()), mfid)
    return roles


def chosen_in_time(record: JsonMapping | None, mfid: str) -> str:
    """Return a parent's distance in time (`2 h before`), or the range of its certificate; empty if neither was used."""
    for entry in mappings(provenance(record).get("used")):
        chosen = mapping(entry.get("chosen"))
        if entry.get("mfid") == mfid and (certificate := mapping(chosen.get("certificate"))):
            return certified_text(certificate)
        if entry.get("mfid") == mfid and (side := text(chosen.get("side"))):
            seconds = chosen.get("seconds")
            return f"{span_text(seconds)} {side}" if isinstance(seconds, int | float) and seconds else side
    return ""


def generated_files(record: JsonMapping | None) -> dict[str, str]:
    """Return {file name: SHA-256} of a dataset's files, from its provenance, else from its `files` list."""
    return {name: sha256 for name, sha256, _ in recorded_files(record)}


def recorded_files(record: JsonMapping | None) -> list[tuple[str, str, int | None]]:
    """Return name, SHA-256 and size of a dataset's files, from its provenance, else from its `files` list."""
    return list(_files(provenance(record).get("generated"))) or list(_files(mapping(record).get("files")))


def slot_keys(record: JsonMapping | None) -> tuple[str, ...]:
    """Return the keys of the slots that a result fills or has filled."""
    return tuple(map(str, mapping(mapping(mapping(record).get("scientific_metadata")).get(SLOTS_KEY))))


def swept_in(keys: Iterable[str]) -> str:
    """Return the combinations of swept parameters in the keys of slots, as in names of instances; empty if none."""
    scopes = (key.split("/", 3)[-1].split(", ") for key in keys)
    variants = (list(takewhile(_SWEPT.match, reversed(scope))) for scope in scopes)
    return "; ".join(sorted({", ".join(reversed(variant)) for variant in variants if variant}))


def given_metadata(record: JsonMapping | None) -> JsonObject:
    """Return the scientific metadata without those of crucible-lineage itself."""
    metadata = mapping(mapping(record).get("scientific_metadata"))
    return {key: value for key, value in metadata.items() if key not in OWN_KEYS}


def returned_values(record: JsonMapping | None) -> JsonObject:
    """Return the metadata at registration (what a step returned); all of them, if their keys are not recorded."""
    metadata = given_metadata(record)
    keys = mapping(provenance(record).get("result")).get("keys")
    if not isinstance(keys, list):
        return metadata
    outermost = {text(key).split("/")[1].replace("~1", "/").replace("~0", "~") for key in keys if "/" in text(key)}
    return {key: value for key, value in metadata.items() if key in outermost}


def flattened(values: JsonMapping, prefix: str = "", depth: int = DEEPEST) -> JsonObject:
    """Return nested values by their paths (`fit.rms`); what is nested more deeply stays together."""
    found: JsonObject = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value and depth:
            found |= flattened(value, f"{prefix}{name}.", depth - 1)
        else:
            found[f"{prefix}{name}"] = value
    return found


def returned_numbers(record: JsonMapping | None) -> dict[str, float]:
    """Return the finite numbers among the `returned_values`."""
    values = returned_values(record).items()
    numbers = {name: value for name, value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def activity_code(record: JsonMapping | None) -> str:
    """Return the fingerprint of the code that made the dataset; empty if unknown."""
    written = provenance(record)
    code = mapping(written.get("activity")).get("code")
    return text(mapping(code).get("fingerprint")) or text(code) or text(mapping(written.get("recipe")).get("code"))


def unknown_inputs(written: JsonMapping) -> str:
    """Return that the inputs of a result are not known, if its provenance says so; else an empty text."""
    note = text(mapping(written.get("activity")).get("note"))
    return UNKNOWN_INPUTS if note.endswith(UNKNOWN_INPUTS) else ""


def maker(record: JsonMapping | None) -> str:
    """Return the account that made the dataset, by its provenance; empty if unknown."""
    agent = mapping(provenance(record).get("agent"))
    return text(agent.get("username")) or text(agent.get("local_user"))


def took_s(record: JsonMapping | None) -> float | None:
    """Return how long the activity that made the dataset took, in seconds; None if unknown."""
    activity = mapping(provenance(record).get("activity"))
    try:
        return (utc(text(activity.get("ended"))) - utc(text(activity.get("started")))).total_seconds()
    except ValueError:
        return None


def prefect_ids(record: JsonMapping | None) -> frozenset[str]:
    """Return the ids of the Prefect flow run and task run that made the dataset; empty if there were none."""
    run = mapping(mapping(provenance(record).get("activity")).get("run"))
    return frozenset(filter(None, (text(run.get(key)) for key in ("flow_run_id", "task_run_id"))))


def declared_step(record: JsonMapping | None) -> tuple[str, str]:
    """Return the pipeline that declared the step of a result, and the step's name there; empty if unknown."""
    pipeline = mapping(provenance(record).get("pipeline"))
    return text(pipeline.get("name")), text(pipeline.get("step"))


def is_support(record: JsonMapping | None) -> bool:
    """Return whether the dataset supports results: the source of their steps, or the environment of these."""
    kind = mapping(provenance(record).get("activity")).get("kind")
    return kind in (SOURCE, SURROUNDINGS)


def is_withdrawn(record: JsonMapping | None) -> bool:
    """Return whether deletion of the dataset was requested."""
    return asks_for_deletion(((record or {}).get("deletion_request") or {}).get("status"))


def instruments(record: JsonMapping | None) -> frozenset[str]:
    """Return all names of a dataset's instrument: its name, its slug, its MFID."""
    keys = ("instrument_name", "instrument_id", "instrument_mfid")
    return frozenset(name for key in keys if (name := text(mapping(record).get(key))))


def mappings(value: object) -> Iterator[JsonMapping]:
    """Return the mappings in `value` if it is a list, else none."""
    return (entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list | tuple) else iter(())


def _files(files: object) -> Iterator[tuple[str, str, int | None]]:
    """Yield the files in a provenance record's entries, or in Crucible's file records."""
    for entry in mappings(files):
        if name := text(entry.get("name")) or text(entry.get("filename")):
            size = entry.get("size")
            sha256 = text(entry.get("sha256")) or text(entry.get("sha256_hash"))
            yield name, sha256, size if isinstance(size, int) else None


_SPDX = re.compile(
    r"CC0-1\.0|CC-BY(-NC)?(-SA|-ND)?-[1-4]\.\d|MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|MPL-2\.0|Unlicense"
    r"|(A|L)?GPL-[23]\.\d-(only|or-later)|ODbL-1\.0|ODC-By-1\.0|PDDL-1\.0|EUPL-1\.2|CERN-OHL-[PSW]-2\.0|OGL-UK-3\.0"
)


@dataclass(frozen=True)
class Creator:
    """A person who made data. `orcid` is empty if unknown."""

    name: str
    orcid: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.orcid})" if self.orcid else self.name


@dataclass(frozen=True)
class Rights:
    """Stated rights: the licence, by SPDX name, URL or in words; the creators; the rights holder."""

    license: str = ""
    creators: tuple[Creator, ...] = ()
    holder: str = ""

    def or_else(self, other: Rights) -> Rights:
        """Return these rights, with missing ones from `other`."""
        return Rights(self.license or other.license, self.creators or other.creators, self.holder or other.holder)

    def lines(self) -> Iterator[str]:
        """Yield the rights as lines of text."""
        if self.license:
            yield f"licence: {self.license}"
        if self.creators:
            yield f"creators: {', '.join(map(str, self.creators))}"
        if self.holder:
            yield f"rights: {self.holder}"


def stated_rights(metadata: Mapping[str, object] | None) -> Rights:
    """Return the rights in the metadata of a dataset or project; invalid values are ignored."""
    fields = mapping(metadata)
    named, creators = fields.get("creators"), list[Creator]()
    for entry in named if isinstance(named, Sequence) and not isinstance(named, str) else [named]:
        if isinstance(entry, str) and entry.strip():
            creators.append(creator_of(entry))
        elif isinstance(entry, Mapping) and text(entry.get("name")):
            orcid = ORCID.search(text(entry.get("orcid")))
            creators.append(Creator(text(entry.get("name")), orcid[0] if orcid else ""))
    return Rights(text(fields.get("license")).strip(), tuple(creators), text(fields.get("rights")))


def rights_of(record: Mapping[str, object] | None, projects: Mapping[str, Rights]) -> Rights:
    """Return the rights of a dataset, with those of `projects` by project id."""
    fields = mapping(record)
    own = stated_rights(mapping(fields.get("scientific_metadata")))
    return own.or_else(projects.get(text(fields.get("project_id")), Rights()))


def creator_of(stated: str) -> Creator:
    """Parse a creator from text such as `Ada Lovelace (0000-0002-1825-0097)`."""
    orcid = ORCID.search(stated)
    if orcid is None:
        return Creator(stated.strip())
    rest = stated.replace("https://orcid.org/", "").replace(orcid[0], "")
    return Creator(" ".join(re.sub(r"[()<>\[\],;]", " ", rest).split()) or orcid[0], orcid[0])


def license_iri(stated: str) -> str:
    """Return the URL of a licence; empty if it is neither a URL nor a common SPDX name."""
    if re.match(r"https?://\S+$", stated):
        return stated
    return f"https://spdx.org/licenses/{stated}" if _SPDX.fullmatch(stated) else ""


def fields_of(record: JsonMapping) -> JsonObject:
    """Return the own fields of a dataset, by its record with metadata; `timestamp` only if somebody stated it."""
    moment, inherited = measured_at(record), inherited_fields(record)
    known = {name: record.get(name) for name in MATCHED if name not in inherited}
    plain = {name: value for name, value in known.items() if value not in (None, "")}
    return {
        **plain,
        **({"timestamp": moment.isoformat()} if moment else {}),
        "metadata": given_metadata(record),
        "results": returned_values(record),
        "params": mapping(mapping(provenance(record).get("recipe")).get("params")),
    }


def value_of(fields: JsonMapping, name: str) -> object:
    """Return the value of a field such as `instrument_name` or `metadata.laser_nm`; None if it is absent.

    A name with points is a key as a whole, or leads into nested mappings.
    """
    if name in fields:
        return fields[name]
    head, _, rest = name.partition(".")
    inner = fields.get(head)
    return value_of(inner, rest) if rest and isinstance(inner, Mapping) else None


def values_of(name: str, own: JsonMapping, behind: Iterable[JsonMapping]) -> list[object]:
    """Return the value of a field of a dataset, or if it lacks it, the distinct ones of the data behind it.

    The last one is None if some of these lack it, too.
    """
    if (value := value_of(own, name)) is not None:
        return [value]
    found = [value_of(fields, name) for fields in behind]
    return [*distinct(found), *([None] if any(value is None for value in found) else [])]


def shared(fields: Iterable[JsonMapping]) -> JsonObject:
    """Return the fields in which data agree, nested ones too."""
    found = list(fields)
    agreed: JsonObject = {}
    for name in dict.fromkeys(name for each in found for name in each):
        values = [each.get(name) for each in found]
        if all(isinstance(value, Mapping) for value in values):
            agreed[name] = shared(values)  # type: ignore[arg-type]  # all are mappings
        elif len(distinct(values)) == 1 and None not in values:
            agreed[name] = values[0]
    return agreed
