"""One step, made real: its inputs fetched, its function run in a folder of its own, its outputs registered."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.errors import FileChangedError, StepError
from crucible_lineage.hashing import file_sha256, stamp
from crucible_lineage.pipeline.bind.command import LOG_FILE, CommandCall, call_command
from crucible_lineage.pipeline.bind.inspect import find_step, validated_params
from crucible_lineage.pipeline.files.fetch import cached_file
from crucible_lineage.pipeline.job.job import StepJob
from crucible_lineage.pipeline.job.outputs import MadeOutput, metadata_of, new_dataset, output_files
from crucible_lineage.pipeline.processes.failure import failure_line, failure_traceback, without_secrets
from crucible_lineage.pipeline.processes.outside import Called, watching_writes
from crucible_lineage.pipeline.processes.process import call_isolated
from crucible_lineage.pipeline.run.materialized import Materialized
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt
from crucible_lineage.provenance.record import Activity, git_state
from crucible_lineage.refs import DatasetRef, file_stem
from crucible_lineage.registration.register import find_by_recipe, look_up, register_output
from crucible_lineage.session import Session
from crucible_lineage.step import Step, step_runner

__all__ = ["materialize_step"]


def materialize_step(job: StepJob, session: Session) -> Materialized:
    """The registered outputs of a step. Runs it only if they are not there; one process at a time per recipe."""
    recipes = job.recipes()
    mfids = {output: derived_mfid(recipe) for output, recipe in recipes.items()}
    with session.turn(min(mfids.values())):
        present = {output: _present(mfid, session) for output, mfid in mfids.items()}
        if all(present.values()):
            return Materialized({output: dataset for output, dataset in present.items() if dataset}, executed=False)
        with _attempt_folder(job, session) as folder:
            registered, note = _execute(job, recipes, mfids, folder, session)
        session.store.remember_as({mfids[output]: dataset for output, dataset in registered.items()})
        session.store.remember(registered.values())
        if job.attempt:
            for recipe in recipes.values():
                session.store.note_attempt(*first_attempt(recipe))
    return Materialized(registered, executed=True, note=note)


def _present(mfid: str, session: Session) -> DatasetRef | None:
    known = session.store.known(mfid) or look_up(session.client, mfid)[0]
    if known is None and session.store.assigns_ids():
        return find_by_recipe(session.client, mfid)
    return known


def _execute(
    job: StepJob, recipes: Mapping[str, Mapping[str, Any]], mfids: Mapping[str, str], folder: Path, session: Session
) -> tuple[dict[str, DatasetRef], str]:
    """The registered outputs, and what to tell whoever ran the step."""
    arguments = _place_inputs(job, folder, session)
    outputs = {output: folder / output for output in recipes}
    for path in outputs.values():
        path.mkdir()
    before = _input_stamps(folder)
    started = datetime.now(UTC)
    called = _call(job, arguments, outputs, folder)
    ended = datetime.now(UTC)
    _check_inputs(job, before, session)
    metadata = metadata_of(job, called.result)
    activity = Activity(
        step=job.inspection.step,
        function=job.inspection.uses,
        fingerprint=job.inspection.fingerprint,
        started=started.isoformat(),
        ended=ended.isoformat(),
        source=job.inspection.source,
        not_covered=job.inspection.not_covered,
        git=_git_of(job),
        run=job.run,
        declared=job.declared,
    )
    files = {output: output_files(job, output, path, called.note()) for output, path in outputs.items()}
    made = [  # all outputs are looked at before the first is registered
        MadeOutput(output, mfids[output], recipe, metadata[output], files[output]) for output, recipe in recipes.items()
    ]
    new = {output.output: new_dataset(job, output, activity, session.agent) for output in made}
    registered = {output: register_output(session.client, dataset, session.machine) for output, dataset in new.items()}
    for file in (file for output in made for file in output.files):  # what comes next reads them from there
        with suppress(FileChangedError):  # by what the step left running; what was registered are the bytes it had
            session.cache.take(file.path, file.checksums)
    return registered, called.note()


def _call(job: StepJob, arguments: Mapping[str, Any], outputs: Mapping[str, Path], folder: Path) -> Called:
    if job.command:
        call = CommandCall(job.name, job.command, job.declared_in, arguments, job.inspection.params, job.env)
        return Called(call_command(call, folder, job.timeout_s))
    if job.timeout_s is not None:
        paths = {**arguments, **outputs}
        uses, declared_in = job.inspection.uses, job.declared_in
        return call_isolated(job.name, uses, declared_in, paths, job.given, folder, job.timeout_s)
    step = _step_of(job)
    token = step_runner.set(None)  # a step that calls another one calls a plain function
    try:
        with watching_writes(folder) as outside:
            result = step.function(**arguments, **validated_params(step, job.given), **outputs)
        return Called(result, tuple(outside))
    except Exception as error:
        log = folder / LOG_FILE
        trace = failure_traceback(error, step.function)
        shown = without_secrets(trace, step, job.given)
        log.write_text(shown, encoding="utf-8")
        line = without_secrets(failure_line(error, step.function), step, job.given)
        told = f"step {job.name!r} failed: {line}; the traceback is in {log}"
        # Prefect logs the cause too, with its message.
        raise StepError(told, step=job.name, log=str(log)) from (error if shown == trace else None)
    finally:
        step_runner.reset(token)


def _step_of(job: StepJob) -> Step[..., Any]:
    return job.step or find_step(job.inspection.uses, job.declared_in)


def _place_inputs(job: StepJob, folder: Path, session: Session) -> dict[str, Any]:
    """The inputs as read-only files in the attempt's folder, in the shapes that the function wants."""
    placed: dict[str, dict[str, Path]] = {}
    for index, part in enumerate(job.used):
        for file in part.files:
            cached_file(part.dataset, file, session)
            target = folder / "inputs" / part.role / f"{index}-{part.dataset.mfid}" / file.name
            session.cache.place(file.sha256, target)
            target.chmod(stat.S_IREAD | stat.S_IRGRP | stat.S_IROTH)
            placed.setdefault(part.role, {})[f"{part.dataset.mfid}/{file.name}"] = target
    return {role: _shaped(job.inspection.roles[role], paths) for role, paths in placed.items()}


