"""Restore missing bytes by making a result again: only files with the recorded hashes are used.

Files with other bytes are kept in `remade/` of the data folder, which the error names.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crucible_lineage.checksums import file_sha256
from crucible_lineage.disk import private_folder
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.pipeline.job.calling import call_step, stage_inputs
from crucible_lineage.pipeline.job.job import job_of
from crucible_lineage.pipeline.logs import own_secrets
from crucible_lineage.pipeline.plan.plan import FRESH
from crucible_lineage.pipeline.rerun import plan_rerun
from crucible_lineage.provenance.recipe import PlannedOutput
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.driver import NOT_MADE, Options, Outcome
from crucible_lineage.remake.reproduce import ENVIRONMENTS, reproduce_datasets
from crucible_lineage.session import Session

ASIDE = "remade"  # folder in the data folder for results that were made again with other bytes
_under_way = threading.local()


@contextmanager
def made_again(mfid: str, session: Session) -> Iterator[dict[str, Path]]:
    """Make a result again from its recorded source. Yields its files by SHA-256, in a folder that is removed later.

    Uses the present environment, and if that gives other bytes, one of the recorded versions. If the source was not
    kept, the present code runs. Raises InputError if the result cannot be made.
    """
    work = private_folder(session.settings.data / "work")
    with tempfile.TemporaryDirectory(dir=work, prefix="again-") as name:
        files: dict[str, Path] = {}
        reason = ""
        for here in (True, False):
            options = Options(here=here, environments=session.settings.data / ENVIRONMENTS)
            output = Path(name) / ("here" if here else "as-recorded")
            (outcome,) = reproduce_datasets(session, [mfid], options, lambda _: None, output)
            files |= _by_sha256(output)
            if _has_all(outcome, files):
                yield files
                return
            reason = outcome.note or next(outcome.lines(), "")
            if outcome.verdict == NOT_MADE:
                break
        if outcome.verdict == NOT_MADE and here:
            try:
                with remade_files(mfid, session) as present:
                    yield present
                return
            except InputError as error:
                raise InputError(f"{reason}; {error}") from error
        _keep_aside(session, mfid, output)
        yield files


def remade_file(session: Session, mfid: str, sha256: str) -> Path:
    """Make a result again and return one of its files, in the cache. Raises InputError if that fails or differs."""
    under_way: set[str] = _under_way.__dict__.setdefault("mfids", set())
    if mfid in under_way:  # it is being made again, and needs its own earlier bytes
        raise InputError(f"dataset {mfid} is being made again")
    under_way.add(mfid)
    try:
        with made_again(mfid, session) as files:
            for digest, path in files.items():
                if digest == sha256:
                    _note_evicted(session, mfid, sha256)
                    return session.cache.add(path, digest)
    except LineageError as error:
        raise InputError(f"making dataset {mfid} again failed: {error}") from error
    finally:
        under_way.discard(mfid)
    raise InputError(
        f"dataset {mfid} was made again with other bytes, which are in {session.settings.data / ASIDE / mfid}; "
        f"see crucible-lineage reproduce {mfid}"
    )


def _note_evicted(session: Session, mfid: str, sha256: str) -> None:
    """Note that evicted files are not lost, so that no run sends them again."""
    if sha256 in session.stated.evicted().get(mfid, ()):
        for name in session.mirror.lost(mfid):
            session.mirror.note_whole(mfid, name)


def _has_all(outcome: Outcome, files: dict[str, Path]) -> bool:
    recorded = [file["sha256"] for own in outcome.recorded.values() for file in own if not file.get("log")]
    return all(sha256 in files for sha256 in recorded)


def _keep_aside(session: Session, mfid: str, output: Path) -> None:
    target = private_folder(session.settings.data / ASIDE) / mfid
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(output, target, ignore=shutil.ignore_patterns("source", "inputs", "environments"))


@contextmanager
def remade_files(mfid: str, session: Session) -> Iterator[dict[str, Path]]:
    """Run a result's step with the present code. Yields its files by SHA-256, in a folder that is removed afterwards.

    The step gets its recorded parameters and parents. Raises InputError if no step made the dataset, or its code or
    parents have changed; StepError if the step fails; ChecksumError if a parent's bytes are lost too.
    """
    rerun = plan_rerun(mfid, session, None, {})
    plan = next((step for step in rerun.planned.plan.steps if mfid in step.datasets.values()), None)
    if plan is None or (plan.state != FRESH and not session.mirror.lost(mfid)):
        reason = "another result has replaced it" if plan is None else "; ".join(plan.causes) or plan.state
        raise InputError(f"dataset {mfid} cannot be remade: {reason}")
    outputs = tuple(_planned(output, str(one), session) for output, one in plan.datasets.items())
    job = job_of(
        rerun.pipeline, rerun.planned.instances[plan.name], plan.used, outputs, {"run_id": f"repair-{mfid}"}, {}
    )
    work = private_folder(session.settings.data / "work")
    with tempfile.TemporaryDirectory(dir=work, prefix="repair-") as name:
        folder = Path(name)
        inputs = stage_inputs(job, folder, session)
        folders = {planned.output: folder / planned.output for planned in outputs}
        for path in folders.values():
            path.mkdir()
        call_step(job, inputs.arguments, folders, folder, secrets=own_secrets(session.settings.api_key))
        yield _by_sha256(folder)


def _by_sha256(folder: Path) -> dict[str, Path]:
    return {file_sha256(path): path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def _planned(output: str, mfid: str, session: Session) -> PlannedOutput:
    record = read_record(session.client.metadata.get(mfid))
    assert record is not None  # or the plan would not call it fresh
    return PlannedOutput(output, mfid, whole_record(session.client, mfid, record).recipe)
