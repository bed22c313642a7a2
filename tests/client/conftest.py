"""A client, the recording stand-in it talks to, and files worth uploading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.ids import new_mfid
from tests.client.stub import Stub
from tests.client.stub_routes import ROUTES

QUICK = RetryPolicy(attempts=4, first_wait_s=0.002, longest_wait_s=0.01, total_s=10.0)


@pytest.fixture
def stub() -> Iterator[Any]:
    """Crucible and its storage host, empty."""
    stub = Stub(ROUTES)
    yield stub
    stub.close()


@pytest.fixture
def client(stub: Any) -> Iterator[CrucibleClient]:
    with CrucibleClient(stub.url, stub.key, retry=QUICK) as client:
        yield client


@pytest.fixture
def dsid(client: CrucibleClient) -> str:
    """A dataset that exists."""
    return client.datasets.create({"dataset_name": "Si wafer, raw"}).dsid


@pytest.fixture
def missing() -> str:
    """An unused MFID."""
    return new_mfid()


@pytest.fixture
def spectrum(tmp_path: Path) -> Path:
    """A small file."""
    path = tmp_path / "silicon.txt"
    path.write_text("520.7 1.0\n521.0 0.9\n")
    return path


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """A file of three and a half parts of the stand-in's size."""
    path = tmp_path / "movie.h5"
    path.write_bytes(os.urandom((7 << 20) // 2))
    return path
