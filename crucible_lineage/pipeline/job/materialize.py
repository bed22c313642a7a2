"""One step, made real: its inputs fetched, its function run in a folder of its own, its outputs registered."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.checksums import scan_file
from crucible_lineage.disk import draft_beside
from crucible_lineage.errors import StepError
from crucible_lineage.marks import is_own
from crucible_lineage.pipeline.files.fetch import has_bytes, send_again
from crucible_lineage.pipeline.inputs.register import described
from crucible_lineage.pipeline.job.calling import (
    call_step,
    input_folders,
    place_inputs,
    require_unchanged,
    secrets_of,
    telling_of_changes,
)
from crucible_lineage.pipeline.job.delivering import delivery_context
from crucible_lineage.pipeline.job.job import Job, dataset_name
from crucible_lineage.pipeline.job.keeping import KeptSupport, rests_on
from crucible_lineage.pipeline.job.progress import MADE, STARTED, tell_line, tell_phase
from crucible_lineage.pipeline.logs import STEP_LOG, Hear, own_secrets
from crucible_lineage.provenance.environment import git_state, software
from crucible_lineage.provenance.recipe import PlannedOutput, first_attempt, recipe_sha256
from crucible_lineage.provenance.record import ATTACHED_NAME, Activity, step_record
from crucible_lineage.refs import DatasetRef, FileRef, file_stem, last_taken, name_fault
from crucible_lineage.registration.delivery import DeliversLater, deliver_now
from crucible_lineage.registration.new_dataset import LocalFile, NewDataset
from crucible_lineage.registration.payload import Label
from crucible_lineage.registration.read import find_own, read, require_not_withdrawn
from crucible_lineage.session import Session

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient


@dataclass(frozen=True)
class Materialized:
    """The datasets of a step's outputs; `executed` is False if they were there already, `waits` is True if they wait
    in the outbox for whoever delivers them.

    `healed` is True if they were there and had lost bytes, which were made and sent again.
    `note` is what whoever ran the step should know, `seconds` is how long it took to make and to register them.
    `returned` is what was returned for each output, if that is known here.
    """

    outputs: Mapping[str, DatasetRef]
    executed: bool
    note: str = ""
    seconds: float | None = None
    waits: bool = False
    returned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    healed: bool = False


def materialize_step(
    job: Job, session: Session, hear: Hear | None = None, deliveries: DeliversLater | None = None
) -> Materialized:
    """The outputs of a step. Runs it only if they are not there; one process at a time per recipe.

    They are at Crucible, or, with `deliveries`, made and on their way there. `hear` is told each line that it prints,
    as is whoever hears steps in this process.
    """
    least = min(planned.mfid for planned in job.outputs)
    with session.turn(least) as turn:
        session.outbox.look(least)
        lost = _still_lost(job, session)
        present = {
            planned.output: None if planned.mfid in lost else _present(planned, job, session, deliveries)
            for planned in job.outputs
        }
        if all(present.values()):
            there = {output: dataset for output, dataset in present.items() if dataset}
            if deliveries is not None:
                for label in _waiting(job, session):
                    deliveries.add(label)  # another process of this folder has made it, and may be gone
            return Materialized(_handed_on(there, job, session, deliveries), executed=False)
        parents = [one.dataset.mfid for one in job.used]
        session.stated.require_free(parents, job.inspection.code.fingerprint, job.project)
        began = time.monotonic()
        tell_phase(job, STARTED, session.settings.data)
        with session.attempts.folder(file_stem(job.name), input_folders(job), Path(turn.lock_file)) as folder:
            new, kept, note = _execute(job, folder, session, hear, deliveries)
            if lost:
                there = _healed(job, new, kept, lost, session)
                told = "; ".join(filter(None, ("Crucible had lost its bytes, which were sent again", note)))
                return Materialized(there, True, told, time.monotonic() - began, healed=True)
            made = session.outbox.put(job.name, job.project, new, kept, job.run_id)
        for planned in job.outputs:
            if planned.recipe.get("attempt"):
                session.mirror.note_attempt(*first_attempt(planned.recipe))
        outputs = {planned.output: found for planned in job.outputs if (found := session.outbox.find(planned.mfid))}
        outputs = _handed_on(outputs, job, session, deliveries)
        waits = session.outbox.waits(made.label)
    seconds = time.monotonic() - began
    if deliveries is None:
        return Materialized(outputs, executed=True, note=note, seconds=seconds)
    if waits:  # now that the turn is theirs
        deliveries.add(made.label)
    deliveries.took(seconds)
    ids = {planned.mfid: planned.output for planned in job.outputs}
    # What was delivered at once may be as another machine has registered it, with what it returned there.
    returned = {ids[new.mfid]: new.metadata for new in made.datasets} if waits else {}
    return Materialized(outputs, executed=True, note=note, seconds=seconds, waits=waits, returned=returned)


def _still_lost(job: Job, session: Session) -> dict[str, dict[str, str]]:
    """{MFID: {file: SHA-256}} of what Crucible has lost of results that are there, complete."""
    lost: dict[str, dict[str, str]] = {}
    for planned in job.outputs:
        names = session.mirror.lost(planned.mfid)
        found = read(session.client, planned.mfid) if names else None
        hashes = {file.name: file.sha256 for file in found.ref.files} if found and found.ref else {}
        for name in names:
            if name not in hashes or has_bytes(session.client, planned.mfid, name, hashes[name]):
                session.mirror.note_whole(planned.mfid, name)  # or the whole result is gone, and made as any other
            else:
                lost.setdefault(planned.mfid, {})[name] = hashes[name]
    return lost


def _healed(
    job: Job,
    new: Sequence[NewDataset],
    kept: Mapping[str, Path],
    lost: Mapping[str, Mapping[str, str]],
    session: Session,
) -> dict[str, DatasetRef]:
    """Send the bytes that Crucible has lost; return the results. StepError, before anything is sent, if they differ."""
    made = {(one.mfid, file.ref.name): file.ref.sha256 for one in new for file in one.files}
    for mfid, files in lost.items():
        for name, sha256 in files.items():
            if made.get((mfid, name)) != sha256:
                raise StepError(
                    f"Crucible has lost the bytes of {name} of dataset {mfid}, and the remade file differs; "
                    f"nothing was sent. Make another attempt with --force {job.inspection.step}, or look for a copy: "
                    f"crucible-lineage verify {mfid} --repair --from FOLDER"
                )
    for mfid, files in lost.items():
        for name, sha256 in files.items():
            send_again(session.client, mfid, name, sha256, kept[sha256])
            session.mirror.note_whole(mfid, name)
    there = {one.output: _at_service(one, job, session, session.client) for one in job.outputs}
    return {output: dataset for output, dataset in there.items() if dataset}


def _handed_on(
    outputs: dict[str, DatasetRef], job: Job, session: Session, deliveries: DeliversLater | None
) -> dict[str, DatasetRef]:
    """The outputs as whoever uses them gets them: at Crucible, unless somebody delivers and their ids are sure."""
    if deliveries is not None and session.defers_delivery:
        return outputs
    ids = {planned.output: planned.mfid for planned in job.outputs}
    for label in _waiting(job, session):
        found = deliver_now(delivery_context(session), label)
        outputs = {output: found.get(ids[output], dataset) for output, dataset in outputs.items()}
    return outputs


def _waiting(job: Job, session: Session) -> list[Label]:
    """Return the job's results that wait in the outbox."""
    ids = {planned.mfid for planned in job.outputs}
    return [label for label in session.outbox.all() if ids & set(label.mfids)]


