"""Datasets read from Crucible with their provenance: one reading for everybody who asks whether something is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from crucible_lineage.core.slots import DatasetStatus, slots_of
from crucible_lineage.errors import ChecksumError, IdTakenError, InputError, NotFoundError, RefusedError, WithdrawnError
from crucible_lineage.ids import has_derived_id
from crucible_lineage.provenance.recipe import origin_of
from crucible_lineage.provenance.recipe import recipe_sha256 as sha256_of
from crucible_lineage.provenance.record import expand, read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.trust import files_of, other_files, require_own, require_own_files
from crucible_lineage.service import DERIVED_IDS
from crucible_lineage.times import measured_at

T = TypeVar("T", bound="ProvenanceRecord")

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, FileRecord
    from crucible_lineage.core.mirror import Mirror
    from crucible_lineage.provenance.schema import FilesRecord, ProvenanceRecord, StepRecord


@dataclass(frozen=True)
class Registered:
    """A dataset as Crucible has it, with its provenance record, if it has one.

    The record of a complete dataset is whole. `ref` is what steps are given: None unless the dataset is complete.
    """

    dataset: Dataset
    record: StepRecord | FilesRecord | None
    ref: DatasetRef | None = None

    @property
    def mfid(self) -> str:
        """Its id."""
        return self.dataset.unique_id

    @property
    def status(self) -> DatasetStatus:
        """The facts that decide whether it is current."""
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
        """Its record, if a step has made it."""
        return self.record.as_step if self.record is not None else None

    @property
    def is_begun(self) -> bool:
        """True if its registration did not come to its end."""
        return self.record is not None and not self.record.is_complete


def read(client: CrucibleClient, mfid: str) -> Registered | None:
    """The dataset with its record; None if there is none that this key may see. One call, two for a long record.

    ChecksumError if a part of its record is in an attached file that is not there, or holds other bytes.
    """
    try:
        dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
    except NotFoundError:
        return None
    return registered(client, dataset)


def require_not_withdrawn(found: Registered) -> None:
    """WithdrawnError if the dataset is to be deleted: its id is taken, and it is not to be relied on."""
    if reason := withdrawn_text(found):
        raise WithdrawnError(reason, mfid=found.mfid)


def withdrawn_text(found: Registered) -> str:
    """Return that a dataset is to be deleted, and the way out; empty if it is not."""
    request = found.dataset.deletion_request
    if request is None or not found.dataset.is_to_be_deleted:
        return ""
    return (
        f"the result {found.mfid} has a request for deletion ({request.id}, {request.status}); have it carried out "
        "or rejected, or make another attempt with --force"
    )


def registered(client: CrucibleClient, dataset: Dataset) -> Registered:
    """The same for a dataset that was read already, with metadata and links."""
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
    """The record of a dataset with all its parts; asks Crucible only where a part is in the attached file."""
    if record.is_whole or record.attached is None:
        return record
    for file in client.files.list(mfid):
        if file.filename == record.attached.name:
            return expand(record, client.files.download_bytes(file))
    raise ChecksumError(
        f"dataset {mfid} has no file {record.attached.name}, which holds a part of its provenance record"
    )


def read_own(client: CrucibleClient, mfid: str, project: str, recipe_sha256: str, what: str) -> Registered | None:
    """The dataset of this recipe under its id; None if there is none that this key may see.

    IdTakenError if something else is there, or its files are not those of its record. `what` says what was tried.
    """
    found = read(client, mfid)
    if found is None:
        return None
    require_own(client, found.dataset, project, recipe_sha256, what)
    if found.record is not None and found.ref is not None:
        require_own_files(client, found.dataset, found.record)
    return found


def find_own(
    client: CrucibleClient, mirror: Mirror, mfid: str, project: str, recipe_sha256: str, what: str
) -> Registered | None:
    """Return the dataset of this recipe, whatever id the service gave it; None if there is none that this key may see.

    It is looked for under the id that the recipe gives, and by its recipe's keyword until the service was seen to keep
    such ids. Raises IdTakenError if something else is under that id, or its files are not those of its record.
    """

    def under_another_id() -> Registered | None:
        return _of_recipe(client, mfid, project, lambda recipe: sha256_of(recipe) == recipe_sha256)

    renamed = None if mirror.service.accepts_client_ids else client.ahead(under_another_id)
    found = read_own(client, mfid, project, recipe_sha256, what)
    if found is not None and found.ref is not None and has_derived_id(mfid):
        mirror.service.note(DERIVED_IDS, True, f"{mfid} was kept")  # whoever registered it gave it this one
    return found or (renamed and renamed())


def knows(mirror: Mirror, found: Registered) -> bool:
    """Return whether a complete dataset is trusted just as it is, so that its files were compared."""
    known = mirror.known(found.mfid)
    return known is not None and found.ref is not None and known.files == found.ref.files


def refusals(
    client: CrucibleClient,
    found: Sequence[Registered],
    known: Mapping[str, Sequence[FileRecord]] = MappingProxyType({}),
) -> dict[str, str]:
    """Return why complete datasets are not to be relied on, by id: their files are not those of their records.

    `known` are files of datasets at Crucible, as they were listed a moment ago.
    """
    complete = [(one, one.record) for one in found if one.ref is not None and one.record is not None]
    files = {**known, **files_of(client, [one.mfid for one, _ in complete if one.mfid not in known])}
    refused = {}
    for one, record in complete:
        if other_files(record, files[one.mfid]):
            try:
                require_own_files(client, one.dataset, record)
            except IdTakenError as error:
                refused[one.mfid] = str(error)
    return refused


def find_by_recipe(
    client: CrucibleClient, mfid: str, project: str, is_it: Callable[[Mapping[str, object]], bool]
) -> DatasetRef | None:
    """The complete dataset of the project whose recipe gives this id, at a service that gave it another one.

    None if there is none whose recipe `is_it`: a keyword can say anything.
    """
    found = _of_recipe(client, mfid, project, is_it)
    return found.ref if found else None


def _of_recipe(
    client: CrucibleClient, mfid: str, project: str, is_it: Callable[[Mapping[str, object]], bool]
) -> Registered | None:
    keyword = recipe_keyword(mfid)
    with suppress(NotFoundError, RefusedError):  # the project is not there yet
        for dataset in client.datasets.iter(
            keyword=keyword, project_id=project, include_metadata=True, include_links=True
        ):
            found = registered(client, dataset)
            if found.ref is not None and found.record is not None and is_it(found.record.recipe):
                require_own_files(client, dataset, found.record)
                return found
    return None


def datasets_with(client: CrucibleClient, mirror: Mirror, project: str, sha256: str) -> set[str]:
    """Return the datasets that hold a file of this hash: of the project, by their records, if no files are listed."""
    with suppress(NotFoundError):  # a service may list none over all datasets
        return {file.dataset_mfid for file in client.files.list(sha256_hash=sha256) if file.dataset_mfid}
    try:
        records = mirror.snapshot(project).records
    except InputError:  # the project is not there yet
        return set()
    written = ((mfid, read_record(record.get("scientific_metadata"))) for mfid, record in records.items())
    return {mfid for mfid, one in written if one and any(file.sha256 == sha256 for file in one.generated or ())}


def recipe_keyword(mfid: str) -> str:
    """Where a service assigns ids itself, this keyword finds the record of the recipe that gives `mfid`."""
    return f"recipe:{mfid}"


def taken_of(dataset: Dataset) -> str:
    """When the data of a dataset were measured, in ISO 8601; empty where nobody said it."""
    known = measured_at({"timestamp": dataset.timestamp, "creation_time": dataset.creation_time})
    return known.isoformat() if known else ""


def samples_of(dataset: Dataset) -> tuple[str, ...]:
    """The samples that a dataset, read with its links, is associated with."""
    return tuple(sorted(link.unique_id for link in dataset.links or () if link.resource_type == "sample"))
