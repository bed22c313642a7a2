"""A facility's view: each pipeline of each project over all machines, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import ClassVar

from crucible_lineage.ask.answer import Answer, Rows, in_columns, next_command
from crucible_lineage.ask.lineages import fetch_projects
from crucible_lineage.ask.runs import MOST_STEPS, ListedRun, list_runs, unusual
from crucible_lineage.core.journal import Failure, Journal, ResultRow
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.checks import made_of_superseded
from crucible_lineage.lineage.model import CANDIDATE, IN_PLACE, INCOMPLETE, SUPERSEDED
from crucible_lineage.pipeline.run.result import Outcome
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standings
from crucible_lineage.statements.failed import failed_elsewhere, failures
from crucible_lineage.text.amounts import amount, time_text
from crucible_lineage.text.times import time_shown, utc


@dataclass(frozen=True)
class ActionItem:
    """A problem, its start, and the command that resolves it."""

    what: str
    since: str
    command: str


@dataclass(frozen=True)
class PipelineOverview:
    """The status of a pipeline. `states` count its results at Crucible; `newest` is the time of its newest result.

    `run` is its newest run, from this data folder or from records.
    """

    project: str
    pipeline: str
    states: Mapping[str, int]
    run: ListedRun | None
    todo: tuple[ActionItem, ...]
    newest: str = ""
    json_keys: ClassVar = "project pipeline states newest_result=newest run todo"


@dataclass(frozen=True)
class Overview(Answer):
    """All pipelines of all projects, those that need attention first."""

    pipelines: Sequence[PipelineOverview]

    @property
    def is_alarm(self) -> bool:  # type: ignore[override]
        return any(pipeline.todo for pipeline in self.pipelines)

    def table(self) -> Rows:
        rows = []
        for pipeline in self.pipelines:
            states = ", ".join(f"{number} {state}" for state, number in pipeline.states.items()) or "none"
            began, state = (pipeline.run.started, pipeline.run.ending) if pipeline.run else ("", "")
            rows.append(
                (pipeline.project, pipeline.pipeline, time_shown(began), state, time_shown(pipeline.newest), states)
            )
        return ("PROJECT", "PIPELINE", "LAST RUN", "STATE", "NEWEST RESULT", "RESULTS"), rows

    def lines(self) -> Iterator[str]:
        yield from in_columns(*self.table(), MOST_STEPS) if self.pipelines else ["no pipeline has run"]
        for pipeline in self.pipelines:
            for todo in pipeline.todo:
                since = f" since {time_shown(todo.since)}" if todo.since else ""
                yield f"{pipeline.project}/{pipeline.pipeline}: {todo.what}{since}"
                yield f"  {todo.command}"


def overview(session: Session, project: str | None = None) -> Overview:
    """Return all pipelines that this key can see or that ran here, those that need attention first.

    Failures and waiting results are those of this data folder; pipelines whose last run failed, those of all machines.
    Raises UnreachableError if the service is away.
    """
    session.mirror.sync_statements()
    visible = [project.project_id for project in session.client.projects.list()]
    projects = [name for name in visible if project is None or name.casefold() == project.casefold()]
    found = [pipeline for name in projects for pipeline in _of_project(session, name)]
    return Overview(
        sorted(found, key=lambda pipeline: (not pipeline.todo, pipeline.project.casefold(), pipeline.pipeline))
    )


def _of_project(session: Session, project: str) -> Iterator[PipelineOverview]:
    copy, journal = session.mirror.snapshot(project), session.journal
    found = standings(session, project, copy=copy)
    results: dict[str, list[Standing]] = {}
    for standing in found.values():
        for name in standing.summary.pipelines:
            results.setdefault(name, []).append(standing)
    outdated = _outdated(session, project, found)
    runs = {run.pipeline: run for run in reversed(list_runs(session, [project]))}  # the newest of each
    ran_here = {run["run_id"]: run["pipeline"] for run in journal.recent_runs(project, -1)}
    declared = {pipeline["pipeline"]: str(pipeline["declaration"] or "") for pipeline in journal.pipelines(project)}
    elsewhere, failed = failed_elsewhere(session, project), list(failures(session, project).values())
    waiting = [row for row in session.outbox.waiting() if row.project.casefold() == project.casefold()]
    named = {*(failure.pipeline for failure in failed), *(run.pipeline for run in elsewhere)}
    for name in sorted({*results, *runs, *declared, *named}):
        states = Counter(entry.state for entry in results.get(name, ()))
        newest = max((entry.summary.created for entry in results.get(name, ())), default="")
        again = next_command("run", declared.get(name) or "PIPELINE.yaml")
        todo = (
            *_late(name, declared.get(name, ""), newest, again),
            *(_of_run(runs[name], journal, again) if name in runs else ()),
            *(
                ActionItem(run.message, run.since, next_command("runs", "--pipeline", name, "--project", project))
                for run in elsewhere
                if run.pipeline == name
            ),
            *(_failed(failure, again) for failure in failed if failure.pipeline == name),
            *_undelivered([row for row in waiting if ran_here.get(row.run) == name]),
            *_of_results(project, states, outdated[name], again),
        )
        yield PipelineOverview(project, name, dict(sorted(states.items())), runs.get(name), todo, newest)


def _outdated(session: Session, project: str, entries: Mapping[str, Standing]) -> Counter[str]:
    """Count by pipeline the current results that were made from superseded ones and would differ now.

    The project's lineage is fetched only if there may be any.
    """
    superseded = {mfid for mfid, standing in entries.items() if standing.state == SUPERSEDED}
    if not any(
        standing.state in IN_PLACE and not superseded.isdisjoint(standing.summary.parents)
        for standing in entries.values()
    ):
        return Counter()
    graph = fetch_projects(session, [project])
    found = (finding for node in graph.nodes.values() for finding in made_of_superseded(graph, node))
    return Counter(entries[finding.ids[0]].summary.pipeline for finding in found)


def _of_run(run: ListedRun, journal: Journal, again: str) -> Iterator[ActionItem]:
    """Yield what is wrong with the last run of a pipeline."""
    if run.state in ("failed", "cut short", "stopped"):
        reason = run.error.partition("\n")[0]
        problem = f"the last run here could not start: {reason}" if reason else f"the last run here is {run.state}"
        yield ActionItem(problem, run.ended or run.started, again)
    if problem := unusual(run, journal):
        command = next_command("runs", "--pipeline", run.pipeline, "--project", run.project)
        yield ActionItem(f"the last run here is {problem}", run.started, command)
    if run.state == Outcome.ON_HOLD:
        command = next_command("statements", "--project", run.project)
        yield ActionItem("the last run here is on hold", run.ended or run.started, command)


def _failed(failure: Failure, again: str) -> ActionItem:
    reason = failure.error.partition("\n")[0].removeprefix(f"step {failure.step!r} failed: ")
    return ActionItem(f"{failure.step} failed {amount(failure.failures, 'time')}: {reason}", failure.last, again)


def _undelivered(waiting: Sequence[ResultRow]) -> Iterator[ActionItem]:
    if waiting:
        refused = sum(row.refused for row in waiting)
        problem = f"{amount(len(waiting), 'result')} made here and not delivered"
        problem += f", {refused} refused by Crucible" if refused else ""
        yield ActionItem(problem, min(row.made for row in waiting), next_command("push"))


def _of_results(project: str, states: Counter[str], outdated: int, again: str) -> Iterator[ActionItem]:
    for number, word, state, command in (
        (
            outdated,
            "current result",
            "made of what is superseded",
            next_command("rerun", "--stale", "--project", project),
        ),
        (states[CANDIDATE], "result", "to be signed", next_command("list", "--project", project)),
        (states[INCOMPLETE], "result", "incomplete", again),
    ):
        if number:
            yield ActionItem(f"{amount(number, word)} {state}", "", command)


def _late(name: str, declared: str, newest: str, again: str) -> Iterator[ActionItem]:
    """Describe the way out if no result arrived for as long as the pipeline declares (`fresh`)."""
    from crucible_lineage.pipeline.declare.load import read_declaration

    if not Path(declared).is_file():
        return
    with suppress(InputError):  # `check` names its faults
        spec = read_declaration(Path(declared)).spec
        within = spec.fresh.within if spec and spec.fresh else None
        age = (datetime.now(UTC) - utc(newest)).total_seconds() if newest else inf
        if within is not None and age > within and spec and spec.pipeline == name:
            yield ActionItem(f"no result for more than {time_text(within)}, as is declared", newest, again)
