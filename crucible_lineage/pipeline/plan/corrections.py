"""Corrections: what was changed in a dataset after its registration, by whom, when and why.

Each correction adds an entry to the scientific metadata, under a key of its own beside the record. The record stays
unchanged: `verify` reverts the corrections before it compares.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.datasets import visible_dataset
from crucible_lineage.errors import ForbiddenError, InputError, nearest, refused_as_input
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import inherited_fields, used_mfids
from crucible_lineage.machine.csv_files import csv_form, csv_rows
from crucible_lineage.marks import CORRECTIONS_KEY, METADATA_PREFIX, correction_mark, is_entry, is_own
from crucible_lineage.refs import CONTEXT, CORRECTED, DERIVED, NOT_SET
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount, change_text
from crucible_lineage.text.times import is_same_value, utc

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client.models import Dataset

LINKS = ("parent+", "parent-", "sample", "sample+", "sample-", "keyword+")  # to add or remove; `sample` replaces all
LINKED = frozenset(link.rstrip("+-") for link in LINKS)
ID_COLUMN = "mfid"  # of a table of corrections

Request = tuple[str, str, JsonMapping]  # where it was made (for messages), the dataset, and the values to set
Find = Callable[[Any], str]  # the MFID of a dataset that is named somehow


@dataclass(frozen=True)
class FieldChange:
    """A value to set, and the one that it replaces; None stands for no value."""

    mfid: str
    name: str
    field: str
    was: Any
    now: Any
    inherited: bool = False  # by a result, from the data that are corrected

    def __str__(self) -> str:
        return f"{self.name} ({self.mfid}): {self.field} {change_text(self.was, self.now, _shown)}"


@dataclass(frozen=True)
class Correction:
    """A recorded change of a value, or `what` was done. `overwritten` is what another program wrote over it since."""

    field: str = ""
    was: Any = None
    now: Any = None
    by: str = "somebody"
    at: str = ""
    why: str = ""
    what: str = ""
    overwritten: Any = None

    @property
    def change(self) -> str:
        """What was changed: the field with both values, or the description."""
        over = (
            f"; another program wrote {_shown(self.overwritten)} since, and the correction counts"
            if self.overwritten is not None
            else ""
        )
        return self.what or f"{self.field} {change_text(self.was, self.now, _shown)}{over}"

    def __str__(self) -> str:
        return f"{self.at[:19]} {self.by}: {self.change}" + (f" ({self.why})" if self.why else "")


def set_values(
    session: Session, requests: Sequence[Request], find: Find, why: str = "", *, dry_run: bool = False
) -> list[FieldChange]:
    """Set values, with author, time and reason, unless `dry_run`. Raises InputError with all faults before any."""
    changes: list[FieldChange] = []
    faults = []
    for location, text, values in requests:
        try:
            changes += changes_of(session, find(text), values, find)
        except InputError as error:
            faults.append(f"{location}: {error}" if len(requests) > 1 else str(error))
    if faults:
        raise InputError("\n".join([*faults, "nothing was changed"]))
    if not dry_run:
        apply_changes(session, changes, why)
    return changes


def changes_of(session: Session, mfid: str, values: JsonMapping, find: Find = str) -> list[FieldChange]:
    """Return the changes that setting these values would make. Raises InputError for one that cannot be set."""
    for field in values:
        if field in NOT_SET:
            raise InputError(f"set {field}: {NOT_SET[field]}")
        if field not in (*CORRECTED, *LINKS) and not is_entry(field):
            own = f"an entry of the metadata is set by {METADATA_PREFIX}{field}=VALUE"
            near = nearest(field, (*CORRECTED, *LINKS))
            raise InputError(f"set {field}: datasets have no such field; {own}; for a field, {near}")
    dataset = visible_dataset(session.client, mfid)
    changes = []
    for field, value in values.items():
        if field in LINKS:
            several = value if isinstance(value, list | tuple) else [value]
            pairs = [pair for link in several for pair in _link_changes(session, dataset, field, link, find)]
        else:
            pairs = list(_value_changes(session, dataset, field, value))
        name = dataset.dataset_name or mfid
        changes += [FieldChange(mfid, name, field.rstrip("+-"), was, now) for was, now in pairs]
    inherited = [change for change in changes if any(change.field in names for names in CONTEXT.values())]
    records = session.mirror.snapshot(dataset.project_id).records if inherited and dataset.project_id else {}
    return [*changes, *(copy for change in inherited for copy in _copies(records, change))]


def _copies(records: Mapping[str, JsonMapping], change: FieldChange) -> Iterator[FieldChange]:
    """Yield the change for each result that still has the value as inherited from the dataset."""
    import networkx  # not needed for plans

    copies = {
        mfid: record
        for mfid, record in records.items()
        if record.get(change.field) == change.was and change.field in inherited_fields(record)
    }
    made_of = networkx.DiGraph((parent, mfid) for mfid, record in copies.items() for parent in used_mfids(record))
    for mfid in networkx.descendants(made_of, change.mfid) if change.mfid in made_of else ():
        yield replace(change, mfid=mfid, name=str(records[mfid].get("dataset_name") or mfid), inherited=True)


def _value_changes(session: Session, dataset: Dataset, field: str, value: object) -> Iterator[tuple[Any, Any]]:
    """Yield the value that a field has and the one to set, if they differ."""
    now: Any = value
    is_entry = field.startswith(METADATA_PREFIX)
    if is_entry:
        if is_own(field.removeprefix(METADATA_PREFIX)):
            raise InputError(f"set {field}: this key is reserved for the provenance record")
    elif not isinstance(value, str) or not value:
        raise InputError(f"set {field}={value}: write a text")
    elif field == "timestamp":
        try:
            now = utc(value).isoformat()
        except ValueError as error:
            raise InputError(f"set timestamp={value}: write it as in 2024-05-10T12:00:00Z") from error
    metadata = dataset.scientific_metadata or {}
    was = metadata.get(field.removeprefix(METADATA_PREFIX)) if is_entry else getattr(dataset, field)
    was = next((act.overwritten for act in overwritten(metadata) if act.field == field), was)
    if not is_same_value(field, was, now):
        if field == "instrument_name":
            _instrument(session, now)
        elif field == "instrument_id":
            with refused_as_input():
                session.client.instruments.get(now)
        yield was, now


def _link_changes(
    session: Session, dataset: Dataset, field: str, value: Any, find: Find
) -> Iterator[tuple[str | None, str | None]]:
    """Yield (removed, added) for each parent, sample or keyword that the value changes."""
    if not value or (isinstance(value, str) and not value.strip()):
        raise InputError(f"set {field}: name a {field.rstrip('+-')}")
    kind = field.rstrip("+-")
    if kind == "keyword":
        present = [word.keyword for word in session.client.datasets.get_keywords(dataset.unique_id)]
    else:
        linked = ("dataset", "source") if kind == "parent" else ("sample", "undirected")
        links = dataset.links or ()
        present = [link.unique_id for link in links if (link.resource_type, link.direction) == linked]
        value = find(value) if kind == "parent" else _sample(session, dataset.project_id or "", value)
    if field.endswith("-"):
        if value not in present:
            raise InputError(f"set {field}={value}: {dataset.unique_id} has no such {kind}")
        yield value, None
        return
    if kind == "parent":
        visible_dataset(session.client, value)
    if value not in present:
        yield None, value
    if field == "sample":
        yield from ((other, None) for other in present if other != value)


def apply_changes(session: Session, changes: Sequence[FieldChange], why: str = "") -> None:
    """Set values at Crucible, and record by whom, when and why. Repeating it changes nothing more."""
    linked = [change for change in changes if change.field in LINKED]
    for number, change in enumerate(linked):  # first, since Crucible refuses some of them, such as one of a cycle
        with nullcontext() if number else refused_as_input():
            act = {"field": change.field, "was": change.was, "now": _link(session, change)}
        _record(session, change.mfid, [act], why)
    by_dataset: dict[str, list[FieldChange]] = {}
    refused = []
    for change in changes:
        if change.field not in LINKED:
            by_dataset.setdefault(change.mfid, []).append(change)
    for mfid, group in by_dataset.items():
        fields = {change.field: change.now for change in group if not change.field.startswith(METADATA_PREFIX)}
        if (name := fields.pop("instrument_name", None)) is not None:
            fields["instrument_mfid"] = _instrument(session, name)
        own = [change for change in group if change.field.startswith(METADATA_PREFIX)]
        metadata = {change.field.removeprefix(METADATA_PREFIX): change.now for change in own}
        acts: list[JsonMapping] = [
            {"field": change.field, "was": change.was, "now": change.now}
            | ({"inherited": True} if change.inherited else {})
            for change in group
        ]
        try:
            if fields:
                session.client.datasets.update(mfid, **fields)
            _record(session, mfid, acts, why, metadata)
        except ForbiddenError:
            if not group[0].inherited:
                raise
            refused.append(mfid)
    if refused:
        results = f"{amount(len(refused), 'result')} of other accounts, which inherited the old value"
        raise InputError(f"changed, but not {results}; let their owners or an editor set it: {', '.join(refused)}")


def _link(session: Session, change: FieldChange) -> str | None:
    """Add or remove a parent, sample or keyword. Return what was added; a sample of a new name is made."""
    datasets, mfid, was, now = session.client.datasets, change.mfid, change.was, change.now
    if change.field == "keyword":
        datasets.add_keyword(mfid, now)
    elif change.field == "parent":
        if now is None:
            datasets.unlink(was, mfid)
        else:
            datasets.link_parent_child(now, mfid, relationship_type=DERIVED)
        session.mirror.forget([was or now])
    elif now is None:
        datasets.remove_sample(mfid, was)
    else:
        project = datasets.get(mfid).project_id or ""
        now = _sample(session, project, now)
        if not is_mfid(now):
            now = session.client.samples.create(sample_name=now, project_id=project).unique_id
        datasets.add_sample(mfid, now)
    return None if now is None else str(now)


def _sample(session: Session, project: str, name: str) -> str:
    """Return the MFID of a sample that is named by it or by its name in a project, else the name of a new one."""
    if is_mfid(name):
        with refused_as_input():
            return session.client.samples.get(name).unique_id
    found = [sample for sample in session.client.samples.list(sample_name=name, project_id=project) if sample.unique_id]
    if len(found) > 1:
        mfids = ", ".join(sample.unique_id for sample in found)
        raise InputError(f"set sample={name}: project {project} has several of this name; name one: {mfids}")
    return found[0].unique_id if found else name


def read_table(table: Path) -> list[Request]:
    """Read a CSV table: `mfid`, and a column for each field to set; an empty cell changes nothing."""
    try:
        form = csv_form(table)
        rows = list(csv_rows(table, form))
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: it cannot be read as CSV: {error}") from error
    if ID_COLUMN not in form.columns:
        raise InputError(f"{table}: there is no column {ID_COLUMN!r}; it names the dataset of each row")
    if twice := [name for name, count in Counter(form.columns).items() if name and count > 1]:
        raise InputError(f"{table}: there are two columns {twice[0]!r}")
    requests: list[Request] = []
    for line, cells in rows:
        named = {name: cell for name, cell in zip(form.columns, cells, strict=True) if cell}
        mfid = named.pop(ID_COLUMN, "")
        try:
            values = {
                name: read_value(name, form.with_point(cell) if name.startswith(METADATA_PREFIX) else cell)
                for name, cell in named.items()
            }
        except InputError as error:
            raise InputError(f"{table}:{line}: {error}") from error
        if any(cells):
            requests.append((f"{table}:{line}", mfid, values))
    return requests


def read_value(field: str, text: str) -> Any:
    """Convert a text to a value: for metadata as in YAML, for other fields the text itself."""
    if not field.startswith(METADATA_PREFIX):
        return text
    from crucible_lineage.pipeline.declare.yaml import parse_document  # not needed for plans

    return parse_document(text, field).data if text.strip() else ""


def record_act(session: Session, mfid: str, what: str, why: str = "") -> None:
    """Record a change that sets no value, such as a replacement."""
    _record(session, mfid, [{"what": what}], why)


def corrections(metadata: JsonMapping | None) -> tuple[Correction, ...]:
    """Return the corrections recorded in a dataset's scientific metadata, the earliest first."""
    recorded = (metadata or {}).get(CORRECTIONS_KEY)
    entries = [entry for _, entry in sorted(recorded.items())] if isinstance(recorded, Mapping) else []
    parts = Correction.__dataclass_fields__
    return tuple(
        Correction(**{name: value for name, value in entry.items() if name in parts})
        for entry in entries
        if isinstance(entry, Mapping)
    )


