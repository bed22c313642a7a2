"""Whether the dataset under an id is the result that belongs there: anybody can create a dataset with that id.

An id follows from a recipe that others may know, and Crucible gives an id to the first who asks. A dataset in the
project was created by one of its members; its recipe has to be the right one, and its files those of its own record.
A dataset elsewhere is not trusted, whatever its metadata says.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from crucible_lineage.core.datasets import in_threads
from crucible_lineage.errors import (
    CrucibleError,
    ForbiddenError,
    IdTakenError,
    NotFoundError,
    RecipeConflictError,
    RefusedError,
)
from crucible_lineage.provenance.record import read_record, unreadable

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset, FileRecord
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

WAY_OUT = (
    "have it deleted (its owner or an administrator of Crucible can), or give the result another id: a `salt:` in the "
    "declaration of its step or input (`register --salt`, `registering(salt=...)`), any text"
)
SETTLES_S = 2.0  # chosen: an overtaken registration removes its files within two calls
POLL_S = 0.2
FILES_PER_PAGE = 1000  # the service's largest page


def lies_elsewhere(dataset: Dataset, project: str) -> bool:
    """Return whether the dataset is in another project, or in none."""
    return (dataset.project_id or "").casefold() != project.casefold()


def require_own(client: CrucibleClient, dataset: Dataset, project: str, recipe_sha256: str, action: str) -> None:
    """Raise IdTakenError if the dataset, read with metadata, is in another project or has another recipe.

    `action` says what was tried.
    """
    mfid = dataset.unique_id
    if lies_elsewhere(dataset, project):
        raise IdTakenError(elsewhere_message(client, dataset, project, action), mfid=mfid)
    record = read_record(dataset.scientific_metadata)
    reason = unreadable(dataset.scientific_metadata)
    if record is not None and record.recipe_sha256 != recipe_sha256:
        reason = "its recipe is another one"
    if reason:
        raise RecipeConflictError(other_recipe_message(client, dataset, action, reason), mfid=mfid)


def elsewhere_message(client: CrucibleClient, dataset: Dataset, project: str, action: str) -> str:
    """Return the message that a dataset with this id is in another project: its owner, and what to do."""
    return (
        f"{action}: the id {dataset.unique_id} is taken by dataset {dataset.dataset_name!r} of "
        f"{_owner(client, dataset)}, in {_location(dataset)}, not in {project}; nothing was written, and that "
        f"dataset is not used. To continue, {WAY_OUT}"
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
            raise IdTakenError(_other_files_message(client, dataset, wrong), mfid=dataset.unique_id)
        time.sleep(POLL_S)
    return listed


def _other_files_message(client: CrucibleClient, dataset: Dataset, wrong: str) -> str:
    """Return the message that a dataset's files are not those of its record: its owner, and what to do."""
    mfid = dataset.unique_id
    return (
        f"dataset {mfid} ({dataset.dataset_name!r}, of {_owner(client, dataset)}, in {_location(dataset)}) is marked "
        f"complete, but {wrong}; it is not used. See `crucible-lineage verify {mfid}`. To continue, have the file "
        "put back, have the dataset deleted, make another attempt beside it (--force), or give the result another id "
        "by a `salt:` in its declaration"
    )


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
    listed = _all_files(client, most) if most else None
    if listed is None:
        return files_one_by_one(client, mfids)
    found: dict[str, list[FileRecord]] = {mfid: [] for mfid in mfids}
    for file in listed:
        if file.dataset_mfid in found:
            found[file.dataset_mfid].append(file)
    return dict(found)


def files_one_by_one(client: CrucibleClient, mfids: Sequence[str]) -> dict[str, Sequence[FileRecord]]:
    """Return each dataset's files at Crucible, with one call per dataset."""
    return dict(zip(mfids, in_threads(client.files.list, mfids), strict=True))


def _all_files(client: CrucibleClient, most: int) -> list[FileRecord] | None:
    """Return all files that this key may read; None if there are more than `most`, or the service lists none."""
    try:
        files = list(islice(client.files.iter(), most + 1))
    except (ForbiddenError, NotFoundError, RefusedError):
        return None
    return files if len(files) <= most else None


def hidden_id_error(
    client: CrucibleClient, mfid: str, action: str, project: str, refusal: CrucibleError
) -> CrucibleError | IdTakenError:
    """Return the error for an id that is refused and whose dataset this key cannot see."""
    if refusal.status == 403 and not _may_create(client, project):
        return refusal
    return IdTakenError(
        f"{action}: Crucible refuses the id {mfid} ({refusal.status}), and this key cannot see its dataset: it is "
        f"taken by a private dataset outside {project}, whose owner only an administrator of Crucible can name; "
        f"nothing was written. To continue, {WAY_OUT}",
        mfid=mfid,
    )


def _may_create(client: CrucibleClient, project: str) -> bool:
    with suppress(CrucibleError):
        record = client.projects.find(project)
        return bool(record and (record.capabilities or {}).get("can_create_dataset"))
    return False


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
