"""docs/verify_id.py, which anyone can run: on the demo's records, on forged ones, and on the vectors in the docs."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ids import canonical_json, derive_mfid
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


def verify(mfid: str, held: Any, *more: object) -> subprocess.CompletedProcess[str]:
    text = held if isinstance(held, str) else json.dumps(held)
    return subprocess.run(
        [sys.executable, "-I", DOCS / "verify_id.py", mfid, *map(str, more)],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


CLOCK_ID = "0tr5k2ndm5zvd000nr21qakeh4"


@pytest.fixture(scope="module")
def records(demo_origin: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The records of the demo, by id."""
    found: dict[str, dict[str, Any]] = {}
    with Session(Settings(demo_origin[0])) as session:
        for dataset in session.client.datasets.list(limit=None):
            metadata = session.client.datasets.get(dataset.unique_id, include_metadata=True).scientific_metadata
            found[dataset.unique_id] = dict(metadata or {})
    return found


def test_every_id_of_the_demo_is_that_of_its_recipe(records: dict[str, dict[str, Any]]) -> None:
    assert len(records) >= 6
    for mfid, metadata in records.items():
        ran = verify(mfid, metadata["crucible_lineage"])
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def derived(records: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A derived dataset of the demo and its metadata."""
    return next((m, copy.deepcopy(r)) for m, r in records.items() if r["crucible_lineage"]["recipe"]["kind"] == "step")


@pytest.fixture
def measured(records: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A measured dataset of the demo and its metadata."""
    return next((m, copy.deepcopy(r)) for m, r in records.items() if r["crucible_lineage"]["recipe"]["kind"] == "files")


def test_a_record_whose_numbers_a_database_wrote_otherwise_still_verifies(derived: tuple[str, dict[str, Any]]) -> None:
    mfid, metadata = derived
    text = json.dumps(metadata["crucible_lineage"])

    assert verify(mfid, re.sub(r"(\d)\.0(?=[,}\]])", r"\1", text)).returncode == 0


def test_a_forged_parameter_shows(derived: tuple[str, dict[str, Any]]) -> None:
    mfid, metadata = derived
    metadata["crucible_lineage"]["recipe"]["params"]["forged"] = 1

    ran = verify(mfid, metadata)

    assert (ran.returncode, ran.stdout) == (1, f"{mfid} is not the id of its recipe\n")


def test_a_forged_file_of_a_measured_dataset_shows(measured: tuple[str, dict[str, Any]]) -> None:
    mfid, metadata = measured
    files = metadata["crucible_lineage"]["recipe"]["files"]
    files[next(iter(files))] = "0" * 64

    assert verify(mfid, metadata).returncode == 1


@pytest.mark.parametrize(("mfid", "held"), [("no-id", "{}"), (CLOCK_ID, "{}"), (CLOCK_ID, "no JSON")])
def test_what_cannot_be_compared_is_said(mfid: str, held: str) -> None:
    assert verify(mfid, held).returncode == 2


def _vectors() -> list[tuple[Any, str, str]]:
    vectors = json.loads((DOCS / "vectors.json").read_text(encoding="utf-8"))
    return [(vector["recipe"], vector["time_from"], vector["id"]) for vector in vectors]


@pytest.mark.parametrize(("recipe", "source", "mfid"), _vectors())
def test_the_vectors_in_the_docs_are_true(recipe: Any, source: str, mfid: str) -> None:
    assert derive_mfid(recipe, source) == mfid
    assert verify(mfid, {"recipe": recipe}).returncode == 0


def test_the_docs_have_vectors_and_the_canonical_text_of_one() -> None:
    text = (DOCS / "identity.md").read_text(encoding="utf-8")

    assert len(_vectors()) == 5
    assert canonical_json(_vectors()[0][0]).decode() in text
