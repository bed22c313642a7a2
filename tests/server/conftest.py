"""A running embedded Crucible, the official client for it, and a second user without rights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from crucible import CrucibleClient
from crucible.models import Dataset, Sample

from tests.serving import RunningServer, start_server

PROJECT = "raman-lab"


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the running server."""
    return tmp_path_factory.mktemp("crucible")


@pytest.fixture(scope="session")
def server(data_folder: Path) -> Iterator[RunningServer]:
    with start_server(data_folder) as running:
        CrucibleClient(running.url, running.api_key).projects.create(
            {"project_id": PROJECT, "organization": "Molecular Foundry", "project_lead": "local"}
        )
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> CrucibleClient:
    """The official client as the local user, who is an administrator."""
    return CrucibleClient(server.url, server.api_key)


@pytest.fixture
def api(server: RunningServer) -> Iterator[httpx.Client]:
    """Plain HTTP with the same key, for requests that the official client never sends."""
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as session:
        yield session


@pytest.fixture(scope="session")
def storage() -> Iterator[httpx.Client]:
    """Plain HTTP without a key, as signed links are used."""
    with httpx.Client() as session:
        yield session


@pytest.fixture(scope="session")
def guest(client: CrucibleClient, server: RunningServer) -> CrucibleClient:
    """The official client as a user without any role."""
    return CrucibleClient(server.url, client.service_accounts.create("guest")["api_key"])


@pytest.fixture
def dataset(client: CrucibleClient) -> Callable[..., str]:
    """Create a dataset and return its MFID."""

    def make(name: str = "polystyrene spectrum", **fields: Any) -> str:
        created = client.datasets.create(Dataset(**{"dataset_name": name, "project_id": PROJECT, **fields}))
        return str(created["dsid"])

    return make


@pytest.fixture
def sample(client: CrucibleClient) -> Callable[..., str]:
    """Create a sample and return its MFID."""

    def make(name: str = "silicon wafer", **fields: Any) -> str:
        created = client.samples.create(Sample(**{"sample_name": name, "project_id": PROJECT, **fields}))
        return str(created["unique_id"])

    return make
