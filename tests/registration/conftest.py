"""A dataset to be registered, made from an existing parent, and its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ids import derive_mfid, mfid_time
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.provenance.environment import agent, software
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.provenance.record import step_activity, step_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.session import Session

CODE = "c0de" * 16


@pytest.fixture
def parent(session: Session) -> str:
    session.ensure_project("lab")
    return session.client.datasets.create({"dataset_name": "spectrum", "project_id": "lab"}).dsid


@pytest.fixture
def smoothed(tmp_path: Path) -> Path:
    path = tmp_path / "smooth.txt"
    path.write_text("1 2 3")
    return path


@pytest.fixture
def dataset() -> Callable[..., NewDataset]:
    """Return the function that makes a dataset of one file, smoothed from a parent."""
    return smoothed_dataset


def smoothed_dataset(parent: str, path: Path, recipe: Mapping[str, Any] | None = None) -> NewDataset:
    recipe = recipe or {
        "kind": "step", "version": 2,
        "project": "lab", "step": "smooth", "output": "out", "code": CODE, "params": {},
        "inputs": {"spectrum": [{"origin": parent, "files": {}}]},
    }  # fmt: skip
    file = LocalFile.of(path, scan_file(path))
    spectrum = UsedDataset("spectrum", DatasetRef(parent, "spectrum", ()), ())
    now = "2026-01-01T00:00:00+00:00"
    record = step_record(
        recipe=recipe,
        pipeline=None,
        used=[spectrum],
        generated=[file.ref],
        activity=step_activity("smooth", "lab:smooth", CODE, now, now),
        software=software(()),
        who=agent({"unique_id": "0000-0000-0000-0001", "username": "local", "is_service_account": False}),
        supersedes=None,
    )
    mfid = derive_mfid(recipe, parent)
    return NewDataset(
        mfid=mfid,
        fields={"project_id": "lab", "dataset_name": "smoothed", "timestamp": mfid_time(mfid).isoformat()},
        record=record,
        metadata={"width": 3},
        files=(file,),
        keywords=("smooth",),
        parents=(parent,),
    )


@pytest.fixture(autouse=True)
def kept(keeping: None) -> None:
    """Source and environment of steps are kept here, as users have it."""
