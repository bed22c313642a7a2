"""Verification: compare links, records and files of datasets with each other. It changes nothing.

A project is read in pages: its datasets with metadata and links, and its files if that takes fewer calls than reading
them by dataset. Findings about files are confirmed by reading the files of that dataset alone, since a list that
changes while it is paged may skip some."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, Coloured
from crucible_lineage.ask.lineages import with_states
from crucible_lineage.ask.names import deletion_of, find_mfid, find_project
from crucible_lineage.ask.question import AFTER, HERE, Project, argument, option, question
from crucible_lineage.ask.rules import (
    Evidence,
    Record,
    findings_of,
    missing_datasets,
    not_ingested,
    overwritten,
    restore_command,
    slot_conflicts,
    withdrawn,
)
from crucible_lineage.client.models import FileRecord
from crucible_lineage.core.datasets import ONE_BY_ONE, fetch_datasets, no_project
from crucible_lineage.errors import ChecksumError, InputError, NotFoundError
from crucible_lineage.ids import has_derived_id, require_mfid
from crucible_lineage.json_types import JsonMapping, text
from crucible_lineage.lineage.checks import Finding, check, worst_first
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import used_mfids
from crucible_lineage.machine.process import Tell, in_threads
from crucible_lineage.marks import KEY
from crucible_lineage.pipeline.plan.fetch import LOST
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import files_of, files_one_by_one, whole_record
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount

COLOURS = {"error": "red", "warning": "yellow", "notice": ""}
FINDINGS_SHOWN = 10  # of one kind
FILE_FAULTS = {"file-missing", "file-changed", "file-added", "input-changed"}


@dataclass(frozen=True)
class Verification(Answer):
    """The scope of a verification and its findings, worst first.

    `hidden` are parents that this key cannot see, if they exist.
    """

    findings: tuple[Finding, ...]
    datasets: int
    records: int
    files: int
    bytes_read: int
    hidden: tuple[str, ...]
    name: str = ""
    json_keys: ClassVar = "ok findings datasets records files bytes_read hidden"

    @property
    def ok(self) -> bool:
        """Whether no finding is an error, only a warning or notice."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def is_alarm(self) -> bool:  # type: ignore[override]
        return not self.ok

    @property
    def scope(self) -> str:
        """What was compared, in words."""
        checked = f"{amount(self.datasets, 'dataset')} ({self.records} with a record), {amount(self.files, 'file')}"
        if self.bytes_read:
            checked += f", {self.bytes_read} bytes read"
        return checked

    def lines(self) -> Iterator[str]:
        ordered = worst_first(self.findings)
        kinds = Counter((finding.severity, finding.check) for finding in ordered)
        shown: Counter[tuple[str, str]] = Counter()
        for finding in ordered:
            shown[finding.severity, finding.check] += 1
            if shown[finding.severity, finding.check] <= FINDINGS_SHOWN:
                end = f": {finding.check}: {' '.join(finding.ids)}"
                yield Coloured(COLOURS[finding.severity], finding.severity, end)
                yield f"  {finding.message}"
                if finding.command:
                    yield f"  way out: {finding.command}"
        for (severity, rule), count in kinds.items():
            if count > FINDINGS_SHOWN:
                yield Coloured(
                    COLOURS[severity], severity, f": {rule}: {count - FINDINGS_SHOWN} more; --json lists them"
                )
        counts = ", ".join(f"{amount(count, severity)}: {rule}" for (severity, rule), count in kinds.items())
        yield f"{self.name}: {counts or 'no findings'}; looked at {self.scope}"


def _one_scope(dataset: str | None = None, project: str | None = None, **_: object) -> None:
    if dataset is not None and project is not None:
        raise InputError("give either the MFID of a dataset or --project, not both")


