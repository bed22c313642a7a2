"""Materializing one step: fetch its inputs, run its function in a folder of its own, register its outputs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from crucible_lineage.core.folders import attempt_folder
from crucible_lineage.core.journal import ResultRow
from crucible_lineage.errors import CrucibleError, FileChangedError, StepError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import fields_of
from crucible_lineage.machine.checksums import FileStamp, file_sha256, scan_file, stamp
from crucible_lineage.machine.disk import draft_beside
from crucible_lineage.marks import is_own
from crucible_lineage.pipeline.declare.load import referenced
from crucible_lineage.pipeline.job.delivering import delivery_context
from crucible_lineage.pipeline.job.job import Outcome, StepState, dataset_name
from crucible_lineage.pipeline.job.keeping import support_of
from crucible_lineage.pipeline.job.worker import call_command, call_function
from crucible_lineage.pipeline.logs import STEP_LOG, LineCallback, StepLog, report_line, report_phase
from crucible_lineage.pipeline.plan.fetch import place_file
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.pipeline.processes.child import CallOutcome, failure_line, failure_traceback, outcome_of
from crucible_lineage.provenance.environment import git_state, software
from crucible_lineage.provenance.recipe import PlannedOutput, UsedDataset, first_attempt, recipe_sha256
from crucible_lineage.provenance.record import ATTACHED_NAME, step_activity, step_record
from crucible_lineage.refs import DatasetRef, FileRef, file_stem, name_fault
from crucible_lineage.registration.deliver import Deliver, deliver_now
from crucible_lineage.registration.payload import LocalFile, NewDataset, derived
from crucible_lineage.registration.read import read_own, require_not_withdrawn
from crucible_lineage.session import Session
from crucible_lineage.step import Step, step_runner
from crucible_lineage.text.masking import MIN_ENCODED, learn, masked_text, redactor_of, texts_in

StagedFiles = dict[Path, tuple[FileStamp, str]]


def materialize_step(
    job: StepPlan, session: Session, deliveries: Deliver, on_line: LineCallback | None = None
) -> StepState:
    """Return the outputs of a step; execute it only if they do not exist. One process at a time per recipe.

    They are at Crucible, or made and queued by `deliveries`. `on_line` receives each line that the step prints, as do
    the listeners of this process.
    """
    with session.turn(job.mfid) as turn:
        session.outbox.row(job.mfid)
        ids = {planned.output: planned.mfid for planned in job.outputs}
        existing = {output: dataset for output, mfid in ids.items() if (dataset := session.known(mfid))}
        if len(existing) == len(ids):
            for row in session.outbox.all():
                if not set(ids.values()).isdisjoint(row.mfids):
                    deliveries(row)  # made by another process of this data folder, which may have ended
            return StepState(Outcome.REUSED, existing)
        parents = [dataset.dataset.mfid for dataset in job.used]
        session.effects.require_free(parents, job.inspection.code.fingerprint, job.project)
        began = time.monotonic()
        report_phase(job.run_id, job.name, Outcome.STARTED)
        work = session.settings.data / "work"
        with attempt_folder(work, file_stem(job.name), input_folders(job), Path(turn.lock_file)) as folder:
            new, note = _execute(job, folder, session, on_line, deliveries)
            made = session.outbox.put(job.name, job.project, new, job.run_id)
        for planned in job.outputs:
            if planned.recipe.get("attempt"):
                session.mirror.note_attempt(*first_attempt(planned.recipe))
    seconds = time.monotonic() - began
    deliveries(made.row(session.account))  # the lock is released now
    outputs = dict(zip(ids, made.datasets, strict=True))
    results = {output: new.ref(new.mfid) for output, new in outputs.items()}
    returned = {output: new.metadata for output, new in outputs.items()}
    return StepState(Outcome.EXECUTED, results, note, seconds, returned)


def materialize_now(job: StepPlan, session: Session) -> StepState:
    """Return the outputs of a step that code calls: at Crucible, since whatever is called next may use them."""
    for planned in job.outputs:
        if session.known(planned.mfid) is None:  # a plan would have asked
            sha256, action = recipe_sha256(planned.recipe), f"making {job.name!r}"
            found = read_own(session.client, planned.mfid, job.project, sha256, action)
            if found is not None:
                require_not_withdrawn(found)
                session.mirror.trust({planned.mfid: found.ref} if found.ref else {})
    waiting = list[ResultRow]()
    done, delivered = materialize_step(job, session, waiting.append), dict[str, DatasetRef]()
    for row in waiting:
        try:
            delivered |= deliver_now(delivery_context(session), row)
        except CrucibleError:
            if row.name == job.mfid:  # else it waits, or is refused: the source or the environment of the result
                raise
    return replace(done, results={output: delivered.get(ref.mfid, ref) for output, ref in done.results.items()})


def _execute(
    job: StepPlan, folder: Path, session: Session, on_line: LineCallback | None, deliveries: Deliver
) -> tuple[list[NewDataset], str]:
    """Execute the step. Return the new datasets, and a note for the user."""
    inputs, staged, staging_note = _stage_inputs(job, folder, session)
    outputs = {planned.output: folder / planned.output for planned in job.outputs}
    for path in outputs.values():
        path.mkdir()
    facts = None if job.facts is None else job.facts.to_json()
    call = {"inputs": inputs, "outputs": outputs, "facts": facts, "params": dict(job.instance.given)}
    secrets = secrets_of(job)
    support = support_of(job, session, secrets)
    started = datetime.now(UTC)
    report = partial(report_line, job.name, on_line)
    try:
        called = call_step(job, call, folder, secrets=secrets, on_line=report)
    except StepError as error:
        if changed := _changed(staged):  # which may be the cause
            error.args = (f"{error}; its input {changed!r} was changed while it ran", *error.args[1:])
        raise
    ended = datetime.now(UTC)
    report_phase(job.run_id, job.name, Outcome.MADE)
    if changed := _changed(staged):  # the origin of its result is unknown
        raise FileChangedError(
            f"step {job.name!r} changed its input {changed!r} while it ran; its result was not registered. "
            "Let it copy the file before changing it"
        )
    metadata = metadata_of(job, called.result)
    note, pictures = called.note(), called.pictures
    files = {output: output_files(job, output, path, note, pictures) for output, path in outputs.items()}
    support = support.registered(job.project, session, deliveries)
    activity = step_activity(
        step=job.inspection.step,
        function=job.inspection.uses,
        fingerprint=job.inspection.fingerprint,
        started=started.isoformat(),
        ended=ended.isoformat(),
        source=job.inspection.source,
        pieces=job.inspection.pieces,
        not_covered=job.inspection.not_covered,
        git=git_state(called.code) if called.code and called.code.is_dir() else None,
        run=job.run,
        declared=job.declared,
        gaps=job.instance.gaps,
        read=tuple(map(str, called.read)),
        archive=support.archive,
        left_out=support.left_out,
        program=support.program,
    )
    fields = partial(_parent_fields, session)
    names = [dataset_name(job, output, metadata[output], fields) for output in outputs]
    made: JsonObject = {
        "activity": activity,
        "software": software(job.inspection.reached_packages, support.environment),
        "who": session.agent,
    }
    cached = {  # later steps read them from the cache
        output: tuple(replace(file, path=session.cache.take(file.path, file.checksums)) for file in own)
        for output, own in files.items()
    }
    new = [
        new_dataset(job, planned, metadata[planned.output], cached[planned.output], name, made)
        for planned, (name, _) in zip(job.outputs, names, strict=True)
    ]
    notes = dict.fromkeys(
        (
            *(staging_note, note, support.note),
            *(naming_note for _, naming_note in names),
            *(f"made without {gap}" for gap in job.instance.gaps),
        )
    )
    return new, "; ".join(filter(None, notes))


def _parent_fields(session: Session, mfid: str) -> JsonMapping:
    """Return the fields of a dataset in the outbox or at Crucible."""
    if (waiting := session.outbox.dataset(mfid)) is not None:
        return fields_of({**waiting.fields, "scientific_metadata": waiting.metadata})
    return fields_of(session.client.datasets.get(mfid, include_metadata=True).model_dump())


MAX_METADATA_BYTES = 3 << 20  # the embedded Crucible accepts 4 MB per dataset, with the provenance record


def new_dataset(
    job: StepPlan,
    planned: PlannedOutput,
    metadata: JsonMapping,
    files: tuple[LocalFile, ...],
    name: str,
    made: JsonMapping,
) -> NewDataset:
    """Return the dataset to be registered for an output, with this name; `made` are the parts of all their records."""
    inspection, declared = job.inspection, job.spec.output
    record = step_record(
        recipe=planned.recipe,
        pipeline=job.instance.step.declared,
        used=job.used,
        generated=[file.ref for file in files],
        supersedes=planned.supersedes,
        **made,
    )
    new = NewDataset(
        mfid=planned.mfid,
        fields={
            "project_id": job.project,
            "dataset_name": name,
            **declared.access,
            **inspection.described(declared),
        },
        record=record,
        metadata=metadata,
        files=files,
        slots=job.slots.get(planned.output, {}),
        keywords=tuple(dict.fromkeys((*job.keywords, *inspection.keywords, *declared.keywords))),
        **declared.ingestion,
    )
    return derived(new, job.used, declared.inherit)


def metadata_of(job: StepPlan, result: JsonMapping | None) -> dict[str, JsonObject]:
    """Return the scientific metadata of each output: the returned values and the declared metadata."""
    outputs = job.inspection.outputs
    values = {outputs[0]: result} if len(outputs) == 1 else (result or {})
    for name in outputs:
        if not isinstance(values.get(name) or {}, Mapping):
            message = f"step {job.name!r} returned no mapping of metadata for each of its outputs {', '.join(outputs)}"
            raise StepError(message, step=job.name)
        if reserved := [key for key in values.get(name) or {} if is_own(key)]:
            message = f"step {job.name!r} returned {reserved[0]!r}, which is reserved for provenance; use another name"
            raise StepError(message, step=job.name)
    if lost := sorted(values.keys() - set(outputs)):
        message = f"step {job.name!r} returned {lost[0]!r}, but its outputs are {', '.join(outputs)}"
        raise StepError(f"{message}; return a mapping for each of them", step=job.name)
    metadata = {name: {**(values.get(name) or {}), **job.spec.output.metadata} for name in outputs}
    for name, content in metadata.items():
        size = len(json.dumps(content).encode())
        if size > MAX_METADATA_BYTES:
            raise StepError(
                f"step {job.name!r} returned {size / 1e6:.1f} MB of metadata for {name!r}, which is more than "
                f"Crucible accepts ({MAX_METADATA_BYTES / 1e6:.1f} MB); let it write large values into a file",
                step=job.name,
            )
    return metadata


def output_files(
    job: StepPlan, output: str, folder: Path, note: str = "", pictures: Collection[str] = ()
) -> tuple[LocalFile, ...]:
    """Return the files that a step wrote for an output, and its log. Raises StepError if they cannot be registered.

    `note` names files that it wrote elsewhere. `pictures` are figures that it returned: the first one becomes the
    preview, unless the step declares another file.
    """
    paths = written_files(job.name, folder)
    if not paths:
        way_out = f"write its result into that folder, as in ({output} / 'result.csv').write_text(...)"
        message = f"step {job.name!r} wrote nothing into {output!r}; {note or way_out}"
        raise StepError(message, step=job.name)
    log = folder.parent / STEP_LOG
    for name in (ATTACHED_NAME, STEP_LOG):
        if name in (path.name for path in paths):
            raise StepError(f"step {job.name!r} wrote {name}, which is a reserved name; use another one", step=job.name)
    preview = job.inspection.thumbnail
    fits = (path for path in paths if (fnmatchcase(path.name, preview) if preview else path.name in pictures))
    shown = next(fits, None)
    files = [LocalFile.of(path, scan_file(path), preview=path == shown) for path in paths]
    if log.exists():  # later steps do not receive it
        checksums = scan_file(log)
        files.append(LocalFile(log, FileRef(STEP_LOG, checksums.sha256, checksums.size, log=True), checksums))
    return tuple(files)


MAX_NAME_BYTES = 200  # chosen: file systems allow 255, and programs add endings
# Holes of a sparse file are read as zeros; a file that is nearly all holes was never meant to be stored.
_SPARSE_BYTES, _SPARSE_RATIO = 1 << 30, 1000
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def written_files(step: str, folder: Path) -> list[Path]:
    """Return the files, sorted by name. Raises StepError for entries that cannot be registered; follows no links."""

    def refuse(reason: str) -> StepError:
        return StepError(f"step {step!r} {reason}", step=step)

    if not folder.is_dir() or folder.is_symlink():
        kind = "a link" if folder.is_symlink() else "something else" if folder.exists() else "nothing"
        raise refuse(f"replaced its folder {folder.name!r} by {kind}; let it write into the folder that it is given")
    paths = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        state = entry.stat(follow_symlinks=False)
        if (shown := masked_text(entry.name)) != entry.name:
            Path(entry.path).replace(folder / "masked")
            raise refuse(f"wrote a file whose name holds a secret ({shown!r}); let it use another name")
        if fault := name_fault(entry.name, MAX_NAME_BYTES):
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
            copy = draft_beside(Path(entry.path), ".own")  # its bytes cannot be changed through another hard link
            shutil.copyfile(entry.path, copy)
            shutil.copystat(entry.path, copy)
            copy.replace(entry.path)
        paths.append(folder / entry.name)
    return paths


def call_step(
    job: StepPlan, call: JsonMapping, folder: Path, *, secrets: Iterable[str], on_line: LineCallback
) -> CallOutcome:
    """Call the step, log in `folder`, mask `secrets`, and pass each printed line to `on_line`. Raises StepError."""
    redactor = redactor_of(secrets)
    with closing(StepLog(folder / STEP_LOG, redactor, on_line)) as log:
        try:
            if job.called is not None:
                called = _call_here(job.called, job, call, log)
            else:
                called = (call_command if job.spec.run else call_function)(job, call, folder, log)
            covered = {Path(path).resolve() for path in job.inspection.files}
            called = replace(called, read=tuple(path for path in called.read if path.resolve() not in covered))
        except StepError as error:
            log.path.touch()  # the error names it, even if nothing was printed
            error.args = tuple(redactor.text(str(part)) for part in error.args)
            raise
        if called.read:
            with log.path.open("ab") as stream:  # the process that printed there has ended
                stream.write(f"note: {called.read_note()}\n".encode())
    return called


def secrets_of(job: StepPlan) -> list[str]:
    """Return the argument values to be redacted: secret parameters, and values from the environment."""
    declared = json.dumps([dict(job.spec.env), dict(job.spec.references)], default=str)
    values = [os.environ.get(name, "") for name in referenced(declared)]
    params = job.inspection.params
    secret = [name for name, value in params.items() if isinstance(value, Mapping) and {*value} == {"secret"}]
    given = [text for name in secret if name in job.instance.given for text in texts_in(job.instance.given[name])]
    learn(given)
    return [*given, *(text for text in values if len(text) >= MIN_ENCODED)]  # not `1`


def _call_here(step: Step[..., Any], job: StepPlan, call: JsonMapping, log: StepLog) -> CallOutcome:
    token = step_runner.set(None)  # a step that calls another one calls a plain function
    try:
        return outcome_of(step, call, log.path.parent)
    except BaseException as error:
        if not isinstance(error, (Exception, SystemExit)) and threading.current_thread() is threading.main_thread():
            raise  # a signal to end this process: only the main thread is interrupted
        trace = failure_traceback(error, step.function)
        shown = log.redactor.text(trace)
        log.write(trace.encode(errors="backslashreplace"))
        message = f"step {job.name!r} failed: {failure_line(error, step.function)}"
        message += f"; the traceback is in {log.path}" if trace else ""
        # Prefect logs the cause too, with its unredacted message.
        cause = error if shown == trace else None
        raise StepError(message, step=job.name, log=str(log.path), trace=shown) from cause
    finally:
        step_runner.reset(token)


def input_folders(job: StepPlan) -> dict[str, UsedDataset]:
    """Return {folder within the attempt's, by role and number: input} for the inputs with files."""
    numbers: Counter[str] = Counter()
    folders = {}
    for part in job.used:
        numbers[part.role] += 1
        if part.files:
            folders[f"inputs/{part.role}/{numbers[part.role]}"] = part
    return folders


def _stage_inputs(
    job: StepPlan, folder: Path, session: Session
) -> tuple[dict[str, list[tuple[int, Path]]], StagedFiles, str]:
    """Put the inputs into the attempt's folder, with verified bytes.

    Return them by role, with the stamp and hash of each file, and a note on files fetched again.
    """
    files: StagedFiles = {}
    placed: dict[str, list[tuple[int, Path]]] = {}
    replaced = []
    for subfolder, part in input_folders(job).items():
        number = int(subfolder.rpartition("/")[2])
        for file in part.files:
            target = folder / subfolder / file.name
            if place_file(part.dataset, file, target, session):
                replaced.append(file.name)
            placed.setdefault(part.role, []).append((number, target))
            files[target] = (stamp(target), file.sha256)
    note = f"the file cache had other bytes for {', '.join(replaced)}; they were fetched again" if replaced else ""
    return placed, files, note


def _changed(staged: StagedFiles) -> str:
    """Return the name of the first file that has changed; empty if none has."""
    for path, (before, sha256) in staged.items():
        if not path.exists() or (stamp(path) != before and file_sha256(path) != sha256):
            return path.name
    return ""
