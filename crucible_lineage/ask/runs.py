"""The runs of pipelines, from records and the journal; and what waits for delivery, is damaged or could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from crucible_lineage.ask.answer import Answer, Rows, in_columns, next_command
from crucible_lineage.ask.names import LEAST, MOST_NAMED, visible_projects
from crucible_lineage.ask.question import BEFORE, Projects, option, question
from crucible_lineage.core.folders import is_in_use
from crucible_lineage.core.folders import runs as running
from crucible_lineage.core.journal import Journal, ResultRow
from crucible_lineage.core.tables import Snapshot
from crucible_lineage.errors import MOST_NEAR, InputError, nearest, shortened
from crucible_lineage.lineage.labels import first_lines, plain
from crucible_lineage.lineage.records import prefect_ids
from crucible_lineage.registration.outbox import SetAside
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount, time_text
from crucible_lineage.text.times import time_shown, utc

NOT_KNOWN, UNDER_WAY, CUT_SHORT = "not known", "under way", "cut short"
MOST_STEPS = 300  # characters, of the summary of a run's steps
MOST_LINES = 20  # of what waits, or could not be read
UNUSUAL = 3  # chosen: times as long as the longest of the last runs


@dataclass(frozen=True)
class ListedRun:
    """A run. `made` are the datasets whose records name it (None if not searched), `incomplete` of them incomplete.

    `steps` and `state` are known only to the data folder of the run. `error` says why it could not start.
    """

    run_id: str
    pipeline: str
    project: str
    started: str
    ended: str | None = None
    state: str | None = None
    engine: str | None = None
    who: str | None = None
    steps: Mapping[str, int] | None = None
    error: str = ""
    made: tuple[str, ...] | None = None
    incomplete: int = 0
    declaration: str | None = None

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return f"{self.state or NOT_KNOWN}{f', {self.incomplete} incomplete' if self.incomplete else ''}"

    @property
    def took(self) -> str:
        """Its duration, in words; empty until it has ended."""
        return time_text((utc(self.ended) - utc(self.started)).total_seconds()) if self.ended else ""

    @property
    def did(self) -> str:
        """How many of its steps ended how, or why none started; if unknown, the number of its results."""
        if self.error:
            return plain(f"could not start: {self.error.splitlines()[0]}")
        steps = ", ".join(f"{count} {outcome}" for outcome, count in (self.steps or {}).items())
        return steps or (f"{len(self.made)} made" if self.made else "none")


@dataclass(frozen=True)
class Runs(Answer):
    """Runs, newest first, and payloads that were damaged while they waited here."""

    runs: Sequence[ListedRun]
    damaged: Sequence[SetAside]

    @property
    def warnings(self) -> Sequence[str]:  # type: ignore[override]
        return [*damaged_lines(self.damaged)]

    def table(self) -> Rows:
        return run_rows(self.runs)

    def lines(self) -> Iterator[str]:
        yield from in_columns(*run_rows(self.runs), MOST_STEPS) if self.runs else ["no runs"]
        newer: dict[tuple[str, str], str] = {}
        for run in self.runs:
            if (later := newer.setdefault((run.project, run.pipeline), run.run_id)) != run.run_id:
                yield f"to compare two: {next_command('diff', run.run_id, later)}"
                return


def run_rows(runs: Sequence[ListedRun]) -> Rows:
    """Return names of columns and a row for each run, without empty columns."""
    names = ("RUN", "STARTED", "PIPELINE", "PROJECT", "STATE", "TOOK", "BY", "STEPS")
    rows = [
        (run.run_id, time_shown(run.started), run.pipeline, run.project, run.ending, run.took, run.who or "", run.did)
        for run in runs
    ]
    filled = [at for at in range(len(names)) if any(row[at] for row in rows)]
    return [names[at] for at in filled], [[row[at] for at in filled] for row in rows]


@question("runs", announced=BEFORE)
def ask_runs(
    session: Session, *, projects: Projects = (),
    pipeline: Annotated[str | None, option("Only this pipeline.", metavar="N")] = None,
    number: Annotated[int, option("How many to list.", "-n", "--number", least=1)] = 20,
) -> Runs:  # fmt: skip
    """List the runs of pipelines, newest first: those from this data folder, and all with results in a project.

    For runs from here, the list also says how they ended. `list --run ID` shows what a run made or used.
    """
    runs = list_runs(session, projects or None, pipeline=pipeline, limit=number)
    return Runs(runs, session.outbox.set_aside())


def list_runs(
    session: Session, projects: Sequence[str] | None, *, pipeline: str | None = None, limit: int | None = None
) -> list[ListedRun]:
    """Return the runs of these projects, newest first: those of this data folder, and those that records name.

    Without projects, return those of all that the key can see, and runs from here that could not start.
    """
    journal, data = session.ran_here
    found: dict[str, ListedRun] = {}
    if projects is None and not session.is_open_to_all:
        recent = recent_runs(journal, data, None)
        found = {run.run_id: replace(run, made=()) for run in recent if run.error}
    for project in visible_projects(session) if projects is None else projects:
        copy = session.mirror.snapshot(project)
        from_here = {run.run_id: run for run in recent_runs(journal, data, project)}
        if not session.is_open_to_all:
            shown = (run for run in from_here.values() if run.steps or run.error or run.state in (UNDER_WAY, CUT_SHORT))
            found |= {run.run_id: replace(run, made=()) for run in shown}
        found |= runs_by_results(copy, project, from_here)
    newest = sorted(found.values(), key=lambda run: (run.started, run.run_id), reverse=True)
    return [run for run in newest if pipeline in (None, run.pipeline)][:limit]


def recent_runs(journal: Journal, data: Path, project: str | None, most: int = -1) -> list[ListedRun]:
    """Return the runs from a data folder, newest first."""
    found = []
    for row in journal.recent_runs(project, most):
        recorded = {name: value for name, value in row.items() if name != "outcome"}
        is_alive = row["outcome"] is None and is_in_use(running(data) / row["run_id"])
        found.append(ListedRun(**recorded, state=row["outcome"] or (UNDER_WAY if is_alive else CUT_SHORT)))
    return found


def unusual(run: ListedRun, journal: Journal) -> str:
    """Say that a run is under way for much longer than the last ones took; empty if not, or if none ended well."""
    longest = journal.longest_s(run.pipeline, run.project) if run.state == UNDER_WAY else None
    age = (datetime.now(UTC) - utc(run.started)).total_seconds()
    if longest is None or age < 60 + UNUSUAL * longest:
        return ""
    return f"under way for {time_text(age)}; the last runs took at most {time_text(longest)}"


def find_run(session: Session, text: str, copies: Mapping[str, Snapshot]) -> set[str]:
    """Return the visible datasets that a run made or used. `text` is its id, or the beginning of that.

    The id of a Prefect flow run or task run stands for all its runs. `copies` are the projects to search.
    Raises InputError if none or several match, and names the nearest ones.
    """
    made_by = {
        mfid: summary.made_by.run_id
        for copy in copies.values()
        for mfid, summary in copy.summaries.items()
        if summary.made_by
    }
    made: dict[str, set[str]] = {}
    for mfid, run_id in made_by.items():
        made.setdefault(run_id, set()).add(mfid)
    run_ids = {run_id for project in copies for run_id in session.journal.runs_of(project)}.union(made)
    runs_by_id = {run_id: {run_id} for run_id in run_ids}
    if not (found := _starting_with(text, runs_by_id)):
        runs_by_id = _by_prefect_ids(copies, made_by)
        found = _starting_with(text, runs_by_id)
    if not found:
        near = nearest(text, sorted(run_ids), most=MOST_NEAR)
        raise InputError(f"run {text!r}: no run has this ID, or an ID starting with it; {near}; `runs` lists the runs")
    if len(found) > 1:
        raise InputError(
            f"run {text!r}: matches {amount(len(found), 'run')}; choose one: {shortened(found, MOST_NAMED)}"
        )
    runs = runs_by_id[found[0]]
    used = {mfid for run in runs for mfid in made.get(run, ())}
    used |= {mfid for run in runs for *_, datasets in session.journal.run_steps(run) for mfid in datasets.values()}
    return {mfid for mfid in used if any(mfid in copy.records for copy in copies.values())}


def _by_prefect_ids(copies: Mapping[str, Snapshot], made_by: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the runs that made these datasets, by the ids of their Prefect flow runs and task runs."""
    found: dict[str, set[str]] = {}
    for copy in copies.values():
        for mfid in copy.summaries.keys() & made_by.keys():
            for prefect_id in prefect_ids(copy.records[mfid]):
                found.setdefault(prefect_id, set()).add(made_by[mfid])
    return found


