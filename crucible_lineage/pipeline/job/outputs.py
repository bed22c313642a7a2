"""What a step left behind, as datasets to be registered; or an error that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import scan_file
from crucible_lineage.errors import StepError
from crucible_lineage.marks import is_own
from crucible_lineage.pipeline.inputs.register import described
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.written import written_files
from crucible_lineage.pipeline.logs.step_log import STEP_LOG
from crucible_lineage.provenance.attachment import ATTACHED_NAME
from crucible_lineage.provenance.circumstances import software
from crucible_lineage.provenance.recipe import PlannedOutput
from crucible_lineage.provenance.record import Activity, step_record
from crucible_lineage.refs import FileRef, last_taken
from crucible_lineage.registration.new_dataset import LocalFile, NewDataset

MOST_METADATA_BYTES = 3 << 20  # the embedded Crucible takes 4 MB of a dataset, with the record of how it came to be

__all__ = ["MadeOutput", "metadata_of", "new_dataset", "output_files"]


@dataclass(frozen=True)
class MadeOutput:
    """One output of a step that has run: its identity, and what is in it."""

    planned: PlannedOutput
    metadata: Mapping[str, Any]
    files: tuple[LocalFile, ...]


def new_dataset(job: Job, made: MadeOutput, activity: Activity, agent: Mapping[str, object], name: str) -> NewDataset:
    """The dataset to be registered for an output, under that name."""
    inspection, declared, planned = job.inspection, job.spec.output, made.planned
    record = step_record(
        recipe=planned.recipe,
        pipeline=job.pipeline,
        used=job.used,
        generated=[file.ref for file in made.files],
        activity=activity,
        software=software(inspection.reached_packages),
        who=agent,
        supersedes=planned.supersedes,
    )
    inherited = tuple(sorted({sample for part in job.used for sample in part.dataset.samples}))
    declared_by_step = {"measurement": inspection.measurement, "data_type": inspection.data_type}
    return NewDataset(
        mfid=planned.mfid,
        fields={
            "project_id": job.project,
            "dataset_name": name,
            **({"timestamp": taken} if (taken := _taken(job)) else {}),
            "public": declared.public,
            **{name: value for name, value in declared_by_step.items() if value is not None},
            **described(declared),
        },
        record=record,
        metadata=made.metadata,
        files=made.files,
        places=job.places.get(planned.output, {}),
        keywords=tuple(dict.fromkeys((*job.keywords, *inspection.keywords, *declared.keywords))),
        parents=tuple(part.dataset.mfid for part in job.used),
        samples=inherited if declared.samples == "inherit" else (),
        ingest=declared.is_ingested,
        waits_for_ingestion=declared.ingestion.wait,
        ingestion_timeout_s=declared.ingestion.timeout,
        ingestor=declared.ingestor,
    )


def metadata_of(job: Job, result: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The scientific metadata of each output: what the step returned, with what was declared beside it."""
    outputs = job.inspection.outputs
    values = {outputs[0]: result} if len(outputs) == 1 else (result or {})
    for name in outputs:
        if not isinstance(values.get(name) or {}, Mapping):
            message = f"step {job.name!r} returned no mapping of metadata for each of its outputs {', '.join(outputs)}"
            raise StepError(message, step=job.name)
        if ours := [key for key in values.get(name) or {} if is_own(key)]:
            message = f"step {job.name!r} returned {ours[0]!r}, which is kept for what is recorded; name it otherwise"
            raise StepError(message, step=job.name)
    if lost := sorted(values.keys() - set(outputs)):
        message = f"step {job.name!r} returned {lost[0]!r}, but its outputs are {', '.join(outputs)}"
        raise StepError(f"{message}; return a mapping for each of them", step=job.name)
    metadata = {name: {**(values.get(name) or {}), **job.spec.output.metadata} for name in outputs}
    for name, found in metadata.items():
        size = len(json.dumps(found).encode())
        if size > MOST_METADATA_BYTES:
            raise StepError(
                f"step {job.name!r} returned {size / 1e6:.1f} MB of metadata for {name!r}, which is more than "
                f"Crucible takes ({MOST_METADATA_BYTES / 1e6:.1f} MB); let it write what is large into a file",
                step=job.name,
            )
    return metadata


def output_files(
    job: Job, output: str, folder: Path, note: str = "", pictures: Collection[str] = ()
) -> tuple[LocalFile, ...]:
    """The files that a step wrote for an output, with what it printed. StepError if they cannot be a dataset.

    `note` tells what it wrote elsewhere, `pictures` are figures that it returned: the first one is shown as its preview
    where the step names no file for that.
    """
    paths = written_files(job.name, folder)
    if not paths:
        way_out = f"write its result into that folder, as in ({output} / 'result.csv').write_text(...)"
        message = f"step {job.name!r} wrote nothing into {output!r}; {note or way_out}"
        raise StepError(message, step=job.name)
    log = folder.parent / STEP_LOG
    for name in (ATTACHED_NAME, STEP_LOG):
        if name in (path.name for path in paths):
            raise StepError(f"step {job.name!r} wrote {name}; that name is kept for us", step=job.name)
    preview = job.inspection.thumbnail
    fits = (path for path in paths if (fnmatchcase(path.name, preview) if preview else path.name in pictures))
    shown = next(fits, None)
    files = [LocalFile.of(path, scan_file(path), preview=path == shown) for path in paths]
    return (*files, *([_log_file(log)] if log.stat().st_size else []))


def _log_file(path: Path) -> LocalFile:
    checksums = scan_file(path)
    return LocalFile(path, FileRef(path.name, checksums.sha256, checksums.size, log=True), checksums)


def _taken(job: Job) -> str:
    """When the data were measured that a result is about; what was chosen for them in time does not count."""
    own = [part.dataset for part in job.used if part.chosen is None]
    return last_taken(own or [part.dataset for part in job.used])
