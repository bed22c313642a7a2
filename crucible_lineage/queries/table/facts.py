"""What there is to say of each dataset of a project, as columns name it, and which datasets it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.core.summary import summary_of
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.records import (
    OWN_KEYS,
    PROVENANCE_KEY,
    provenance,
    returned_values,
    text,
    used_roles,
)
from crucible_lineage.provenance.record import read_record
from crucible_lineage.queries.graph.standing import entries_of_copy, stated_entries
from crucible_lineage.registration.read import whole_record
from crucible_lineage.session import Session
from crucible_lineage.statements import Checked
from crucible_lineage.times import as_known

__all__ = ["OWN", "PARTS", "ColumnValues", "ProjectFacts", "flattened"]

OWN = (
    *("mfid", "name", "step", "pipeline", "output", "state", "measurement", "data_type", "instrument", "sample"),
    *("session", "timestamp", "created", "run", "who", "checks", "remade"),
)
PARTS = ("params", "results", "metadata")  # `metadata` is all of it, also what no step returned
RAW = "raw"  # the measured data that a dataset comes from, by whatever way
DEEPEST = 8  # levels of values within values that get columns of their own


@dataclass(frozen=True)
class ColumnValues:
    """A dataset in the words of columns; `used` are the datasets it was made of, by role."""

    mfid: str
    step: str
    values: Mapping[str, Any]
    used: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class ProjectFacts:
    """The facts of all datasets of a project, and of those of other projects that they were made of."""

    def __init__(self, session: Session, project: str, *, refresh: bool = False) -> None:
        self.session = session
        self.copy = session.mirror.snapshot(project, refresh=refresh)
        self.entries = stated_entries(session, entries_of_copy(self.copy), project, self.copy.summaries)
        self._verdicts = session.mirror.verdicts()
        self._facts: dict[str, ColumnValues] = {}
        self._named: dict[str, dict[str, tuple[str, ...]]] = {}
        self._two_raws: set[str] = set()  # where a role or a step is called `raw` too, and gave others

    def of(self, mfid: str) -> ColumnValues:
        """The facts of a dataset; of one that this key may not see, its id."""
        found = self._facts.get(mfid)
        if found is None:
            found = self._facts[mfid] = self._read(mfid)
        return found

    def value(self, mfid: str, column: str) -> Any:
        """Return a dataset's value in a column: its own, or an ancestor's where the column begins with one's name.

        Metadata that a result does not have are those of the measured data it comes from. Of several ancestors of that
        name it is a list, unless all say the same. None where there is nothing; InputError where `raw` is ambiguous.
        """
        own = self.of(mfid).values
        if column in own:
            return own[column]
        head, _, rest = column.partition(".")
        if not rest:
            return self._inherited(mfid, column) if column in ("instrument", "sample") else None
        if head in PARTS:
            return self._of_measured(mfid, column) if head == "metadata" else None
        ancestors = self.ancestors(mfid).get(head, ())
        if head == RAW and mfid in self._two_raws:
            raise InputError(
                f"column {column!r}: `raw` stands for the measured data that {mfid} comes from, and a role or a step "
                "of its lineage is called raw too and gave others; name the step that made these, or the role above"
            )
        return _one_or_all(self.value(one, rest) for one in ancestors)

    def ancestors(self, mfid: str) -> Mapping[str, tuple[str, ...]]:
        """The ancestors of a dataset by what they are called: their step, or the role in which they were used.

        Of two that are called alike the nearer one is meant. `raw` are all measured data among them.
        """
        found = self._named.get(mfid)
        if found is None:
            found = self._named[mfid] = self._walk(mfid)
        return found

    def _walk(self, mfid: str) -> dict[str, tuple[str, ...]]:
        named: dict[str, tuple[str, ...]] = {}
        level, seen, raw = [mfid], {mfid}, []
        while level:
            here: dict[str, dict[str, None]] = {}
            following: dict[str, None] = {}
            for child in level:
                used = {} if self._is_measured(child) else self.of(child).used
                if not used and child != mfid:
                    raw.append(child)
                for role, parents in used.items():
                    for parent in parents:
                        names = {role, self._step(parent)} - {""}
                        for name in names:
                            here.setdefault(name, {})[parent] = None
                        if parent not in seen:
                            following[parent] = None
            named |= {name: tuple(mfids) for name, mfids in here.items() if name not in named}
            seen |= following.keys()
            level = list(following)
        if (called := named.get(RAW)) and set(called) != set(raw):
            self._two_raws.add(mfid)
        return {**named, RAW: tuple(raw)}

    def _of_measured(self, mfid: str, column: str) -> object:
        """Return the value of the measured data that a result comes from, where it has none itself."""
        return _one_or_all(self.of(one).values.get(column) for one in self.ancestors(mfid)[RAW])

    def _inherited(self, mfid: str, column: str) -> object:
        return _one_or_all(self._about(one, column) or None for one in self.ancestors(mfid)[RAW])

    # What lists know of a dataset is asked of them first: no record is unpacked for it.

    def _is_measured(self, mfid: str) -> bool:
        known = self.copy.summaries.get(mfid)
        return known is not None and not known.standing.derived

    def _step(self, mfid: str) -> str:
        known = self.copy.summaries.get(mfid)
        return self.of(mfid).step if known is None else known.step

    def _about(self, mfid: str, column: str) -> object:
        known = self.copy.summaries.get(mfid)
        if known is None:
            return self.of(mfid).values.get(column)
        return known.instrument if column == "instrument" else known.samples

    def _read(self, mfid: str) -> ColumnValues:
        record = self.copy.records.get(mfid)
        if record is None:
            record = fetch_datasets(self.session.client, [mfid], include_links=True).found.get(mfid)
        if record is None:
            return ColumnValues(mfid, "", {"mfid": mfid, "state": "not visible"})
        written = provenance(record)
        if "attached" in written:
            written = self._whole(mfid, record)
        summary = self.copy.summaries.get(mfid) or summary_of(record)
        entry = self.entries.get(mfid)
        activity = written.get("activity") or {}
        agent = written.get("agent") or {}
        metadata = {k: v for k, v in (record.get("scientific_metadata") or {}).items() if k not in OWN_KEYS}
        own = {
            "mfid": mfid,
            "name": summary.name,
            "step": summary.step,
            "pipeline": summary.pipeline,
            "output": text(written.get("output")),
            "state": entry.state if entry else "",
            "measurement": summary.measurement,
            "data_type": text(record.get("data_type")),
            "instrument": text(record.get("instrument_name")),
            "sample": summary.samples,
            "session": text(record.get("session_name")),
            "timestamp": text(as_known(record).get("timestamp")),
            "created": summary.created,
            "run": text((activity.get("run") or {}).get("run_id")),
            "who": text(agent.get("username")) or text(agent.get("local_user")),
            "checks": _told_checks(self._verdicts.get(mfid, {})),
            "remade": entry.remade.times if entry else 0,
        }
        values = {name: value for name, value in own.items() if value}
        values |= flattened("params", (written.get("recipe") or {}).get("params") or {})
        if summary.standing.derived:
            values |= flattened("results", returned_values(record))
        values |= flattened("metadata", metadata)
        used = {
            role: mfids
            for role, mfids in used_roles({"scientific_metadata": {PROVENANCE_KEY: written}}).items()
            if role
        }
        return ColumnValues(mfid, summary.step, values, used)

    def _whole(self, mfid: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
        found = read_record(record.get("scientific_metadata"))
        return whole_record(self.session.client, mfid, found).document() if found else provenance(record)


def _told_checks(verdicts: Mapping[str, Checked]) -> str:
    """Which of its checks a dataset has failed, or that it has passed them; empty where none was made."""
    failed = [name.rpartition("/")[2] for name, one in verdicts.items() if not one.passed]
    return f"failed: {', '.join(failed)}" if failed else "passed" if verdicts else ""


def flattened(head: str, values: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """{"head.key": value}, where a mapping in a mapping is told by a longer name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value and depth < DEEPEST:
            found |= flattened(f"{head}.{key}", value, depth + 1)
        else:
            found[f"{head}.{key}"] = value
    return found


def _one_or_all(values: Iterable[object]) -> object:
    found: list[Any] = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return None if not found else found[0] if len(found) == 1 else found