def _present(planned: PlannedOutput, job: Job, session: Session, deliveries: DeliversLater | None) -> DatasetRef | None:
    if known := session.known(planned.mfid):
        return known
    if deliveries is None:
        return _at_service(planned, job, session, session.client)
    if not deliveries.is_worth_a_look(planned.mfid):
        return None  # the plan has asked Crucible a moment ago; it is not to be waited for again
    return deliveries.look(partial(_at_service, planned, job, session))


def _at_service(planned: PlannedOutput, job: Job, session: Session, client: CrucibleClient) -> DatasetRef | None:
    sha256, what = recipe_sha256(planned.recipe), f"making {job.name!r}"
    found = find_own(client, session.mirror, planned.mfid, job.project, sha256, what)
    if found is None:
        return None
    require_not_withdrawn(found)
    return found.ref


def _execute(
    job: Job, folder: Path, session: Session, hear: Hear | None, deliveries: DeliversLater | None
) -> tuple[list[NewDataset], dict[str, Path], str]:
    """Execute the step. Returns the new datasets, their files by hash, and a note for whoever ran the step."""
    placed = place_inputs(job, folder, session)
    outputs = {planned.output: folder / planned.output for planned in job.outputs}
    for path in outputs.values():
        path.mkdir()
    own = own_secrets(session.settings.api_key)
    rests = rests_on(job, session, (*own, *secrets_of(job)))
    started = datetime.now(UTC)
    with telling_of_changes(placed):
        called = call_step(
            job, placed.arguments, outputs, folder, secrets=own, hear=partial(_tell, job, session.settings.data, hear)
        )
    ended = datetime.now(UTC)
    tell_phase(job, MADE, session.settings.data)
    require_unchanged(job, placed)
    metadata = metadata_of(job, called.result)
    note, pictures = called.note(), called.pictures
    files = {output: output_files(job, output, path, note, pictures) for output, path in outputs.items()}
    kept_for_it = rests.register(job.project, session, deliveries)
    activity = Activity(
        step=job.inspection.step,
        function=job.inspection.uses,
        fingerprint=job.inspection.fingerprint,
        started=started.isoformat(),
        ended=ended.isoformat(),
        source=job.inspection.source,
        pieces=job.inspection.pieces,
        not_covered=job.inspection.not_covered,
        git=_git_of(called.code),
        run=job.run,
        declared=job.declared,
        gaps=job.gaps,
        read=(*map(str, called.read), *(f"{path} (opened while it ran)" for path in called.opened)),
        archive=kept_for_it.archive,
        left_out=kept_for_it.left_out,
        program=kept_for_it.program,
    )
    made = [  # all outputs are looked at before the first is registered
        StepOutput(planned, metadata[planned.output], files[planned.output]) for planned in job.outputs
    ]

    def fields_of(mfid: str) -> Mapping[str, object]:
        if (waiting := session.outbox.dataset(mfid)) is not None:
            return {**waiting.fields, "unique_id": mfid, "scientific_metadata": dict(waiting.metadata)}
        return session.client.datasets.get(mfid, include_metadata=True).model_dump()

    names = [dataset_name(job, output.planned.output, output.metadata, fields_of) for output in made]
    new = [
        new_dataset(job, output, activity, session.agent, name, kept_for_it)
        for output, (name, _) in zip(made, names, strict=True)
    ]
    kept = {  # what comes next reads them from there
        file.ref.sha256: session.cache.take(file.path, file.checksums) for output in made for file in output.files
    }
    notes = dict.fromkeys(
        (
            placed.note,
            note,
            kept_for_it.note,
            *(told for _, told in names),
            *(f"made without {gap}" for gap in job.gaps),
        )
    )
    return new, kept, "; ".join(filter(None, notes))


