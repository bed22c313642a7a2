"""What the ingestors read in a file that is not registered yet, as a function that reads headers gives it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.ingestors import ingest


def read(path: Path) -> dict[str, Any]:
    """Fields of the record and metadata. ValueError if nothing here reads such a file.

    A time without its zone is left out: it says no moment.
    """
    name, found = ingest(path, path.name, None)
    if name is None:
        raise ValueError(f"no ingestor reads files like {path.name}")
    fields: dict[str, Any] = dict(found.attributes)
    if "timestamp" in fields and datetime.fromisoformat(fields["timestamp"]).tzinfo is None:
        del fields["timestamp"]
    fields.pop("dataset_name", None)
    fields.pop("data_format", None)
    return {**found.metadata, **fields}