def _shaped(shape: str, paths: Mapping[str, Path]) -> Any:
    if shape == "file":
        (path,) = paths.values()
        return path
    if shape == "files":
        return list(paths.values())
    return {key.partition("/")[2]: path for key, path in paths.items()}


def _input_stamps(folder: Path) -> dict[Path, Any]:
    inputs = folder / "inputs"
    return {path: stamp(path) for path in sorted(inputs.rglob("*")) if path.is_file()}


def _check_inputs(job: StepJob, before: Mapping[Path, Any], session: Session) -> None:
    """The inputs are what they were; a change in between refuses the result."""
    hashes = {file.sha256 for part in job.used for file in part.files}
    for path, was in before.items():
        if path.exists() and stamp(path) == was:
            continue
        if not path.exists() or file_sha256(path) not in hashes:
            for sha256 in hashes:
                session.cache.evict(sha256)
            raise FileChangedError(
                f"step {job.name!r} changed its input {path.name!r} while it ran; its result was not registered. "
                "Let it copy the file before changing it"
            )


def _git_of(job: StepJob) -> Mapping[str, Any] | None:
    code = None if job.command else getattr(_step_of(job).function, "__code__", None)
    folder = job.declared_in if job.command else Path(code.co_filename).parent if code else None
    return git_state(folder) if folder and folder.is_dir() else None


@contextmanager
def _attempt_folder(job: StepJob, session: Session) -> Iterator[Path]:
    """A fresh folder: removed on success, kept on failure so that one can look at what was left."""
    work = session.settings.data / "work"
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{file_stem(job.name)}-", dir=work))
    yield folder
    _remove(folder)


def _remove(folder: Path) -> None:
    if os.name == "nt":  # Windows refuses to remove read-only files
        for path in folder.rglob("*"):
            path.chmod(stat.S_IWRITE)
    shutil.rmtree(folder)
