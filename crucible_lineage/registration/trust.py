"""Whether what stands under an id may be taken for the result that belongs there: anybody can put something there.

An id follows from a recipe that others may know, and Crucible gives an id to whoever asks first. What lies in the
project was put there by somebody who may; its recipe has to be the one, and its files those of its own record. What
lies elsewhere is nobody's whom the project trusts, whatever it says of itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

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
SETTLES_S = 2.0  # chosen: an overtaken registration takes its files back within two calls
POLL_S = 0.2
FILES_PER_PAGE = 1000  # the service's largest page
ASKED_AT_ONCE = 8  # what one client should ask of a shared service at a time


def lies_elsewhere(dataset: Dataset, project: str) -> bool:
    """True if the dataset lies in another project than this one, or in none."""
    return (dataset.project_id or "").casefold() != project.casefold()


def require_own(client: CrucibleClient, dataset: Dataset, project: str, recipe_sha256: str, what: str) -> None:
    """IdTakenError if the dataset, read with metadata, lies elsewhere, or if its record is of another recipe.

    `what` says what was tried.
    """
    mfid = dataset.unique_id
    if lies_elsewhere(dataset, project):
        raise IdTakenError(told_elsewhere(client, dataset, project, what), mfid=mfid)
    record = read_record(dataset.scientific_metadata)
    reason = unreadable(dataset.scientific_metadata)
    if record is not None and record.recipe_sha256 != recipe_sha256:
        reason = "its recipe is another one"
    if reason:
        raise RecipeConflictError(told_other_recipe(client, dataset, what, reason), mfid=mfid)


def told_elsewhere(client: CrucibleClient, dataset: Dataset, project: str, what: str) -> str:
    """That a dataset under an id lies elsewhere, whose it is, and how to go on."""
    return (
        f"{what}: the id {dataset.unique_id} is taken by dataset {dataset.dataset_name!r} of "
        f"{_owner(client, dataset)}, in {_place(dataset)}, not in {project}; nothing was written, and that "
        f"dataset is not used. To continue, {WAY_OUT}"
    )


def told_other_recipe(
    client: CrucibleClient, dataset: Dataset, what: str, reason: str = "its recipe is another one"
) -> str:
    """That a dataset's record is not that of its id, whose the dataset is, and how to go on."""
    mfid = dataset.unique_id
    return (
        f"{what}: the id {mfid} is taken by dataset {dataset.dataset_name!r} of {_owner(client, dataset)}, and "
        f"{reason}; nothing was written. Its record was edited or copied: see `crucible-lineage verify {mfid}`. "
        f"To continue, {WAY_OUT}"
    )


def require_own_files(client: CrucibleClient, dataset: Dataset, record: StepRecord | FilesRecord) -> list[FileRecord]:
    """Return the files of a complete dataset. Raises IdTakenError if its own (whole) record lists other ones."""
    until = time.monotonic() + SETTLES_S
    while wrong := other_files(record, listed := client.files.list(dataset.unique_id)):
        if time.monotonic() > until:
            raise IdTakenError(_told_other_files(client, dataset, wrong), mfid=dataset.unique_id)
        time.sleep(POLL_S)
    return listed


def _told_other_files(client: CrucibleClient, dataset: Dataset, wrong: str) -> str:
    """That a dataset's files are not those of its record, whose it is, and how to go on."""
    mfid = dataset.unique_id
    return (
        f"dataset {mfid} ({dataset.dataset_name!r}, of {_owner(client, dataset)}, in {_place(dataset)}) is marked "
        f"complete, but {wrong}; it is not used. See `crucible-lineage verify {mfid}`. To continue, have the file "
        "put back, have the dataset deleted, make another attempt beside it (--force), or give the result another id "
        "by a `salt:` in its declaration"
    )


def other_files(record: StepRecord | FilesRecord, listed: Iterable[FileRecord]) -> str:
    """Return what of the files that a (whole) record lists is missing or has other bytes; empty if all agree."""
    there = {file.filename: file.sha256_hash for file in listed}
    expected = {file.name: file.sha256 for file in record.files}
    if record.attached is not None:
        expected[record.attached.name] = record.attached.sha256
    for name, sha256 in sorted((record.recipe.get("files") or {}).items()):
        if expected.get(name) != sha256:
            return f"its record does not list the file {name} with the bytes of its recipe"
    for name, sha256 in sorted(expected.items()):
        if name not in there:
            return f"its file {name} is not there"
        if there[name] not in (sha256, None):
            return f"its file {name} has SHA-256 {there[name]}, and its record says {sha256}"
    return ""


def files_of(client: CrucibleClient, mfids: Sequence[str], scale: int = 0) -> dict[str, Sequence[FileRecord]]:
    """Return each dataset's files at Crucible: from the pages of all files if few, else dataset by dataset.

    `scale` is how many datasets there are in all; by default just these.
    """
    most = (scale or len(mfids)) // 10 * FILES_PER_PAGE  # looking costs a tenth of the calls that it may save
    listed = _all_files(client, most) if most else None
    if listed is None:
        return files_one_by_one(client, mfids)
    found: dict[str, list[FileRecord]] = {mfid: [] for mfid in mfids}
    for file in listed:
        if file.dataset_mfid in found:
            found[file.dataset_mfid].append(file)
    return dict(found)


def files_one_by_one(client: CrucibleClient, mfids: Sequence[str]) -> dict[str, Sequence[FileRecord]]:
    """Return what Crucible lists for each dataset, with a call for each."""
    if len(mfids) < 2:
        return {mfid: client.files.list(mfid) for mfid in mfids}
    from concurrent.futures import ThreadPoolExecutor  # only what is derived anew is compared

    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="ask") as pool:
        return dict(zip(mfids, pool.map(client.files.list, mfids), strict=True))


def _all_files(client: CrucibleClient, most: int) -> list[FileRecord] | None:
    """All files that this key may read; None if they are more than `most`, or the service does not list them."""
    try:
        found = list(islice(client.files.iter(), most + 1))
    except (ForbiddenError, NotFoundError, RefusedError):
        return None
    return found if len(found) <= most else None


def taken_unseen(
    client: CrucibleClient, mfid: str, what: str, project: str, refusal: CrucibleError
) -> CrucibleError | IdTakenError:
    """Return the error about an id under which nothing may be made, and nothing can be seen."""
    if refusal.status == 403 and not _may_create(client, project):
        return refusal
    return IdTakenError(
        f"{what}: Crucible refuses the id {mfid} ({refusal.status}), and this key cannot see its dataset: it is taken "
        f"by a private dataset outside {project}, whose owner only an administrator of Crucible can name; "
        f"nothing was written. To continue, {WAY_OUT}",
        mfid=mfid,
    )


def _may_create(client: CrucibleClient, project: str) -> bool:
    with suppress(CrucibleError):
        found = client.projects.find(project)
        return bool(found and (found.capabilities or {}).get("can_create_dataset"))
    return False


def _place(dataset: Dataset) -> str:
    return f"project {dataset.project_id}" if dataset.project_id else "no project"


def _owner(client: CrucibleClient, dataset: Dataset) -> str:
    """Return who owns the dataset: by name, and by id."""
    owner = dataset.owner
    if owner is None:
        with suppress(CrucibleError):
            owner = client.datasets.get(dataset.unique_id, include_owner=True).owner
    if owner is None or isinstance(owner, str):
        return owner or dataset.owner_orcid or "somebody unknown"
    name = " ".join(filter(None, (owner.first_name, owner.last_name))) or owner.username or ""
    return f"{name} ({owner.unique_id})" if name else owner.unique_id
