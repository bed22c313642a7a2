"""Files to ingest: through the official client, or by calling the ingestors directly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crucible import CrucibleClient

Document = dict[str, Any]


@pytest.fixture
def ingested(client: CrucibleClient, dataset: Callable[..., str]) -> Callable[..., tuple[Document, Document]]:
    """Upload a file to a dataset and wait for its ingestion; returns the dataset's record and the request."""

    def run(
        path: Path, mfid: str | None = None, ingestor: str | None = None, replace: bool = False, **fields: Any
    ) -> tuple[Document, Document]:
        mfid = mfid or dataset(**fields)
        added = client.datasets.add_file(mfid, str(path), ingestion_class=ingestor, replace=replace)
        request = client.ingestions.wait(added["ingestion_request"]["id"], sleep_interval=0.05)
        return client.datasets.get(mfid, include_metadata=True), request

    return run
