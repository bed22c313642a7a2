"""`status`: the runs from this data folder, waiting results, and disk space; or, as a facility sees them, all pipelines
of all projects over all machines, and what to do about each."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, Done, Rows, in_columns, next_command
from crucible_lineage.ask.names import shared_name
from crucible_lineage.ask.question import AFTER, COMMAND, OneProject, option, question
from crucible_lineage.ask.runs import (
    MOST_STEPS,
    ListedRun,
    damaged_lines,
    list_runs,
    recent_runs,
    run_rows,
    unread_lines,
    unusual,
    waiting_lines,
)
from crucible_lineage.core.folders import disk_usage
from crucible_lineage.core.journal import COMPLETE, UNDER_WAY, Failure, Journal, RequestRow, ResultRow
from crucible_lineage.errors import CrucibleError, UnreachableError
from crucible_lineage.json_types import JsonMapping, object_of
from crucible_lineage.lineage.model import CANDIDATE, IN_PLACE, INCOMPLETE, SUPERSEDED
from crucible_lineage.machine.checksums import unsealed
from crucible_lineage.registration.ingestion import in_words
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standings
from crucible_lineage.statements.failed import FailedRun, failed_elsewhere, failures
from crucible_lineage.statements.statements import Statement
from crucible_lineage.text.amounts import amount, size_text
from crucible_lineage.text.masking import masked_text
from crucible_lineage.text.times import time_shown, utc

PREFIX = "crucible_lineage"
COUNTER, GAUGE = "counter", "gauge"
TRACEBACK = "; the traceback is in "  # in an error, before the path of a log
MOST_RUNS = 10  # `runs` lists more
MOST_UNREAD = 20
LONG_H = 1.0  # chosen: who answers a request for longer was probably killed
PATIENCE_S = 5.0  # short: the user wants to know soon that Crucible is away


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


@question("status", announced=AFTER, patience_s=PATIENCE_S)
def status(
    session: Session, *, project: OneProject = None,
    every: Annotated[
        bool, option("Each pipeline of each project, over all machines, and what to do.", "--all")
    ] = False,
    metrics: Annotated[
        bool, option("Print metrics of this data folder for Prometheus, and nothing else.", doors=(COMMAND,))
    ] = False,
) -> Overview | Done:  # fmt: skip
    """List the last runs from this data folder, the pipelines that ran, and the results that could not be made.

    A run is under way, complete, failed, stopped, or cut short: its process ended without a report; the next run
    continues. The last lines show the size of the data folder.

    Results that wait for delivery and files that Crucible could not read are listed. With --all the exit code is 1 if
    something needs attention, 3 if Crucible is away.
    """
    if metrics:
        content = masked_text("".join(f"{line}\n" for line in _metrics(session)))
        return Done({"metrics": content}, content.splitlines(), content=content)
    if every:
        return overview(session, project)
    return _of_folder(session, project)


def _of_folder(session: Session, project: str | None) -> Done:
    """Return what ran from a data folder, what failed and waits there, what is on hold, and the disk space in use."""
    unknown: list[str] = []
    waiting, others = list[ResultRow](), list[ResultRow]()
    try:
        own = session.outbox.waiting()
        waiting = [row for row in own if project is None or row.project.casefold() == project.casefold()]
        others = session.journal.waiting(of_others=True)
    except UnreachableError as error:
        unknown.append(f"warning: while Crucible is away, it is unknown whose results wait here: {error}")
    try:
        session.mirror.sync_statements()
    except CrucibleError as error:
        unknown.append(f"warning: holds are as of the last command that reached Crucible: {error}")
    journal = session.journal
    runs = recent_runs(journal, session.settings.data, project, MOST_RUNS)
    unknown += [
        f"warning: run {run.run_id} of {run.pipeline}: {text}" for run in runs if (text := unusual(run, journal))
    ]
    pipelines, holds = journal.pipelines(project), session.effects.holds(project)
    failed, elsewhere = list(failures(session, project).values()), failed_elsewhere(session, project)
    requests = journal.requests(project)
    damaged, disk = session.outbox.set_aside(), disk_usage(session.settings.data)
    unread = [in_words(ingestion) for ingestion in session.store.ended_ingestions(MOST_UNREAD)]
    document = {
        "runs": runs, "pipelines": pipelines, "failed_elsewhere": elsewhere, "failures": failed, "waiting": waiting,
        "waiting_of_others": len(others), "damaged": damaged, "not_ingested": unread, "disk": disk,
        "requests": requests[:MOST_RUNS],
        "holds": [{**object_of(hold), "overdue": _is_overdue(hold)} for hold in holds],
    }  # fmt: skip
    lines = (
        *(in_columns(*run_rows(runs), MOST_STEPS) if runs else ["nothing ran from this data folder yet"]),
        *_pipeline_lines(pipelines), *_request_lines(requests), *_failure_lines(failed, elsewhere), *_hold_lines(holds),
        *_disk_lines(disk),
    )  # fmt: skip
    late = [
        f"warning: {hold.about} was to be on hold until {hold.due}; lift it, or hold it again"
        for hold in holds
        if _is_overdue(hold)
    ]
    waits = Counter(row.account for row in others)
    of_others = [  # only those accounts can deliver them
        f"not at Crucible yet: {amount(number, 'result waits', 'results wait')} for account {account}; "
        "only that account can deliver"
        for account, number in sorted(waits.items())
    ]
    warnings = (*unknown, *late, *waiting_lines(waiting), *of_others, *damaged_lines(damaged), *unread_lines(unread))
    return Done(document, lines, warnings=warnings)


def _pipeline_lines(pipelines: Sequence[JsonMapping]) -> Iterator[str]:
    yield from ["pipelines:"] if pipelines else ()
    for pipeline in pipelines:
        yield f"  {pipeline['pipeline']} ({pipeline['project']}): {pipeline['declaration']}"
        if others := [name for name in pipeline["declarations"] if name != pipeline["declaration"]]:
            both = shared_name([Path(other) for other in (pipeline["declaration"], *others)])
            yield f"    also declared by {', '.join(others)}: {both}"


def _request_lines(requests: Sequence[RequestRow]) -> Iterator[str]:
    yield from ["requests:"] if requests else ()
    for request in requests[:MOST_RUNS]:
        ended = ": ".join(filter(None, (request.state, request.reason or ", ".join(request.results))))
        yield f"  {request.kind} of {request.dataset}: {ended} ({time_shown(request.at)})"


def _failure_lines(failed: Sequence[Failure], elsewhere: Sequence[FailedRun]) -> Iterator[str]:
    yield from ["failed, and tried again:"] if failed else ()
    for failure in failed:
        times = f"{amount(failure.failures, 'time')}, {time_shown(failure.last)}"
        yield f"  {failure.mfid}  {failure.pipeline}: {failure.step}, {times}"
        yield f"    {failure.error.splitlines()[0]}"
    for run in elsewhere:
        yield f"{run.project}/{run.pipeline}: {run.message} (since {time_shown(run.since)})"


def _hold_lines(holds: Sequence[Statement]) -> Iterator[str]:
    yield from ["on hold:"] if holds else ()
    for hold in holds:
        days = amount((datetime.now(UTC) - utc(hold.when)).days, "day")
        due = f"; until {hold.due}" if hold.due else ""
        due = f"; was to be settled by {hold.due}" if _is_overdue(hold) else due
        yield f"  {hold.about}  {hold.attribution} ({days}){due}"


def _disk_lines(disk: Mapping[str, int]) -> Iterator[str]:
    names = {"cache": "copies of files", "work": "left by steps", "records": "records"}
    names |= {"crucible": "embedded Crucible"}
    names |= {"environments": "environments to remake results"} if disk["environments"] else {}
    yield "disk: " + ", ".join(f"{size_text(disk[key])} {name}" for key, name in names.items())
    if disk["work"]:
        yield f"to free what nothing needs: {next_command('data', 'clean')}"


def _is_overdue(hold: Statement) -> bool:
    return bool(hold.due) and hold.due < f"{datetime.now(UTC):%Y-%m-%d}"


def _metrics(session: Session) -> Iterator[str]:
    """Yield the lines of the metrics of a session's data folder."""
    journal, now = session.journal, datetime.now(UTC)
    counts = journal.run_counts()
    runs = [({**_labels(row), "outcome": row[2] or "under way"}, float(row[3])) for row in counts]
    yield from _metric("runs_total", COUNTER, "Runs started here, by outcome.", runs)
    ends = [({**_labels(row), "outcome": row[2]}, utc(row[4]).timestamp()) for row in counts if row[2] and row[4]]
    text = "End of the last run of the pipeline with this outcome."
    yield from _metric("last_run_end_timestamp_seconds", GAUGE, text, ends)
    results = [
        ({"project": project, "state": state}, float(count)) for project, state, count in journal.result_counts()
    ]
    yield from _metric("results_total", COUNTER, "Results of steps, by state.", results)
    waiting = session.outbox.waiting()
    oldest_s = max(0.0, *((now - utc(row.made)).total_seconds() for row in waiting if row.made), 0.0)
    refused, damaged = sum(row.refused for row in waiting), len(session.outbox.set_aside())
    yield from _metric("waiting_results", GAUGE, "Results waiting for delivery.", [({}, len(waiting))])
    yield from _metric("waiting_oldest_seconds", GAUGE, "Age of the oldest waiting result.", [({}, oldest_s)])
    yield from _metric("waiting_refused", GAUGE, "Waiting results that Crucible refused.", [({}, refused)])
    yield from _metric("damaged_results", GAUGE, "Results damaged while waiting.", [({}, damaged)])
    yield from _metric("failed_results", GAUGE, "Failed results, not made since.", [({}, len(failures(session)))])
    rows = session.store.rows(
        "SELECT name, value FROM mark WHERE instance = ? AND name LIKE 'watching %'", session.store.instance
    )
    watched = [
        ({"project": name.removeprefix("watching ")}, (now - utc(at)).total_seconds())
        for name, value in rows
        if (at := dict(unsealed(value, name) or {}).get("at"))
    ]
    yield from _metric("watch_age_seconds", GAUGE, "Time since `watch` last looked without an error.", watched)
    used = [({"part": part}, float(size)) for part, size in disk_usage(session.settings.data).items()]
    yield from _metric("disk_bytes", GAUGE, "Space used by the data folder.", used)


