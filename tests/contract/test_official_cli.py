"""The official command line works against the embedded Crucible."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from tests.serving import RunningServer, start_server

MFID = re.compile(r"\b[0-9a-hjkmnp-tv-z]{26}\b")
RECIPE = """
config:
  project_id: raman-lab
---
sample:
  id: wafer
  name: silicon wafer
  type: substrate
---
dataset:
  id: raw
  name: raw spectrum
  measurement: Raman
  keywords: [calibration, silicon]
  metadata: {laser: {nm: 632.8}}
  files: ["polystyrene.txt"]
  samples:
    - ref: wafer
  children:
    - name: calibrated spectrum
      measurement: Raman
"""

Crucible = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("served")) as running:
        with CrucibleClient(running.url, running.api_key) as client:
            client.projects.create({"project_id": "raman-lab", "organization": "MF", "project_lead": "local"})
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[CrucibleClient]:
    """Our client, to inspect what the command line left."""
    with CrucibleClient(server.url, server.api_key) as client:
        yield client


@pytest.fixture
def attempt(server: RunningServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `crucible ...` with its own home folder."""
    home = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "APPDATA")}

    def run(*arguments: object, key: str = server.api_key) -> subprocess.CompletedProcess[str]:
        access = {"CRUCIBLE_API_URL": server.url, "CRUCIBLE_API_KEY": key}
        return subprocess.run(
            [sys.executable, "-m", "crucible.cli", "--no-color", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            timeout=60,
            env=os.environ | home | access | {"PYTHONIOENCODING": "utf-8", "COLUMNS": "200"},
        )

    return run


@pytest.fixture
def crucible(attempt: Callable[..., subprocess.CompletedProcess[str]]) -> Crucible:
    """Run `crucible ...`, which must succeed, and return its output."""

    def run(*arguments: object) -> str:
        ran = attempt(*arguments)
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        assert "Traceback" not in ran.stderr
        return ran.stdout + ran.stderr

    return run


@pytest.fixture
def made(client: CrucibleClient) -> Callable[..., str]:
    """Create a dataset and return its MFID."""
    return lambda name, **fields: (
        client.datasets.create({"dataset_name": name, "project_id": "raman-lab"} | fields).dsid
    )


def test_status_and_whoami_show_a_healthy_service_and_the_user(crucible: Crucible, server: RunningServer) -> None:
    status = crucible("status")
    assert server.url in status
    assert "degraded" not in status.lower()
    assert "local" in crucible("whoami", "--verbose")


def test_cast_makes_the_datasets_of_the_recipe_once(
    crucible: Crucible, client: CrucibleClient, spectrum: Path, tmp_path: Path
) -> None:
    (tmp_path / "experiment.crux").write_text(textwrap.dedent(RECIPE))
    crucible("cast", "experiment.crux")
    crucible("cast", "experiment.crux")
    (raw,) = client.datasets.list(dataset_name="raw spectrum", include_metadata=True)
    assert raw.scientific_metadata is not None
    assert raw.scientific_metadata["laser"] == {"nm": 632.8}
    assert [keyword.keyword for keyword in client.datasets.get_keywords(raw.unique_id)] == ["calibration", "silicon"]
    assert [file.filename for file in client.datasets.list_files(raw.unique_id)] == ["polystyrene.txt"]
    assert [child.dataset_name for child in client.datasets.list_children(raw.unique_id)] == ["calibrated spectrum"]
    assert [sample.sample_name for sample in client.samples.list(dataset_mfid=raw.unique_id)] == ["silicon wafer"]


def test_a_dataset_created_shown_listed_and_counted(crucible: Crucible, client: CrucibleClient, spectrum: Path) -> None:
    words = ["--project-id", "raman-lab", "-n", "by hand", "-m", "SEM", "-k", "one,two", "--metadata", '{"kV": 5}']
    printed = crucible("dataset", "create", "-i", spectrum, *words)
    (dataset,) = client.datasets.list(dataset_name="by hand")
    assert dataset.unique_id in MFID.findall(printed)
    shown: dict[str, Any] = json.loads(crucible("dataset", "get", dataset.unique_id, "--json"))
    assert (shown["dataset_name"], shown["measurement"]) == ("by hand", "SEM")
    assert shown["scientific_metadata"]["kV"] == 5
    assert "by hand" in crucible("dataset", "list", "-p", "raman-lab", "-m", "SEM")


def test_a_file_added_and_downloaded(crucible: Crucible, made: Any, spectrum: Path, tmp_path: Path) -> None:
    dataset = made("with a file")
    crucible("dataset", "add-file", dataset, "-i", spectrum, "--wait")
    assert "polystyrene.txt" in crucible("dataset", "list-files", dataset)
    crucible("download", dataset, "-o", tmp_path / "there")
    (arrived,) = (tmp_path / "there").rglob("polystyrene.txt")
    assert arrived.read_bytes() == spectrum.read_bytes()
    (record,) = (tmp_path / "there").rglob("record.json")
    assert json.loads(record.read_text())["unique_id"] == dataset


def test_a_tree_of_linked_datasets_that_loses_a_branch(crucible: Crucible, made: Any, client: CrucibleClient) -> None:
    parent, child, other = made("the parent"), made("the child"), made("the other child")
    for linked in (child, other):
        crucible("link", "-p", parent, "-c", linked, "--relationship-type", "is_derived_from")
    tree = crucible("tree", parent)
    assert all(name in tree for name in ("the parent", "the child", "the other child"))
    crucible("unlink", parent, other)
    assert "the other child" not in crucible("tree", parent)
    assert [dataset.unique_id for dataset in client.datasets.list_children(parent)] == [child]


def test_a_sample_linked_to_a_dataset_and_unlinked(crucible: Crucible, made: Any, client: CrucibleClient) -> None:
    dataset = made("of a sample")
    sample = client.samples.create(sample_name="the sample", project_id="raman-lab").unique_id
    crucible("link", "-d", dataset, "-s", sample)
    assert "the sample" in crucible("tree", dataset, "--all")
    crucible("unlink", "-d", dataset, "-s", sample)
    assert client.datasets.count(sample_mfid=sample) == 0


def test_a_deletion_requested_listed_and_shown(crucible: Crucible, made: Any, client: CrucibleClient) -> None:
    dataset = made("unwanted")
    crucible("deletion", "request", dataset, "-m", "measured twice")
    (request,) = [request for request in client.deletions.list() if request.resource_id == dataset]
    assert dataset in crucible("deletion", "list")
    assert "measured twice" in crucible("deletion", "get", request.id)
    assert client.datasets.count(dataset_name="unwanted") == 0


def test_a_wrong_key_is_refused_with_a_sentence(attempt: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    refused = attempt("dataset", "list", key="wrong")
    assert refused.returncode != 0
    assert "This API key is not known here" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
