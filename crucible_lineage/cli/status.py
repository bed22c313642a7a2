"""`status`: the runs from this data folder, waiting results, and disk space; `doctor`: tests a service."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount, size_text
from crucible_lineage.ask.metrics import metrics_text
from crucible_lineage.cli.options import (
    announce,
    announced_session,
    crucible_options,
    json_option,
    next_command,
    open_session,
    print_json,
    print_result,
    wants_json,
)
from crucible_lineage.cli.printing import MOST_STEPS, in_columns, run_lines
from crucible_lineage.cli.waiting import print_not_ingested, print_others, print_set_aside, print_waiting
from crucible_lineage.core.folders import disk_usage
from crucible_lineage.core.journal import Failure, ResultRow
from crucible_lineage.errors import CrucibleError, UnreachableError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.registration.ingestion import in_words
from crucible_lineage.session import Session
from crucible_lineage.statements.failed import failed_elsewhere, failures
from crucible_lineage.statements.statements import Statement
from crucible_lineage.times import time_shown, utc

if TYPE_CHECKING:
    from crucible_lineage.ask.overview import PipelineOverview

MOST_RUNS = 10  # `runs` lists more
MOST_UNREAD = 20
PATIENCE_S = 5.0  # short: the user wants to know soon that Crucible is away


@click.command("status")
@crucible_options
@click.option("--project", help="Only this project.")
@click.option("--all", "every", is_flag=True, help="Each pipeline of each project, over all machines, and what to do.")
@click.option("--metrics", is_flag=True, help="Print metrics of this data folder for Prometheus, and nothing else.")
@json_option
def status_command(project: str | None, every: bool, metrics: bool) -> None:
    """List the last runs from this data folder, the pipelines that ran, and the results that could not be made.

    A run is under way, complete, failed, stopped, or cut short: its process ended without a report; the next run
    continues. The last lines show the size of the data folder.

    Results that wait for delivery and files that Crucible could not read are listed. With --all the exit code is 1 if
    something needs attention, 3 if Crucible is away.
    """
    if every:
        sys.exit(_print_all(project))
    from crucible_lineage.ask.runs import recent_runs  # imports pydantic, which the help does not need

    with open_session(PATIENCE_S) as session:
        if metrics:
            click.echo(metrics_text(session), nl=False)
            return
        recent = recent_runs(session.journal, session.settings.data, project, MOST_RUNS)
        pipelines = session.journal.pipelines(project)
        waiting, others = _waiting(session, project)
        damaged = session.outbox.set_aside()
        unread = [in_words(one) for one in session.store.ended_ingestions(MOST_UNREAD)]
        disk = disk_usage(session.settings.data)
        holds = _holds(session, project)
        failed = list(failures(session, project).values())
        elsewhere = failed_elsewhere(session, project)
        announce(session)
    if wants_json():
        print_json(
            {
                "runs": [run.to_json() for run in recent],
                "pipelines": pipelines,
                "failed_elsewhere": [one.to_json() for one in elsewhere],
                "failures": [one.to_json() for one in failed],
                "waiting": [one.to_json() for one in waiting],
                "waiting_of_others": len(others),
                "damaged": [one.to_json() for one in damaged],
                "not_ingested": unread,
                "disk": disk,
                "holds": [{**one.to_json(), "overdue": _is_overdue(one)} for one in holds],
            }
        )
        return
    click.echo("\n".join(run_lines(recent)) if recent else "nothing ran from this data folder yet")
    _print_pipelines(pipelines)
    _print_failures(failed)
    for other in elsewhere:
        click.echo(plain(f"{other.project}/{other.pipeline}: {other.message} (since {time_shown(other.since)})"))
    _print_holds(holds)
    print_waiting(waiting)
    print_others(others)
    print_set_aside(damaged)
    print_not_ingested(unread)
    _print_disk(disk)


def _print_all(project: str | None) -> int:
    from crucible_lineage.ask.overview import overview  # imports networkx, which the other answers do not need

    with open_session(PATIENCE_S) as session:
        announce(session)
        found = [one for one in overview(session) if project is None or one.project.casefold() == project.casefold()]
    print_result({"pipelines": [one.to_json() for one in found]}, [*_overview_lines(found), *_todo_lines(found)])
    return 1 if any(one.todo for one in found) else 0


def _todo_lines(found: Sequence[PipelineOverview]) -> Iterator[str]:
    for one in found:
        for todo in one.todo:
            since = f" since {time_shown(todo.since)}" if todo.since else ""
            yield f"{one.project}/{one.pipeline}: {todo.what}{since}"
            yield f"  {todo.command}"


def _overview_lines(found: Sequence[PipelineOverview]) -> Iterator[str]:
    if not found:
        yield "no pipeline has run"
        return
    names = ("PROJECT", "PIPELINE", "LAST RUN", "STATE", "NEWEST RESULT", "RESULTS")
    rows = []
    for one in found:
        states = ", ".join(f"{number} {state}" for state, number in one.states.items()) or "none"
        began, state = (one.run.started, one.run.ending) if one.run else ("", "")
        rows.append((one.project, one.pipeline, time_shown(began), state, time_shown(one.newest), states))
    yield from in_columns(names, rows, MOST_STEPS)


def _print_pipelines(pipelines: Sequence[JsonMapping]) -> None:
    if pipelines:
        click.echo("pipelines:")
    for pipeline in pipelines:
        click.echo(plain(f"  {pipeline['pipeline']} ({pipeline['project']}): {pipeline['declaration']}"))
        if others := [name for name in pipeline["declarations"] if name != pipeline["declaration"]]:
            shown = ", ".join(others)
            note = f"also declared by {shown}; the results of each are current side by side; rename one"
            click.echo(plain(f"    {note}"))


def _holds(session: Session, project: str | None) -> list[Statement]:
    """Return the holds; if Crucible is away, those last known."""
    try:
        session.mirror.sync_statements()
    except CrucibleError as error:
        state = "holds are as of the last command that reached Crucible"
        click.echo(plain_lines(f"warning: {state}: {error}"), err=True)
    return session.stated.holds(project)


def _print_holds(holds: Sequence[Statement]) -> None:
    if holds:
        click.echo("on hold:")
    for hold in holds:
        days = (datetime.now(UTC) - utc(hold.when)).days
        due = f"; was to be settled by {hold.due}" if _is_overdue(hold) else f"; until {hold.due}" if hold.due else ""
        click.echo(plain(f"  {hold.about}  {hold.attribution} ({amount(days, 'day')}){due}"))
    for hold in holds:
        if _is_overdue(hold):
            click.echo(
                plain(f"warning: {hold.about} was to be on hold until {hold.due}; lift it, or hold it again"), err=True
            )


def _is_overdue(hold: Statement) -> bool:
    return bool(hold.due) and hold.due < f"{datetime.now(UTC):%Y-%m-%d}"


def _waiting(session: Session, project: str | None) -> tuple[list[ResultRow], list[ResultRow]]:
    """Return the results that wait for delivery by this account, and by others; none if the account is unknown."""
    try:
        waiting = [
            one for one in session.outbox.waiting() if project is None or one.project.casefold() == project.casefold()
        ]
        return waiting, session.journal.waiting_of_others()
    except UnreachableError as error:
        state = "while Crucible is away, it is unknown whose results wait here"
        click.echo(plain_lines(f"warning: {state}: {error}"), err=True)
        return [], []


def _print_disk(used: Mapping[str, int]) -> None:
    names = {"cache": "copies of files", "work": "left by steps", "records": "records", "crucible": "embedded Crucible"}
    names |= {"environments": "environments to remake results"} if used["environments"] else {}
    click.echo("disk: " + ", ".join(f"{size_text(used[key])} {name}" for key, name in names.items()))
    if used["work"]:
        click.echo(f"to free what nothing needs: {next_command('data', 'clean')}")


def _print_failures(failed: Sequence[Failure]) -> None:
    if failed:
        click.echo("failed, and tried again:")
    for failure in failed:
        times = f"{amount(failure.failures, 'time')}, {time_shown(failure.last)}"
        click.echo(plain(f"  {failure.mfid}  {failure.pipeline}: {failure.step}, {times}"))
        click.echo(plain(f"    {failure.error.splitlines()[0]}"))


ANSWERS = {True: "yes", False: "NO", None: "?"}


@click.command("doctor")
@crucible_options
@click.option("--project", required=True, help="A scratch project, in which the tests make datasets.")
@json_option
def doctor_command(project: str) -> None:
    """Test whether a Crucible does what crucible-lineage needs.

    The tests make datasets in the project and send a file of 40 MB. At the end they request the deletion of everything
    that they made, and list it. Exit code 1 if the service does not do all that is needed.
    """
    with announced_session() as session:
        from crucible_lineage.ask.doctor import NEEDS, examine  # imports the client, which the help does not need

        findings, made = examine(session, project, lambda name: click.echo(f"trying: {name}", err=True))
    width = max(map(len, NEEDS))
    lines = [f"{'NEEDED':{width}}  HOLDS  WHAT HAPPENED"]
    for found in findings:
        lines.append(f"{found.name:{width}}  {ANSWERS[found.holds]:5}  {found.seen}")
        if found.holds is False:
            lines.append(f"{'':{width}}         needed: {NEEDS[found.name]}")
    probes = [f"  {one.mfid}  {one.name}  ({one.deletion})" for one in made]
    is_ok = all(found.holds is not False for found in findings)
    service, datasets = [one.to_json() for one in findings], [one.to_json() for one in made]
    print_result(
        {"ok": is_ok, "service": service, "made": datasets},
        [*lines, "made for this test; deletion requested:", *probes],
    )
    if not is_ok:
        sys.exit(1)
