"""The parents of an instance as datasets, with the files that it uses."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from crucible_lineage.errors import Fault, InputError
from crucible_lineage.pipeline.inputs.inputs import Inputs
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef, FileRef

Results = Mapping[str, Mapping[str, DatasetRef]]  # of each instance, by output


def used_datasets(instance: Instance, inputs: Inputs, results: Results) -> tuple[UsedDataset, ...]:
    """Return the parents of an instance. Raises InputError, with the input's location, if a role's files do not fit."""
    roles, locations = instance.inspection.roles, instance.step.locations
    used = []
    for feed in instance.feeds:
        dataset = feed.dataset(inputs, results.__getitem__)
        assert dataset is not None  # ensured by the caller
        try:
            files = files_for_role(feed.role, roles[feed.role], dataset, feed.files)
        except InputError as error:
            message = f"step {instance.name!r}: {error}"
            raise InputError(message, [Fault(message, locations.get(feed.role))]) from error
        used.append(UsedDataset(feed.role, dataset, files, feed.chosen.to_json() if feed.chosen else None))
    return tuple(used)


def files_for_role(role: str, shape: str, dataset: DatasetRef, pattern: str | None) -> tuple[FileRef, ...]:
    """Return the files of a parent for a role. Raises InputError if there are none, or too many for the role."""
    subject = f"input {role!r}: dataset {dataset.mfid} ({dataset.name!r})"
    files = [file for file in dataset.data_files if pattern is None or fnmatchcase(file.name, pattern)]
    if not files:
        raise InputError(f"{subject} has no file {pattern or 'at all'}")
    if shape == "file" and len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"{subject} has several files: {names}; choose one with {role}: {{from: ..., files: NAME}}, "
            "or annotate the input dict[str, Path]"
        )
    return tuple(files)
