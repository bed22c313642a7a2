"""Reading datasets from Crucible with their provenance, and finding the dataset of a recipe."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.core.slots import SlotClaim, slots_of
from crucible_lineage.errors import (
    TRANSIENT,
    ChecksumError,
    CrucibleError,
    ForbiddenError,
    IdTakenError,
    NotFoundError,
    RecipeConflictError,
    RefusedError,
    WithdrawnError,
)
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.process import in_threads
from crucible_lineage.provenance.recipe import generated_sha256, origin_of
from crucible_lineage.provenance.record import expand, read_record, unreadable
from crucible_lineage.refs import DatasetRef, context_of
from crucible_lineage.text.times import measured_at

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, FileRecord
    from crucible_lineage.core.mirror import Mirror
    from crucible_lineage.provenance.schema import FilesRecord, ProvenanceRecord, StepRecord

T = TypeVar("T", bound="ProvenanceRecord")


@dataclass(frozen=True)
class Registered:
    """A dataset as Crucible has it, with its provenance record, if any.

    The record of a complete dataset has all its parts. `ref` is for use by steps, None unless the dataset is complete.
    """

    dataset: Dataset
    record: StepRecord | FilesRecord | None
    ref: DatasetRef | None = None

    @property
    def mfid(self) -> str:
        """The dataset's id."""
        return self.dataset.unique_id

    @property
    def step_record(self) -> StepRecord | None:
        """The record, if a step made the dataset."""
        return self.record.as_step if self.record is not None else None

    @property
    def is_begun(self) -> bool:
        """Whether the registration was begun and not finished."""
        return self.record is not None and not self.record.is_complete


def read(client: CrucibleClient, mfid: str) -> Registered | None:
    """Read a dataset with its record; None if this key sees none. One call, two for a long record.

    Raises ChecksumError if the attached file with a part of the record is missing or has other bytes.
    """
    try:
        dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
    except NotFoundError:
        return None
    return registered(client, dataset)


def require_not_withdrawn(found: Registered) -> None:
    """Raise WithdrawnError if the dataset is to be deleted: its id is in use, but it must not be relied on."""
    request = found.dataset.deletion_request
    if request is not None and found.dataset.is_to_be_deleted:
        raise WithdrawnError(
            f"the result {found.mfid} has a request for deletion ({request.id}, {request.status}); have the request "
            "carried out or rejected, or make another attempt with --force",
            mfid=found.mfid,
        )


def registered(client: CrucibleClient, dataset: Dataset) -> Registered:
    """Return the dataset, read with metadata and links, with its record."""
    record = read_record(dataset.scientific_metadata)
    if record is None or not record.is_complete:
        return Registered(dataset, record)
    record = whole_record(client, dataset.unique_id, record)
    ref = DatasetRef(
        mfid=dataset.unique_id,
        name=dataset.dataset_name or dataset.unique_id,
        files=record.files,
        samples=samples_of(dataset),
        origin=origin_of(record.recipe),
        parents=tuple(used.mfid for used in record.used),
        equals=tuple(record.equal_parents or ()),
        taken=taken_of(dataset),
        context=context_of(dict(dataset)),
    )
    return Registered(dataset, record, ref)


def whole_record(client: CrucibleClient, mfid: str, record: T) -> T:
    """Return the record with all its parts; asks Crucible only if one of them is in the attached file."""
    if record.is_whole or record.attached is None:
        return record
    for file in client.files.list(mfid):
        if file.filename == record.attached.name:
            return expand(record, client.files.download_bytes(file))
    raise ChecksumError(
        f"dataset {mfid} has no file {record.attached.name}, which holds a part of its provenance record"
    )


def read_own(client: CrucibleClient, mfid: str, project: str, recipe_sha256: str, action: str) -> Registered | None:
    """Read the dataset of this recipe by its id; None if this key sees none.

    Raises IdTakenError if something else has the id, or if the files are not those of the record. `action` says what
    was tried.
    """
    found = read(client, mfid)
    if found is None:
        return None
    require_own(client, found.dataset, project, recipe_sha256, action)
    if found.record is not None and found.ref is not None:
        require_own_files(client, found.dataset, found.record)
    return found


def knows(mirror: Mirror, found: Registered) -> bool:
    """Return whether a complete dataset is trusted as it is now, so that its files were compared."""
    known = mirror.known(found.mfid)
    return known is not None and found.ref is not None and known.files == found.ref.files