def overwritten(metadata: JsonMapping | None) -> list[Correction]:
    """Return the corrections over which another program has written since. They count."""
    return [act for act in corrections(metadata) if act.overwritten is not None]


def uncorrected(metadata: JsonMapping) -> JsonObject:
    """Return metadata with the recorded corrections reverted, except where the value has changed since."""
    before = dict(metadata)
    for correction in reversed(corrections(metadata)):
        key = correction.field.removeprefix(METADATA_PREFIX)
        if not correction.field.startswith(METADATA_PREFIX) or before.get(key) != correction.now:
            continue
        if correction.was is None:
            before.pop(key, None)
        else:
            before[key] = correction.was
    return before


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _instrument(session: Session, name: str) -> str:
    """Return the MFID of an instrument by name. Raises InputError unless exactly one has it."""
    found = session.client.instruments.list(instrument_name=name)
    if len(found) != 1:
        names = sorted({item.instrument_name for item in session.client.instruments.list() if item.instrument_name})
        reason = f"there are {len(found)} of that name" if found else f"there is none; {nearest(name, names)}"
        raise InputError(f"set instrument_name={name}: {reason}")
    return found[0].unique_id


def _record(
    session: Session, mfid: str, acts: Sequence[JsonMapping], why: str, metadata: JsonMapping | None = None
) -> None:
    """Record changes of a dataset with author, time and reason, together with the `metadata` that they set."""
    agent = session.agent
    by, at = str(agent.get("username") or agent.get("local_user") or "somebody"), datetime.now(UTC).isoformat()
    stamp = {"by": by, "at": at, **({"why": why} if why else {})}
    entries = dict(metadata or {})
    for number, act in enumerate(acts):
        entries |= correction_mark(f"{at}_{number:04}_{secrets.token_hex(4)}", {**act, **stamp})
    session.client.metadata.merge(mfid, entries)
    session.mirror.note_corrected(mfid)
