"""What a step left behind, as datasets to be registered; or an error that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

from crucible_lineage.checksums import scan_file
from crucible_lineage.errors import InputError, StepError
from crucible_lineage.ids import mfid_time
from crucible_lineage.pipeline.bind.command import LOG_FILE
from crucible_lineage.pipeline.job.job import StepJob
from crucible_lineage.pipeline.plan.raw import described
from crucible_lineage.provenance.attachment import ATTACHED_NAME
from crucible_lineage.provenance.record import Activity, step_record
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.register import LocalFile, NewDataset

__all__ = ["MadeOutput", "dataset_name", "metadata_of", "new_dataset", "output_files"]


@dataclass(frozen=True)
class MadeOutput:
    """One output of a step that has run: its identity, and what is in it."""

    output: str
    mfid: str
    recipe: Mapping[str, Any]
    metadata: Mapping[str, Any]
    files: tuple[LocalFile, ...]


def new_dataset(job: StepJob, made: MadeOutput, activity: Activity, agent: Mapping[str, Any]) -> NewDataset:
    """The dataset to be registered for an output."""
    inspection, declared = job.inspection, job.output
    record = step_record(
        recipe=made.recipe,
        pipeline=job.pipeline,
        used=job.used,
        generated=[file.ref for file in made.files],
        activity=activity,
        packages=inspection.reached_packages,
        who=agent,
        supersedes=job.supersedes.get(made.output),
    )
    inherited = tuple(sorted({sample for part in job.used for sample in part.dataset.samples}))
    declared_by_step = {"measurement": inspection.measurement, "data_type": inspection.data_type}
    return NewDataset(
        mfid=made.mfid,
        fields={
            "project_id": job.project,
            "dataset_name": dataset_name(job, made.output),
            "timestamp": mfid_time(made.mfid).isoformat(),
            "public": declared.public,
            **{name: value for name, value in declared_by_step.items() if value is not None},
            **described(declared),
        },
        record=record,
        metadata={**made.metadata, **declared.metadata},
        files=made.files,
        keywords=tuple(dict.fromkeys((*job.keywords, *inspection.keywords, *declared.keywords))),
        parents=tuple(part.dataset.mfid for part in job.used),
        samples=inherited if declared.samples == "inherit" else (),
        ingest=declared.ingest,
        ingestor=declared.ingestor,
    )


def metadata_of(job: StepJob, result: Any) -> dict[str, dict[str, Any]]:
    """The scientific metadata of each output: what the step returned."""
    outputs = job.inspection.outputs
    if isinstance(result, PurePath):  # where the function put its result, as functions often tell
        result = None
    values: Mapping[str, Any] = {outputs[0]: result} if len(outputs) == 1 else (result or {})
    if not isinstance(values, Mapping) or not all(isinstance(values.get(name) or {}, Mapping) for name in outputs):
        raise StepError(
            f"step {job.name!r} returned a {type(result).__name__}; it has to return a mapping of metadata"
            + (f" for each of its outputs {', '.join(outputs)}" if len(outputs) > 1 else " (or None)"),
            step=job.name,
        )
    metadata = {name: dict(values.get(name) or {}) for name in outputs}
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StepError(f"step {job.name!r} returned metadata that is no JSON: {error}", step=job.name) from error
    return metadata


def dataset_name(job: StepJob, output: str) -> str:
    """The child's name: the declared template, or its first input's name with the step's and what was swept."""
    names = {part.role: _Named(part.dataset.name) for part in job.used}
    step = job.name.partition("[")[0]
    if job.output.dataset_name is None:
        suffix = step if len(job.inspection.outputs) == 1 else f"{step}.{output}"
        first = job.used[0]
        others = len({part.dataset.mfid for part in job.used if part.role == first.role}) - 1
        subject = f"{first.dataset.name} and {others} more" if others else first.dataset.name
        return f"{subject} ({', '.join(filter(None, (suffix, job.label)))})"
    params = SimpleNamespace(**job.inspection.params)
    try:
        name = job.output.dataset_name.format(**names, output=output, step=step, params=params)
    except (KeyError, AttributeError, IndexError, ValueError) as error:
        raise InputError(
            f"step {job.name!r}: the name {job.output.dataset_name!r} cannot be filled in: {error}"
        ) from error
    return name


@dataclass(frozen=True)
class _Named:
    """What a name template may say of a parent."""

    dataset_name: str


def output_files(job: StepJob, output: str, folder: Path, note: str = "") -> tuple[LocalFile, ...]:
    """The files that a step wrote for an output, with the log of a command. StepError if they cannot be a dataset.

    `note` tells what it wrote elsewhere.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        message = f"step {job.name!r} wrote nothing into {output!r}; {note or 'there is no dataset without a file'}"
        raise StepError(message, step=job.name)
    if nested := [path.relative_to(folder) for path in paths if path.parent != folder]:
        message = f"step {job.name!r} wrote {nested[0]} into a subfolder; Crucible's files have plain names"
        raise StepError(message, step=job.name)
    if outside := [path.name for path in paths if not path.resolve().is_relative_to(folder.resolve())]:
        message = f"step {job.name!r} left {outside[0]} as a link to a file outside of its folder; let it copy the file"
        raise StepError(message, step=job.name)
    log = folder.parent / LOG_FILE if job.command else None
    for name in (ATTACHED_NAME, *((LOG_FILE,) if log else ())):
        if name in (path.name for path in paths):
            raise StepError(f"step {job.name!r} wrote {name}; that name is kept for us", step=job.name)
    preview = job.inspection.thumbnail
    shown = next((path for path in paths if preview and fnmatchcase(path.name, preview)), None)
    files = [LocalFile.of(path, scan_file(path), preview=path == shown) for path in paths]
    return (*files, *([_log_file(log)] if log and log.stat().st_size else []))


def _log_file(path: Path) -> LocalFile:
    checksums = scan_file(path)
    return LocalFile(path, FileRef(path.name, checksums.sha256, checksums.size, log=True), checksums)
