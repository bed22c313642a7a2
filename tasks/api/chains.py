"""Tasks for a whole chain: register a result as a child of its parents exactly once; check and draw its lineage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from crucible_lineage.amounts import amount
from crucible_lineage.errors import InputError, RunError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.graph import Direction
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import existing_dataset, hash_files, register_raw
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.queries.verify.verify import Verification, verify_dataset
from crucible_lineage.tasks.api.calls import api_task, words
from crucible_lineage.tasks.api.files import checked_files
from crucible_lineage.tasks.artifacts import lineage_artifact
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = ["check_lineage", "register_child", "render_lineage"]


@api_task("register {files} of {parents}")
def register_child(
    parents: str | Sequence[str],
    files: str | Path | Sequence[str | Path],
    *,
    dataset_name: str | None = None,
    project_id: str | None = None,
    measurement: str | None = None,
    data_type: str | None = None,
    session_name: str | None = None,
    instrument_name: str | None = None,
    instrument_id: str | None = None,
    timestamp: datetime | None = None,
    public: bool = False,
    scientific_metadata: JsonMapping | None = None,
    keywords: str | Sequence[str] = (),
    samples: str | Sequence[str] | None = None,
    ingestor: str | None = None,
    note: str | None = None,
    crucible: Crucible | None = None,
) -> str:
    """Register files as a complete child of its parents and return its MFID: record, metadata, keywords, files,
    ingestion, links, samples (by default those of the parents), and a provenance record.

    The MFID follows from parents and bytes, so the same result is one dataset whoever registers it, and however often.
    `note` says how it was made. The default project is that of the first parent. Raises InputError, before anything is
    registered, if a parent or a file is missing.
    """
    paths, parent_ids = checked_files(files), words(parents)
    if not parent_ids or not paths:
        raise InputError("a child has at least one parent and one file; nothing was registered")
    session = session_for(crucible)
    datasets = [existing_dataset(mfid, session) for mfid in dict.fromkeys(parent_ids)]
    project = project_id or session.client.datasets.get(parent_ids[0]).project_id
    if project is None:
        raise InputError(f"dataset {parent_ids[0]} lies in no project; give project_id")
    inherited = dict.fromkeys(sample for parent in datasets for sample in parent.samples)
    declared = FileInput(
        file=(str(paths[0]),),
        dataset_name=dataset_name,
        measurement=measurement,
        data_type=data_type,
        session_name=session_name,
        instrument_name=instrument_name,
        instrument_id=instrument_id,
        timestamp=timestamp,
        public=public,
        metadata=dict(scientific_metadata or {}),
        keywords=words(keywords),
        samples=tuple(inherited) if samples is None else words(samples),
        ingestor=ingestor,
    )
    raw = hash_files(project, paths, None, session, parents=datasets)
    name = dataset_name or f"{datasets[0].name} ({paths[0].stem})"
    return register_raw(raw, declared, name, session, note=note).mfid


@api_task("check lineage of {dsid}")
def check_lineage(dsid: str, *, raise_on_error: bool = True, crucible: Crucible | None = None) -> Verification:
    """Verify the dataset with its ancestors and descendants, like `verify`. Findings name the command that helps.

    Raises RunError if a finding is an error, unless `raise_on_error` is False.
    """
    check = verify_dataset(session_for(crucible), dsid)
    if raise_on_error and not check.ok:
        errors = [finding for finding in check.findings if finding.severity == "error"]
        remedy = f"\nto mend it: {errors[0].command}" if errors[0].command else ""
        raise RunError(
            f"the lineage of {dsid} has {amount(len(errors), 'error')}; the first: {errors[0].message}{remedy}"
        )
    return check


@api_task("draw lineage of {dsid}")
def render_lineage(
    dsid: str,
    path: str | Path | None = None,
    *,
    depth: int | None = None,
    direction: Direction = "both",
    key: str = "lineage",
    crucible: Crucible | None = None,
) -> str:
    """Draw the lineage of the dataset as SVG, write it to `path` if given, and add the artifact `key` to the run.

    The artifact shows the picture and a table of the datasets with links to their pages.
    """
    session = session_for(crucible)
    graph = fetch_lineage(session, dsid).around(dsid, depth, direction)
    picture = render_svg(graph, dsid)
    lineage_artifact(graph, dsid, session, key=key)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(picture, encoding="utf-8")
    return picture
