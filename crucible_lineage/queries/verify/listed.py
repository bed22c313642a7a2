"""Rules of what Crucible itself lists: results that share a slot, requests for deletion, and ingestion requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.core.slots import Currency
from crucible_lineage.core.tables import Summary, summary_of
from crucible_lineage.errors import ForbiddenError, NotFoundError
from crucible_lineage.lineage import Finding, LineageGraph
from crucible_lineage.lineage.records import provenance
from crucible_lineage.queries.deleted import NOT_LISTED, deletion_requests
from crucible_lineage.session import Session

ONE_BY_ONE = 10  # up to here, requests are listed dataset by dataset
PER_PAGE = 1000
MOST_NAMED = 100  # files whose names are fetched
Summaries = Mapping[str, Summary]


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


def not_ingested(session: Session, graph: LineageGraph, mfids: Collection[str]) -> Iterator[Finding]:
    """Yield a finding for each file of these datasets whose newest ingestion failed, or ended otherwise than requested.

    An unsupported kind of file is no finding unless an ingestor was named. For many datasets only the newest requests
    are read, at a tenth of a call for each dataset.
    """
    newest: dict[str, IngestionRequest] = {}
    for request in _requests(session.client, mfids):
        if request.file_mfid and request.dataset_mfid in mfids:
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


def _requests(client: CrucibleClient, mfids: Collection[str]) -> Iterator[IngestionRequest]:
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