@question("verify", announced=AFTER, check=_one_scope)
def verify(
    session: Session, dataset: Annotated[str | None, argument("[MFID]")] = None, *,
    project: Project = None,
    read_bytes: Annotated[bool, option("Also download and hash every file.", "--bytes", doors=HERE)] = False,
    tell: Tell | None = None,
) -> Verification:  # fmt: skip
    """Compare the links, records and files of a project with each other, or of the dataset MFID, its ancestors and its
    descendants (whose files are not compared), or of the datasets of the sample MFID.

    Ids are derived again. Each finding comes with the command that mends it. Exit code 1 if one is an error, 2 if
    the input is wrong. Changes nothing.
    """
    mfid = dataset and find_mfid(session, dataset)
    name = mfid or find_project(session, project)
    of_scope = verify_dataset if mfid else verify_project
    return replace(of_scope(session, name, read_bytes=read_bytes, tell=tell), name=name)


def verify_project(
    session: Session, project: str, *, read_bytes: bool = False, tell: Tell | None = None
) -> Verification:
    """Verify a project: each dataset, and missing datasets that runs from this data folder made.

    Raises InputError if there is no such project. With `read_bytes`, every file is downloaded and
    hashed. `tell` gets the progress, from any thread.
    """
    found_project = session.client.projects.find(project)
    if found_project is None:
        raise no_project(session.client, project, session.settings.describe())
    project = found_project.project_id
    datasets = _project_datasets(session, project)
    found, graph = _verify(session, datasets, datasets.keys(), read_bytes, tell or _ignore)
    reported = {mfid for finding in found.findings for mfid in finding.ids}
    more = [
        finding for finding in missing_datasets(session, project, datasets.keys()) if finding.ids[0] not in reported
    ]
    copy = session.mirror.snapshot(project)
    more += slot_conflicts(graph, copy)
    more += withdrawn(session, project, copy)
    more += overwritten(copy.records)
    return replace(found, findings=tuple(worst_first([*found.findings, *more])))


def verify_dataset(session: Session, mfid: str, *, read_bytes: bool = False, tell: Tell | None = None) -> Verification:
    """Verify a dataset, its ancestors and descendants, or all datasets of a sample. InputError if it does not exist.

    Files are compared, and read, of the dataset and its ancestors.
    """
    require_mfid(mfid)
    fetched = fetch_datasets(session.client, [mfid], include_links=True)
    if mfid in fetched.absent:
        of_sample = [dataset.unique_id for dataset in session.client.datasets.list(sample_mfid=mfid)]
        fetched = fetch_datasets(session.client, of_sample, include_links=True) if of_sample else fetched
    if not fetched.found:
        state = "it does not exist" if fetched.absent else "this key may not read it"
        raise InputError(f"verify dataset {mfid}: {state} ({session.settings.describe()})")

    def parents(dataset: JsonMapping) -> set[str]:  # by links and by the record, since links may be missing
        record = read_record(dataset.get("scientific_metadata"))
        return _linked(dataset, "source") | set(record.parents if record else ())

    above = _reached(session, fetched.found, parents)
    below = _reached(session, fetched.found, lambda dataset: _linked(dataset, "target"))
    return _verify(session, {**below, **above}, above.keys(), read_bytes, tell or _ignore)[0]


def _ignore(text: str, of_bytes: int) -> None:
    """Ignore the progress."""


def _verify(
    session: Session, datasets: Mapping[str, JsonMapping], of_files: Collection[str], read_bytes: bool, tell: Tell
) -> tuple[Verification, LineageGraph]:
    """Apply the rules of links and records to these datasets, and those of files to the ones in `of_files`."""
    tell(f"comparing {amount(len(datasets), 'dataset')} with the record", 0)
    records, damaged = _whole_records(session, datasets)
    named = {parent for record in records.values() for parent in record.all_parents}
    named |= {parent for dataset in datasets.values() for parent in used_mfids(dataset)}  # of damaged ones, too
    fetched = fetch_datasets(session.client, named - datasets.keys())
    missing = certainly_deleted(session, fetched.absent)
    hidden = fetched.hidden | (fetched.absent - missing)
    graph = _graph(session, datasets, records, fetched.found, hidden | missing)
    missing_record = {mfid for mfid in datasets if mfid not in records and has_derived_id(mfid)}
    with_files = (records.keys() | missing_record) & set(of_files) | (named - missing - hidden)
    files = files_of(session.client, sorted(with_files), len(datasets))
    evidence = Evidence(datasets, records, graph, files, damaged, frozenset(missing))
    findings = _confirmed(session, evidence)
    findings += _of_links(graph, datasets, {finding.ids for finding in findings})
    findings += not_ingested(session, graph, datasets)
    bytes_read = 0
    if read_bytes:
        stored = _with_hashes(files, records, {*of_files, *fetched.found})
        of_bytes, bytes_read = _read_bytes(session, graph, stored, tell)
        findings += [*of_bytes, *_damaged_copies(session, graph, stored)]
    verification = Verification(
        findings=tuple(worst_first(findings)),
        datasets=len(datasets),
        records=len(records),
        files=sum(map(len, files.values())),
        bytes_read=bytes_read,
        hidden=tuple(sorted(hidden)),
    )
    return verification, graph


