"""`status`: the runs from this data folder, waiting results, and disk space; or all pipelines of all projects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, in_columns, next_command
from crucible_lineage.ask.names import shared_name
from crucible_lineage.ask.question import AFTER, COMMAND, option, question
from crucible_lineage.ask.runs import MOST_STEPS, ListedRun, recent_runs, run_rows, unusual
from crucible_lineage.ask.waiting import damaged_lines, lines_of_others, unread_lines, waiting_lines
from crucible_lineage.core.folders import disk_usage
from crucible_lineage.core.journal import Failure, ResultRow
from crucible_lineage.errors import CrucibleError, UnreachableError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.checksums import unsealed
from crucible_lineage.registration.ingestion import in_words
from crucible_lineage.registration.outbox import SetAside
from crucible_lineage.session import Session
from crucible_lineage.statements.failed import FailedRun, failed_elsewhere, failures
from crucible_lineage.statements.statements import Statement
from crucible_lineage.text.amounts import amount, size_text
from crucible_lineage.text.masking import masked_text
from crucible_lineage.text.times import time_shown, utc

if TYPE_CHECKING:
    from crucible_lineage.ask.overview import Overview

PREFIX = "crucible_lineage"
COUNTER, GAUGE = "counter", "gauge"
MOST_RUNS = 10  # `runs` lists more
MOST_UNREAD = 20
PATIENCE_S = 5.0  # short: the user wants to know soon that Crucible is away


@dataclass(frozen=True)
class FolderStatus(Answer):
    """What ran from a data folder, what failed and waits there, what is on hold, and the disk space in use."""

    runs: Sequence[ListedRun]
    pipelines: Sequence[JsonMapping]
    failed: Sequence[Failure]
    elsewhere: Sequence[FailedRun]
    holds: Sequence[Statement]
    waiting: Sequence[ResultRow]
    others: Sequence[ResultRow]
    damaged: Sequence[SetAside]
    unread: Sequence[str]
    disk: Mapping[str, int]
    unknown: Sequence[str]
    json_keys: ClassVar = (
        "runs pipelines failed_elsewhere=elsewhere failures=failed waiting waiting_of_others damaged "
        "not_ingested=unread disk holds=dated_holds"
    )

    @property
    def warnings(self) -> Sequence[str]:  # type: ignore[override]
        late = [hold for hold in self.holds if _is_overdue(hold)]
        return [
            *self.unknown,
            *(f"warning: {hold.about} was to be on hold until {hold.due}; lift it, or hold it again" for hold in late),
            *waiting_lines(self.waiting), *lines_of_others(self.others), *damaged_lines(self.damaged),
            *unread_lines(self.unread),
        ]  # fmt: skip

    @property
    def waiting_of_others(self) -> int:
        """How many results of other accounts wait here."""
        return len(self.others)

    @property
    def dated_holds(self) -> list[JsonObject]:
        """The holds, and whether their due day has passed."""
        return [{**hold.to_json(), "overdue": _is_overdue(hold)} for hold in self.holds]

    def lines(self) -> Iterator[str]:
        yield from (
            in_columns(*run_rows(self.runs), MOST_STEPS) if self.runs else ["nothing ran from this data folder yet"]
        )
        yield from _pipelines(self.pipelines)
        yield from _failures(self.failed)
        for run in self.elsewhere:
            yield f"{run.project}/{run.pipeline}: {run.message} (since {time_shown(run.since)})"
        yield from _holds(self.holds)
        names = {"cache": "copies of files", "work": "left by steps", "records": "records"}
        names |= {"crucible": "embedded Crucible"}
        names |= {"environments": "environments to remake results"} if self.disk["environments"] else {}
        yield "disk: " + ", ".join(f"{size_text(self.disk[key])} {name}" for key, name in names.items())
        if self.disk["work"]:
            yield f"to free what nothing needs: {next_command('data', 'clean')}"


@dataclass(frozen=True)
class Metrics(Answer):
    """Metrics of a data folder in the text format of Prometheus, version 0.0.4."""

    content: str
    json_keys: ClassVar = "metrics=content"

    def lines(self) -> Iterator[str]:
        yield from self.content.splitlines()


@question("status", announced=AFTER, patience_s=PATIENCE_S)
def status(
    session: Session, *, project: Annotated[str | None, option("Only this project.")] = None,
    every: Annotated[
        bool, option("Each pipeline of each project, over all machines, and what to do.", "--all")
    ] = False,
    metrics: Annotated[
        bool, option("Print metrics of this data folder for Prometheus, and nothing else.", doors=(COMMAND,))
    ] = False,
) -> FolderStatus | Overview | Metrics:  # fmt: skip
    """List the last runs from this data folder, the pipelines that ran, and the results that could not be made.

    A run is under way, complete, failed, stopped, or cut short: its process ended without a report; the next run
    continues. The last lines show the size of the data folder.

    Results that wait for delivery and files that Crucible could not read are listed. With --all the exit code is 1 if
    something needs attention, 3 if Crucible is away.
    """
    if metrics:
        return Metrics(masked_text("".join(f"{line}\n" for metric in _metrics(session) for line in _lines(metric))))
    if every:
        from crucible_lineage.ask.overview import overview  # imports networkx, which the other answers do not need

        return overview(session, project)
    unknown: list[str] = []
    waiting, others = _waiting(session, project, unknown)
    try:
        session.mirror.sync_statements()
    except CrucibleError as error:
        unknown.append(f"warning: holds are as of the last command that reached Crucible: {error}")
    journal = session.journal
    runs = recent_runs(journal, session.settings.data, project, MOST_RUNS)
    unknown += [
        f"warning: run {run.run_id} of {run.pipeline}: {text}" for run in runs if (text := unusual(run, journal))
    ]
    return FolderStatus(
        runs=runs,
        pipelines=journal.pipelines(project),
        failed=list(failures(session, project).values()),
        elsewhere=failed_elsewhere(session, project),
        holds=session.effects.holds(project),
        waiting=waiting,
        others=others,
        damaged=session.outbox.set_aside(),
        unread=[in_words(ingestion) for ingestion in session.store.ended_ingestions(MOST_UNREAD)],
        disk=disk_usage(session.settings.data),
        unknown=unknown,
    )


def _pipelines(pipelines: Sequence[JsonMapping]) -> Iterator[str]:
    if pipelines:
        yield "pipelines:"
    for pipeline in pipelines:
        yield f"  {pipeline['pipeline']} ({pipeline['project']}): {pipeline['declaration']}"
        if others := [name for name in pipeline["declarations"] if name != pipeline["declaration"]]:
            both = shared_name([Path(other) for other in (pipeline["declaration"], *others)])
            yield f"    also declared by {', '.join(others)}: {both}"


def _holds(holds: Sequence[Statement]) -> Iterator[str]:
    if holds:
        yield "on hold:"
    for hold in holds:
        days = (datetime.now(UTC) - utc(hold.when)).days
        due = f"; was to be settled by {hold.due}" if _is_overdue(hold) else f"; until {hold.due}" if hold.due else ""
        yield f"  {hold.about}  {hold.attribution} ({amount(days, 'day')}){due}"


def _is_overdue(hold: Statement) -> bool:
    return bool(hold.due) and hold.due < f"{datetime.now(UTC):%Y-%m-%d}"


def _waiting(session: Session, project: str | None, unknown: list[str]) -> tuple[list[ResultRow], list[ResultRow]]:
    """Return the results that wait for delivery by this account, and by others; none if the account is unknown."""
    try:
        waiting = [
            row for row in session.outbox.waiting() if project is None or row.project.casefold() == project.casefold()
        ]
        return waiting, session.journal.waiting_of_others()
    except UnreachableError as error:
        unknown.append(f"warning: while Crucible is away, it is unknown whose results wait here: {error}")
        return [], []


def _failures(failed: Sequence[Failure]) -> Iterator[str]:
    if failed:
        yield "failed, and tried again:"
    for failure in failed:
        times = f"{amount(failure.failures, 'time')}, {time_shown(failure.last)}"
        yield f"  {failure.mfid}  {failure.pipeline}: {failure.step}, {times}"
        yield f"    {failure.error.splitlines()[0]}"


@dataclass(frozen=True)
class Metric:
    """A metric: a counter, or a gauge, with a value for each combination of labels."""

    name: str
    kind: str
    text: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def _metrics(session: Session) -> Iterator[Metric]:
    """Yield the metrics of a session's data folder."""
    journal = session.journal
    runs = [({**_labels(row), "outcome": row[2] or "under way"}, float(row[3])) for row in journal.run_counts()]
    yield Metric("runs_total", COUNTER, "Runs started here, by outcome.", runs)
    ends = [({**_labels(row), "outcome": row[2]}, utc(row[3]).timestamp()) for row in journal.last_ends()]
    yield Metric(
        "last_run_end_timestamp_seconds", GAUGE, "End of the last run of the pipeline with this outcome.", ends
    )
    results = [
        ({"project": project, "state": state}, float(count)) for project, state, count in journal.result_counts()
    ]
    yield Metric("results_total", COUNTER, "Results of steps, by state.", results)
    yield from _deliveries(session)
    yield _gauge("failed_results", "Failed results, not made since.", len(failures(session)))
    watched = [({"project": name}, age_s) for name, age_s in _watch_ages(session)]
    yield Metric("watch_age_seconds", GAUGE, "Time since `watch` last looked without an error.", watched)
    used = [({"part": part}, float(size)) for part, size in disk_usage(session.settings.data).items()]
    yield Metric("disk_bytes", GAUGE, "Space used by the data folder.", used)