def _starting_with(text: str, ids: Iterable[str]) -> list[str]:
    return [mfid for mfid in ids if mfid == text] or sorted(
        mfid for mfid in ids if len(text) >= LEAST and mfid.startswith(text)
    )


def runs_by_results(copy: Snapshot, project: str, from_here: Mapping[str, ListedRun]) -> dict[str, ListedRun]:
    """Return the runs that the records of a project name, by id, completed by what a data folder knows.

    Those of other folders last from the first step's start to the last end; their state is not known.
    """
    found: dict[str, ListedRun] = {}
    made: dict[str, list[str]] = {}
    for mfid, summary in copy.summaries.items():
        if summary.step and (made_by := summary.made_by):
            run_id, started, ended = made_by.run_id, made_by.started, made_by.ended or ""
            whose = made_by.engine or None, made_by.who or None
            run = found.setdefault(run_id, ListedRun(run_id, summary.pipeline, project, started, ended, None, *whose))
            found[run_id] = replace(run, started=min(run.started, started), ended=max(run.ended or "", ended))
            made.setdefault(run_id, []).append(mfid)
    return {
        run_id: replace(
            from_here.get(run_id) or run,
            engine=run.engine,
            who=run.who,
            made=tuple(sorted(made[run_id])),
            incomplete=sum(not copy.summaries[mfid].status.complete for mfid in made[run_id]),
        )
        for run_id, run in found.items()
    }


