"""The results of a step as a table: a row for each, with parameters, returned values and facts of ancestors.

Conditions select rows, and groups summarize them. The table is written as CSV, Parquet or JSON, or converted to pandas.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from crucible_lineage.ask.answer import Answer, Rows, in_columns, not_listed
from crucible_lineage.ask.lineages import whole_record_of
from crucible_lineage.ask.listing import columns_of, made_by, sortable
from crucible_lineage.ask.names import find_project
from crucible_lineage.ask.question import BEFORE, COMMAND, NEEDED, NOTEBOOK, Pipeline, Project, option, question
from crucible_lineage.condition import parse_condition
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.core.tables import Summary, summary_of
from crucible_lineage.errors import InputError, nearest, require_library
from crucible_lineage.json_types import JsonMapping, JsonObject, text
from crucible_lineage.lineage.labels import csv_text
from crucible_lineage.lineage.model import CURRENT
from crucible_lineage.lineage.records import (
    equal_parents,
    fields_of,
    flattened,
    gaps,
    maker,
    parents_as_used,
    provenance,
    used_roles,
)
from crucible_lineage.machine.disk import replacing
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standings
from crucible_lineage.text.amounts import amount, distinct, equality_key

if TYPE_CHECKING:
    import pandas

ALWAYS = ("mfid", "name", "instrument", "sample", "swept", "without")
COUNT = "count"
SUMMED_UP = ("mean", "std", "min", "max")  # std with n - 1; empty for a single value
OWN = (*columns_of(()), "output", "sample", "run", "who", "without")
PARTS = ("params", "results", "metadata")  # `metadata` includes what no step returned
RAW = "raw"  # the measured data that a dataset comes from
ENDINGS = (".csv", ".parquet", ".json")


@dataclass(frozen=True)
class Table(Answer):
    """Rows with the same columns, in the order in which the results were made. `others` counts the rest by state."""

    project: str
    step: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    others: Mapping[str, int]
    written: Path | None = None
    json_keys: ClassVar = "project step columns rows=named_rows not_listed=others"

    def in_python(self) -> pandas.DataFrame | Table:
        try:
            import pandas  # optional, and slow to import
        except ImportError:
            return self
        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def table(self) -> Rows:
        return self.columns, self.rows

    def lines(self) -> Iterator[str]:
        if self.written:
            yield f"{self.written}: {amount(len(self), 'row')}, {amount(len(self.columns), 'column')}"
        else:
            yield from in_columns(self.columns, self.rows)
            yield amount(len(self), "row") + not_listed(self.others)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def named_rows(self) -> list[JsonObject]:
        """The rows, each with its values by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def _require_target(output: Path | None = None, **_: object) -> None:
    """Raise InputError if no table can be written to this file because of its ending or a missing library."""
    if output is None:
        return
    if output.suffix.lower() == ".parquet":
        require_library(f"{output.name} as Parquet", "pyarrow", "table")
    if output.suffix.lower() not in ENDINGS:
        raise InputError(
            f"write a table to {output}: the format follows from the file's ending, one of {', '.join(ENDINGS)}"
        )
    if output.is_dir():
        raise InputError(f"write a table to {output}: it is a folder; name a file")


