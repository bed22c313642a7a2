"""A result's files made again, outside of any run, to replace bytes that Crucible has lost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crucible_lineage.checksums import file_sha256
from crucible_lineage.disk import private_folder
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.job.calling import call_step, place_inputs
from crucible_lineage.pipeline.job.job import job_of
from crucible_lineage.pipeline.logs import own_secrets
from crucible_lineage.pipeline.plan.plan import FRESH
from crucible_lineage.pipeline.rerun import plan_rerun
from crucible_lineage.provenance.recipe import PlannedOutput
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import whole_record
from crucible_lineage.session import Session

__all__ = ["remade_files"]


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
        placed = place_inputs(job, folder, session)
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