def waiting_lines(waiting: Sequence[ResultRow]) -> Iterator[str]:
    """Yield the results that wait for delivery, since when, and why."""
    if not waiting:
        return
    datasets = amount(sum(len(row.mfids) for row in waiting), "dataset")
    yield f"not at Crucible yet: {datasets}, made and kept here since {time_shown(min(row.made for row in waiting))}"
    more = f"  ... and {amount(len(waiting) - MOST_LINES, 'more step')}"
    lines = []
    for row in waiting:
        word = "refused" if row.refused else "waits"
        tried = f", tried {row.tries} times" if row.tries > 1 else ""
        reason = f": {row.error.splitlines()[0]}" if row.error else ""
        lines.append(f"  {', '.join(row.mfids)}  {row.step} ({row.project}) {word}{tried}{reason}")
    yield from first_lines(lines, MOST_LINES, more)
    yield f"to deliver them: {next_command('push')}, or run the same command again; nothing is made twice"


def damaged_lines(damaged: Sequence[SetAside]) -> Iterator[str]:
    """Yield the payloads that were damaged while they waited, and what to do about them."""
    for set_aside in damaged:
        result = f"{set_aside.step} ({set_aside.project})" if set_aside.step else "a result"
        yield f"damaged while it waited: {set_aside.name}  {result}: {set_aside.error}; kept in {set_aside.folder}"
    if damaged:
        command = next_command("data", "clean", "--damaged", "MFID")
        yield f"run the pipeline again to remake it, then remove the damaged one: {command}"


def unread_lines(unread: Sequence[str]) -> Iterator[str]:
    """Yield the files that Crucible could not read."""
    more = f"not ingested: {amount(len(unread) - MOST_LINES, 'more file')}"
    yield from (f"note: {line}" for line in first_lines(unread, MOST_LINES, more))
