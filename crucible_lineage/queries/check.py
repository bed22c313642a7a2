"""Lineage checks at Crucible: of everything connected with a dataset, or of whole projects.

They compare links and records with each other, and with what is current. `verify` compares ids and bytes with records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.core.slots import CURRENT, SUPERSEDED, Currency
from crucible_lineage.core.tables import Summary, summary_of
from crucible_lineage.errors import ForbiddenError, NotFoundError
from crucible_lineage.lineage import Finding, LineageGraph, check
from crucible_lineage.lineage.checks import Findings, orphans, worst_first
from crucible_lineage.lineage.model import PART
from crucible_lineage.lineage.records import equal_parents, provenance, used_mfids
from crucible_lineage.queries.deleted import NOT_LISTED, deletion_requests
from crucible_lineage.queries.graph.fetch import fetch_lineage, fetch_projects, with_named_parents
from crucible_lineage.session import Session


@dataclass(frozen=True)
class LineageCheck(Findings):
    """Findings, worst first, in a graph with these numbers of nodes and links; `downloaded` datasets were fetched."""

    nodes: int
    edges: int
    downloaded: int


def check_dataset(session: Session, mfid: str) -> LineageCheck:
    """Check everything connected with a dataset or sample. Raises InputError if it does not exist."""
    graph = with_named_parents(session, fetch_lineage(session, mfid))
    findings = [*check(graph), *made_of_superseded(graph), *not_ingested(session, graph)]
    if any(finding.check == "orphan" for finding in findings):
        proposals = _orphans_in_their_projects(session, graph)
        findings = [proposals.get(f.ids[0], f) if f.check == "orphan" else f for f in findings]
    return _result(graph, findings, sum(node.record is not None for node in graph.nodes.values()))


def check_projects(session: Session, projects: Iterable[str], *, refresh: bool = False) -> LineageCheck:
    """Check whole projects. Raises InputError for an unknown project; `refresh` ignores the local copy."""
    names = list(dict.fromkeys(projects))
    fetched = fetch_projects(session, names, refresh=refresh)
    graph = with_named_parents(session, fetched.graph)
    findings = [
        *check(graph),
        *made_of_superseded(graph),
        *slot_conflicts(graph, fetched.summaries, session.mirror.promoted()),
    ]
    findings += (finding for name in names for finding in withdrawn(session, name, fetched.summaries))
    findings += not_ingested(session, graph)
    return _result(graph, findings, fetched.downloaded)


def _orphans_in_their_projects(session: Session, graph: LineageGraph) -> dict[str, Finding]:
    """Return {id: finding} for the graph's orphans, found in their whole projects, which suggest their parents."""
    projects = sorted({node.project for node in graph.nodes.values() if node.project})
    wide = fetch_projects(session, projects).graph
    both = LineageGraph([*wide.nodes.values(), *graph.nodes.values()], [*wide.edges.values(), *graph.edges.values()])
    return {finding.ids[0]: finding for finding in orphans(both) if finding}


def _result(graph: LineageGraph, findings: Sequence[Finding], downloaded: int) -> LineageCheck:
    shown = tuple(_without_hidden(graph, finding) for finding in worst_first(findings))
    return LineageCheck(shown, len(graph), len(graph.edges), downloaded)


def _without_hidden(graph: LineageGraph, finding: Finding) -> Finding:
    """Remove the ids of datasets that the reader cannot see, and a command that names one."""
    hidden = graph.hidden.intersection(finding.ids)
    if not hidden:
        return finding
    command = "" if any(mfid in finding.command for mfid in hidden) else finding.command
    shown = tuple(mfid for mfid in finding.ids if mfid not in hidden)
    return Finding(finding.check, finding.severity, shown, finding.message, command)


HOLDING_CHECKS = ("made-of-superseded", "held-twice", "withdrawn-holder", "declared-twice")
Summaries = Mapping[str, Summary]


def made_of_superseded(graph: LineageGraph) -> Iterator[Finding]:
    """Yield current results made from a superseded result that would differ if made from the current one."""
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
        f"{graph.label(mfid)} is current, but was made from {graph.label(parent)}, which {instead} "
        f"{'have' if len(by) > 1 else 'has'} replaced; "
    )
    recorded = provenance(graph.nodes[mfid].record)
    if recorded.get("pipeline"):
        message += "run its pipeline again, or rerun its step with current parents"
        return Finding("made-of-superseded", "warning", (mfid, parent), message, f"crucible-lineage rerun {mfid}")
    if recorded.get("step"):
        message += "run its flow again"
        return Finding("made-of-superseded", "warning", (mfid, parent), message, f"crucible-lineage why {mfid}")
    message += "if it is valid for that too, or is made again, register it with that parent"
    project = graph.nodes[mfid].project or "PROJECT"
    options = f"--parent {by[0] if len(by) == 1 else 'MFID'} --supersedes {mfid} --note TEXT"
    return Finding(
        "made-of-superseded",
        "warning",
        (mfid, parent),
        message,
        f"crucible-lineage register FILES --project {project} {options}",
    )