def _tell(job: Job, data: Path, hear: Hear | None, line: str) -> None:
    tell_line(job, line, data)
    if hear:
        hear(line)


def _git_of(folder: Path | None) -> Mapping[str, object] | None:
    return git_state(folder) if folder and folder.is_dir() else None


MOST_METADATA_BYTES = 3 << 20  # the embedded Crucible takes 4 MB of a dataset, with the record of how it came to be


@dataclass(frozen=True)
class StepOutput:
    """One output of a step that has run: its identity, and what is in it."""

    planned: PlannedOutput
    metadata: Mapping[str, Any]
    files: tuple[LocalFile, ...]


def new_dataset(
    job: Job, made: StepOutput, activity: Activity, agent: Mapping[str, object], name: str, kept: KeptSupport
) -> NewDataset:
    """The dataset to be registered for an output, under that name."""
    inspection, declared, planned = job.inspection, job.spec.output, made.planned
    record = step_record(
        recipe=planned.recipe,
        pipeline=job.pipeline,
        used=job.used,
        generated=[file.ref for file in made.files],
        activity=activity,
        software=software(inspection.reached_packages, kept.environment),
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
        slots=job.slots.get(planned.output, {}),
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
    return (*files, *([_log_file(log)] if log.exists() else []))


def _log_file(path: Path) -> LocalFile:
    checksums = scan_file(path)
    return LocalFile(path, FileRef(path.name, checksums.sha256, checksums.size, log=True), checksums)


def _taken(job: Job) -> str:
    """When the data were measured that a result is about; what was chosen for them in time does not count."""
    own = [part.dataset for part in job.used if part.chosen is None]
    return last_taken(own or [part.dataset for part in job.used])


MOST_NAME_BYTES = 200  # chosen: file systems take 255, and programs add endings
# A file with holes is read as if they were full of zeros; one that is nearly all hole was never meant to be kept.
_SPARSE_BYTES, _SPARSE_RATIO = 1 << 30, 1000
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def written_files(step: str, folder: Path) -> list[Path]:
    """The files, by name. StepError names what is none, or cannot be registered; no link is followed."""

    def refuse(what: str) -> StepError:
        return StepError(f"step {step!r} {what}", step=step)

    if not folder.is_dir() or folder.is_symlink():
        what = "a link" if folder.is_symlink() else "something else" if folder.exists() else "nothing"
        raise refuse(f"replaced its folder {folder.name!r} by {what}; let it write into the folder that it is given")
    paths = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        state = entry.stat(follow_symlinks=False)
        if fault := name_fault(entry.name, MOST_NAME_BYTES):
            raise refuse(f"wrote a file {entry.name!r}, whose name {fault}; let it use a plain name")
        if stat.S_ISDIR(state.st_mode):
            if inside := next((path for path in sorted(Path(entry.path).rglob("*")) if not path.is_dir()), None):
                where = inside.relative_to(folder)
                raise refuse(f"wrote {where} into a subfolder; Crucible's files have plain names")
            continue
        if not stat.S_ISREG(state.st_mode):
            kind = _KINDS.get(stat.S_IFMT(state.st_mode), "no file")
            raise refuse(f"left {kind} {entry.name!r} where its files go; let it write, or copy, a file")
        on_disk = getattr(state, "st_blocks", state.st_size) * 512
        if state.st_size > _SPARSE_BYTES and on_disk * _SPARSE_RATIO < state.st_size:
            size = f"{state.st_size / 1e9:.1f} GB"
            raise refuse(
                f"wrote {entry.name!r}, which claims {size} and has {on_disk} bytes on disk; let it write no holes"
            )
        if state.st_nlink > 1:
            _take_apart(Path(entry.path))
        paths.append(folder / entry.name)
    return paths


def _take_apart(path: Path) -> None:
    """The file shares its bytes with no other name, under which they might be changed."""
    copy = draft_beside(path, ".own")
    shutil.copyfile(path, copy)
    shutil.copystat(path, copy)
    copy.replace(path)