def _deliveries(session: Session) -> Iterator[Metric]:
    waiting, now = session.outbox.waiting(), datetime.now(UTC)
    ages = [(now - utc(row.made)).total_seconds() for row in waiting if row.made]
    yield _gauge("waiting_results", "Results waiting for delivery.", len(waiting))
    yield _gauge("waiting_oldest_seconds", "Age of the oldest waiting result.", max(0.0, *ages, 0.0))
    yield _gauge("waiting_refused", "Waiting results that Crucible refused.", sum(row.refused for row in waiting))
    damaged = len(session.outbox.set_aside())
    yield _gauge("damaged_results", "Results damaged while waiting.", damaged)


def _watch_ages(session: Session) -> Iterator[tuple[str, float]]:
    """Yield the projects that `watch` looks at, and how many seconds ago it last did."""
    rows = session.store.database.rows(
        "SELECT name, value FROM mark WHERE instance = ? AND name LIKE 'watching %'", session.store.instance
    )
    for name, value in rows:
        if at := dict(unsealed(value, name) or {}).get("at"):
            yield name.removeprefix("watching "), (datetime.now(UTC) - utc(at)).total_seconds()


def _labels(row: Sequence[object]) -> dict[str, str]:
    return {"pipeline": str(row[0]), "project": str(row[1])}


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(name, GAUGE, text, [({}, float(value))])


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{metric.name} {metric.text}"
    yield f"# TYPE {PREFIX}_{metric.name} {metric.kind}"
    for labels, value in metric.samples:
        named = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        yield f"{PREFIX}_{metric.name}{f'{{{named}}}' if named else ''} {value:.15g}"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