def _with_hashes(
    files: Mapping[str, Sequence[FileRecord]], records: Mapping[str, Record], among: Collection[str]
) -> list[tuple[str, FileRecord]]:
    """Return the files of some datasets with the hashes of their records where Crucible lists none."""
    stored = list[tuple[str, FileRecord]]()
    for mfid, listed in files.items():
        hashes = {entry.name: entry.sha256 for entry in (mfid in records and records[mfid].generated) or ()}
        for file in listed if mfid in among else ():
            sha256 = file.sha256_hash or hashes.get(file.filename)
            stored.append((mfid, file.model_copy(update={"sha256_hash": sha256})))
    return stored


def _whole_records(session: Session, datasets: Mapping[str, JsonMapping]) -> tuple[dict[str, Record], dict[str, str]]:
    """Return the provenance record of each dataset that has one, and why others cannot be completed."""
    records, damaged = {}, {}
    for mfid, dataset in datasets.items():
        if record := read_record(dataset.get("scientific_metadata")):
            try:
                records[mfid] = whole_record(session.client, mfid, record)
            except (ChecksumError, InputError, NotFoundError) as error:
                damaged[mfid] = str(error)
    return records, damaged


def _graph(
    session: Session,
    datasets: Mapping[str, JsonMapping],
    records: Mapping[str, Record],
    parents: Mapping[str, JsonMapping],
    unseen: Collection[str],
) -> LineageGraph:
    """Return the graph of the datasets with their states, and the datasets that their records name as used."""
    whole = {
        mfid: {
            **datasets[mfid],
            "scientific_metadata": {**datasets[mfid]["scientific_metadata"], KEY: record.document()},
        }
        for mfid, record in records.items()
    }
    linked = LineageGraph.from_records({**datasets, **whole}.values())
    named = [Node(mfid, name=text(parent.get("dataset_name"))) for mfid, parent in parents.items()]
    named += [Node(mfid, "hidden") for mfid in unseen]
    nodes = [*linked.nodes.values(), *(node for node in named if node.id not in linked)]
    return with_states(session, LineageGraph(nodes, linked.edges.values()))


def _of_links(
    graph: LineageGraph, datasets: Collection[str], reported: Collection[tuple[str, ...]]
) -> Iterator[Finding]:
    """Yield the faults of links, without those that were reported, and without ids that the reader cannot see."""
    for finding in check(graph, datasets):
        if finding.ids in reported and finding.check in ("dangling-parent", "incomplete"):
            continue
        if hidden := graph.hidden.intersection(finding.ids):
            command = "" if any(mfid in finding.command for mfid in hidden) else finding.command
            shown = tuple(mfid for mfid in finding.ids if mfid not in hidden)
            yield replace(finding, ids=shown, command=command)
        else:
            yield finding


def _project_datasets(session: Session, project: str) -> dict[str, JsonMapping]:
    """Return all datasets of a project, with metadata and links, a thousand per call."""
    found = session.client.datasets.iter(project_id=project, include_metadata=True, include_links=True)
    return {dataset.unique_id: dataset.model_dump() for dataset in found}


