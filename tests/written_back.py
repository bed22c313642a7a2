"""Ingestion like that of Crucible's public worker, which writes back all fields and metadata that it read at first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from crucible_lineage.server.readers import Found
from crucible_lineage.server.resources import change, merged, metadata_of, write_metadata, written_metadata
from crucible_lineage.server.running import Worker, fill, replace_thumbnail
from tests.serving import RunningServer, start_server


@contextmanager
def writing_back(folder: Path, pick_up_s: float, parse_s: float) -> Iterator[RunningServer]:
    """Serve a folder with such a worker, which waits so long before it reads metadata, and then before it parses."""

    class Stale(Worker):
        def _ingest(self, file: sqlite3.Row) -> tuple[str | None, str]:
            self._closing.wait(pick_up_s)
            with self._database.read() as db:
                self._picked_up = metadata_of(db, [file["dataset_id"]]).get(file["dataset_id"], {})
                sql = "SELECT dataset_name, measurement, session_name, timestamp FROM resource WHERE id = ?"
                self._fields = dict(db.execute(sql, (file["dataset_id"],)).fetchone())
            self._closing.wait(parse_s)
            return super()._ingest(file)

        def _store(self, db: sqlite3.Connection, file: sqlite3.Row, findings: Found) -> None:
            suffix = Path(file["filename"]).suffix.lstrip(".").lower()
            change(db, file["dataset_id"], self._fields)
            defaults = {"measurement": "Image" if findings.thumbnail else "Other", "data_type": suffix or "unknown"}
            fill(db, file["dataset_id"], {"dataset_name": file["filename"], "data_format": suffix, **defaults})
            written = written_metadata(db, file["dataset_id"])
            stale = merged(findings.metadata, self._picked_up)
            write_metadata(db, file["dataset_id"], merged(written, stale))
            replace_thumbnail(db, file, findings.thumbnail)

    with patch("crucible_lineage.server.running.Worker", Stale), start_server(folder) as running:
        yield running
