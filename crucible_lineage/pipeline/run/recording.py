"""The dataset that records a run: its inputs, the outcome of each step, and the logs of failed steps."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.checksums import scan_file
from crucible_lineage.errors import ForbiddenError, InputError
from crucible_lineage.ids import mfid_time, youngest
from crucible_lineage.lineage.model import PART
from crucible_lineage.pipeline.job.materialize import log_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.provenance.recipe import raw_mfid, raw_recipe
from crucible_lineage.provenance.record import run_record
from crucible_lineage.refs import DatasetRef, file_stem
from crucible_lineage.registration.new_dataset import LocalFile, NewDataset
from crucible_lineage.registration.read import find_own
from crucible_lineage.registration.register import register_output
from crucible_lineage.session import Session

MEASUREMENT = "pipeline run"


def register_run(session: Session, result: RunResult) -> DatasetRef:
    """Register the dataset that records the run, with the run's outputs linked as its parts. Idempotent.

    Its id follows from the run's id and from the datasets that the run relied on. Raises InputError if there are none.
    An output that this key may not link is still named in the file.
    """
    relied_on = [*(mfid for mfids in result.inputs.values() for mfid in mfids), *_outputs(result)]
    if not relied_on:
        raise InputError(f"run {result.run_id} of {result.pipeline!r} relied on no dataset; there is nothing to record")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"run-{result.run_id}.json"
        path.write_text(_content(result), encoding="utf-8")
        files = (LocalFile.of(path, scan_file(path)), *_logs(result))
        new = _new_dataset(session, result, files, youngest(relied_on))
        sha256, action = new.record.recipe_sha256, f"recording run {result.run_id}"
        found = find_own(session.client, session.mirror, new.mfid, result.project, sha256, action)
        dataset = found.ref if found else None
        if dataset is None:
            with session.turn(new.mfid):
                dataset = register_output(session.client, new, session.machine)
    _link(session, dataset.mfid, result)
    return dataset


def _logs(result: RunResult) -> Iterator[LocalFile]:
    """Yield the logs of failed steps, named by step; those on another machine stay there."""
    names: Counter[str] = Counter()
    for step, log in result.logs.items():
        path = Path(log)
        if path.is_file() and path.stat().st_size:
            names[stem := file_stem(step)] += 1
            name = f"{stem}.log" if names[stem] == 1 else f"{stem}-{names[stem]}.log"  # stems drop special characters
            yield log_file(path, name)


def _new_dataset(session: Session, result: RunResult, files: tuple[LocalFile, ...], sorts_beside: str) -> NewDataset:
    refs = [file.ref for file in files]
    recipe = raw_recipe(result.project, refs)
    return NewDataset(
        mfid=raw_mfid(recipe, mfid_time(sorts_beside)),
        fields={
            "project_id": result.project,
            "dataset_name": f"pipeline run {result.run_id[:8]}",
            "measurement": MEASUREMENT,
            "data_type": "run record",
            "timestamp": datetime.now(UTC).isoformat(),
        },
        record=run_record(recipe, refs, session.agent, result.pipeline, result.run_id),
        metadata={
            "pipeline": result.pipeline,
            "run_id": result.run_id,
            "succeeded": result.ok,
            "outputs": sorted(_outputs(result)),
        },
        files=files,
        keywords=(MEASUREMENT,),
        ingest=False,
    )


def _content(result: RunResult) -> str:
    """Return the run as JSON, always the same text; it does not name the machine."""
    content: dict[str, object] = {
        "run_id": result.run_id,
        "pipeline": result.pipeline,
        "project": result.project,
        "inputs": {name: list(mfids) for name, mfids in result.inputs.items()},
        "steps": {
            step: {"outcome": outcome, "outputs": dict(result.datasets.get(step, {}))}
            for step, outcome in result.outcomes.items()
        },
        "errors": dict(result.errors),
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _outputs(result: RunResult) -> Iterator[str]:
    """Yield each dataset of the run's steps, new or reused, once."""
    yield from dict.fromkeys(mfid for outputs in result.datasets.values() for mfid in outputs.values())


def _link(session: Session, run: str, result: RunResult) -> None:
    record = session.client.datasets.get(run, include_links=True)
    linked = {link.unique_id for link in record.links or ()}
    for mfid in _outputs(result):
        if mfid not in linked:
            with suppress(ForbiddenError):
                session.client.datasets.link_parent_child(run, mfid, relationship_type=PART)