def _reached(
    session: Session, datasets: Mapping[str, JsonMapping], next_to: Callable[[JsonMapping], set[str]]
) -> dict[str, JsonMapping]:
    """Add what is reached from the datasets.

    They are fetched one by one until there are many, then with their whole projects.
    """
    found, newest, seen = dict(datasets), dict(datasets), set(datasets)
    listed: dict[str, JsonMapping] = {}
    projects: set[str] = set()
    while missing := {mfid for dataset in newest.values() for mfid in next_to(dataset)} - seen:
        seen |= missing
        if len(seen) > ONE_BY_ONE:
            new_projects = {str(dataset["project_id"]) for dataset in newest.values()} - projects - {"None"}
            projects |= new_projects
            listed |= {
                mfid: dataset
                for project in new_projects
                for mfid, dataset in _project_datasets(session, project).items()
            }
        newest = {mfid: listed[mfid] for mfid in missing & listed.keys()}
        newest |= fetch_datasets(session.client, missing - listed.keys(), include_links=True).found
        found |= newest
    return found


def _linked(dataset: JsonMapping, direction: str) -> set[str]:
    links = dataset["links"] or ()
    return {
        link["unique_id"] for link in links if link["direction"] == direction and link["resource_type"] == "dataset"
    }


def _confirmed(session: Session, evidence: Evidence) -> list[Finding]:
    """Return the findings, with those about files confirmed by reading the files of these datasets again."""
    findings = list(findings_of(evidence))
    doubtful = sorted({mfid for finding in findings if finding.check in FILE_FAULTS for mfid in finding.ids})
    again = files_one_by_one(session.client, [mfid for mfid in doubtful if mfid in evidence.files])
    if not again:
        return findings
    return list(findings_of(replace(evidence, files={**evidence.files, **again})))


def _read_bytes(
    session: Session, graph: LineageGraph, stored: Sequence[tuple[str, FileRecord]], tell: Tell
) -> tuple[list[Finding], int]:
    """Return a finding for each file whose bytes do not match its hash, and the number of bytes read."""
    tasks = [(mfid, file) for mfid, file in stored if (file.storage_backend or "gcs") == "gcs"]
    numbers, total = itertools.count(1), sum(file.size or 0 for _, file in tasks)

    def read(task: tuple[str, FileRecord]) -> tuple[Finding | None, int]:
        found = _read_one(session, graph, *task)
        tell(f"reading bytes: {next(numbers):,} of {amount(len(tasks), 'file')}", total)
        return found

    tell(f"reading bytes: 0 of {amount(len(tasks), 'file')}", total)
    results = in_threads(read, tasks)
    return [found for found, _ in results if found], sum(size for _, size in results)


def _read_one(session: Session, graph: LineageGraph, mfid: str, file: FileRecord) -> tuple[Finding | None, int]:
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        try:
            return None, session.client.files.download(file, folder).stat().st_size
        except LOST as error:
            problem = "does not match its hash" if isinstance(error, ChecksumError) else f"cannot be read: {error}"
    message = f"{graph.label(mfid)}: the file {file.filename} {problem}; its storage is damaged"
    command = restore_command(mfid) if file.sha256_hash else ""
    return Finding("file-damaged", "error", (mfid,), message, command), file.size or 0


def _damaged_copies(
    session: Session, graph: LineageGraph, stored: Sequence[tuple[str, FileRecord]]
) -> Iterator[Finding]:
    """Yield a finding for each damaged copy of a file in this data folder's cache."""
    for sha256, (mfid, file) in {str(file.sha256_hash): (mfid, file) for mfid, file in stored}.items():
        if session.cache.is_damaged(sha256):
            message = (
                f"{graph.label(mfid)}: the copy of {file.filename} in this data folder's cache does not match its "
                f"hash ({session.cache.path(sha256)}); a step downloads it again, but check the disk, and what else "
                "writes there"
            )
            yield Finding("cache-damaged", "error", (mfid,), message, "crucible-lineage data clean --cache")


def certainly_deleted(session: Session, mfids: Collection[str]) -> set[str]:
    """Return those of `mfids`, which Crucible does not find, that no longer exist.

    Others may be hidden from this key, for which Crucible gives the same answer. It is certain if the key sees
    everything, if the deletion is on record, or if this data folder knew the dataset.
    """
    if not mfids or session.client.account.profile().authorization.get("effective_privilege_mode") == "elevated":
        return set(mfids)
    return {mfid for mfid in mfids if session.mirror.known(mfid) or deletion_of(session, mfid)}