def refusals(
    client: CrucibleClient,
    datasets: Sequence[Registered],
    known: Mapping[str, Sequence[FileRecord]] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the complete datasets whose files are not those of their records, by id, with the reason.

    `known` are files of datasets at Crucible, as listed a moment ago.
    """
    complete = [(each, each.record) for each in datasets if each.ref is not None and each.record is not None]
    files = {**known, **files_of(client, [each.mfid for each, _ in complete if each.mfid not in known])}
    refused = {}
    for each, record in complete:
        if other_files(record, files[each.mfid]):
            try:
                require_own_files(client, each.dataset, record)
            except IdTakenError as error:
                refused[each.mfid] = str(error)
    return refused


def taken_of(dataset: Dataset) -> str:
    """Return when the data of a dataset were measured, in ISO 8601; empty if that is unknown."""
    known = measured_at({"timestamp": dataset.timestamp, "creation_time": dataset.creation_time})
    return known.isoformat() if known else ""


def samples_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the samples associated with a dataset, which was read with its links."""
    return tuple(sorted(link.unique_id for link in dataset.links or () if link.resource_type == "sample"))


WAY_OUT = (
    "have it deleted (its owner or an administrator of Crucible can), or give the result another id: a `salt:` in the "
    "declaration of its step or input (`register --salt`), any text"
)
SETTLES_S = 2.0  # chosen: an overtaken registration removes its files within two calls
POLL_S = 0.2
FILES_PER_PAGE = 1000  # the service's largest page
CLOCKS_DIFFER = timedelta(minutes=10)  # chosen: the largest difference between the clocks of machine and service


def lies_elsewhere(dataset: Dataset, project: str) -> bool:
    """Return whether the dataset is in another project, or in none."""
    return (dataset.project_id or "").casefold() != project.casefold()


def require_own(client: CrucibleClient, dataset: Dataset, project: str, recipe_sha256: str, action: str) -> None:
    """Raise IdTakenError if the dataset, read with metadata, is in another project or has another recipe.

    `action` says what was tried.
    """
    require_project(client, dataset, project, action)
    record = read_record(dataset.scientific_metadata)
    reason = unreadable(dataset.scientific_metadata)
    if record is not None and record.recipe_sha256 != recipe_sha256:
        reason = "its recipe is another one"
    if reason:
        raise RecipeConflictError(other_recipe_message(client, dataset, action, reason), mfid=dataset.unique_id)


def require_project(client: CrucibleClient, dataset: Dataset, project: str, action: str) -> None:
    """Raise IdTakenError if the dataset with this id is in another project; it names the owner."""
    if lies_elsewhere(dataset, project):
        raise IdTakenError(
            f"{action}: the id {dataset.unique_id} is taken by dataset {dataset.dataset_name!r} of "
            f"{_owner(client, dataset)}, in {_location(dataset)}, not in {project}; nothing was written, and that "
            f"dataset is not used. To continue, {WAY_OUT}",
            mfid=dataset.unique_id,
        )


def other_recipe_message(
    client: CrucibleClient, dataset: Dataset, action: str, reason: str = "its recipe is another one"
) -> str:
    """Return the message that the dataset with this id has another recipe: its owner, and what to do."""
    mfid = dataset.unique_id
    return (
        f"{action}: the id {mfid} is taken by dataset {dataset.dataset_name!r} of {_owner(client, dataset)}, and "
        f"{reason}; nothing was written. Its record was edited or copied: see `crucible-lineage verify {mfid}`. "
        f"To continue, {WAY_OUT}"
    )


def require_own_files(client: CrucibleClient, dataset: Dataset, record: StepRecord | FilesRecord) -> list[FileRecord]:
    """Return the files of a complete dataset. Raises IdTakenError if its own (complete) record lists others."""
    until = time.monotonic() + SETTLES_S
    while wrong := other_files(record, listed := client.files.list(dataset.unique_id)):
        if time.monotonic() > until:
            mfid, owner = dataset.unique_id, _owner(client, dataset)
            raise IdTakenError(
                f"dataset {mfid} ({dataset.dataset_name!r}, of {owner}, in {_location(dataset)}) is marked complete, "
                f"but {wrong}; it is not used. See `crucible-lineage verify {mfid}`. To continue, have the file put "
                "back, have the dataset deleted, make another attempt beside it (--force), or give the result another "
                "id by a `salt:` in its declaration",
                mfid=mfid,
            )
        time.sleep(POLL_S)
    return listed


def other_files(record: StepRecord | FilesRecord, listed: Iterable[FileRecord]) -> str:
    """Return the first difference between the files of a (complete) record and those listed; empty if they agree."""
    stored = {file.filename: file.sha256_hash for file in listed}
    expected = {file.name: file.sha256 for file in record.files}
    if record.attached is not None:
        expected[record.attached.name] = record.attached.sha256
    for name, sha256 in sorted((record.recipe.get("files") or {}).items()):
        if expected.get(name) != sha256:
            return f"its record does not list the file {name} with the bytes of its recipe"
    for name, sha256 in sorted(expected.items()):
        if name not in stored:
            return f"its file {name} is missing"
        if stored[name] not in (sha256, None):
            return f"its file {name} has SHA-256 {stored[name]}, and its record says {sha256}"
    return ""


def files_of(client: CrucibleClient, mfids: Sequence[str], scale: int = 0) -> dict[str, Sequence[FileRecord]]:
    """Return each dataset's files at Crucible: from a listing of all files if these are few, else one by one.

    `scale` is the total number of datasets, by default the number of `mfids`.
    """
    most = (scale or len(mfids)) // 10 * FILES_PER_PAGE  # the listing costs a tenth of the calls that it may save
    listed: list[FileRecord] = []
    if most:
        with suppress(ForbiddenError, NotFoundError, RefusedError):  # some services list none
            listed = list(islice(client.files.iter(), most + 1))
    if not 0 < len(listed) <= most:
        return files_one_by_one(client, mfids)
    found: dict[str, list[FileRecord]] = {mfid: [] for mfid in mfids}
    for file in listed:
        if file.dataset_mfid in found:
            found[file.dataset_mfid].append(file)
    return dict(found)


def files_one_by_one(client: CrucibleClient, mfids: Sequence[str]) -> dict[str, Sequence[FileRecord]]:
    """Return each dataset's files at Crucible, with one call per dataset."""
    return dict(zip(mfids, in_threads(client.files.list, mfids), strict=True))


def hidden_id_error(
    client: CrucibleClient, mfid: str, action: str, project: str, refusal: CrucibleError
) -> CrucibleError | IdTakenError:
    """Return the error for an id that is refused and whose dataset this key cannot see."""
    if refusal.status == 403:
        record = None
        with suppress(CrucibleError):
            record = client.projects.find(project)
        if not (record and (record.capabilities or {}).get("can_create_dataset")):
            return refusal
    return IdTakenError(
        f"{action}: Crucible refuses the id {mfid} ({refusal.status}), and this key cannot see its dataset: it is "
        f"taken by a private dataset outside {project}, whose owner only an administrator of Crucible can name; "
        f"nothing was written. To continue, {WAY_OUT}",
        mfid=mfid,
    )


def confirmed(
    client: CrucibleClient, project: str, keyword: str, since: datetime, expected: Collection[DatasetRef]
) -> tuple[dict[str, str], dict[str, tuple[str, Mapping[str, SlotClaim]]]]:
    """Check that datasets are at Crucible, complete, with the files that they were made with.

    Returns the others with reasons, by id, and all that was modified since the run began: {MFID: (when, its slots)}.

    One listing of what was modified `since` then; datasets that it does not show are read by id.
    """
    reasons, listed = dict[str, str](), dict[str, tuple[str, Mapping[str, SlotClaim]]]()
    left = {ref.mfid: ref for ref in expected}
    try:
        filters: JsonObject = {
            "project_id": project,
            "keyword": keyword,
            "modification_time_gte": since - CLOCKS_DIFFER,
        }
        for current in client.datasets.iter(**filters, include_metadata=True):
            listed[current.unique_id] = (current.modification_time or "", slots_of(current.scientific_metadata))
            if ref := left.pop(current.unique_id, None):
                reasons[ref.mfid] = _made_otherwise(client, read_record(current.scientific_metadata), ref)
        for mfid, ref in left.items():
            try:
                dataset = client.datasets.get(mfid, include_metadata=True)
            except (ForbiddenError, NotFoundError):
                reasons[mfid] = "is not there"
                continue
            reasons[mfid] = _made_otherwise(client, read_record(dataset.scientific_metadata), ref)
    except TRANSIENT as error:
        return {ref.mfid: f"could not be checked: {error}" for ref in expected}, {}
    return {mfid: reason for mfid, reason in reasons.items() if reason}, listed


def _made_otherwise(client: CrucibleClient, record: StepRecord | FilesRecord | None, ref: DatasetRef) -> str:
    """Return how a dataset differs from what was registered; empty if it does not."""
    if record is None:
        return "has no provenance record"
    if not record.is_complete:
        return "is incomplete"
    digest = record.result and record.result.generated_sha256
    if not record.is_whole and digest == generated_sha256(file.to_json() for file in ref.files):
        return ""
    try:
        recorded = whole_record(client, ref.mfid, record).files
    except ChecksumError as error:
        return str(error)
    ours, theirs = ({(file.name, file.sha256) for file in files if not file.log} for files in (ref.files, recorded))
    return "" if ours == theirs else "has other files"  # logs may differ


def _location(dataset: Dataset) -> str:
    return f"project {dataset.project_id}" if dataset.project_id else "no project"


def _owner(client: CrucibleClient, dataset: Dataset) -> str:
    """Return the owner of the dataset, by name and id."""
    owner = dataset.owner
    if owner is None:
        with suppress(CrucibleError):
            owner = client.datasets.get(dataset.unique_id, include_owner=True).owner
    if owner is None or isinstance(owner, str):
        return owner or dataset.owner_orcid or "somebody unknown"
    name = " ".join(filter(None, (owner.first_name, owner.last_name))) or owner.username or ""
    return f"{name} ({owner.unique_id})" if name else owner.unique_id
