"""Datasets as all parts of the program speak of them: their fields, references by id and files, facts. No I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

from crucible_lineage.errors import InputError
from crucible_lineage.text.times import measured_at

_DATA, _ITSELF = "describes the data", "describes this dataset alone"  # both are corrected by people
_ACCESS = "the project, the owner and the readers of a dataset are changed at Crucible itself"
_KEPT = "Crucible sets it, and nobody else can"
FIELDS = {  # of datasets, with their labels, and what they are about; pages show them in this order
    "dataset_name": ("Name", _ITSELF),
    "project_id": ("Project", _ACCESS),
    "measurement": ("Measurement", _DATA),
    "data_type": ("Data type", _DATA),
    "data_format": ("Format", _ITSELF),
    "session_name": ("Session", _DATA),
    "instrument_name": ("Instrument", _DATA),
    "instrument_id": ("Instrument id", _DATA),
    "instrument_mfid": ("Instrument MFID", _KEPT),
    "timestamp": ("Taken", _ITSELF),
    "creation_time": ("Registered", _KEPT),
    "modification_time": ("Changed", _KEPT),
    "owner_orcid": ("Owner", _ACCESS),
    "public": ("Public", _ACCESS),
    "size": ("Size", _KEPT),
}
NOT_SET = {name: about for name, (_, about) in FIELDS.items() if about in (_ACCESS, _KEPT)}  # with the reason
CORRECTED = tuple(name for name in FIELDS if name not in NOT_SET)
MATCHED = tuple(name for name in CORRECTED if name != "timestamp")  # by select, match, group_by and certificates
DESCRIPTIVE = tuple(name for name in FIELDS if FIELDS[name][1] == _DATA)  # what a result lacks is that of its data
ITSELF = tuple(name for name in FIELDS if FIELDS[name][1] == _ITSELF)
SHOWN = {name: FIELDS[name][0] for name in FIELDS if name not in ("dataset_name", "instrument_mfid", "size")}
SHOWN |= {"sample_type": "Type", "description": "Description"}  # of samples
CONTEXT = {  # what a result has of its data unless its step declares it, and the fields for it, the best first
    "instrument": ("instrument_id", "instrument_name"),
    "session": ("session_name",),
    "owner": ("owner_orcid",),
}
Inherited = Literal["instrument", "session", "owner", "samples"]
INHERITED: Final[tuple[Inherited, ...]] = ("instrument", "session", "owner", "samples")
# How a child is related to its parent, as Crucible spells it; `relation_text` says how people read it.
Relationship = Literal["is_derived_from", "is_part_of"]
DERIVED: Final = "is_derived_from"
PART: Final = "is_part_of"
MEASURED: Final = "measured-from"  # Crucible's association of a dataset with a sample, drawn sample -> dataset
MOST_NAME_BYTES = 255  # limit of file systems
SURROGATES = range(0xD800, 0xE000)
ESCAPED_BYTES = range(0xDC80, 0xDD00)  # as Python decodes bytes of file names that are not UTF-8


@dataclass(frozen=True)
class FileRef:
    """A file of a dataset; `preview` marks the thumbnail, `log` the output of a command: neither counts as data."""

    name: str
    sha256: str
    size: int
    preview: bool = False
    log: bool = False

    @property
    def is_data(self) -> bool:
        """Whether steps receive this file."""
        return not (self.preview or self.log)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON for provenance records."""
        return {name: value for name, value in vars(self).items() if value is not False}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> FileRef:
        """Return the file in such an entry."""
        return cls(**entry)


@dataclass(frozen=True)
class DatasetRef:
    """A complete dataset that a step may use, with the MFIDs of its samples.

    `origin` is the MFID of the measured data that it comes from, or one that stands for several; empty for measured
    data. `parents` are the datasets that it was made of, in order, `equals` others with the same bytes and origin,
    which would give the same dataset. `taken` is when its data were measured, in ISO 8601; empty if unknown. `context`
    are its fields of CONTEXT, which results inherit.
    """

    mfid: str
    name: str
    files: tuple[FileRef, ...]
    samples: tuple[str, ...] = ()
    origin: str = ""
    parents: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()
    taken: str = field(default="", compare=False)
    context: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def source(self) -> str:
        """The MFID that stands for it in recipes of results, beside the hashes of its files."""
        return self.origin or self.mfid

    @cached_property
    def data_files(self) -> tuple[FileRef, ...]:
        """The files that steps receive: neither the preview nor a log."""
        return tuple(file for file in self.files if file.is_data)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON for the local store."""
        entry: dict[str, Any] = {"mfid": self.mfid, "name": self.name, "files": [file.to_json() for file in self.files]}
        names = ("samples", "parents", "equals", "origin", "taken", "context")
        return entry | {name: value for name in names if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> DatasetRef:
        """Return the dataset in such an entry."""
        files, names = tuple(map(FileRef.from_json, entry["files"])), ("samples", "parents", "equals")
        return cls(**{**entry, "files": files, **{name: tuple(entry.get(name, ())) for name in names}})


@dataclass(frozen=True)
class ProjectChanges:
    """Changes among datasets of a project: when each was modified, by MFID.

    `revision` changes once anything is lost from the project; empty if the service has none. `statements` changes with
    each new or lost statement; None if the service does not support that.
    """

    revision: str
    modified: Mapping[str, str]
    statements: str | None = None


def relation_text(relationship: str | None) -> str:
    """Return how people read a relationship: nothing if it is the usual one, that a child was made of its parent."""
    return "" if relationship == DERIVED else relationship or "untyped link"


def last_taken(datasets: Iterable[DatasetRef]) -> str:
    """Return when the youngest of these data were measured; empty unless the time of each is known."""
    known = [dataset.taken for dataset in datasets]
    return max(known, key=datetime.fromisoformat) if known and all(known) else ""


def context_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of CONTEXT in a record of a dataset, one for each kind that it has."""
    known = (next((name for name in names if fields.get(name)), "") for names in CONTEXT.values())
    return {name: str(fields[name]) for name in known if name}


