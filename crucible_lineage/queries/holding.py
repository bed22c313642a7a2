"""Findings on which results hold: made of what is superseded, or places that are held as they should not be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from crucible_lineage.core.slots import CURRENT, SUPERSEDED, Currency
from crucible_lineage.core.summary import Summary, summary_of
from crucible_lineage.errors import ForbiddenError, NotFoundError, RefusedError
from crucible_lineage.lineage import Finding, LineageGraph
from crucible_lineage.lineage.model import PART
from crucible_lineage.lineage.records import equal_parents, provenance, used_mfids
from crucible_lineage.session import Session

__all__ = ["HOLDING_CHECKS", "held_wrongly", "made_of_superseded", "withdrawn"]

HOLDING_CHECKS = ("made-of-superseded", "held-twice", "withdrawn-holder", "declared-twice")
Summaries = Mapping[str, Summary]


def made_of_superseded(graph: LineageGraph) -> Iterator[Finding]:
    """Current results that were made of a result which is superseded, and would not be the same of what holds."""
    for node in graph.nodes.values():
        if node.state != CURRENT:
            continue
        parents = [mfid for mfid in graph.parents(node.id) if graph.edges[mfid, node.id].relationship != PART]
        old = [mfid for mfid in parents if graph.nodes[mfid].state == SUPERSEDED]
        if not old:
            continue
        used, same = used_mfids(node.record), equal_parents(node.record)
        held = {was for now, was in same.items() if now in graph and graph.nodes[now].state == CURRENT}
        for mfid in old:
            if mfid in used and mfid not in held and mfid not in same:
                yield _made_of_superseded(graph, node.id, mfid)


def _made_of_superseded(graph: LineageGraph, mfid: str, parent: str) -> Finding:
    by = graph.nodes[parent].superseded_by
    instead = " and ".join(graph.label(other) if other in graph else other for other in by) or "another result"
    message = (
        f"{graph.label(mfid)} is current, but was made of {graph.label(parent)}, which {instead} "
        f"{'have' if len(by) > 1 else 'has'} replaced; "
    )
    written = provenance(graph.nodes[mfid].record)
    if written.get("pipeline"):
        message += "run its pipeline again, or what made it with parents that hold"
        return Finding("made-of-superseded", "warning", (mfid, parent), message, f"crucible-lineage rerun {mfid}")
    if written.get("step"):
        message += "run its flow again"
        return Finding("made-of-superseded", "warning", (mfid, parent), message, f"crucible-lineage why {mfid}")
    message += "if it holds for that too, or is made again, register it with that parent"
    project = graph.nodes[mfid].project or "PROJECT"
    named = f"--parent {by[0] if len(by) == 1 else 'MFID'} --supersedes {mfid} --note TEXT"
    return Finding(
        "made-of-superseded",
        "warning",
        (mfid, parent),
        message,
        f"crucible-lineage register FILES --project {project} {named}",
    )


def held_wrongly(graph: LineageGraph, summaries: Summaries) -> Iterator[Finding]:
    """Places that several hold at once, or that two declarations share."""
    currency = Currency(one.standing for one in summaries.values())
    shared: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for project, key in sorted(currency.all_places()):
        by_file = currency.by_declaration(key, project)
        if len({tuple(mfids) for mfids in by_file.values()}) > 1:
            ids = dict.fromkeys(mfid for mfids in by_file.values() for mfid in mfids)
            shared[key.partition("/")[0], *sorted(by_file)].update(ids)
        for mfids in dict.fromkeys(map(tuple, by_file.values())):
            if len(mfids) > 1 and not _of_one_flow_run(graph, mfids):
                yield _held_twice(list(mfids), key, summaries)
    for (pipeline, *files), found in shared.items():
        yield _declared_twice(pipeline, files, list(found))


def _of_one_flow_run(graph: LineageGraph, mfids: Iterable[str]) -> bool:
    """True for what a flow written by hand gave in one run: it may give several results for one place."""
    written = [provenance(graph.nodes[mfid].record) for mfid in mfids if mfid in graph]
    return all(one.get("step") and not one.get("pipeline") for one in written)


def _held_twice(mfids: list[str], key: str, summaries: Summaries) -> Finding:
    names = ", ".join(f"{summaries[mfid].name} ({mfid})" for mfid in mfids)
    message = f"{len(mfids)} results are current for {key}: {names}; run the pipeline to leave one"
    return Finding("held-twice", "warning", tuple(mfids), message, "crucible-lineage run PIPELINE.yaml")


def _declared_twice(pipeline: str, files: list[str], mfids: list[str]) -> Finding:
    named = ", ".join(file or "one without a file" for file in files)
    message = (
        f"several declarations bear the name {pipeline!r}: {named}; the results of each hold, {len(mfids)} in all; if "
        "that is not meant, give one another `pipeline:`, or run from one file only"
    )
    return Finding("declared-twice", "notice", tuple(mfids), message, f"crucible-lineage list --pipeline {pipeline}")


def withdrawn(session: Session, project: str, summaries: Summaries) -> Iterator[Finding]:
    """Results that would hold, were it not asked to delete them: what they superseded shows as current meanwhile."""
    hidden = {}
    with suppress(ForbiddenError, NotFoundError, RefusedError):
        for request in session.client.deletions.list():
            if request.resource_type == "dataset" and request.status in ("pending", "approved") and request.resource_id:
                with suppress(ForbiddenError, NotFoundError):
                    found = session.client.datasets.get(request.resource_id, include_metadata=True)
                    if (found.project_id or "").casefold() == project.casefold():
                        hidden[found.unique_id] = (request, summary_of(found.model_dump()))
    if not hidden:
        return
    before = Currency(one.standing for one in summaries.values())
    everything = Currency([*(one.standing for _, one in hidden.values()), *(s.standing for s in summaries.values())])
    for mfid, (request, summary) in hidden.items():
        held = [key for key in summary.standing.places if mfid in everything.current(key, project)]
        shown = dict.fromkeys(other for key in held for other in before.current(key, project))
        if held:
            instead = f"; {', '.join(shown)} shows as current meanwhile, and is of an earlier state" if shown else ""
            message = (
                f"{summary.name} ({mfid}), which the last run relied on for {held[0]}, is to be deleted (request "
                f"{request.id}, {request.status}){instead}; have it rejected, or make another attempt with --force "
                f"{summary.step}"
            )
            command = f"crucible-lineage run PIPELINE.yaml --force {summary.step}"
            yield Finding("withdrawn-holder", "warning", (mfid, *shown), message, command)
