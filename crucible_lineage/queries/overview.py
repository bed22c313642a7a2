"""A facility's view: each pipeline of each project over all machines, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TypeVar

from crucible_lineage.amounts import amount, time_text
from crucible_lineage.core.journal import Failure, ResultRow
from crucible_lineage.core.slots import CURRENT, INCOMPLETE, SUPERSEDED
from crucible_lineage.errors import InputError
from crucible_lineage.failed_runs import FailedRun, failed_elsewhere, failures
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.model import CANDIDATE
from crucible_lineage.queries.catalogue.runs import ListedRun, list_runs
from crucible_lineage.queries.check import made_of_superseded
from crucible_lineage.queries.graph.fetch import fetch_projects
from crucible_lineage.queries.graph.state import DatasetEntry, entries_of_copy, stated_entries
from crucible_lineage.session import Session
from crucible_lineage.times import utc

InProject = TypeVar("InProject", Failure, ResultRow)


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
    newest: str
    run: ListedRun | None
    todo: tuple[ActionItem, ...]

    def to_json(self) -> JsonObject:
        """Return the entry of `status --all --json`."""
        return {
            "project": self.project,
            "pipeline": self.pipeline,
            "states": dict(self.states),
            "newest_result": self.newest or None,
            "run": self.run.to_json() if self.run else None,
            "todo": [vars(one) for one in self.todo],
        }


def overview(session: Session) -> list[PipelineOverview]:
    """Return all pipelines that this key can see or that ran here, those that need attention first.

    Failures and waiting results are those of this data folder; pipelines whose last run failed, those of all machines.
    Raises UnreachableError if the service is away.
    """
    session.mirror.sync_statements()
    projects = [one.project_id for one in session.client.projects.list()]
    failed = list(failures(session).values())
    waiting = session.outbox.waiting()
    found = [
        one
        for project in projects
        for one in _of_project(session, project, _within(failed, project), _within(waiting, project))
    ]
    return sorted(found, key=lambda one: (not one.todo, one.project.casefold(), one.pipeline))


def _within(found: Iterable[InProject], project: str) -> list[InProject]:
    return [one for one in found if one.project.casefold() == project.casefold()]


def _of_project(
    session: Session, project: str, failed: Sequence[Failure], waiting: Sequence[ResultRow]
) -> list[PipelineOverview]:
    copy = session.mirror.snapshot(project)
    recorded = entries_of_copy(copy)
    entries = stated_entries(session, recorded, project, copy.summaries)
    outdated = _outdated(session, project, recorded)
    runs: dict[str, ListedRun] = {}
    for run in list_runs(session, [project]):
        runs.setdefault(run.pipeline, run)
    ran_here = {one["run_id"]: one["pipeline"] for one in session.journal.recent_runs(project, -1)}
    declared = {one["pipeline"]: str(one["declaration"] or "") for one in session.journal.pipelines(project)}
    stated: dict[str, Counter[str]] = {}
    created: dict[str, str] = {}
    for entry in entries.values():
        if pipeline := entry.summary.pipeline:
            stated.setdefault(pipeline, Counter())[entry.state] += 1
            created[pipeline] = max(created.get(pipeline, ""), entry.summary.created)
    elsewhere = failed_elsewhere(session, project)
    named = {*(one.pipeline for one in failed), *(one.pipeline for one in elsewhere)}
    names = sorted({*stated, *runs, *declared, *named})
    return [
        PipelineOverview(
            project,
            name,
            dict(stated.get(name, ())),
            created.get(name, ""),
            runs.get(name),
            tuple(
                _todo(
                    project,
                    [one for one in failed if one.pipeline == name],
                    [one for one in waiting if ran_here.get(one.run) == name],
                    stated.get(name, Counter()),
                    outdated[name],
                    runs.get(name),
                    [one for one in elsewhere if one.pipeline == name],
                    declared.get(name) or "PIPELINE.yaml",
                    created.get(name, ""),
                )
            ),
        )
        for name in names
    ]


def _outdated(session: Session, project: str, entries: Mapping[str, DatasetEntry]) -> Counter[str]:
    """Count by pipeline the current results that were made from superseded ones and would differ now.

    The project's lineage is fetched only if there may be any.
    """
    superseded = {mfid for mfid, one in entries.items() if one.state == SUPERSEDED}
    if not any(one.state == CURRENT and not superseded.isdisjoint(one.summary.parents) for one in entries.values()):
        return Counter()
    fetched = fetch_projects(session, [project])
    return Counter(fetched.summaries[one.ids[0]].pipeline for one in made_of_superseded(fetched.graph))


def _todo(
    project: str,
    failed: Sequence[Failure],
    waiting: Sequence[ResultRow],
    stated: Counter[str],
    outdated: int,
    run: ListedRun | None,
    elsewhere: Sequence[FailedRun],
    declared: str,
    newest: str,
) -> Iterable[ActionItem]:
    again = f"crucible-lineage run {declared}"
    yield from _late(declared, newest, again)
    if run and run.state in ("failed", "cut short", "stopped"):
        reason = run.error.partition("\n")[0]
        problem = f"the last run here could not start: {reason}" if reason else f"the last run here is {run.state}"
        yield ActionItem(problem, run.ended or run.started, again)
    for other in elsewhere:
        yield ActionItem(
            other.message, other.since, f"crucible-lineage runs --pipeline {other.pipeline} --project {project}"
        )
    for one in failed:
        problem = f"{one.step} failed {amount(one.failures, 'time')}: "
        reason = one.error.partition("\n")[0].removeprefix(f"step {one.step!r} failed: ")
        yield ActionItem(problem + reason, one.last, again)
    if waiting:
        refused = sum(one.refused for one in waiting)
        problem = f"{amount(len(waiting), 'result')} made here and not delivered"
        problem += f", {refused} refused by Crucible" if refused else ""
        yield ActionItem(problem, min(one.made for one in waiting), "crucible-lineage push")
    if outdated:
        problem = f"{amount(outdated, 'current result')} made of what is superseded"
        yield ActionItem(problem, "", f"crucible-lineage rerun --stale --project {project}")
    if number := stated[CANDIDATE]:
        yield ActionItem(f"{amount(number, 'result')} to be signed", "", f"crucible-lineage list --project {project}")
    if number := stated[INCOMPLETE]:
        yield ActionItem(f"{amount(number, 'result')} incomplete", "", again)


def _late(declared: str, newest: str, again: str) -> Iterable[ActionItem]:
    """Describe the way out if no result arrived for as long as the pipeline declares (`fresh`)."""
    from crucible_lineage.pipeline.declare.load import read_declaration

    if not Path(declared).is_file():
        return
    with suppress(InputError):  # `check` names its faults
        spec = read_declaration(Path(declared)).spec
        within = spec.fresh.within if spec and spec.fresh else None
        age = (datetime.now(UTC) - utc(newest)).total_seconds() if newest else inf
        if within is not None and age > within:
            yield ActionItem(f"no result for more than {time_text(within)}, as is declared", newest, again)
