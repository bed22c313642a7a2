"""Verification: is everything still as its provenance says? Reads, compares, and changes nothing.

A project is read in pages: its datasets with metadata and links, and its files where that takes fewer calls than asking
dataset by dataset. Nothing is said of a dataset's files before they were read for that dataset alone, since a list that
changes while it is paged may skip some.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from crucible_lineage.client.models import FileRecord
from crucible_lineage.errors import (
    ChecksumError,
    CrucibleError,
    ForbiddenError,
    InputError,
    LineageError,
    NotFoundError,
    RefusedError,
    RunError,
)
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage import Finding, LineageGraph
from crucible_lineage.pipeline.files.fetch import fetch_reference, is_reference
from crucible_lineage.pipeline.files.remote import source_fault
from crucible_lineage.provenance.attachment import whole_record
from crucible_lineage.provenance.recipe import derived_mfid
from crucible_lineage.provenance.record import KEY, read_record
from crucible_lineage.queries.verify.missing import certainly_gone, gone_datasets
from crucible_lineage.queries.verify.rules import Evidence, findings_of, has_derived_id, label, used_mfids
from crucible_lineage.session import Session

__all__ = ["Verification", "verify_dataset", "verify_project"]

Record = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")

WORKERS = 8  # what one client should ask of a shared service at a time
FEW = 20  # up to here, datasets are asked for one by one, and not with their whole project
FILES_PER_PAGE = 1000  # the service's largest page
FILE_FAULTS = {"file-missing", "file-changed", "file-added", "input-changed"}


@dataclass(frozen=True)
class Verification:
    """What was looked at and what was found. `hidden` are parents that this key cannot see, if they are there."""

    findings: tuple[Finding, ...]
    datasets: int
    records: int
    files: int
    bytes_read: int
    hidden: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `verify --json` prints."""
        return {
            "findings": [
                {
                    "class": f.check,
                    "severity": f.severity,
                    "ids": list(f.ids),
                    "message": f.message,
                    "command": f.command,
                }
                for f in self.findings
            ],
            "datasets": self.datasets,
            "records": self.records,
            "files": self.files,
            "bytes_read": self.bytes_read,
            "hidden": list(self.hidden),
        }


def verify_project(session: Session, project: str, *, read_bytes: bool = False) -> Verification:
    """What is wrong with a project: each dataset, and what runs from this data folder made and is gone.

    InputError if there is no such project. With `read_bytes` every file is downloaded and hashed; one that is
    catalogued by reference is read where it lies.
    """
    known = session.client.projects.find(project)
    if known is None:
        raise InputError(f"there is no project {project!r} here that this key may see ({session.settings.describe()})")
    datasets = _listed(session, known.project_id)
    found = _verify(session, datasets, read_bytes)
    told = {mfid for finding in found.findings for mfid in finding.ids}
    gone = [
        finding for finding in gone_datasets(session, known.project_id, datasets.keys()) if finding.ids[0] not in told
    ]
    return replace(found, findings=(*found.findings, *gone))


