"""`list`: measured data and current results, selected by words and conditions; and the columns of datasets.

They are declared once for terminal, JSON, CSV, pages and notebooks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Annotated, Any, ClassVar

from crucible_lineage.ask.answer import Answer, Rows, not_listed
from crucible_lineage.ask.names import find_project
from crucible_lineage.ask.question import BEFORE, ELSEWHERE, PAGE, Pipeline, Project, Step, option, question
from crucible_lineage.ask.runs import find_run
from crucible_lineage.condition import parse_condition
from crucible_lineage.core.tables import Summary
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.json_types import JsonObject, json_of
from crucible_lineage.lineage.labels import value_text
from crucible_lineage.machine.process import collector_paused
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standings
from crucible_lineage.text.amounts import Names, amount, size_text

JSON, CSV, READ = "json", "csv", "read"  # outputs of lists, beside pages; terminals and notebooks are read
DATA = {JSON, CSV}


@dataclass(frozen=True)
class Column:
    """A column: its names, its value, and where it is shown.

    Lists are sorted and selected by `name`; `key`, if given, replaces it in JSON and CSV. `source` is the attribute
    of a standing with the value, or a function. People see `heading`, and `as_text`, if given, instead of the value.
    `kind` is the CSS class of cells on pages.
    """

    name: str
    heading: str
    source: str | Callable[[Standing], Any]
    key: str = ""
    shown: Collection[str] = (JSON, CSV, READ, PAGE)
    as_text: Callable[[Standing], str] | None = None
    kind: str = "wide"

    @cached_property
    def value(self) -> Callable[[Standing], Any]:
        """Return the value of a dataset."""
        return attrgetter(self.source) if isinstance(self.source, str) else self.source

    @property
    def label(self) -> str:
        """The key in JSON and the header in CSV."""
        return self.key or self.name

    def cell(self, entry: Standing) -> Any:
        """Return the value for CSV and for sorting; None if there is none."""
        value = self.value(entry)
        value = " ".join(value) if isinstance(value, tuple) else value
        value = value if self.as_text is None or isinstance(value, str | int | float) else self.as_text(entry)
        return None if value == "" else value

    def compared(self, entry: Standing) -> Any:
        """Return the value for conditions: of several names, or values of a swept parameter, all of them."""
        names = {"step": entry.summary.steps, "pipeline": entry.summary.pipelines}.get(self.name) or self.value(entry)
        return names if isinstance(names, Names) and len(names) > 1 else self.cell(entry)

    def text(self, entry: Standing) -> str:
        """Return the value as text for people; empty if there is none."""
        if self.as_text:
            return self.as_text(entry)
        value = self.cell(entry)
        return "" if value is None else value_text(value)


COLUMNS: tuple[Column, ...] = (
    Column("mfid", "MFID", "mfid", shown={*DATA, READ}),
    Column("name", "Name", "summary.name", "dataset_name", kind="name"),
    Column("state", "State", "state", kind=""),
    Column("step", "Step", "summary.step", as_text=lambda entry: entry.origin),
    Column(
        "swept", "Swept", "summary.swept", shown={*DATA, READ},
        as_text=lambda entry: "" if entry.summary.swept in entry.summary.name else entry.summary.swept,
    ),
    Column("pipeline", "Pipeline", "summary.pipeline", shown=DATA),
    Column(
        "results", "Numbers", "summary.numbers",
        shown={JSON, PAGE}, as_text=lambda entry: ", ".join(
            f"{name} {value_text(value)}" for name, value in list(entry.summary.numbers.items())[:3]
        ),
    ),
    Column("measurement", "Measurement", "summary.measurement", shown={*DATA, PAGE}),
    Column("created", "Registered", "summary.created", shown=DATA),
    Column("superseded_by", "Superseded by", "superseded_by", shown=DATA),
    Column("superseded_since", "Superseded since", "since", shown={JSON}),
    Column(
        "flags", "Flags", "flags",
        shown={JSON, READ}, as_text=lambda entry: " ".join(f"[{name}]" for name in entry.flags),
    ),
    Column(
        "doubtful", "Doubt", "doubt",
        shown={JSON, READ}, as_text=lambda entry: entry.doubt.message(entry.mfid) if entry.doubt else "",
    ),
    Column("kind", "Kind", lambda entry: entry.summary.data_type or entry.summary.data_format, shown={PAGE}),
    Column("project", "Project", "summary.status.project", shown={*DATA, PAGE}),
    Column("type", "Type", "summary.data_type", "data_type", shown=DATA),
    Column("format", "Format", "summary.data_format", "data_format", shown=DATA),
    Column("session", "Session", "summary.session", "session_name", shown=DATA),
    Column("instrument", "Instrument", "summary.instrument", "instrument_name", shown=DATA),
    Column("taken", "Taken", "summary.timestamp", "timestamp", shown={*DATA, PAGE}),
    Column(
        "size", "Size", "summary.size",
        shown={*DATA, PAGE}, kind="wide number",
        as_text=lambda entry: "" if entry.summary.size is None else size_text(entry.summary.size),
    ),
)  # fmt: skip


def columns_at(surface: str) -> list[Column]:
    """Return the columns that are shown there, in their order."""
    return [column for column in COLUMNS if surface in column.shown]


def columns_of(summaries: Collection[Summary]) -> dict[str, Column]:
    """Return the columns of these datasets by name and key, with each returned number and each swept parameter."""
    columns = {name: column for column in COLUMNS if column.name != "results" for name in (column.name, column.label)}
    numbers = dict.fromkeys(name for summary in summaries for name in summary.numbers)
    swept = dict.fromkeys(name for summary in summaries if summary.swept for name in _swept_values(summary.swept))
    columns |= {f"results.{name}": _number_column(name) for name in numbers}
    return columns | {f"swept.{name}": _swept_column(name) for name in swept}


def column_of(name: str, columns: Mapping[str, Column]) -> Column:
    """Return the column of this name. Raises InputError, which names all, if there is none."""
    if name not in columns:
        hints = nearest(name, columns, most=len(columns)), f"there are: {', '.join(columns)}"
        raise InputError(f"datasets have no column {name!r}; {' '.join(dict.fromkeys(hints))}")
    return columns[name]


def _number_column(name: str) -> Column:
    return Column(f"results.{name}", name, lambda entry: entry.summary.numbers.get(name))


def _swept_column(name: str) -> Column:
    return Column(f"swept.{name}", name, partial(_swept, name=name))


def _swept_values(swept: str) -> dict[str, list[str]]:
    """Return the values of each swept parameter in the text of a dataset."""
    found: dict[str, list[str]] = {}
    for part in filter(None, swept.replace("; ", ", ").split(", ")):
        found.setdefault(part.partition("=")[0], []).append(part.partition("=")[2])
    return found


def _swept(entry: Standing, name: str) -> Any:
    """Return a swept parameter of a dataset: its value, or several that are equal to any of them."""
    values = _swept_values(entry.summary.swept).get(name) or [""]
    if len({*values}) > 1:
        return Names(values)
    try:
        return float(values[0])
    except ValueError:
        return values[0]


def as_json(entries: Iterable[Standing]) -> list[JsonObject]:
    """Return datasets as JSON, in `list --json` and elsewhere."""
    columns = [(column.label, column.value) for column in columns_at(JSON)]
    with collector_paused():  # a third of the time for 100,000 datasets
        return [{label: _json(value(entry)) for label, value in columns} for entry in entries]


def _json(value: Any) -> Any:
    return None if value == "" else json_of(value)


def as_table(entries: Sequence[Standing]) -> tuple[list[str], list[list[Any]]]:
    """Return headers and rows for CSV, with the numbers that steps returned as the last columns."""
    numbers = dict.fromkeys(name for entry in entries for name in entry.summary.numbers)
    columns = [*columns_at(CSV), *map(_number_column, numbers)]
    return [column.label for column in columns], [[column.cell(entry) for column in columns] for entry in entries]


def as_texts(entries: Sequence[Standing]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows for notebooks, without empty columns."""
    columns = columns_at(READ)
    rows = [[column.text(entry) for column in columns] for entry in entries]
    filled = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    return [columns[at].heading for at in filled], [[row[at] for at in filled] for row in rows]


