"""Corrections as acts: what was changed at a dataset after its registration, by whom, when and why.

Each act leaves an entry in the scientific metadata, under a key of its own beside the record. The record stays what it
was: `verify` takes the entries back before it compares.
"""

from __future__ import annotations

import csv
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, nearest
from crucible_lineage.marks import CORRECTIONS_KEY, correction_mark, is_own
from crucible_lineage.session import Session
from crucible_lineage.times import utc

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client.models import Dataset

FIELDS = ("dataset_name", "measurement", "data_type", "session_name", "timestamp", "instrument_name", "instrument_id")
OF_METADATA = "metadata."
ID_COLUMN = "mfid"  # of a table of corrections

Wanted = tuple[str, str, Mapping[str, Any]]  # where it is asked for, of which dataset, and the values to set


@dataclass(frozen=True)
class FieldChange:
    """A value to be set, with the one that it takes the place of; None where there is none."""

    mfid: str
    name: str
    field: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} ({self.mfid}): {self.field} {self.was!r} -> {self.now!r}"

    def to_json(self) -> dict[str, Any]:
        """The entry in `set --json`."""
        return dict(vars(self))


@dataclass(frozen=True)
class Correction:
    """An act on a dataset, as it is noted there. `field` is empty for acts that set no value; then `what` says it."""

    field: str
    was: Any
    now: Any
    by: str
    at: str
    why: str
    what: str = ""

    def __str__(self) -> str:
        done = self.what or f"{self.field} {self.was!r} -> {self.now!r}"
        return f"{self.at[:19]} {self.by}: {done}" + (f" ({self.why})" if self.why else "")


def changes_of(session: Session, mfid: str, values: Mapping[str, Any]) -> list[FieldChange]:
    """Return the changes that setting these values would make: fields, or `metadata.NAME`.

    InputError for a value that cannot be set.
    """
    for field in values:
        if field not in FIELDS and not (field.startswith(OF_METADATA) and field != OF_METADATA):
            own = f"an entry of the metadata is set by {OF_METADATA}{field}=VALUE"
            raise InputError(f"set {field}: datasets have no such field; {own}; for a field, {nearest(field, FIELDS)}")
    dataset = _dataset(session, mfid)
    metadata = dataset.scientific_metadata or {}
    found = []
    for field, value in values.items():
        now = _checked(field, value)
        was = (
            metadata.get(field.removeprefix(OF_METADATA)) if field.startswith(OF_METADATA) else getattr(dataset, field)
        )
        if not _same(field, was, now):
            found.append(FieldChange(mfid, dataset.dataset_name or mfid, field, was, now))
    return found


def apply_changes(session: Session, changes: Iterable[FieldChange], why: str = "") -> None:
    """Set the values at Crucible, each with who did it, when and why. Doing it twice is once."""
    of: dict[str, list[FieldChange]] = {}
    for change in changes:
        of.setdefault(change.mfid, []).append(change)
    for mfid, some in of.items():
        fields = {one.field: one.now for one in some if not one.field.startswith(OF_METADATA)}
        if (name := fields.pop("instrument_name", None)) is not None:
            fields["instrument_mfid"] = _instrument(session, name)
        metadata = {one.field.removeprefix(OF_METADATA): one.now for one in some if one.field.startswith(OF_METADATA)}
        noted = _entries(session, [{"field": one.field, "was": one.was, "now": one.now} for one in some], why)
        if fields:
            session.client.datasets.update(mfid, **fields)
        session.client.metadata.merge(mfid, {**metadata, **noted})
        session.mirror.forget([mfid])


def all_changes(session: Session, wanted: Sequence[Wanted], find: Callable[[str], str]) -> list[FieldChange]:
    """Return what all of these would change; `find` gives the MFID of what names a dataset.

    Raises InputError with every fault, so that the first is applied only if all can be.
    """
    changes: list[FieldChange] = []
    faults = []
    for place, text, values in wanted:
        try:
            changes += changes_of(session, find(text), values)
        except InputError as error:
            faults.append(f"{place}: {error}" if len(wanted) > 1 else str(error))
    if faults:
        raise InputError("\n".join([*faults, "nothing was changed"]))
    return changes


def read_table(table: Path) -> list[Wanted]:
    """Return the rows of a table of corrections, CSV: a column `mfid`, and one for each field to set.

    An empty cell changes nothing. Raises InputError if it cannot be read so.
    """
    rows: list[Wanted] = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if ID_COLUMN not in (reader.fieldnames or ()):
                raise InputError(f"{table}: there is no column {ID_COLUMN!r}; it names the dataset of each row")
            for row in reader:
                place = f"{table}:{reader.line_num}"
                if None in row:
                    raise InputError(f"{place}: there are more cells than columns")
                cells = {name: value for name, value in row.items() if name != ID_COLUMN and value not in (None, "")}
                values = {name: read_value(name, value) for name, value in cells.items()}
                rows.append((place, row[ID_COLUMN] or "", values))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: it cannot be read as CSV: {error}") from error
    return rows


