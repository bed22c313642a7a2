"""What a project holds now, as a list with the state of each dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crucible_lineage.core.mirror import Snapshot
from crucible_lineage.core.slots import CURRENT, RAW
from crucible_lineage.core.summary import Summary
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.queries.catalogue.reference import find_run
from crucible_lineage.queries.catalogue.runs import datasets_of_run, list_runs
from crucible_lineage.queries.graph.standing import CANDIDATE, DOUBTFUL, Entry, entries_of, stated_entries
from crucible_lineage.session import Session

__all__ = ["SORTABLE", "Listing", "list_datasets"]

SORTABLE = ("created", "name", "step", "pipeline", "measurement", "state", "mfid")
NO_FILTERS = {"limit", "sort", "direction", "anchor_mfid", "include_metadata", "include_links", "include_owner",
              "project_id"}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The datasets of a project that were asked for, measured data first; and how many others are in which state."""

    project: str
    entries: tuple[Entry, ...]
    others: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.entries)

    def to_json(self) -> dict[str, Any]:
        """Return the list for `list --json`."""
        datasets = [entry.to_json() for entry in self.entries]
        return {"project": self.project, "datasets": datasets, "not_listed": dict(self.others)}


def list_datasets(
    session: Session,
    project: str,
    *,
    step: str | None = None,
    pipeline: str | None = None,
    run: str | None = None,
    filters: Mapping[str, Any] | None = None,
    sort: str | None = None,
    results: bool = False,
    every: bool = False,
    doubtful: bool = False,
    refresh: bool = False,
) -> Listing:
    """What holds now in a project: current results and measured data; with `results` only the former, with `doubtful`
    also what is on hold or comes from what is, with `every` all that there is.

    `filters` are those of Crucible's own list (`measurement`, `keyword`, `instrument_name`...), `run` is the id of a
    run or the beginning of it, `sort` one of SORTABLE, behind a minus the other way round. InputError if there is no
    such project, nothing in it is of that step, pipeline or run, or a filter is unknown.
    """
    copy = session.mirror.snapshot(project, refresh=refresh)
    summaries = [one for one in copy.summaries.values() if not one.tells_of_run or every]
    _require_known(project, summaries, pipeline, step)
    fitting = [one for one in summaries if step in (None, one.step) and pipeline in (None, one.pipeline)]
    if run is not None:
        members = _of_run(session, project, run, copy)
        fitting = [one for one in fitting if one.mfid in members]
    if filters:
        if asked := NO_FILTERS.intersection(filters):
            raise InputError(f"{min(asked)!r} is no filter: all that fits is listed, of `project` and by `sort`")
        found = {one.unique_id for one in session.client.datasets.iter(**{**filters, "project_id": project})}
        fitting = [one for one in fitting if one.mfid in found]
    fitting.sort(key=lambda one: (one.standing.derived, one.created if one.standing.derived else "", one.mfid))
    standing = {entry.mfid: entry for entry in entries_of(fitting, copy.summaries.values(), copy.promoted)}
    entries = list(stated_entries(session, standing, project, copy.summaries).values())
    holding = {CURRENT} | ({RAW} if not results else set()) | ({CANDIDATE, DOUBTFUL} if doubtful else set())
    shown = _sorted([entry for entry in entries if every or entry.state in holding], sort)
    others = Counter(entry.state for entry in entries) - Counter(entry.state for entry in shown)
    return Listing(project, tuple(shown), dict(others))


def _require_known(project: str, summaries: list[Summary], pipeline: str | None, step: str | None) -> None:
    for what, name, there in (
        ("pipeline", pipeline, {one.pipeline for one in summaries} - {""}),
        ("step", step, {one.step for one in summaries if pipeline in (None, one.pipeline)} - {""}),
    ):
        if name is not None and name not in there:
            instead = nearest(name, sorted(there)) if there else "no step has made any"
            raise InputError(f"list the datasets of project {project!r}: none is of a {what} {name!r}; {instead}")


def _of_run(session: Session, project: str, run: str, copy: Snapshot) -> set[str]:
    found = datasets_of_run(session, run, [copy])
    return found or datasets_of_run(
        session, find_run(run, (one.run_id for one in list_runs(session, [project]))), [copy]
    )


def _sorted(entries: list[Entry], sort: str | None) -> list[Entry]:
    if sort is None:
        return entries
    name, backwards = sort.removeprefix("-"), sort.startswith("-")
    if name not in SORTABLE:
        raise InputError(f"sort by {name!r}: {nearest(name, SORTABLE)}")

    def key(entry: Entry) -> Any:
        value = getattr(entry if name in ("state", "mfid") else entry.summary, name)
        return value.casefold(), entry.mfid

    return sorted(entries, key=key, reverse=backwards)