@question("table", is_table=True, announced=BEFORE, check=_require_target)
def make_table(
    session: Session, project: Project = None,
    step: Annotated[str, option("The step whose results are the rows.", metavar="S")] = NEEDED,
    *, pipeline: Pipeline = None,
    where: Annotated[
        str | None, option('As in "params.degree > 2 and results.rms < 0.5".', metavar="CONDITION")
    ] = None,
    fields: Annotated[Sequence[str], option("One more column; repeatable.", "--field", metavar="NAME")] = (),
    by: Annotated[Sequence[str], option("A row for each value of this column; repeatable.", metavar="NAME")] = (),
    output: Annotated[
        Path | None, option(
            "Write the table: .csv, .parquet or .json.", "-o", "--output", doors=(COMMAND, NOTEBOOK)
        )
    ] = None,
    every: Annotated[bool, option("Include superseded, incomplete and doubtful results.", "--all")] = False,
) -> Table:  # fmt: skip
    """Print a row for each current result of a step: its parameters (params.NAME), returned values (results.NAME),
    instrument and sample.

    \b
    --where, --field and --by also accept
      name, timestamp, created, measurement, run, who   of the result itself
      metadata.NAME                                     including metadata from its files
      STEP.results.NAME, ROLE.instrument, ...           of an ancestor, by its step or the role it was used in
      raw.metadata.NAME                                 of the measured data that it comes from

    With --by, print the count, and mean, standard deviation, minimum and maximum of each number.
    """
    fields, by = ((columns,) if isinstance(columns, str) else columns for columns in (fields, by))
    project = find_project(session, project)
    condition = parse_condition(where) if where else None
    facts = ProjectFacts(session, project)
    results = {summary.mfid: facts.entries[summary.mfid].state for summary in facts.results(step, pipeline)}
    chosen = [mfid for mfid, state in results.items() if every or state == CURRENT]
    others = dict(Counter(results.values()) - Counter(results[mfid] for mfid in chosen))
    for name in (*(condition.names if condition else ()), *fields, *by):
        _require_column(facts, chosen, name)
    fitting = [mfid for mfid in chosen if not condition or condition.is_met(partial(facts.value, mfid), mfid)]
    own_columns = _own_columns(facts, fitting or chosen, every)  # a table without rows has the columns of all
    columns = tuple(dict.fromkeys((*own_columns, *by, *fields)))
    rows = tuple(tuple(facts.value(mfid, column) for column in columns) for mfid in fitting)
    if by:
        columns, rows = _grouped(columns, rows, by)
    table = Table(project, step, columns, rows, others, output)
    if output is not None:
        write_table(table, output)
    return table


def _own_columns(facts: ProjectFacts, chosen: Iterable[str], every: bool) -> tuple[str, ...]:
    """Return the columns of every table, then all parameters and returned values in the rows."""
    parts: dict[str, dict[str, None]] = {"params": {}, "results": {}}
    filled: set[str] = set()
    for mfid in chosen:
        filled |= {name for name in ALWAYS[2:] if name not in filled and facts.value(mfid, name) is not None}
        for name in facts.of(mfid).values:
            if (head := name.partition(".")[0]) in parts and "." in name:
                parts[head][name] = None
    always = [name for name in ALWAYS if name in ALWAYS[:2] or name in filled]
    return (*always, *(("state",) if every else ()), *parts["params"], *parts["results"])


def _require_column(facts: ProjectFacts, chosen: Sequence[str], name: str) -> None:
    """Raise InputError unless the column may have a value in one of the rows."""
    if name in OWN or not chosen or any(facts.value(mfid, name) is not None for mfid in chosen):
        return
    names: dict[str, None] = dict.fromkeys(OWN)
    for mfid in chosen[:100]:  # enough to suggest a similar name
        values = facts.of(mfid).values
        names |= dict.fromkeys(value for value in values if value.partition(".")[0] in PARTS)
        for label, ancestors in facts.ancestors(mfid).items():
            names |= dict.fromkeys(f"{label}.{value}" for other in ancestors[:1] for value in facts.of(other).values)
    if name in names:  # every value is null
        return
    raise InputError(f"there is no column {name!r}; {nearest(name, sorted(names))}")


