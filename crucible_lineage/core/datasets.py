"""Reading datasets by id: one call each, several at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crucible_lineage.errors import CrucibleError, ForbiddenError, InputError, NotFoundError, nearest
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.process import in_threads

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import Dataset

ONE_BY_ONE = 20  # up to this many datasets are read by id; above it, their project is listed


@dataclass(frozen=True)
class FetchedDatasets:
    """Datasets by id as Crucible returned them; the ids that do not exist, and those that this key may not read."""

    found: dict[str, JsonMapping] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)


def fetch_datasets(client: CrucibleClient, mfids: Iterable[str], *, include_links: bool = False) -> FetchedDatasets:
    """Read datasets with their metadata, as far as they exist and this key may read them."""
    fetched, wanted = FetchedDatasets(), sorted(mfids)

    def get(mfid: str) -> JsonMapping:
        try:
            return client.datasets.get(mfid, include_metadata=True, include_links=include_links).model_dump()
        except NotFoundError:
            fetched.absent.add(mfid)
        except ForbiddenError:
            fetched.hidden.add(mfid)
        return {}

    fetched.found.update((mfid, found) for mfid, found in zip(wanted, in_threads(get, wanted), strict=True) if found)
    return fetched


def visible_dataset(client: CrucibleClient, mfid: str, action: str = "", **included: bool) -> Dataset:
    """Read a dataset with its metadata and links. Raises InputError, naming the action, if this key sees none."""
    try:
        return client.datasets.get(mfid, **{"include_metadata": True, "include_links": True, **included})
    except (ForbiddenError, NotFoundError) as error:
        attempt = f"{action}: " if action else ""
        raise InputError(f"{attempt}dataset {mfid} does not exist, or is not visible to this key") from error


def no_project(client: CrucibleClient, project: str, where: str) -> InputError:
    """Return the error for a project that does not exist or is not visible to this key; it names visible ones."""
    try:
        visible = sorted(each.project_id for each in client.projects.iter())
        hint = nearest(project, visible, "this key sees") if visible else "this key sees no project"
    except CrucibleError as error:
        hint = f"the visible projects cannot be listed: {error}"
    return InputError(f"project {project!r} does not exist, or is not visible to this key; {hint} ({where})")
