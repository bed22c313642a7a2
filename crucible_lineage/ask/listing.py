"""`list`: the datasets of a project with their states, selected by words and conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, Rows, not_listed
from crucible_lineage.ask.columns import Surface, as_json, as_table, column_of, columns_at, columns_of, in_order
from crucible_lineage.ask.names import find_project
from crucible_lineage.ask.question import BEFORE, ELSEWHERE, Pipeline, Project, Step, option, question
from crucible_lineage.ask.runs import find_run
from crucible_lineage.condition import parse_condition
from crucible_lineage.core.tables import Summary
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.json_types import JsonObject
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standings
from crucible_lineage.text.amounts import amount


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
        others = [column for column in columns_at(Surface.TERMINAL) if column.name not in ("mfid", "state")]
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
    of_pipeline = [summary for summary in summaries if pipeline is None or pipeline in summary.pipelines]
    matching = [summary for summary in of_pipeline if step is None or step in summary.steps]
    if pipeline is not None and not of_pipeline:
        raise _none_with(project, "pipeline", pipeline, {name for summary in summaries for name in summary.pipelines})
    if step is not None and not matching:
        raise _none_with(project, "step", step, {name for summary in of_pipeline for name in summary.steps})
    if words:
        matching = [summary for summary in matching if _has_words(summary, words.casefold().split())]
    if run is not None:
        found_run = find_run(session, run, {project: copy})
        matching = [summary for summary in matching if summary.mfid in found_run.datasets]
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
        condition = parse_condition(where)
        columns = {name: column_of(name, available) for name in condition.names}

        def value(entry: Standing, name: str) -> object:
            return columns[name].compared(entry)

        entries = [standing for standing in entries if condition.is_met(partial(value, standing), standing.mfid)]
    shown = [entry for entry in entries if every or entry.is_usable]
    shown = in_order(shown, sort, available) if sort else shown
    others = Counter(entry.state for entry in entries) - Counter(entry.state for entry in shown)
    return Listing(project, tuple(shown), dict(others))


def _none_with(project: str, kind: str, name: str, names: Collection[str]) -> InputError:
    instead = nearest(name, sorted(names)) if names else "no step has made any"
    return InputError(f"list the datasets of project {project!r}: none has the {kind} {name!r}; {instead}")


def _has_words(summary: Summary, words: Sequence[str]) -> bool:
    text = " ".join(
        (summary.name, summary.step, *summary.pipelines, summary.measurement, summary.data_type, summary.instrument)
    ).casefold()
    # Only the beginning of an MFID counts: a short word occurs within a random id by chance.
    return all(word in text or summary.mfid.startswith(word) for word in words)
