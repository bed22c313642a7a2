"""The runs of pipelines, as this data folder remembers them and as the records of what they made tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crucible_lineage.core.mirror import Snapshot
from crucible_lineage.lineage.records import provenance, recorded_run, text
from crucible_lineage.local.usage import is_in_use
from crucible_lineage.local.usage import runs as running
from crucible_lineage.session import Session

__all__ = ["Run", "datasets_of_run", "list_runs"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run. `made` are the datasets whose records name it; `state` and `steps` are known where it ran here only."""

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
) -> list[Run]:
    """The runs of these projects, newest first: those of this data folder, and those that the records tell of."""
    told = {run.run_id: run for project in projects for run in _told(project, session.mirror.snapshot(project))}
    for project in projects:
        for known in session.journal.recent_runs(project, -1):
            if known["run_id"] in told or known["steps"]:
                told[known["run_id"]] = _with_memory(session, told.get(known["run_id"]), known)
    found = sorted(told.values(), key=lambda run: (run.started, run.run_id), reverse=True)
    return [run for run in found if pipeline in (None, run.pipeline)][:limit]


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


def _told(project: str, copy: Snapshot) -> Iterator[Run]:
    """The runs that the records of a project name, by when their first step began and their last one ended."""
    found: dict[str, Run] = {}
    for mfid, record in copy.records.items():
        summary = copy.summaries[mfid]
        if not summary.step or not (run := _run(record)):
            continue
        written = provenance(record)
        activity, agent = written.get("activity") or {}, written.get("agent") or {}
        began, ended = text(activity.get("started")), text(activity.get("ended"))
        one = found.get(text(run.get("run_id"))) or Run(
            text(run.get("run_id")),
            summary.pipeline,
            project,
            began,
            ended,
            engine=text(run.get("engine")) or None,
            who=text(agent.get("username")) or text(agent.get("local_user")) or None,
        )
        found[one.run_id] = replace(
            one, started=min(one.started, began), ended=max(one.ended or "", ended), made=(*one.made, mfid)
        )
    yield from (replace(run, made=tuple(sorted(run.made))) for run in found.values())


def _run(record: Record) -> Record:
    activity = provenance(record).get("activity")
    run = activity.get("run") if isinstance(activity, Mapping) else None
    return run if isinstance(run, Mapping) and text(run.get("run_id")) else {}


def _with_memory(session: Session, told: Run | None, known: Mapping[str, Any]) -> Run:
    """Complete a run from its datasets' records by what this data folder knows, which goes first."""
    lives = known["outcome"] is None and is_in_use(running(session.settings.data) / known["run_id"])
    run = told or Run(known["run_id"], known["pipeline"], known["project"], known["started"])
    return replace(
        run,
        started=known["started"],
        ended=known["ended"],
        state=known["outcome"] or ("under way" if lives else "cut short"),
        steps=known["steps"],
    )
