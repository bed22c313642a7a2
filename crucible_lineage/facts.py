"""Facts about the parents of a step, beside their files: names, instruments, times and metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.times import taken

__all__ = ["DatasetFacts", "Facts"]

_REPEATED = ("instrument_name", "measurement", "data_type", "session_name")  # which workers add as keywords
_OWN_KEYWORDS = ("pipeline:", "recipe:")


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one parent; None where unknown.

    `timestamp` is when it was measured, with its time zone. `metadata` are the scientific metadata: of measured data
    all of them, also what was read from the files; of a result what its step returned. `keywords` are without those
    that stand for pipelines and for the other fields. `files` are the names of the files that the step is given of it.
    """

    name: str
    instrument: str | None = None
    measurement: str | None = None
    timestamp: datetime | None = None
    keywords: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it, with null where nobody has said it; the time in ISO 8601."""
        return {
            "name": self.name,
            "instrument": self.instrument,
            "measurement": self.measurement,
            "timestamp": self.timestamp.isoformat() if self.timestamp else None,
            "keywords": list(self.keywords),
            "metadata": dict(self.metadata),
            "files": list(self.files),
        }

    @classmethod
    def of_fields(
        cls, fields: Mapping[str, Any], keywords: Collection[str], metadata: Mapping[str, Any]
    ) -> DatasetFacts:
        """Take the facts from the fields of Crucible's dataset record."""
        measured = taken(fields)
        repeated = {fields.get(name) for name in _REPEATED}
        words = (word for word in keywords if word not in repeated and not word.startswith(_OWN_KEYWORDS))
        return cls(
            name=fields.get("dataset_name") or fields["unique_id"],
            instrument=fields.get("instrument_name") or None,
            measurement=fields.get("measurement") or None,
            timestamp=measured.astimezone(UTC) if measured else None,
            keywords=tuple(sorted(words)),
            metadata=metadata,
        )

    def said(self) -> dict[str, Any]:
        """Return what somebody has said, without the files."""
        return {name: value for name, value in self.to_json().items() if name == "name" or (value and name != "files")}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> DatasetFacts:
        """The facts that such an entry tells; what is not in it, nobody has said."""
        return cls(
            name=entry["name"],
            instrument=entry.get("instrument"),
            measurement=entry.get("measurement"),
            timestamp=datetime.fromisoformat(entry["timestamp"]) if entry.get("timestamp") else None,
            keywords=tuple(entry.get("keywords", ())),
            metadata=entry.get("metadata", {}),
            files=tuple(entry.get("files", ())),
        )


class Facts(Mapping[str, tuple[DatasetFacts, ...]]):
    """The facts of a step's parents by input: `facts["spectra"]` are those of its datasets, in their order.

    A step has them if one of its keyword-only parameters is annotated `Facts`.
    """

    def __init__(self, of: Mapping[str, Sequence[DatasetFacts]]) -> None:
        self._of = {role: tuple(datasets) for role, datasets in of.items()}

    def __getitem__(self, role: str) -> tuple[DatasetFacts, ...]:
        return self._of[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __repr__(self) -> str:
        return f"Facts({self._of!r})"

    def one(self, role: str) -> DatasetFacts:
        """The facts of the only dataset of an input. InputError if it has another number of them."""
        found = self._of.get(role, ())
        if len(found) != 1:
            raise InputError(f"input {role!r} has {len(found)} datasets; facts[{role!r}] are the facts of all of them")
        return found[0]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """{input: [the facts of each dataset]}."""
        return {role: [one.to_json() for one in datasets] for role, datasets in self._of.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> Facts:
        """The facts that were stored as JSON."""
        return cls({role: [DatasetFacts.from_json(one) for one in entries] for role, entries in stored.items()})