def verify_dataset(session: Session, mfid: str, *, read_bytes: bool = False) -> Verification:
    """What is wrong with a dataset and with everything that it was made from. InputError if there is none."""
    if not is_mfid(mfid):
        raise InputError(f"{mfid!r} is no MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    datasets, absent, _ = _asked(session, [mfid], include_links=True)
    if mfid not in datasets:
        state = "there is none here" if absent else "this key may not read it"
        raise InputError(f"verify dataset {mfid}: {state} ({session.settings.describe()})")
    return _verify(session, _with_ancestors(session, datasets), read_bytes)


def _verify(session: Session, datasets: Mapping[str, Record], read_bytes: bool) -> Verification:
    records, damaged = _whole_records(session, datasets)
    named = {parent for record in records.values() for parent in used_mfids(record)}
    parents, absent, hidden = _asked(session, named - datasets.keys())
    gone = certainly_gone(session, absent)
    hidden |= absent - gone
    shown = [_with_record(dataset, records.get(mfid)) for mfid, dataset in datasets.items()]
    missing_record = {mfid for mfid in datasets if mfid not in records and has_derived_id(mfid)}
    with_files = records.keys() | missing_record | (named - gone - hidden)
    files = _files(session, sorted(with_files), len(datasets))
    evidence = Evidence(
        datasets=datasets,
        records=records,
        graph=LineageGraph.from_records(shown),
        files=files,
        damaged=damaged,
        absent=frozenset(gone),
        hidden=frozenset(hidden),
        assigned=_assigned(session, records),
    )
    findings = _confirmed(session, evidence)
    bytes_read = 0
    if read_bytes:
        known = {**datasets, **parents}
        wrong, bytes_read = _read_bytes(session, known, records, files)
        findings += wrong
    return Verification(
        findings=tuple(findings),
        datasets=len(datasets),
        records=len(records),
        files=sum(map(len, files.values())),
        bytes_read=bytes_read,
        hidden=tuple(sorted(hidden)),
    )


def _listed(session: Session, project: str) -> dict[str, Record]:
    """All datasets of a project, with metadata and links, a thousand a call."""
    found = session.client.datasets.iter(project_id=project, include_metadata=True, include_links=True)
    return {dataset.unique_id: dataset.model_dump() for dataset in found}


def _asked(
    session: Session, mfids: Iterable[str], *, include_links: bool = False
) -> tuple[dict[str, Record], set[str], set[str]]:
    """Datasets by id, one call each; the ids of those that are not there; of those that this key may not read."""
    found: dict[str, Record] = {}
    absent, hidden = set(), set()

    def ask(mfid: str) -> tuple[str, Record | CrucibleError]:
        try:
            dataset = session.client.datasets.get(mfid, include_metadata=True, include_links=include_links)
        except (ForbiddenError, NotFoundError) as error:
            return mfid, error
        return mfid, dataset.model_dump()

    for mfid, answer in _in_threads(ask, sorted(mfids)):
        if isinstance(answer, NotFoundError):
            absent.add(mfid)
        elif isinstance(answer, CrucibleError):
            hidden.add(mfid)
        else:
            found[mfid] = answer
    return found, absent, hidden


def _with_ancestors(session: Session, datasets: Mapping[str, Record]) -> dict[str, Record]:
    """The datasets with all that they were made from, by their links and by their records: links may have gone.

    They are asked for one by one until there are many, then with their whole projects.
    """
    found, newest, seen = dict(datasets), dict(datasets), set(datasets)
    listed: dict[str, Record] = {}
    projects: set[str] = set()
    while wanted := {parent for dataset in newest.values() for parent in _parents_of(dataset)} - seen:
        seen |= wanted
        if len(seen) > FEW:
            new_projects = {str(dataset["project_id"]) for dataset in newest.values()} - projects - {"None"}
            projects |= new_projects
            listed |= {mfid: dataset for project in new_projects for mfid, dataset in _listed(session, project).items()}
        newest = {mfid: listed[mfid] for mfid in wanted & listed.keys()}
        newest |= _asked(session, wanted - listed.keys(), include_links=True)[0]
        found |= newest
    return found


def _parents_of(dataset: Record) -> set[str]:
    record = read_record(dataset.get("scientific_metadata")) or {}
    linked = {
        link["unique_id"]
        for link in dataset["links"] or ()
        if link["direction"] == "source" and link["resource_type"] == "dataset"
    }
    return linked | {entry["mfid"] for entry in record.get("used", ())}


def _whole_records(session: Session, datasets: Mapping[str, Record]) -> tuple[dict[str, Record], dict[str, str]]:
    """The provenance record of each dataset that has one, and why others cannot be made whole."""
    records, damaged = {}, {}
    for mfid, dataset in datasets.items():
        record = read_record(dataset.get("scientific_metadata"))
        if record is None:
            continue
        try:
            records[mfid] = whole_record(session.client, mfid, record)
        except (ChecksumError, InputError, NotFoundError) as error:
            damaged[mfid] = str(error)
    return records, damaged


def _with_record(dataset: Record, record: Record | None) -> Record:
    if record is None:
        return dataset
    return {**dataset, "scientific_metadata": {**dataset["scientific_metadata"], KEY: record}}


def _assigned(session: Session, records: Mapping[str, Record]) -> dict[str, str]:
    """Where a server chose the id: the id that the recipe has, as a keyword says that registration adds then."""
    found = {}
    for mfid, record in records.items():
        if record["recipe"].get("inputs") and not has_derived_id(mfid):
            derived = derived_mfid(record["recipe"])
            keywords = {keyword.keyword for keyword in session.client.datasets.get_keywords(mfid)}
            if f"recipe:{derived}" in keywords:
                found[mfid] = derived
    return found


def _files(session: Session, mfids: Sequence[str], scale: int) -> dict[str, Sequence[FileRecord]]:
    """What Crucible lists for each dataset: out of the pages of all files if those are few, else dataset by dataset."""
    most = scale // 10 * FILES_PER_PAGE  # looking costs a tenth of the calls that it may save
    listed = _all_files(session, most) if most else None
    if listed is None:
        return _files_one_by_one(session, mfids)
    found: dict[str, list[FileRecord]] = {mfid: [] for mfid in mfids}
    for file in listed:
        if file.dataset_mfid in found:
            found[file.dataset_mfid].append(file)
    return dict(found)


def _all_files(session: Session, most: int) -> list[FileRecord] | None:
    """All files that this key may read; None if they are more than `most`, or the service does not list them."""
    try:
        found = list(islice(session.client.files.iter(), most + 1))
    except (ForbiddenError, NotFoundError, RefusedError):
        return None
    return found if len(found) <= most else None


def _files_one_by_one(session: Session, mfids: Sequence[str]) -> dict[str, Sequence[FileRecord]]:
    return dict(_in_threads(lambda mfid: (mfid, session.client.files.list(mfid)), mfids))


def _confirmed(session: Session, evidence: Evidence) -> list[Finding]:
    """The findings; those about files once more, with the files of just these datasets read again."""
    findings = list(findings_of(evidence))
    doubtful = sorted({mfid for finding in findings if finding.check in FILE_FAULTS for mfid in finding.ids})
    again = _files_one_by_one(session, [mfid for mfid in doubtful if mfid in evidence.files])
    if not again:
        return findings
    return list(findings_of(replace(evidence, files={**evidence.files, **again})))


def _read_bytes(
    session: Session,
    datasets: Mapping[str, Record],
    records: Mapping[str, Record],
    files: Mapping[str, Sequence[FileRecord]],
) -> tuple[list[Finding], int]:
    """Findings about files whose bytes are not those of their hash, and how many bytes were read."""

    def read(task: tuple[str, FileRecord]) -> tuple[Finding | None, int]:
        mfid, file = task
        if is_reference(file):
            return _read_reference(session, datasets[mfid], file)
        with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
            try:
                size = session.client.files.download(file, folder).stat().st_size
            except (ChecksumError, InputError, NotFoundError, RefusedError) as error:
                return _unreadable_file(datasets[mfid], file, error), file.size or 0
        return None, size

    tasks = [(mfid, file) for mfid in files if mfid in datasets for file in files[mfid] if _is_readable(file)]
    results = list(_in_threads(read, [(mfid, _with_hash(file, records.get(mfid))) for mfid, file in tasks]))
    return [finding for finding, _ in results if finding], sum(size for _, size in results)


def _is_readable(file: FileRecord) -> bool:
    """False for a file elsewhere that nothing here reads, or of which nobody said what its bytes were."""
    if is_reference(file):
        return file.sha256_hash is not None and not source_fault(str(file.storage_path))
    return (file.storage_backend or "gcs") == "gcs"


def _read_reference(session: Session, dataset: Record, file: FileRecord) -> tuple[Finding | None, int]:
    mfid = str(dataset["unique_id"])
    name = f"{label(dataset)}: the file {file.filename}, which is catalogued by reference,"
    try:
        return None, fetch_reference(mfid, file, lambda _: None, session)
    except ChecksumError as error:
        check, what = "source-changed", f"is another one now: {error}; put the old one back"
    except (InputError, RunError) as error:
        check, what = "source-unreadable", f"cannot be read at {file.storage_path}: {error}"
    return Finding(check, "error", (mfid,), f"{name} {what}"), 0


def _with_hash(file: FileRecord, record: Record | None) -> FileRecord:
    """The file with the hash that the record gives it, where Crucible lists none."""
    hashes = {entry["name"]: entry["sha256"] for entry in (record or {}).get("generated", ())}
    return file if file.sha256_hash else file.model_copy(update={"sha256_hash": hashes.get(file.filename)})


def _unreadable_file(dataset: Record, file: FileRecord, error: LineageError) -> Finding:
    mfid = str(dataset["unique_id"])
    what = "holds other bytes than its hash says" if isinstance(error, ChecksumError) else f"cannot be read: {error}"
    message = f"{label(dataset)}: the file {file.filename} {what}; the storage is damaged, have it restored"
    return Finding("file-damaged", "error", (mfid,), message, f"crucible get {file.mfid}")


def _in_threads(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """The results, in order; several calls at a time."""
    if len(items) < 2:
        return map(work, items)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="verify") as pool:
        return iter(list(pool.map(work, items)))
