"""Corrections: what was changed in a dataset after its registration, by whom, when and why.

Each correction adds an entry to the scientific metadata, under a key of its own beside the record. The record stays
unchanged: `verify` reverts the corrections before it compares.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.amounts import change_text
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, nearest, refused_as_input
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.marks import CORRECTIONS_KEY, correction_mark, is_own
from crucible_lineage.pipeline.spec.inputs import METADATA_PREFIX
from crucible_lineage.session import Session
from crucible_lineage.times import is_same_value, utc

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.csv_files import CsvForm

FIELDS = ("dataset_name", "measurement", "data_type", "session_name", "timestamp", "instrument_name", "instrument_id")
ID_COLUMN = "mfid"  # of a table of corrections

Request = tuple[str, str, JsonMapping]  # where it was made (for messages), the dataset, and the values to set


@dataclass(frozen=True)
class FieldChange:
    """A value to set, and the one that it replaces; None stands for no value."""

    mfid: str
    name: str
    field: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} ({self.mfid}): {self.field} {change_text(self.was, self.now, _shown)}"

    def to_json(self) -> JsonObject:
        """Return the entry in `set --json`."""
        return dict(vars(self))


@dataclass(frozen=True)
class Correction:
    """A recorded change of a dataset. For changes that set no value, `field` is empty and `what` describes them."""

    field: str
    was: Any
    now: Any
    by: str
    at: str
    why: str
    what: str = ""

    @property
    def change(self) -> str:
        """What was changed: the field with both values, or the description."""
        return self.what or f"{self.field} {change_text(self.was, self.now, _shown)}"

    def __str__(self) -> str:
        return f"{self.at[:19]} {self.by}: {self.change}" + (f" ({self.why})" if self.why else "")


def changes_of(session: Session, mfid: str, values: JsonMapping) -> list[FieldChange]:
    """Return the changes that setting these values would make: fields, or `metadata.NAME`.

    Raises InputError for a value that cannot be set.
    """
    for field in values:
        if field not in FIELDS and not (field.startswith(METADATA_PREFIX) and field != METADATA_PREFIX):
            own = f"an entry of the metadata is set by {METADATA_PREFIX}{field}=VALUE"
            raise InputError(f"set {field}: datasets have no such field; {own}; for a field, {nearest(field, FIELDS)}")
    dataset = visible_dataset(session, mfid)
    metadata = dataset.scientific_metadata or {}
    changes = []
    for field, value in values.items():
        now = _checked(field, value)
        is_entry = field.startswith(METADATA_PREFIX)
        was = metadata.get(field.removeprefix(METADATA_PREFIX)) if is_entry else getattr(dataset, field)
        if not is_same_value(field, was, now):
            _require_instrument(session, field, now)
            changes.append(FieldChange(mfid, dataset.dataset_name or mfid, field, was, now))
    return changes


def apply_changes(session: Session, changes: Iterable[FieldChange], why: str = "") -> None:
    """Set values at Crucible, and record by whom, when and why. Repeating it changes nothing more."""
    by_dataset: dict[str, list[FieldChange]] = {}
    for change in changes:
        by_dataset.setdefault(change.mfid, []).append(change)
    for mfid, group in by_dataset.items():
        fields = {change.field: change.now for change in group if not change.field.startswith(METADATA_PREFIX)}
        if (name := fields.pop("instrument_name", None)) is not None:
            fields["instrument_mfid"] = _instrument(session, name)
        own = [change for change in group if change.field.startswith(METADATA_PREFIX)]
        metadata = {change.field.removeprefix(METADATA_PREFIX): change.now for change in own}
        acts = [{"field": change.field, "was": change.was, "now": change.now} for change in group]
        if fields:
            session.client.datasets.update(mfid, **fields)
        session.client.metadata.merge(mfid, {**metadata, **_entries(session, acts, why)})
        session.mirror.forget([mfid])


def all_changes(session: Session, requests: Sequence[Request], find: Callable[[str], str]) -> list[FieldChange]:
    """Return the changes that all requests would make; `find` returns the MFID of a named dataset.

    Raises InputError with every fault, so that nothing is applied unless everything can be.
    """
    changes: list[FieldChange] = []
    faults = []
    for location, text, values in requests:
        try:
            changes += changes_of(session, find(text), values)
        except InputError as error:
            faults.append(f"{location}: {error}" if len(requests) > 1 else str(error))
    if faults:
        raise InputError("\n".join([*faults, "nothing was changed"]))
    return changes


def read_table(table: Path) -> list[Request]:
    """Read a table of corrections, CSV: a column `mfid`, and one for each field to set.

    An empty cell changes nothing. Raises InputError if the table cannot be read.
    """
    from crucible_lineage.csv_files import csv_form, csv_rows  # not needed for plans

    try:
        form = csv_form(table)
        rows = list(csv_rows(table, form))
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: it cannot be read as CSV: {error}") from error
    if ID_COLUMN not in form.columns:
        raise InputError(f"{table}: there is no column {ID_COLUMN!r}; it names the dataset of each row")
    if twice := [name for name, count in Counter(form.columns).items() if name and count > 1]:
        raise InputError(f"{table}: there are two columns {twice[0]!r}")
    return [_request(table, line, form, cells) for line, cells in rows if any(cells)]


def _request(table: Path, line: int, form: CsvForm, cells: Sequence[str]) -> Request:
    location = f"{table}:{line}"
    row = {
        name: form.with_point(cell) if name.startswith(METADATA_PREFIX) else cell
        for name, cell in zip(form.columns, cells, strict=True)
        if cell
    }
    mfid = row.pop(ID_COLUMN, "")
    try:
        values = {name: read_value(name, cell) for name, cell in row.items()}
    except InputError as error:
        raise InputError(f"{location}: {error}") from error
    return location, mfid, values


def read_value(field: str, text: str) -> Any:
    """Convert a text to a value: for metadata as in YAML, for other fields the text itself."""
    if not field.startswith(METADATA_PREFIX):
        return text
    from crucible_lineage.pipeline.declare.yaml import parse_document  # not needed for plans

    return parse_document(text, field).data if text.strip() else ""


def link_datasets(session: Session, parent: str, child: str, why: str = "") -> None:
    """Link a dataset as derived from another, and record it at the child.

    Raises InputError for a link that Crucible refuses, as one that closes a cycle.
    """
    with refused_as_input():
        session.client.datasets.link_parent_child(parent, child, relationship_type="is_derived_from")
    record_act(session, child, f"linked below {parent}", why)
    session.mirror.forget([parent])


def unlink_datasets(session: Session, parent: str, child: str, why: str = "") -> None:
    """Remove the link between two datasets, and record it at the child. Raises InputError if there is none."""
    if parent not in {one.unique_id for one in session.client.datasets.list_parents(child)}:
        raise InputError(f"unlink {parent} from {child}: they are not linked so")
    session.client.datasets.unlink(parent, child)
    record_act(session, child, f"unlinked from {parent}", why)
    session.mirror.forget([parent])


def add_sample(session: Session, project: str, name: str, datasets: Iterable[str] = (), why: str = "") -> str:
    """Add a sample to a project, and link the datasets that were measured on it. Return its MFID."""
    named = _sample_name(name)
    session.ensure_project(project)
    sample = session.client.samples.create(sample_name=named, project_id=project).unique_id
    link_sample(session, sample, datasets, why)
    return str(sample)


def rename_sample(session: Session, sample: str, name: str, why: str = "") -> None:
    """Rename a sample, and record it at the datasets that were measured on it."""
    with refused_as_input():
        session.client.samples.update(sample, sample_name=_sample_name(name))
    for dataset in session.client.datasets.list(limit=None, sample_mfid=sample):
        record_act(session, dataset.unique_id, f"sample {sample} renamed to {name!r}", why)


def link_sample(session: Session, sample: str, datasets: Iterable[str], why: str = "") -> None:
    """Link a sample to the datasets that were measured on it, and record it there. InputError without that sample."""
    with refused_as_input():
        session.client.samples.get(sample)
    for mfid in datasets:
        session.client.datasets.add_sample(mfid, sample)
        record_act(session, mfid, f"measured on sample {sample}", why)


def record_act(session: Session, mfid: str, what: str, why: str = "") -> None:
    """Record a change that sets no value: a link, a sample, a replacement."""
    session.client.metadata.merge(mfid, _entries(session, [{"what": what}], why))
    session.mirror.forget([mfid])


def corrections(metadata: JsonMapping | None) -> tuple[Correction, ...]:
    """Return the corrections recorded in a dataset's scientific metadata, the earliest first."""
    recorded = (metadata or {}).get(CORRECTIONS_KEY)
    entries = [entry for _, entry in sorted(recorded.items())] if isinstance(recorded, Mapping) else []
    return tuple(
        Correction(
            field=str(entry.get("field") or ""),
            was=entry.get("was"),
            now=entry.get("now"),
            by=str(entry.get("by") or "somebody"),
            at=str(entry.get("at") or ""),
            why=str(entry.get("why") or ""),
            what=str(entry.get("what") or ""),
        )
        for entry in entries
        if isinstance(entry, Mapping)
    )


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


