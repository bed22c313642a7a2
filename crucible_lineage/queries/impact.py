"""Questions to Crucible about lineages: how two of them differ, and what must be redone when something was wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, RefusedError
from crucible_lineage.lineage import (
    Difference,
    Impact,
    LineageGraph,
    Node,
    diff,
    impact_of_code,
    impact_of_dataset,
    impact_of_file,
    impact_of_instrument,
)
from crucible_lineage.lineage.records import activity_code, generated_files, instruments, run_ids, told_run
from crucible_lineage.queries.graph.fetch import fetch_lineage, fetch_projects, with_whole_records
from crucible_lineage.session import Session

__all__ = [
    "Compared",
    "Redone",
    "code_impact",
    "compare_datasets",
    "compare_runs",
    "dataset_impact",
    "file_impact",
    "instrument_impact",
]

MOST_NAMED = 10  # of what there is instead, where something was asked for that is not there


@dataclass(frozen=True)
class Compared:
    """Two lineages and what differs."""

    old: LineageGraph
    new: LineageGraph
    difference: Difference


@dataclass(frozen=True)
class Redone:
    """What must be redone, in the lineage that shows why."""

    graph: LineageGraph
    impact: Impact


def compare_datasets(session: Session, old: str, new: str) -> Compared:
    """What differs between two datasets and between all that they come from. InputError if one is not there."""
    before = fetch_lineage(session, old)
    after = before if new in before else fetch_lineage(session, new)
    ours = with_whole_records(session, before.derivations().around(old, direction="ancestors"))
    others = with_whole_records(session, after.derivations().around(new, direction="ancestors"))
    return Compared(ours, others, diff(ours, others, {old: new}))


def compare_runs(session: Session, old: str, new: str, projects: Sequence[str]) -> Compared:
    """What differs between what two runs made or reused, with the parents of that.

    A run is known by its id, or by that of its Prefect flow run. InputError if no dataset of the projects is of it.
    """
    graph = fetch_projects(session, projects).graph
    ours, others = (with_whole_records(session, _of_run(session, graph, run, projects)) for run in (old, new))
    return Compared(ours, others, diff(ours, others))


def dataset_impact(session: Session, mfid: str) -> Redone:
    """What comes from a dataset or a sample."""
    graph = fetch_lineage(session, mfid)
    return Redone(graph, impact_of_dataset(graph, mfid))


def file_impact(session: Session, sha256: str, projects: Sequence[str], *, refresh: bool = False) -> Redone:
    """What comes from a file, whichever datasets of the projects have it. InputError if none has or used it."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"{sha256!r} is no SHA-256 (64 digits, 0 to 9 and a to f)")
    graph = fetch_projects(session, projects, refresh=refresh).graph
    owners = _owners(session, sha256) & graph.nodes.keys()
    impact = impact_of_file(graph, sha256, owners)
    if not impact.ids and not owners and not any(sha256 in generated_files(n.record).values() for n in _nodes(graph)):
        raise InputError(f"no dataset of {_named(projects)} has or used a file with SHA-256 {sha256}")
    return Redone(graph, impact)


def code_impact(session: Session, fingerprint: str, projects: Sequence[str], *, refresh: bool = False) -> Redone:
    """What code of that fingerprint, or of the only one that begins so, made, and what comes from that."""
    graph = fetch_projects(session, projects, refresh=refresh).graph
    made_by = {code: node.step for node in _nodes(graph) if (code := activity_code(node.record))}
    meant = {fingerprint} & made_by.keys() or {code for code in made_by if code.startswith(fingerprint)}
    if len(meant) != 1 or not fingerprint:
        there = [f"{code} ({made_by[code]})" for code in (meant or made_by)]
        state = (
            f"{len(meant)} fingerprints begin with {fingerprint!r}" if meant else f"no code {fingerprint!r} made any"
        )
        raise InputError(f"find what code made in {_named(projects)}: {state}; {_instead(there)}")
    return Redone(graph, impact_of_code(graph, *meant))


def instrument_impact(
    session: Session,
    instrument: str,
    projects: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    refresh: bool = False,
) -> Redone:
    """What comes from the data that an instrument (name, slug or MFID) took between two moments, both included."""
    graph = fetch_projects(session, projects, refresh=refresh).graph
    there = dict.fromkeys(name for node in _nodes(graph) for name in sorted(instruments(node.record)))
    if instrument not in there:
        state = f"no dataset of {_named(projects)} names it; {_instead(there)}"
        raise InputError(f"find what comes from instrument {instrument!r}: {state}")
    return Redone(graph, impact_of_instrument(graph, instrument, since=since, until=until))


def _of_run(session: Session, graph: LineageGraph, run: str, projects: Sequence[str]) -> LineageGraph:
    """What a run made, or relied on as its record or this data folder says, with the parents."""
    made = {node.id for node in _nodes(graph) if run in run_ids(node.record)}
    for node in _nodes(graph):
        if told_run(node.record) == run:
            made |= set(graph.children(node.id))
    remembered = (mfid for _, _, datasets in session.store.run_steps(run) for mfid in datasets.values())
    made |= {mfid for mfid in remembered if mfid in graph}
    if not made:
        raise InputError(
            f"find run {run}: no dataset of {_named(projects)} says that this run made it, and no run of that id is "
            "remembered in this data folder"
        )
    derivations = graph.derivations()
    return derivations.subgraph(made.union(*(derivations.parents(mfid) for mfid in made)))


def _owners(session: Session, sha256: str) -> set[str]:
    """The datasets that Crucible lists with such a file; none where it does not list files by their hash."""
    try:
        return {str(file.dataset_mfid) for file in session.client.files.iter(sha256_hash=sha256)}
    except (ForbiddenError, NotFoundError, RefusedError):
        return set()


def _nodes(graph: LineageGraph) -> Iterable[Node]:
    return graph.nodes.values()


def _named(projects: Sequence[str]) -> str:
    return f"project {projects[0]}" if len(projects) == 1 else f"projects {', '.join(projects)}"


def _instead(there: Iterable[str]) -> str:
    names = sorted(there)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"there are: {', '.join(names[:MOST_NAMED])}{more}" if names else "there are none"
