"""Lineage checks over what Crucible holds: of all that a dataset hangs together with, or of whole projects.

Links and records are compared with each other here, and with what holds now. Whether ids and bytes are what was
recorded is `verify`'s part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crucible_lineage.lineage import Finding, LineageGraph, check
from crucible_lineage.lineage.checks import CHECKS, Findings, worst_first
from crucible_lineage.queries.graph.fetch import fetch_lineage, fetch_projects, with_named_parents
from crucible_lineage.queries.holding import held_wrongly, made_of_superseded, withdrawn
from crucible_lineage.queries.ingested import not_ingested
from crucible_lineage.session import Session

__all__ = ["LineageCheck", "check_dataset", "check_projects"]


@dataclass(frozen=True)
class LineageCheck(Findings):
    """What was found, the worst first, in a graph of so many nodes and links; `downloaded` datasets were fetched."""

    nodes: int
    edges: int
    downloaded: int


def check_dataset(session: Session, mfid: str) -> LineageCheck:
    """The faults in all that a dataset or sample hangs together with. InputError if there is none."""
    graph = with_named_parents(session, fetch_lineage(session, mfid))
    findings = [*check(graph), *made_of_superseded(graph), *not_ingested(session, graph)]
    if any(finding.check == "orphan" for finding in findings):
        proposing = _orphans_in_their_projects(session, graph)
        findings = [proposing.get(f.ids[0], f) if f.check == "orphan" else f for f in findings]
    return _checked(graph, findings, sum(node.record is not None for node in graph.nodes.values()))


def check_projects(session: Session, projects: Iterable[str], *, refresh: bool = False) -> LineageCheck:
    """The faults in whole projects. InputError if there is no such project; `refresh` trusts no local copy."""
    names = list(dict.fromkeys(projects))
    fetched = fetch_projects(session, names, refresh=refresh)
    graph = with_named_parents(session, fetched.graph)
    findings = [*check(graph), *made_of_superseded(graph), *held_wrongly(graph, fetched.summaries)]
    findings += (finding for name in names for finding in withdrawn(session, name, fetched.summaries))
    findings += not_ingested(session, graph)
    return _checked(graph, findings, fetched.downloaded)


def _orphans_in_their_projects(session: Session, graph: LineageGraph) -> dict[str, Finding]:
    """{id: finding} of orphans of the graph: an orphan's parent is elsewhere, and so is what suggests it."""
    projects = sorted({node.project for node in graph.nodes.values() if node.project})
    wide = fetch_projects(session, projects).graph
    both = LineageGraph([*wide.nodes.values(), *graph.nodes.values()], [*wide.edges.values(), *graph.edges.values()])
    return {finding.ids[0]: finding for finding in CHECKS["orphan"](both)}


def _checked(graph: LineageGraph, findings: Sequence[Finding], downloaded: int) -> LineageCheck:
    shown = tuple(_without_hidden(graph, finding) for finding in worst_first(findings))
    return LineageCheck(shown, len(graph), len(graph.edges), downloaded)


def _without_hidden(graph: LineageGraph, finding: Finding) -> Finding:
    """The finding without the ids of what the reader may not see, and without a command that names one."""
    hidden = {mfid for mfid in finding.ids if mfid in graph and graph.nodes[mfid].kind == "hidden"}
    if not hidden:
        return finding
    command = "" if any(mfid in finding.command for mfid in hidden) else finding.command
    shown = tuple(mfid for mfid in finding.ids if mfid not in hidden)
    return Finding(finding.check, finding.severity, shown, finding.message, command)
