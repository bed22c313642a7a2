"""Reading datasets from Crucible with their provenance, and finding the dataset of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.core.slots import DatasetStatus, slots_of
from crucible_lineage.errors import (
    ChecksumError,
    IdTakenError,
    NotFoundError,
    RefusedError,
    WithdrawnError,
)
from crucible_lineage.provenance.recipe import origin_of
from crucible_lineage.provenance.record import expand, read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.trust import files_of, other_files, require_own, require_own_files
from crucible_lineage.times import measured_at

T = TypeVar("T", bound="ProvenanceRecord")

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, FileRecord
    from crucible_lineage.core.mirror import Mirror
    from crucible_lineage.provenance.schema import FilesRecord, ProvenanceRecord, StepRecord


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
    def status(self) -> DatasetStatus:
        """The facts that decide whether the dataset is current."""
        return DatasetStatus(
            mfid=self.mfid,
            project=self.dataset.project_id or "",
            complete=not self.is_begun,
            derived=self.record is not None and self.record.is_derived,
            slots=slots_of(self.dataset.scientific_metadata),
            replaces=self.record.replaces if self.record else None,
        )

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
    if reason := withdrawn_text(found):
        raise WithdrawnError(reason, mfid=found.mfid)


def withdrawn_text(found: Registered) -> str:
    """Return the message that a dataset is to be deleted, and what to do; empty if it is not."""
    request = found.dataset.deletion_request
    if request is None or not found.dataset.is_to_be_deleted:
        return ""
    return (
        f"the result {found.mfid} has a request for deletion ({request.id}, {request.status}); have the request "
        "carried out or rejected, or make another attempt with --force"
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


def find_by_recipe(
    client: CrucibleClient, mfid: str, project: str, matches: Callable[[Mapping[str, object]], bool]
) -> Registered | None:
    """Return the complete dataset of the project with the keyword of this recipe; None if there is none.

    `matches` checks the recipe, since anybody can set a keyword.
    """
    keyword = recipe_keyword(mfid)
    with suppress(NotFoundError, RefusedError):  # the project does not exist yet
        for dataset in client.datasets.iter(
            keyword=keyword, project_id=project, include_metadata=True, include_links=True
        ):
            found = registered(client, dataset)
            if found.ref is not None and found.record is not None and matches(found.record.recipe):
                require_own_files(client, dataset, found.record)
                return found
    return None


def datasets_with(client: CrucibleClient, sha256: str) -> set[str]:
    """Return the datasets that have a file with this hash."""
    return {file.dataset_mfid for file in client.files.list(sha256_hash=sha256) if file.dataset_mfid}


def recipe_keyword(mfid: str) -> str:
    """Return the keyword of results of the recipe that gives `mfid`, made under other ids."""
    return f"recipe:{mfid}"


def taken_of(dataset: Dataset) -> str:
    """Return when the data of a dataset were measured, in ISO 8601; empty if that is unknown."""
    known = measured_at({"timestamp": dataset.timestamp, "creation_time": dataset.creation_time})
    return known.isoformat() if known else ""


def samples_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the samples associated with a dataset, which was read with its links."""
    return tuple(sorted(link.unique_id for link in dataset.links or () if link.resource_type == "sample"))