def in_order(entries: Sequence[Standing], sort: str, columns: Mapping[str, Column]) -> list[Standing]:
    """Sort by one of the columns, with a minus before its name in descending order. Entries without a value come last.

    The sort is stable. Raises InputError if there is no such column.
    """
    column, is_descending = column_of(sort.removeprefix("-"), columns), sort.startswith("-")
    cells = [(column.cell(entry), entry) for entry in entries]
    present = [pair for pair in cells if pair[0] is not None]
    present.sort(key=lambda pair: sortable(pair[0]), reverse=is_descending)
    return [*(entry for _, entry in present), *(entry for cell, entry in cells if cell is None)]


def sortable(cell: Any) -> tuple[int, Any]:
    """Return a sort key: numbers, then texts, since a swept parameter may have both, then other values."""
    if isinstance(cell, int | float):
        return 0, cell
    return (1, cell.casefold()) if isinstance(cell, str) else (2, json.dumps(cell, default=str))


@dataclass(frozen=True)
class Listing(Answer):
    """The selected datasets of a project, measured data first, and counts of the others by state."""

    project: str
    entries: tuple[Standing, ...]
    others: Mapping[str, int]
    json_keys: ClassVar = "project datasets=documents not_listed=others"

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def documents(self) -> list[JsonObject]:
        """The datasets as JSON."""
        return as_json(self.entries)

    def table(self) -> Rows:
        return as_table(self.entries)

    def lines(self) -> Iterator[str]:
        widest = max((len(entry.state) for entry in self.entries), default=0)
        others = [column for column in columns_at(READ) if column.name not in ("mfid", "state")]
        for entry in self.entries:
            described = "  ".join(filter(None, (column.text(entry) for column in others)))
            yield f"{entry.mfid}  {entry.state:{widest}}  {described}"
        yield amount(len(self.entries), "dataset") + not_listed(self.others)


