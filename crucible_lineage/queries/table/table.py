"""The results of a step as a table: one row for each that holds now, or one for each group of them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from crucible_lineage.condition import parse_condition
from crucible_lineage.core.slots import CURRENT
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.queries.graph.standing import CANDIDATE, DOUBTFUL
from crucible_lineage.queries.table.facts import OWN, PARTS, ProjectFacts
from crucible_lineage.session import Session

__all__ = ["Table", "make_table"]

ALWAYS = ("mfid", "name", "instrument", "sample", "checks")
COUNT = "count"
SUMMED_UP = ("mean", "std", "min", "max")  # std with n - 1; empty for a single value


@dataclass(frozen=True)
class Table:
    """Rows with the same columns, in the order in which the results were made. `others` do not hold, by state."""

    project: str
    step: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    others: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the table for `table --json`."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {
            "project": self.project,
            "step": self.step,
            "columns": list(self.columns),
            "rows": rows,
            "not_listed": dict(self.others),
        }


def make_table(
    session: Session,
    project: str,
    step: str,
    *,
    pipeline: str | None = None,
    where: str | None = None,
    fields: Sequence[str] = (),
    by: Sequence[str] = (),
    every: bool = False,
    doubtful: bool = False,
    refresh: bool = False,
) -> Table:
    """The current results of a step: parameters, returned values, instrument and sample, and the columns in `fields`.

    A column is one of a dataset's own (`instrument`, `timestamp`), `params.NAME`, `results.NAME`, `metadata.NAME`, or
    any of these of an ancestor, behind the name of its step or the role in which it was used (`axis.results.rms`).
    With `by`, one row for each value of these columns, with how many there are and mean, standard deviation, least
    and greatest of each number. With `every`, also what does not hold, with `doubtful` what is on hold or comes from
    what is. InputError for a name that no row knows.
    """
    condition = parse_condition(where) if where else None
    facts = ProjectFacts(session, project, refresh=refresh)
    chosen, others = _results(
        facts, project, step, pipeline, () if every else (CURRENT, *((CANDIDATE, DOUBTFUL) if doubtful else ()))
    )
    for name in (*(condition.names if condition else ()), *fields, *by):
        _require_column(facts, chosen, name)
    fitting = [mfid for mfid in chosen if not condition or condition.holds(partial(facts.value, mfid), mfid)]
    own = _own_columns(facts, fitting or chosen, every or doubtful)  # a table without rows has the columns of all
    columns = tuple(dict.fromkeys((*own, *by, *fields)))
    rows = tuple(tuple(facts.value(mfid, column) for column in columns) for mfid in fitting)
    if by:
        columns, rows = _grouped(columns, rows, by)
    return Table(project, step, columns, rows, others)


def _results(
    facts: ProjectFacts, project: str, step: str, pipeline: str | None, states: Collection[str]
) -> tuple[list[str], dict[str, int]]:
    """The ids of the step's results in these states (or in any, if there are none), and how many others are in which.

    The oldest is first.
    """
    made = [one for one in facts.copy.summaries.values() if one.step == step and pipeline in (None, one.pipeline)]
    if not made:
        there = sorted({one.step for one in facts.copy.summaries.values() if pipeline in (None, one.pipeline)} - {""})
        instead = nearest(step, there) if there else "no step has made any"
        raise InputError(f"make a table of step {step!r}: project {project!r} has no dataset of it; {instead}")
    made.sort(key=lambda one: (one.created, one.mfid))
    others: dict[str, int] = {}
    chosen = []
    for one in made:
        state = facts.entries[one.mfid].state
        if not states or state in states:
            chosen.append(one.mfid)
        else:
            others[state] = others.get(state, 0) + 1
    return chosen, others


def _own_columns(facts: ProjectFacts, chosen: Iterable[str], every: bool) -> tuple[str, ...]:
    """Return the columns of every table, then all parameters and returned values that a row knows."""
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
    """InputError unless the column may have a value in one of the rows."""
    if name in OWN or not chosen or any(facts.value(mfid, name) is not None for mfid in chosen):
        return
    known: dict[str, None] = dict.fromkeys(OWN)
    for mfid in chosen[:100]:  # enough to name what is near
        values = facts.of(mfid).values
        known |= dict.fromkeys(one for one in values if one.partition(".")[0] in PARTS)
        for called, ancestors in facts.ancestors(mfid).items():
            known |= dict.fromkeys(f"{called}.{one}" for other in ancestors[:1] for one in facts.of(other).values)
    if name in known:  # nothing but null stands there
        return
    raise InputError(f"there is no column {name!r}; {nearest(name, sorted(known))}")


def _grouped(
    columns: Sequence[str], rows: Sequence[Sequence[object]], by: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[object, ...], ...]]:
    keys = [columns.index(name) for name in by]
    numbers = [at for at, name in enumerate(columns) if at not in keys and _all_numbers(row[at] for row in rows)]
    groups: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row[at] for at in keys], default=str), []).append(row)
    made = []
    for members in groups.values():
        values = [[row[at] for row in members if row[at] is not None] for at in numbers]
        head = (*(members[0][at] for at in keys), len(members))
        made.append((*head, *(number for column in values for number in _summed_up(column))))
    names = (*by, COUNT, *(f"{columns[at]}.{what}" for at in numbers for what in SUMMED_UP))
    return names, tuple(sorted(made, key=lambda row: [_sortable(value) for value in row[: len(by)]]))


def _all_numbers(values: Iterable[object]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)


def _summed_up(values: Sequence[float]) -> tuple[float | None, ...]:
    if not values:
        return (None,) * len(SUMMED_UP)
    spread = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
    return math.fsum(values) / len(values), spread, min(values), max(values)


def _sortable(value: object) -> tuple[int, object]:
    if isinstance(value, int | float):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, json.dumps(value, default=str))
