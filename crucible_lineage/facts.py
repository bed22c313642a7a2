"""Facts about the parents of a step, beside their files: names, instruments, times and metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.text.times import measured_at

__all__ = ["DatasetFacts", "Facts"]

_REPEATED = ("instrument_name", "measurement", "data_type", "session_name")  # workers add them as keywords, too
_OWN_KEYWORDS = ("pipeline:", "recipe:")


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

    def known(self) -> dict[str, Any]:
        """Return the known facts as JSON, without the files."""
        return {name: value for name, value in self.to_json().items() if name == "name" or (value and name != "files")}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> DatasetFacts:
        """Return the facts in such an entry; absent ones are unknown."""
        timestamp = datetime.fromisoformat(entry["timestamp"]) if entry.get("timestamp") else None
        lists = {name: tuple(entry.get(name, ())) for name in ("keywords", "files")}
        return cls(**{**entry, "timestamp": timestamp, **lists})


class Facts(Mapping[str, tuple[DatasetFacts, ...]]):
    """Facts of a step's parents by input: `facts["spectra"]` has those of its datasets, in their order.

    A step receives them in a keyword-only parameter annotated `Facts`.
    """

    def __init__(self, by_role: Mapping[str, Sequence[DatasetFacts]]) -> None:
        self._by_role = {role: tuple(datasets) for role, datasets in by_role.items()}

    def __getitem__(self, role: str) -> tuple[DatasetFacts, ...]:
        return self._by_role[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_role)

    def __len__(self) -> int:
        return len(self._by_role)

    def __repr__(self) -> str:
        return f"Facts({self._by_role!r})"

    def one(self, role: str) -> DatasetFacts:
        """Return the facts of the only dataset of an input. Raises InputError if it has none or several."""
        datasets = self._by_role.get(role, ())
        if len(datasets) != 1:
            raise InputError(
                f"input {role!r} has {len(datasets)} datasets; facts[{role!r}] are the facts of all of them"
            )
        return datasets[0]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return {input: [the facts of each dataset]}."""
        return {role: [dataset.to_json() for dataset in datasets] for role, datasets in self._by_role.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> Facts:
        """Return the facts that were stored as JSON."""
        return cls({role: [DatasetFacts.from_json(entry) for entry in entries] for role, entries in stored.items()})