def _labels(row: Sequence[object]) -> dict[str, str]:
    return {"pipeline": str(row[0]), "project": str(row[1])}


def _metric(name: str, kind: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    """Yield a metric: a counter, or a gauge, with a value for each combination of labels."""
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"
    for labels, value in samples:
        named = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        yield f"{PREFIX}_{name}{f'{{{named}}}' if named else ''} {value:.15g}"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def overview(session: Session, project: str | None = None) -> Overview:
    """Return all pipelines that this key can see or that ran here, those that need attention first.

    Failures and waiting results are those of this data folder; pipelines whose last run failed, those of all machines.
    Raises UnreachableError if the service is away.
    """
    session.mirror.sync_statements()
    visible = [project.project_id for project in session.client.projects.list()]
    projects = [name for name in visible if project is None or name.casefold() == project.casefold()]
    found = [pipeline for name in projects for pipeline in _of_project(session, name)]
    declared = _declarations(session.journal, None)
    found += [PipelineOverview("", name, {}, None, (todo,)) for name, todo in _unanswered(session, "", declared)]
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
    declared = _declarations(journal, project)
    problems = dict[str, list[ActionItem]]()
    asked = _unanswered(session, project, declared)
    for name, problem in (*_failed(session, project, declared), *asked, *_undelivered(session, project)):
        problems.setdefault(name, []).append(problem)
    for name in sorted({*results, *runs, *declared, *problems}):
        states = Counter(entry.state for entry in results.get(name, ()))
        newest = max((entry.summary.created for entry in results.get(name, ())), default="")
        again = _again(declared.get(name))
        todo = (
            *(_of_run(runs[name], journal, again, has_cause=name in problems) if name in runs else ()),
            *problems.get(name, ()),
            *_unsettled(project, outdated[name], states, again),
        )
        yield PipelineOverview(project, name, dict(sorted(states.items())), runs.get(name), todo, newest)


def _declarations(journal: Journal, project: str | None) -> dict[str, str]:
    return {pipeline["pipeline"]: str(pipeline["declaration"] or "") for pipeline in journal.pipelines(project)}


def _again(declaration: str | None) -> str:
    return next_command("run", declaration or "PIPELINE.yaml")


def _unsettled(project: str, outdated: int, states: Mapping[str, int], again: str) -> Iterator[ActionItem]:
    """Yield the results of a pipeline that are to be made again, signed, or completed."""
    rerun, listed = next_command("rerun", "--stale", "--project", project), next_command("list", "--project", project)
    for number, word, state, command in (
        (outdated, "current result", "made of what is superseded", rerun),
        (states[CANDIDATE], "result", "to be signed", listed),
        (states[INCOMPLETE], "result", "incomplete", again),
    ):
        if number:
            yield ActionItem(f"{amount(number, word)} {state}", "", command)


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
    # These import networkx, which the other answers do not need.
    from crucible_lineage.ask.lineages import fetch_projects
    from crucible_lineage.lineage.checks import made_of_superseded

    graph = fetch_projects(session, [project])
    found = (finding for node in graph.nodes.values() for finding in made_of_superseded(graph, node))
    return Counter(entries[finding.ids[0]].summary.pipeline for finding in found)


def _of_run(run: ListedRun, journal: Journal, again: str, *, has_cause: bool) -> Iterator[ActionItem]:
    """Yield what is wrong with the last run of a pipeline; not that it failed, if its cause is listed."""
    from crucible_lineage.pipeline.job.job import Outcome  # imports pydantic, which the other answers do not need

    if run.state in ("cut short", "stopped") or (run.state == "failed" and (run.error or not has_cause)):
        reason = run.error.partition("\n")[0]
        problem = f"the last run here could not start: {reason}" if reason else f"the last run here is {run.state}"
        yield ActionItem(problem, run.ended or run.started, again)
    if problem := unusual(run, journal):
        command = next_command("runs", "--pipeline", run.pipeline, "--project", run.project)
        yield ActionItem(f"the last run here is {problem}", run.started, command)
    if run.state == Outcome.ON_HOLD:
        command = next_command("statements", "--project", run.project)
        yield ActionItem("the last run here is on hold", run.ended or run.started, command)


def _failed(session: Session, project: str, declared: Mapping[str, str]) -> Iterator[tuple[str, ActionItem]]:
    """Yield each fault with its pipeline: runs that failed elsewhere, and failed steps, their instances together."""
    for run in failed_elsewhere(session, project):
        command = next_command("runs", "--pipeline", run.pipeline, "--project", project)
        yield run.pipeline, ActionItem(run.message, run.since, command)
    faults: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failures(session, project).values():
        what = failure.error.partition("\n")[0].partition(TRACEBACK)[0].removeprefix(f"step {failure.step!r} failed: ")
        faults.setdefault((failure.pipeline, failure.step.partition("[")[0], what), []).append(failure)
    for (pipeline, step, _), same in faults.items():
        first, times = min(same, key=lambda failure: failure.step), max(failure.failures for failure in same)
        named = first.step if len(same) == 1 else f"{step} ({len(same)} instances)"
        reason = first.error.partition("\n")[0].removeprefix(f"step {first.step!r} failed: ")
        problem = f"{named} failed {amount(times, 'time')}: {reason}"
        yield pipeline, ActionItem(problem, max(failure.last for failure in same), _again(declared.get(pipeline)))


def _unanswered(session: Session, project: str, declared: Mapping[str, str]) -> Iterator[tuple[str, ActionItem]]:
    """Yield the requests that were taken here and have no result, by pipeline."""
    for request in session.journal.requests(project):
        hours = (datetime.now(UTC) - utc(request.at)) / timedelta(hours=1)
        if request.pipeline and request.state != COMPLETE and not (request.state == UNDER_WAY and hours < LONG_H):
            reason = f": {request.reason}" if request.reason else ""
            problem = f"request {request.kind} of {request.dataset} {request.state}{reason}"
            again = next_command("answer", declared.get(request.pipeline) or "PIPELINE.yaml", "--queue", "-")
            message = json.dumps({"dsid": request.dataset, "parameters": request.parameters})
            yield request.pipeline, ActionItem(problem, request.at, f"echo {shlex.quote(message)} | {again}")


def _undelivered(session: Session, project: str) -> Iterator[tuple[str, ActionItem]]:
    """Yield the results that were made here and not delivered, by pipeline."""
    ran_here = {run["run_id"]: run["pipeline"] for run in session.journal.recent_runs(project, -1)}
    waiting: dict[str, list[ResultRow]] = {}
    for row in session.outbox.waiting():
        if row.project.casefold() == project.casefold() and row.run in ran_here:
            waiting.setdefault(ran_here[row.run], []).append(row)
    for pipeline, rows in waiting.items():
        refused = sum(row.refused for row in rows)
        problem = f"{amount(len(rows), 'result')} made here and not delivered"
        problem += f", {refused} refused by Crucible" if refused else ""
        yield pipeline, ActionItem(problem, min(row.made for row in rows), next_command("push"))
