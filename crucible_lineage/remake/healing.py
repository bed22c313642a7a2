"""Bytes that are gone, made again from what is kept with a result: only those of the recorded hashes are taken.

What has other bytes is kept aside, in `remade/` of the data folder, and named.
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

ASIDE = "remade"  # in the data folder: what was made again with other bytes
_under_way = threading.local()


@contextmanager
def made_again(mfid: str, session: Session) -> Iterator[dict[str, Path]]:
    """The files of a result, made again from its recorded source, by SHA-256, in a folder that is removed afterwards.

    In the present environment, and if that gives other bytes in one of the recorded versions. Of a result whose source
    was not kept, what its step writes by the code that is here. InputError if nothing can be made.
    """
    work = private_folder(session.settings.data / "work")
    with tempfile.TemporaryDirectory(dir=work, prefix="again-") as name:
        found: dict[str, Path] = {}
        said = ""
        for here in (True, False):
            options = Options(here=here, environments=session.settings.data / ENVIRONMENTS)
            made = Path(name) / ("here" if here else "as-recorded")
            (outcome,) = reproduce_datasets(session, [mfid], options, lambda _: None, made)
            found |= {file_sha256(path): path for path in made.rglob("*") if path.is_file() and not path.is_symlink()}
            if _has_all(outcome, found):
                yield found
                return
            said = outcome.said or next(outcome.lines(), "")
            if outcome.verdict == NOT_MADE:
                break
        if outcome.verdict == NOT_MADE and here:
            try:
                with remade_files(mfid, session) as files:
                    yield files
                return
            except InputError as error:
                raise InputError(f"{said}; {error}") from error
        _keep_aside(session, mfid, made)
        yield found


def remade_file(session: Session, mfid: str, sha256: str) -> Path:
    """A file of a result, made again, in the cache. InputError if that gives other bytes, or cannot be."""
    under_way: set[str] = _under_way.__dict__.setdefault("mfids", set())
    if mfid in under_way:  # it is being made, and asks for what it was
        raise InputError(f"dataset {mfid} is being made again")
    under_way.add(mfid)
    try:
        with made_again(mfid, session) as found:
            for digest, path in found.items():
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
    """Note that nothing is lost that was let go on purpose: no run need send it again."""
    if sha256 in session.stated.evicted().get(mfid, ()):
        for name in session.mirror.lost(mfid):
            session.mirror.note_whole(mfid, name)


def _has_all(outcome: Outcome, found: dict[str, Path]) -> bool:
    recorded = [file["sha256"] for files in outcome.recorded.values() for file in files if not file.get("log")]
    return all(sha256 in found for sha256 in recorded)


def _keep_aside(session: Session, mfid: str, made: Path) -> None:
    target = private_folder(session.settings.data / ASIDE) / mfid
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made, target, ignore=shutil.ignore_patterns("source", "inputs", "environments"))


@contextmanager
def remade_files(mfid: str, session: Session) -> Iterator[dict[str, Path]]:
    """The files that a result's step writes now, by SHA-256, in a folder that is removed afterwards.

    The step gets its recorded parameters and its recorded parents. InputError if no step made the dataset, or its code
    or parents are others by now; StepError if the step fails; ChecksumError if a parent's bytes are lost too.
    """
    found = plan_rerun(mfid, session, None, {})
    plan = next((step for step in found.planned.plan.steps if mfid in step.datasets.values()), None)
    if plan is None or (plan.state != FRESH and not session.mirror.lost(mfid)):
        reason = "another result has replaced it" if plan is None else "; ".join(plan.causes) or plan.state
        raise InputError(f"dataset {mfid} cannot be remade: {reason}")
    outputs = tuple(_planned(output, str(one), session) for output, one in plan.datasets.items())
    job = job_of(
        found.pipeline, found.planned.instances[plan.name], plan.used, outputs, {"run_id": f"repair-{mfid}"}, {}
    )
    work = private_folder(session.settings.data / "work")
    with tempfile.TemporaryDirectory(dir=work, prefix="repair-") as name:
        folder = Path(name)
        placed = stage_inputs(job, folder, session)
        folders = {planned.output: folder / planned.output for planned in outputs}
        for path in folders.values():
            path.mkdir()
        call_step(job, placed.arguments, folders, folder, secrets=own_secrets(session.settings.api_key))
        written = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        yield {file_sha256(path): path for path in written}


def _planned(output: str, mfid: str, session: Session) -> PlannedOutput:
    record = read_record(session.client.metadata.get(mfid))
    assert record is not None  # or the plan would not call it fresh
    return PlannedOutput(output, mfid, whole_record(session.client, mfid, record).recipe)