@question("list", is_table=True, announced=BEFORE)
def list_datasets(
    session: Session, project: Project = None, *, step: Step = None, pipeline: Pipeline = None,
    run: Annotated[
        str | None, option("Only what this run made or used; the beginning of its id is enough.", metavar="ID")
    ] = None,
    words: Annotated[str, option("Only with these words in its name, step, kind or instrument.", doors=ELSEWHERE)] = "",
    where: Annotated[
        str | None, option("""As in "measurement == 'Raman' and results.rms < 0.5".""", metavar="CONDITION")
    ] = None,
    sort: Annotated[
        str | None, option(
            "By name, created, state, size or another column; -name: in descending order.", metavar="FIELD"
        )
    ] = None,
    every: Annotated[bool, option("Include superseded, incomplete and doubtful datasets.", "--all")] = False,
) -> Listing:  # fmt: skip
    """List measured data, then current results in order of creation, each with its MFID, state, name and step.

    Columns for --where and --sort are those of the list, as state, step, swept.NAME, results.NAME, instrument, flags.
    """
    project = find_project(session, project)
    copy = session.mirror.snapshot(project)
    summaries = list(copy.summaries.values())
    matching = made_by(project, summaries, pipeline, step)
    if words:
        matching = [summary for summary in matching if _has_words(summary, words.casefold().split())]
    if run is not None:
        of_run = find_run(session, run, {project: copy})
        matching = [summary for summary in matching if summary.mfid in of_run]
    matching.sort(  # measured data by the time in their ids, then results by creation
        key=lambda found: (
            found.status.derived,
            "" if found.status.derived else found.mfid[:10],
            found.created,
            found.mfid,
        )
    )
    entries = list(standings(session, project, copy=copy, among=[summary.mfid for summary in matching]).values())
    available = columns_of(summaries) if where or sort else {}
    if where:
        entries = _meeting(where, entries, available)
    shown = [entry for entry in entries if every or entry.is_usable]
    shown = in_order(shown, sort, available) if sort else shown
    others = Counter(entry.state for entry in entries) - Counter(entry.state for entry in shown)
    return Listing(project, tuple(shown), dict(others))


def made_by(project: str, summaries: Collection[Summary], pipeline: str | None, step: str | None) -> list[Summary]:
    """Return the datasets of a pipeline and a step, where they are named. Raises InputError if there are none."""
    of_pipeline = [summary for summary in summaries if pipeline is None or pipeline in summary.pipelines]
    if pipeline is not None and not of_pipeline:
        raise _none_with(project, "pipeline", pipeline, {name for summary in summaries for name in summary.pipelines})
    matching = [summary for summary in of_pipeline if step is None or step in summary.steps]
    if step is not None and not matching:
        raise _none_with(project, "step", step, {name for summary in of_pipeline for name in summary.steps})
    return matching


def _meeting(where: str, entries: Sequence[Standing], available: Mapping[str, Column]) -> list[Standing]:
    """Return the datasets that meet a condition over columns."""
    condition = parse_condition(where)
    columns = {name: column_of(name, available) for name in condition.names}

    def value(entry: Standing, name: str) -> object:
        return columns[name].compared(entry)

    return [standing for standing in entries if condition.is_met(partial(value, standing), standing.mfid)]


def _none_with(project: str, kind: str, name: str, names: Collection[str]) -> InputError:
    instead = nearest(name, sorted(names)) if names else "no step has made any"
    return InputError(f"list the datasets of project {project!r}: none has the {kind} {name!r}; {instead}")


def _has_words(summary: Summary, words: Sequence[str]) -> bool:
    text = " ".join(
        (summary.name, summary.step, *summary.pipelines, summary.measurement, summary.data_type, summary.instrument)
    ).casefold()
    # Only the beginning of an MFID counts: a short word occurs within a random id by chance.
    return all(word in text or summary.mfid.startswith(word) for word in words)
