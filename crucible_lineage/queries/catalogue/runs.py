"""The runs of pipelines, by the records of what they made and by the journal of a data folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crucible_lineage.core.journal import Journal
from crucible_lineage.core.mirror import Snapshot
from crucible_lineage.lineage.records import mapping, provenance, recorded_run, text
from crucible_lineage.local.usage import is_in_use
from crucible_lineage.local.usage import runs as running
from crucible_lineage.session import Session

__all__ = [
    "ListedRun",
    "datasets_of_run",
    "list_runs",
    "newest_first",
    "remembered_runs",
    "runs_by_results",
    "with_memory",
]

Record = Mapping[str, Any]
COMPLETE, FAILED = "complete", "failed"


@dataclass(frozen=True)
class ListedRun:
    """A run. `made` are the datasets whose records name it.

    `steps` are known where the run took place; `state` there, and where a dataset of the project records the run.
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
    made: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """An entry of `runs --json`."""
        return {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "project": self.project,
            "started": self.started,
            "ended": self.ended,
            "state": self.state,
            "engine": self.engine,
            "who": self.who,
            "steps": dict(self.steps) if self.steps is not None else None,
            "made": list(self.made),
        }


def list_runs(
    session: Session, projects: Sequence[str], *, pipeline: str | None = None, limit: int | None = None
) -> list[ListedRun]:
    """Return the runs of these projects, newest first: those of this data folder, and those that records name."""
    found: dict[str, ListedRun] = {}
    for project in projects:
        by_results = runs_by_results(session.mirror.snapshot(project), project)
        here = remembered_runs(session.journal, session.settings.data, project)
        found |= {run_id: run for run_id, run in here.items() if run_id in by_results or run.steps}
        found |= {run_id: with_memory(run, here.get(run_id)) for run_id, run in by_results.items()}
    return [run for run in newest_first(found.values()) if pipeline in (None, run.pipeline)][:limit]


def newest_first(runs: Iterable[ListedRun]) -> list[ListedRun]:
    """Sort by start."""
    return sorted(runs, key=lambda run: (run.started, run.run_id), reverse=True)


def remembered_runs(journal: Journal, data: Path, project: str) -> dict[str, ListedRun]:
    """Return the runs of a project that took place from a data folder, by id."""
    return {known["run_id"]: _remembered(known, data) for known in journal.recent_runs(project, -1)}


def with_memory(run: ListedRun, remembered: ListedRun | None) -> ListedRun:
    """Complete a run that records name by what the data folder knows, which goes first."""
    if remembered is None:
        return run
    return replace(
        run, started=remembered.started, ended=remembered.ended, state=remembered.state, steps=remembered.steps
    )


def datasets_of_run(session: Session, run_id: str, copies: Iterable[Snapshot]) -> set[str]:
    """Return what a run made, or relied on by its record or this data folder."""
    found = {mfid for _, _, datasets in session.journal.run_steps(run_id) for mfid in datasets.values()}
    there: set[str] = set()
    for copy in copies:
        there |= copy.records.keys()
        for mfid, record in copy.records.items():
            if _run(record).get("run_id") == run_id:
                found.add(mfid)
            elif recorded_run(record) == run_id:
                found |= {link["unique_id"] for link in record.get("links") or () if link.get("direction") == "target"}
    return found & there


def runs_by_results(copy: Snapshot, project: str) -> dict[str, ListedRun]:
    """Return the runs that the records of a project name, by id: from their first step's start to their last one's end.

    The state is known of those that a dataset records (`--record-run`).
    """
    found: dict[str, ListedRun] = {}
    made: dict[str, list[str]] = {}
    states: dict[str, str] = {}
    for mfid, summary in copy.summaries.items():
        if summary.tells_of_run:
            record = copy.records[mfid]
            succeeded = mapping(record.get("scientific_metadata")).get("succeeded")
            if isinstance(succeeded, bool):
                states[recorded_run(record)] = COMPLETE if succeeded else FAILED
        elif summary.step and (run := _run(record := copy.records[mfid])):
            one = _by_result(record, summary.pipeline, project, run)
            known = found.setdefault(one.run_id, one)
            ended = max(known.ended or "", one.ended or "")
            found[one.run_id] = replace(known, started=min(known.started, one.started), ended=ended)
            made.setdefault(one.run_id, []).append(mfid)
    return {
        run_id: replace(run, made=tuple(sorted(made[run_id])), state=states.get(run_id))
        for run_id, run in found.items()
    }


def _by_result(record: Record, pipeline: str, project: str, run: Record) -> ListedRun:
    written = provenance(record)
    activity, agent = written.get("activity") or {}, written.get("agent") or {}
    return ListedRun(
        text(run.get("run_id")),
        pipeline,
        project,
        text(activity.get("started")),
        text(activity.get("ended")),
        engine=text(run.get("engine")) or None,
        who=text(agent.get("username")) or text(agent.get("local_user")) or None,
    )


def _remembered(known: Mapping[str, Any], data: Path) -> ListedRun:
    lives = known["outcome"] is None and is_in_use(running(data) / known["run_id"])
    return ListedRun(
        known["run_id"],
        known["pipeline"],
        known["project"],
        known["started"],
        known["ended"],
        state=known["outcome"] or ("under way" if lives else "cut short"),
        steps=known["steps"],
    )


def _run(record: Record) -> Record:
    activity = provenance(record).get("activity")
    run = activity.get("run") if isinstance(activity, Mapping) else None
    return run if isinstance(run, Mapping) and text(run.get("run_id")) else {}
