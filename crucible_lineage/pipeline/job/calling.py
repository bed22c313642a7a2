"""Calling a step's function or command: in a process of its own, except a function that only this process has."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileStamp, file_sha256, stamp
from crucible_lineage.errors import FileChangedError, StepError
from crucible_lineage.pictures import draw_returned
from crucible_lineage.pipeline.declare.variables import from_environment, referenced
from crucible_lineage.pipeline.files.fetch import place_file
from crucible_lineage.pipeline.functions.command import arguments_of
from crucible_lineage.pipeline.functions.inspect import validated_params
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.logs import STEP_LOG, LineCallback, Redactor, StepLog
from crucible_lineage.pipeline.processes.command import CommandCall, call_command
from crucible_lineage.pipeline.processes.failure import failed_here, failure_line, failure_traceback
from crucible_lineage.pipeline.processes.side_files import CallOutcome, code_folder, returned, watching_files
from crucible_lineage.pipeline.processes.worker import FunctionCall, call_function
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.session import Session
from crucible_lineage.step import Step, step_runner

MIN_SECRET_LENGTH = 4  # characters; shorter values of the environment, as `1`, are not secrets, and common in logs


def call_step(
    job: Job,
    arguments: Mapping[str, object],
    outputs: Mapping[str, Path],
    folder: Path,
    *,
    secrets: Iterable[str] = (),
    on_line: LineCallback | None = None,
) -> CallOutcome:
    """Call the step. Return its values and where it wrote; its output is logged in `folder`. Raises StepError.

    `secrets` and those given to the step are redacted in both. `on_line` receives each line when it is printed.
    """
    redactor = Redactor((*secrets, *secrets_of(job)))
    with StepLog(folder / STEP_LOG, redactor, on_line) as log:
        try:
            return _check_reads(job, _call(job, {**arguments, **outputs}, folder, log), log)
        except StepError as error:
            log.path.touch()  # the error names it, even if nothing was printed
            error.args = tuple(redactor.text(str(part)) for part in error.args)
            raise


def _call(job: Job, paths: Mapping[str, Any], folder: Path, log: StepLog) -> CallOutcome:
    spec = job.spec
    if spec.run:
        params, env = job.inspection.params, from_environment(spec.env, job.variables, f"step {job.name!r}")
        command = CommandCall(
            job.name, arguments_of(spec), spec.folder, paths, params, env, job.run_id, spec.shell, job.facts
        )
        return call_command(command, folder, log, spec.timeout)
    if job.step is None:
        uses, files = job.inspection.uses, job.inspection.files
        function = FunctionCall(job.name, uses, spec.folder, paths, job.given, files, job.run_id, job.facts)
        return call_function(function, folder, log, spec.timeout)
    return _call_here(job.step, job, paths, log)


def _check_reads(job: Job, called: CallOutcome, log: StepLog) -> CallOutcome:
    """Return the call without the reads that `reads` covers. Raises StepError if a strict step read other files."""
    covered = {Path(path).resolve() for path in job.inspection.files}
    called = replace(called, read=tuple(path for path in called.read if path.resolve() not in covered))
    if called.read and job.spec.strict:
        raise StepError(f"step {job.name!r} is strict, and {called.read_note()}", step=job.name, log=str(log.path))
    if called.read:
        with log.path.open("ab") as stream:  # the process that printed there has ended
            stream.write(f"note: {called.read_note()}\n".encode())
    return called


def secrets_of(job: Job) -> list[str]:
    """Return the argument values to be redacted: secret parameters, and values from the environment."""
    declared = json.dumps([dict(job.spec.env), dict(job.spec.references)], default=str)
    values = [os.environ.get(name, "") for name in referenced(declared)]
    params = job.inspection.params
    secret = [name for name, value in params.items() if isinstance(value, Mapping) and {*value} == {"secret"}]
    given = [text for name in secret if name in job.given for text in _texts(job.given[name])]
    return [*given, *(text for text in values if len(text) >= MIN_SECRET_LENGTH)]


def _texts(value: object) -> Iterator[str]:
    if hasattr(value, "get_secret_value"):
        yield from _texts(value.get_secret_value())
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif value is not None:
        yield str(value)


def _call_here(step: Step[..., Any], job: Job, paths: Mapping[str, Any], log: StepLog) -> CallOutcome:
    token = step_runner.set(None)  # a step that calls another one calls a plain function
    try:
        with watching_files(log.path.parent) as watched:
            facts = {step.facts: job.facts} if step.facts else {}
            result = step.function(**paths, **facts, **validated_params(step, job.given))
            result, pictures = draw_returned(result, {name: paths[name] for name in step.outputs})
            plain = returned(result)
        code = code_folder(step.function)
        return CallOutcome(plain, tuple(watched.written), code=code, pictures=pictures, read=tuple(watched.read))
    except BaseException as error:
        if not failed_here(error):
            raise
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


@dataclass(frozen=True)
class StagedInputs:
    """The arguments of a step by role, with the stamp and hash of each file. `note` lists files fetched again."""

    arguments: Mapping[str, Any]
    files: Mapping[Path, tuple[FileStamp, str]]
    note: str = ""


def input_folders(job: Job) -> dict[str, UsedDataset]:
    """Return {folder within the attempt's, by role and number: input} for the inputs with files."""
    numbers: Counter[str] = Counter()
    folders = {}
    for part in job.used:
        numbers[part.role] += 1
        if part.files:
            folders[f"inputs/{part.role}/{numbers[part.role]}"] = part
    return folders


def stage_inputs(job: Job, folder: Path, session: Session) -> StagedInputs:
    """Put the inputs into the attempt's folder, with verified bytes, and return them in the shapes of their roles."""
    files: dict[Path, tuple[FileStamp, str]] = {}
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
    note = f"the file cache held other bytes for {', '.join(replaced)}; they were fetched again" if replaced else ""
    return StagedInputs(
        arguments={role: _shaped(job.inspection.roles[role], paths) for role, paths in placed.items()},
        files=files,
        note=note,
    )


def require_unchanged(job: Job, staged: StagedInputs) -> None:
    """Raise FileChangedError if the step changed one of its inputs, since the origin of its result is then unknown."""
    if changed := _changed(staged):
        raise FileChangedError(
            f"step {job.name!r} changed its input {changed!r} while it ran; its result was not registered. "
            "Let it copy the file before changing it"
        )


@contextmanager
def naming_changed_inputs(staged: StagedInputs) -> Iterator[None]:
    """Name the input that changed meanwhile in a StepError of this block: that may be the cause."""
    try:
        yield
    except StepError as error:
        if changed := _changed(staged):
            error.args = (f"{error}; its input {changed!r} was changed while it ran", *error.args[1:])
        raise


def _changed(staged: StagedInputs) -> str:
    """Return the name of the first file that has changed; empty if none has."""
    for path, (before, sha256) in staged.files.items():
        if not path.exists() or (stamp(path) != before and file_sha256(path) != sha256):
            return path.name
    return ""


def _shaped(shape: str, files: Sequence[tuple[int, Path]]) -> object:
    if shape == "file":
        ((_, path),) = files
        return path
    if shape == "files":
        return [path for _, path in files]
    names = Counter(path.name for _, path in files)
    return {path.name if names[path.name] == 1 else f"{number}/{path.name}": path for number, path in files}
