"""Rules of records and of what Crucible lists: ids, files, metadata; slots, requests for deletion, ingestion requests.

`findings_of` is a pure function of what was read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from crucible_lineage.ask.names import NOT_LISTED, project_of_deleted
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import DeletedRecord, DeletionRequest, FileRecord, IngestionRequest
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.core.tables import Snapshot, summary_of
from crucible_lineage.errors import ForbiddenError, NotFoundError, shortened
from crucible_lineage.ids import has_derived_id
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.checks import Finding
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import short_id
from crucible_lineage.lineage.records import provenance
from crucible_lineage.pipeline.plan import corrections
from crucible_lineage.provenance.recipe import changed_keys, gives_id
from crucible_lineage.provenance.record import contradictions, unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import currency_of

Record = StepRecord | FilesRecord

MOST_KEYS = 5  # named in a message


@dataclass(frozen=True)
class Evidence:
    """What was read for a verification.

    `datasets` are those to verify, as Crucible returned them, and `records` their complete provenance records;
    `damaged` gives the reason why a record is not complete. `files` are those that Crucible lists for them, as far as
    their files are verified, and for their parents. `absent` are ids in records that Crucible does not have.
    """

    datasets: Mapping[str, JsonMapping]
    records: Mapping[str, Record]
    graph: LineageGraph
    files: Mapping[str, Sequence[FileRecord]]
    damaged: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()


def findings_of(evidence: Evidence) -> Iterator[Finding]:
    """Yield all faults in the evidence, by dataset."""
    for mfid in evidence.datasets:
        record = evidence.records.get(mfid)
        if record is None:
            yield from _without_record(evidence, mfid)
            continue
        name = evidence.graph.label(mfid)
        yield from _of_identity(name, mfid, record)
        yield from _of_inputs(evidence, name, mfid, record)
        if record.is_complete:
            yield from _of_files(evidence, name, mfid, record) if mfid in evidence.files else ()
            yield from _of_metadata(evidence, name, mfid, record)


def _without_record(evidence: Evidence, mfid: str) -> Iterator[Finding]:
    """Check a dataset without a record. Without a derived id, another program registered it."""
    name = evidence.graph.label(mfid)
    damage = evidence.damaged.get(mfid) or unreadable(evidence.datasets[mfid].get("scientific_metadata"))
    if damage:
        message = f"{name} has a provenance record that cannot be read: {damage}; remake the dataset"
        yield Finding("record-damaged", "error", (mfid,), message, _NEW_ATTEMPT)
    elif not has_derived_id(mfid):
        return
    elif evidence.files.get(mfid) or evidence.graph.parents(mfid):
        message = (
            f"{name} has an id that was derived from a recipe, but its provenance record is missing; "
            "rerun its pipeline to write the record again"
        )
        yield Finding("record-missing", "error", (mfid,), message, _RERUN)
    else:
        message = f"{name} is incomplete: it was created, but has no content; run its pipeline to continue"
        yield Finding("incomplete", "error", (mfid,), message, _RERUN)


def _of_identity(name: str, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the id follows from the recipe, and that the record agrees with the recipe."""
    if not gives_id(record.recipe, mfid):
        message = (
            f"{name} records a recipe that does not give its id: a parameter, a parent, the code or a "
            "file in it was edited; remake the dataset"
        )
        yield Finding("changed-recipe", "error", (mfid,), message, _new_attempt(record))
    if contradicted := contradictions(record):
        message = (
            f"{name}: its record contradicts itself in {', '.join(contradicted)}: one of the two was edited; "
            "remake the dataset"
        )
        yield Finding("changed-record", "error", (mfid,), message, _new_attempt(record))