def visible_dataset(session: Session, mfid: str) -> Dataset:
    """Read a dataset with its metadata. Raises InputError if this key sees none."""
    try:
        return session.client.datasets.get(mfid, include_metadata=True)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"dataset {mfid} does not exist, or is not visible to this key") from error


def _checked(field: str, value: Any) -> Any:
    if field.startswith(METADATA_PREFIX):
        if is_own(field.removeprefix(METADATA_PREFIX)):
            raise InputError(f"set {field}: this key is reserved for the provenance record")
        return value
    if not isinstance(value, str) or not value:
        raise InputError(f"set {field}={value}: write a text")
    if field != "timestamp":
        return value
    try:
        return utc(value).isoformat()
    except ValueError as error:
        raise InputError(f"set timestamp={value}: write it as in 2024-05-10T12:00:00Z") from error


def _instrument(session: Session, name: str) -> str:
    """Return the MFID of an instrument by name. Raises InputError unless exactly one has it."""
    found = session.client.instruments.list(instrument_name=name)
    if len(found) != 1:
        names = sorted({item.instrument_name for item in session.client.instruments.list() if item.instrument_name})
        reason = f"there are {len(found)} of that name" if found else f"there is none; {nearest(name, names)}"
        raise InputError(f"set instrument_name={name}: {reason}")
    return found[0].unique_id


def _require_instrument(session: Session, field: str, name: str) -> None:
    """Raise InputError if the value of an instrument's field names no instrument."""
    if field == "instrument_name":
        _instrument(session, name)
    elif field == "instrument_id":
        with refused_as_input():
            session.client.instruments.get(name)


def _sample_name(name: str) -> str:
    if not name.strip():
        raise InputError("a sample needs a name")
    return name


def _entries(session: Session, acts: Sequence[JsonMapping], why: str) -> JsonObject:
    agent = session.agent
    by, at = str(agent.get("username") or agent.get("local_user") or ""), datetime.now(UTC).isoformat()
    stamp = {"by": by, "at": at, **({"why": why} if why else {})}
    entries: JsonObject = {}
    for number, act in enumerate(acts):
        entries |= correction_mark(f"{at}_{number:04}_{secrets.token_hex(4)}", {**act, **stamp})
    return entries