def _grouped(
    columns: Sequence[str], rows: Sequence[Sequence[object]], by: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[object, ...], ...]]:
    keys = [columns.index(name) for name in by]
    present = [[row[at] for row in rows if row[at] is not None] for at in range(len(columns))]
    numbers = [at for at, values in enumerate(present) if at not in keys and values and all(map(_is_number, values))]
    groups: dict[tuple[tuple[bool, str], ...], list[Sequence[Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(equality_key(row[at]) for at in keys), []).append(row)
    grouped = []
    for members in groups.values():
        values = [[row[at] for row in members if row[at] is not None] for at in numbers]
        head = (*(members[0][at] for at in keys), len(members))
        grouped.append((*head, *(number for column in values for number in _summed_up(column))))
    names = (*by, COUNT, *(f"{columns[at]}.{statistic}" for at in numbers for statistic in SUMMED_UP))
    return names, tuple(sorted(grouped, key=lambda row: [sortable(value) for value in row[: len(by)]]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _summed_up(values: Sequence[float]) -> tuple[float | None, ...]:
    if not values:
        return (None,) * len(SUMMED_UP)
    spread = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
    return math.fsum(values) / len(values), spread, min(values), max(values)


@dataclass(frozen=True)
class ColumnValues:
    """The values of a dataset by column; `used` are the datasets it was made from, by role."""

    mfid: str
    steps: tuple[str, ...]
    values: JsonMapping
    used: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class ProjectFacts:
    """The facts of all datasets of a project, and of their ancestors in other projects."""

    def __init__(self, session: Session, project: str) -> None:
        self.session = session
        self.project = project
        self.copy = session.mirror.snapshot(project)
        self.entries = standings(session, project, copy=self.copy)
        self.of: Callable[[str], ColumnValues] = cache(self._read)
        self.ancestors: Callable[[str], Mapping[str, tuple[str, ...]]] = cache(self._walk)
        self._two_raws: set[str] = set()  # datasets with a role or step called `raw` that means something else

    def results(self, step: str, pipeline: str | None) -> list[Summary]:
        """Return the results of a step, oldest first. Raises InputError if there are none."""
        results = made_by(self.project, self.copy.summaries.values(), pipeline, step)
        return sorted(results, key=lambda summary: (summary.created, summary.mfid))

    def value(self, mfid: str, column: str) -> Any:
        """Return a dataset's value in a column: its own, or an ancestor's if the column begins with its name.

        Metadata that a result lacks are those of the measured data it comes from. Several ancestors with different
        values give a list. Returns None without a value; raises InputError if `raw` is ambiguous.
        """
        own = self.of(mfid).values
        if column in own:
            return own[column]
        head, _, rest = column.partition(".")
        if not rest:
            if column not in ("instrument", "sample"):
                return None
            return _one_or_all(self._about(ancestor, column) or None for ancestor in self.ancestors(mfid)[RAW])
        if head == "metadata":
            return _one_or_all(self.of(ancestor).values.get(column) for ancestor in self.ancestors(mfid)[RAW])
        if head in PARTS:
            return None
        ancestors = self.ancestors(mfid).get(head, ())
        if head == RAW and mfid in self._two_raws:
            raise InputError(
                f"column {column!r}: `raw` means the measured data that {mfid} comes from, but a role or step of its "
                "lineage is also called raw and means others; name the step that made them, or another role"
            )
        return _one_or_all(self.value(ancestor, rest) for ancestor in ancestors)

    def _walk(self, mfid: str) -> dict[str, tuple[str, ...]]:
        """Return the ancestors of a dataset by their step, or by the role in which they were used.

        Of two with the same name, the nearer one is returned. `raw` are all measured data among them.
        """
        named: dict[str, tuple[str, ...]] = {}
        level, seen, raw = [mfid], {mfid}, []
        while level:
            current: dict[str, dict[str, None]] = {}
            next_level: dict[str, None] = {}
            for child in level:
                summary = self.copy.summaries.get(child)  # tried first: it needs no record to be unpacked
                used = self.of(child).used if summary is None or summary.status.derived else {}
                if not used and child != mfid:
                    raw.append(child)
                for role, parents in used.items():
                    for parent in parents:
                        for name in {role, *self._steps(parent)}:
                            current.setdefault(name, {})[parent] = None
                        if parent not in seen:
                            next_level[parent] = None
            named |= {name: tuple(mfids) for name, mfids in current.items() if name not in named}
            seen |= next_level.keys()
            level = list(next_level)
        if (raw_named := named.get(RAW)) and set(raw_named) != set(raw):
            self._two_raws.add(mfid)
        return {**named, RAW: tuple(raw)}

    def _steps(self, mfid: str) -> tuple[str, ...]:
        summary = self.copy.summaries.get(mfid)
        return self.of(mfid).steps if summary is None else summary.steps

    def _about(self, mfid: str, column: str) -> object:
        summary = self.copy.summaries.get(mfid)
        if summary is None:
            return self.of(mfid).values.get(column)
        return summary.instrument if column == "instrument" else summary.samples

    def _read(self, mfid: str) -> ColumnValues:
        """Return the facts of a dataset; only its id if it is hidden from this key."""
        record: JsonMapping | None = self.copy.records.get(mfid)
        if record is None:
            record = fetch_datasets(self.session.client, [mfid], include_links=True).found.get(mfid)
        if record is None:
            return ColumnValues(mfid, (), {"mfid": mfid, "state": "not visible"})
        record = whole_record_of(self.session.client, mfid, record)
        entry = self.entries.get(mfid) or Standing(summary_of(record), "")
        summary, fields = entry.summary, fields_of(record)
        own = {name: column.compared(entry) for name, column in columns_of(()).items()}
        own |= {
            "output": text(provenance(record).get("output")),
            "sample": summary.samples,
            "run": summary.made_by.run_id if summary.made_by else "",
            "who": maker(record),
            "without": "; ".join(gaps(record)),
        }
        values = {name: value for name, value in own.items() if value}
        for part in PARTS if summary.status.derived else (PARTS[0], PARTS[2]):
            values |= flattened(fields[part], f"{part}.")
        return ColumnValues(mfid, summary.steps, values, self._used(record, entry))

    def _used(self, record: JsonMapping, entry: Standing) -> dict[str, tuple[str, ...]]:
        """Return what a dataset was made from by role; of equal bytes, what is current if the dataset is."""
        roles = {role: mfids for role, mfids in used_roles(record).items() if role}
        if not entry.is_usable or not (equal := equal_parents(record)):
            return roles
        groups = parents_as_used(record, [*(mfid for mfids in roles.values() for mfid in mfids), *equal])

        def now(mfid: str) -> str:
            usable = (member for member in (mfid, *groups.get(mfid, ())) if member in self.entries)
            return next((member for member in usable if self.entries[member].is_usable), mfid)

        return {role: tuple(map(now, mfids)) for role, mfids in roles.items()}


def _one_or_all(values: Iterable[object]) -> object:
    found = distinct(values)
    return found[0] if len(found) == 1 else found or None


def write_table(table: Table, path: Path) -> None:
    """Write the whole table to the file, in the format of its ending, which `_require_target` has accepted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix.lower()
    with replacing(path) as draft:
        if ending == ".parquet":
            import pyarrow as arrow  # an optional library
            from pyarrow import parquet

            rows = zip(*table.rows, strict=True) if table.rows else [() for _ in table.columns]
            made = {name: _typed(list(column)) for name, column in zip(table.columns, rows, strict=True)}
            parquet.write_table(arrow.table(made), draft)
            return
        if ending == ".json":
            content = json.dumps(table.to_json(), ensure_ascii=False, indent=1) + "\n"
        else:
            content = csv_text(table.columns, table.rows)
        draft.write_text(content, encoding="utf-8", newline="")


def _typed(values: list[Any]) -> list[object]:
    """Convert a column to one type: numbers, truth values, texts, or lists of numbers; anything else to JSON."""
    present = [value for value in values if value is not None]
    kinds = set(map(type, present))
    if kinds and kinds <= {int, float} and (float in kinds or not all(-(2**63) <= value < 2**63 for value in present)):
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and not kinds & {list, dict, tuple}:
        return values
    return [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for value in values
    ]