def inherited_context(
    parents: Sequence[DatasetRef], kinds: Collection[str], own: Collection[str]
) -> dict[str, list[str]]:
    """Return the values of the parents by field, of which a result inherits the first.

    Only those of `kinds`, without those that it declares itself by one of the fields `own`.
    """
    found = {}
    for kind in kinds:
        fields = CONTEXT.get(kind, ())
        known = [(name, value) for ref in parents for name, value in ref.context.items() if name in fields]
        if known and not set(own).intersection(fields):
            found[known[0][0]] = list(dict.fromkeys(value for _, value in known))
    return found


def asks_for_deletion(status: str | None) -> bool:
    """Return whether a deletion request with this status withdraws its dataset: all do, except rejected ones."""
    return status not in (None, "rejected")


def file_stem(name: str) -> str:
    """Return the name of a step or dataset as part of a file name that any system accepts."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:60]


def utf8_name(name: str) -> str:
    """Return a file's name with each byte that is not UTF-8 written as `%XX`, which any service accepts."""
    if name.isascii():
        return name
    written = {
        sign: f"%{code - 0xDC00:02X}" if code in ESCAPED_BYTES else f"%u{code:04X}"
        for sign in set(name)
        if (code := ord(sign)) in SURROGATES
    }
    return "".join(written.get(sign, sign) for sign in name)


def name_fault(name: str, most: int = MOST_NAME_BYTES) -> str:
    """Return why Crucible cannot store a file of this name; empty if it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is no Unicode text"
    if size > most:
        return f"has {size} bytes, which is more than {most}"
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in name) or "\\" in name:
        return "has a line break, tab, backslash or control sign"
    return ""


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one parent; None where unknown.

    `timestamp` is when it was measured, with its time zone. `metadata` are the scientific metadata: of measured data
    all of them, including those read from the files; of a result what its step returned. `keywords` omit those for
    pipelines and for the other fields. `files` are the names of its files that the step receives.
    """

    name: str
    instrument: str | None = None
    measurement: str | None = None
    timestamp: datetime | None = None
    keywords: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all facts as JSON, with null for unknown ones; the time in ISO 8601."""
        timestamp = self.timestamp.isoformat() if self.timestamp else None
        lists = {"keywords": list(self.keywords), "metadata": dict(self.metadata), "files": list(self.files)}
        return {**vars(self), "timestamp": timestamp, **lists}

    @classmethod
    def of_fields(
        cls, fields: Mapping[str, Any], keywords: Collection[str], metadata: Mapping[str, Any]
    ) -> DatasetFacts:
        """Return the facts in the fields of a dataset record of Crucible."""
        measured = measured_at(fields)
        repeated = {fields.get(name) for name in DESCRIPTIVE if name != "instrument_id"}  # workers add them as keywords
        words = (word for word in keywords if word not in repeated and not word.startswith(("pipeline:", "recipe:")))
        return cls(
            name=fields.get("dataset_name") or fields["unique_id"],
            instrument=fields.get("instrument_name") or None,
            measurement=fields.get("measurement") or None,
            timestamp=measured.astimezone(UTC) if measured else None,
            keywords=tuple(sorted(words)),
            metadata=metadata,
        )

    def known(self) -> dict[str, Any]:
        """Return the known facts as JSON, without the files."""
        return {name: value for name, value in self.to_json().items() if name == "name" or (value and name != "files")}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> DatasetFacts:
        """Return the facts in such an entry; absent ones are unknown."""
        timestamp = datetime.fromisoformat(entry["timestamp"]) if entry.get("timestamp") else None
        lists = {name: tuple(entry.get(name, ())) for name in ("keywords", "files")}
        return cls(**{**entry, "timestamp": timestamp, **lists})


class Facts(dict[str, tuple[DatasetFacts, ...]]):
    """Facts of a step's parents by input: `facts["spectra"]` has those of its datasets, in their order.

    A step receives them in a keyword-only parameter annotated `Facts`.
    """

    def one(self, role: str) -> DatasetFacts:
        """Return the facts of the only dataset of an input. Raises InputError if it has none or several."""
        datasets = self.get(role, ())
        if len(datasets) != 1:
            raise InputError(
                f"input {role!r} has {len(datasets)} datasets; facts[{role!r}] are the facts of all of them"
            )
        return datasets[0]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return {input: [the facts of each dataset]}."""
        return {role: [dataset.to_json() for dataset in datasets] for role, datasets in self.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> Facts:
        """Return the facts that were stored as JSON."""
        return cls({role: tuple(map(DatasetFacts.from_json, entries)) for role, entries in stored.items()})


def without_step(name: str) -> str:
    """Return a default name without the step at its end, which may contain brackets: `a (fit, f(x))`."""
    depth = 0
    for index in range(len(name) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(name[index], 0)
        if depth == 0:
            return name[: index - 1] if name[index - 1 : index + 1] == " (" else name
    return name