def _of_files(evidence: Evidence, name: str, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that Crucible lists the files that the record names as generated."""
    expected = expected_files(record)
    present = {file.filename: file for file in evidence.files.get(mfid, ())}
    for filename, sha256 in expected.items():
        if filename not in present:
            message = f"{name} has lost its file {filename}"
            yield Finding("file-missing", "error", (mfid,), message, restore_command(mfid))
        elif present[filename].sha256_hash not in (None, sha256):
            message = f"{name} has a file {filename} with other content than was registered; remake the dataset"
            yield Finding("file-changed", "error", (mfid,), message, _new_attempt(record))
    for filename, file in present.items():
        if filename not in expected:
            message = f"{name} has a file {filename} that was not registered with it; remove it, or ignore this"
            yield Finding("file-added", "error", (mfid,), message, f"crucible get {file.mfid}")


def expected_files(record: Record) -> dict[str, str]:
    """Return the SHA-256 of each file that a dataset has according to its record."""
    attached = {record.attached.name: record.attached.sha256} if record.attached else {}
    return {file.name: file.sha256 for file in record.files} | attached


def _of_metadata(evidence: Evidence, name: str, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the registered scientific metadata are unchanged. Further entries are allowed."""
    result, metadata = record.result, evidence.datasets[mfid]["scientific_metadata"] or {}
    if result is not None and (changed := changed_keys(result.document(), corrections.uncorrected(metadata))):
        named = shortened(changed, MOST_KEYS)
        message = (
            f"{name}: its scientific metadata differ from the registered ones: a value among {named} was "
            "edited or removed; correct it with `crucible-lineage set`, which records who and why, restore the old "
            "value, or rerun the step"
        )
        yield Finding("metadata-changed", "error", (mfid,), message, _new_attempt(record) or f"crucible get {mfid}")


def _of_inputs(evidence: Evidence, name: str, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the used datasets exist, and that the used files are unchanged in them."""
    for parent in sorted({*record.all_parents} & evidence.absent):
        message = f"{name} was made from {parent}, which no longer exists"
        yield Finding("missing-dataset", "error", (parent, mfid), message, f"crucible get {parent}")
    for part in record.used:
        parent = part.mfid
        if parent not in evidence.files:
            continue
        hashes = {file.filename: file.sha256_hash for file in evidence.files[parent]}
        for filename, sha256 in {file.name: file.sha256 for file in part.files or ()}.items():
            if filename not in hashes or hashes[filename] not in (None, sha256):
                state = "has changed" if filename in hashes else "no longer exists"
                message = f"{name} was made from the file {filename} of {short_id(parent)}, which {state}"
                yield Finding("input-changed", "error", (parent, mfid), message, f"crucible-lineage verify {parent}")


_RERUN = "crucible-lineage data clean --cache && crucible-lineage run PIPELINE"
_NEW_ATTEMPT = "crucible-lineage run PIPELINE --force STEP"


def restore_command(mfid: str) -> str:
    """Return the command that sends lost files of a dataset to Crucible again."""
    return f"crucible-lineage reproduce {mfid} --restore"


def _new_attempt(record: Record) -> str:
    """Return the command that makes a new attempt beside a changed dataset; empty for measured files."""
    return _NEW_ATTEMPT if record.as_step else ""


ONE_BY_ONE = 10  # up to here, requests are listed dataset by dataset
PER_PAGE = 1000
MOST_NAMED = 100  # files whose names are fetched


def slot_conflicts(graph: LineageGraph, copy: Snapshot) -> Iterator[Finding]:
    """Yield slots with several current results, or shared by two declarations."""
    currency = currency_of(copy)
    shared: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for project, key in sorted(currency.all_slots()):
        by_file = currency.by_declaration(key, project)
        if len({tuple(mfids) for mfids in by_file.values()}) > 1:
            ids = dict.fromkeys(mfid for mfids in by_file.values() for mfid in mfids)
            shared[key.partition("/")[0], *sorted(by_file)].update(ids)
        for mfids in dict.fromkeys(map(tuple, by_file.values())):
            records = [provenance(graph.nodes[mfid].record) for mfid in mfids if mfid in graph]
            # One run of a flow written by hand may have several results for a slot.
            is_of_flow = all(record.get("step") and not record.get("pipeline") for record in records)
            if len(mfids) > 1 and not is_of_flow:
                names = ", ".join(f"{copy.summaries[mfid].name} ({mfid})" for mfid in mfids)
                message = f"{len(mfids)} results are current for {key}: {names}; run the pipeline to leave one"
                yield Finding("current-twice", "warning", tuple(mfids), message, "crucible-lineage run PIPELINE.yaml")
    for (pipeline, *files), found in shared.items():
        named = ", ".join(file or "one without a file" for file in files)
        message = (
            f"several declarations have the name {pipeline!r}: {named}; the results of each are current, {len(found)} "
            "in all; if this is not intended, give one another `pipeline:`, or run from one file only"
        )
        yield Finding("declared-twice", "notice", tuple(found), message, f"crucible-lineage list --pipeline {pipeline}")


def overwritten(records: Mapping[str, JsonMapping]) -> Iterator[Finding]:
    """Yield corrected values over which another program has written; the corrections count."""
    for mfid, record in records.items():
        for act in corrections.overwritten(record.get("scientific_metadata")):
            message = f"{record.get('dataset_name')} ({mfid}): {act.change}"
            yield Finding("correction-overwritten", "notice", (mfid,), message, f"crucible-lineage why {mfid}")


def withdrawn(session: Session, project: str, copy: Snapshot) -> Iterator[Finding]:
    """Yield results that would be current without a request to delete them; meanwhile older ones are current."""
    hidden = {}
    requests: list[DeletionRequest] = []
    with suppress(*NOT_LISTED):
        requests += session.client.deletions.list()
    for request in requests:
        if request.resource_type != "dataset" or request.status not in ("pending", "approved"):
            continue
        with suppress(*NOT_LISTED):
            found = session.client.datasets.get(request.resource_id or "", include_metadata=True)
            if (found.project_id or "").casefold() == project.casefold():
                hidden[found.unique_id] = (request, summary_of(found.model_dump()))
    if not hidden:
        return
    without = currency_of(copy)
    everything = currency_of(copy, beside=[summary.status for _, summary in hidden.values()])
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
            newest[request.file_mfid] = max(previous, request, key=lambda request: request.id)
    failed = [request for request in newest.values() if _is_failed(request)]
    for number, request in enumerate(failed):
        mfid = str(request.dataset_mfid)
        file = f"file {request.file_mfid}"
        with suppress(ForbiddenError, NotFoundError):
            file = session.client.files.get(str(request.file_mfid)).filename if number < MOST_NAMED else file
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


def missing_datasets(session: Session, project: str, present: Collection[str]) -> Iterator[Finding]:
    """Yield missing datasets that Crucible's list of deletions, or runs from this data folder, name."""
    deleted: dict[str, DeletedRecord] = {}  # as far as this key can see them
    with suppress(*NOT_LISTED):
        deleted |= {
            str(record.resource_id): record
            for record in session.client.deletions.deleted()
            if record.resource_type == "dataset" and project_of_deleted(record).casefold() == project.casefold()
        }
    suspects = {mfid: entry.resource_name for mfid, entry in deleted.items() if has_derived_id(mfid)}
    made_here = (session.mirror.known(mfid) for mfid in sorted(session.journal.datasets(project)))
    suspects |= {dataset.mfid: dataset.name for dataset in made_here if dataset}
    for mfid, name in sorted(suspects.items()):
        if (
            mfid in present
            or (mfid in deleted and (deleted[mfid].model_extra or {}).get("review_time") is not None)
            or not fetch_datasets(session.client, [mfid]).absent
        ):
            continue
        message = (
            f"{name or mfid} was registered, but is missing without a reviewed deletion; "
            "running its pipeline registers it again under the same id"
        )
        yield Finding("missing-dataset", "error", (mfid,), message, _RERUN)