def read_value(field: str, text: str) -> Any:
    """Return the value that a text stands for: of metadata as in YAML, of other fields the text itself."""
    if not field.startswith(OF_METADATA):
        return text
    from crucible_lineage.pipeline.declare.yaml import parse_document  # a plan reads none

    return parse_document(text, field).data if text.strip() else ""


def link_datasets(session: Session, parent: str, child: str, why: str = "") -> None:
    """Make one dataset derived from another, and note it there."""
    session.client.datasets.link_parent_child(parent, child, relationship_type="is_derived_from")
    note_act(session, child, f"linked below {parent}", why)
    session.mirror.forget([parent])


def unlink_datasets(session: Session, parent: str, child: str, why: str = "") -> None:
    """Remove the link between two datasets, and note it at the child."""
    session.client.datasets.unlink(parent, child)
    note_act(session, child, f"unlinked from {parent}", why)
    session.mirror.forget([parent])


def add_sample(session: Session, project: str, name: str, datasets: Iterable[str] = (), why: str = "") -> str:
    """Add a sample to a project, on which these datasets were measured. Return its MFID."""
    session.ensure_project(project)
    sample = session.client.samples.create(sample_name=name, project_id=project).unique_id
    link_sample(session, sample, datasets, why)
    return str(sample)


def rename_sample(session: Session, sample: str, name: str, why: str = "") -> None:
    """Give a sample another name, and note it at the datasets that were measured on it."""
    session.client.samples.update(sample, sample_name=name)
    for dataset in session.client.datasets.list(limit=None, sample_mfid=sample):
        note_act(session, dataset.unique_id, f"sample {sample} renamed to {name!r}", why)


def link_sample(session: Session, sample: str, datasets: Iterable[str], why: str = "") -> None:
    """Say that these datasets were measured on a sample."""
    for mfid in datasets:
        session.client.datasets.add_sample(mfid, sample)
        note_act(session, mfid, f"measured on sample {sample}", why)


def note_act(session: Session, mfid: str, what: str, why: str = "") -> None:
    """Note an act that set no value: a link, a sample, a replacement."""
    session.client.metadata.merge(mfid, _entries(session, [{"what": what}], why))
    session.mirror.forget([mfid])


def corrections(metadata: Mapping[str, Any] | None) -> tuple[Correction, ...]:
    """The acts that are noted in a dataset's scientific metadata, the earliest first."""
    noted = (metadata or {}).get(CORRECTIONS_KEY)
    entries = [one for _, one in sorted(noted.items())] if isinstance(noted, Mapping) else []
    return tuple(
        Correction(
            field=str(one.get("field") or ""),
            was=one.get("was"),
            now=one.get("now"),
            by=str(one.get("by") or "somebody"),
            at=str(one.get("at") or ""),
            why=str(one.get("why") or ""),
            what=str(one.get("what") or ""),
        )
        for one in entries
        if isinstance(one, Mapping)
    )


def uncorrected(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata as they were before the acts that are noted in them, as far as nobody has changed them otherwise."""
    before = dict(metadata)
    for one in reversed(corrections(metadata)):
        key = one.field.removeprefix(OF_METADATA)
        if not one.field.startswith(OF_METADATA) or before.get(key) != one.now:
            continue
        if one.was is None:
            before.pop(key, None)
        else:
            before[key] = one.was
    return before


def _dataset(session: Session, mfid: str) -> Dataset:
    try:
        return session.client.datasets.get(mfid, include_metadata=True)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"dataset {mfid} does not exist, or is not visible to this key") from error


def _checked(field: str, value: Any) -> Any:
    if field.startswith(OF_METADATA):
        if is_own(field.removeprefix(OF_METADATA)):
            raise InputError(f"set {field}: that is kept for what is recorded of the dataset")
        return value
    if not isinstance(value, str) or not value:
        raise InputError(f"set {field}={value}: write a text")
    if field != "timestamp":
        return value
    try:
        return utc(value).isoformat()
    except ValueError as error:
        raise InputError(f"set timestamp={value}: write it as in 2024-05-10T12:00:00Z") from error


def _same(field: str, was: Any, now: Any) -> bool:
    if field != "timestamp" or not was:
        return bool(was == now)
    try:
        return utc(str(was)) == utc(str(now))
    except ValueError:
        return False


def _instrument(session: Session, name: str) -> str:
    """The MFID of the instrument of that name. InputError unless there is one."""
    found = session.client.instruments.list(instrument_name=name)
    if len(found) != 1:
        there = sorted({one.instrument_name for one in session.client.instruments.list() if one.instrument_name})
        said = f"there are {len(found)} of that name" if found else f"there is none; {nearest(name, there)}"
        raise InputError(f"set instrument_name={name}: {said}")
    return found[0].unique_id


def _entries(session: Session, acts: Sequence[Mapping[str, Any]], why: str) -> dict[str, Any]:
    agent = session.agent
    by, at = str(agent.get("username") or agent.get("local_user") or ""), datetime.now(UTC).isoformat()
    said = {"by": by, "at": at, **({"why": why} if why else {})}
    found: dict[str, Any] = {}
    for number, act in enumerate(acts):
        found |= correction_mark(f"{at}_{number:04}_{secrets.token_hex(4)}", {**act, **said})
    return found