def slot_conflicts(graph: LineageGraph, summaries: Summaries, promoted: Mapping[str, str]) -> Iterator[Finding]:
    """Yield slots with several current results, or shared by two declarations."""
    currency = Currency((one.status for one in summaries.values()), promoted)
    shared: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for project, key in sorted(currency.all_slots()):
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
    """Return True for results of one run of a flow written by hand, which may have several for a slot."""
    records = [provenance(graph.nodes[mfid].record) for mfid in mfids if mfid in graph]
    return all(one.get("step") and not one.get("pipeline") for one in records)


def _held_twice(mfids: list[str], key: str, summaries: Summaries) -> Finding:
    names = ", ".join(f"{summaries[mfid].name} ({mfid})" for mfid in mfids)
    message = f"{len(mfids)} results are current for {key}: {names}; run the pipeline to leave one"
    return Finding("held-twice", "warning", tuple(mfids), message, "crucible-lineage run PIPELINE.yaml")


def _declared_twice(pipeline: str, files: list[str], mfids: list[str]) -> Finding:
    named = ", ".join(file or "one without a file" for file in files)
    message = (
        f"several declarations have the name {pipeline!r}: {named}; the results of each are current, {len(mfids)} in "
        "all; if this is not intended, give one another `pipeline:`, or run from one file only"
    )
    return Finding("declared-twice", "notice", tuple(mfids), message, f"crucible-lineage list --pipeline {pipeline}")


def withdrawn(session: Session, project: str, summaries: Summaries) -> Iterator[Finding]:
    """Yield results that would be current without a request to delete them; meanwhile older ones are current."""
    hidden = {}
    for request in deletion_requests(session):
        with suppress(*NOT_LISTED):
            found = session.client.datasets.get(request.resource_id or "", include_metadata=True)
            if (found.project_id or "").casefold() == project.casefold():
                hidden[found.unique_id] = (request, summary_of(found.model_dump()))
    if not hidden:
        return
    promoted, visible = session.mirror.promoted(), [one.status for one in summaries.values()]
    without = Currency(visible, promoted)
    everything = Currency([*(one.status for _, one in hidden.values()), *visible], promoted)
    for mfid, (request, summary) in hidden.items():
        slots = [key for key in summary.status.slots if mfid in everything.current(key, project)]
        shown = dict.fromkeys(other for key in slots for other in without.current(key, project))
        if slots:
            instead = f"; meanwhile {', '.join(shown)} from an earlier state shows as current" if shown else ""
            message = (
                f"{summary.name} ({mfid}), which the last run used for {slots[0]}, is to be deleted (request "
                f"{request.id}, {request.status}){instead}; have the request rejected, or make another attempt with "
                f"--force {summary.step}"
            )
            command = f"crucible-lineage run PIPELINE.yaml --force {summary.step}"
            yield Finding("withdrawn-holder", "warning", (mfid, *shown), message, command)


ONE_BY_ONE = 10  # up to here, requests are listed dataset by dataset
PER_PAGE = 1000
MOST_NAMED = 100  # files whose names are fetched


def not_ingested(session: Session, graph: LineageGraph) -> Iterator[Finding]:
    """Yield a finding for each file of the graph whose newest ingestion failed, or ended differently than requested.

    An unsupported kind of file is no finding unless an ingestor was named. For many datasets only the newest requests
    are read, at a tenth of a call for each dataset.
    """
    mfids = [node.id for node in graph.nodes.values() if node.kind == "dataset"]
    newest: dict[str, IngestionRequest] = {}
    for request in _requests(session.client, mfids):
        if request.file_mfid and request.dataset_mfid in graph:
            previous = newest.setdefault(request.file_mfid, request)
            newest[request.file_mfid] = max(previous, request, key=lambda one: one.id)
    failed = [request for request in newest.values() if _is_failed(request)]
    for number, request in enumerate(failed):
        mfid = str(request.dataset_mfid)
        file = _name(session.client, str(request.file_mfid)) if number < MOST_NAMED else f"file {request.file_mfid}"
        reason = request.error_message or request.status
        message = f"{graph.label(mfid)}: {file} was not read as requested: {reason}"
        yield Finding("not-ingested", "warning", (mfid,), message, f"crucible get {mfid}")


def _is_failed(request: IngestionRequest) -> bool:
    if request.status == "complete":
        return bool(request.error_message and request.ingestion_class)
    return not request.is_open and request.status != "not_requested"


def _requests(client: CrucibleClient, mfids: list[str]) -> Iterator[IngestionRequest]:
    try:
        if len(mfids) <= ONE_BY_ONE:
            for mfid in mfids:
                yield from client.ingestions.iter(dataset_mfid=mfid)
        else:
            yield from islice(client.ingestions.iter(), (len(mfids) // 10 + 1) * PER_PAGE)
    except NOT_LISTED:  # the service does not list them
        return


def _name(client: CrucibleClient, file_mfid: str) -> str:
    try:
        return client.files.get(file_mfid).filename
    except (ForbiddenError, NotFoundError):
        return f"file {file_mfid}"
