"""What ingestion found in a file becomes part of its dataset: renewed with the file, never over what people gave.

Or, as the public worker of Crucible does it, merged with all metadata that the dataset had when it was picked up.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from crucible_lineage.server.catalogue.bodies import moment
from crucible_lineage.server.catalogue.metadata import given_metadata, merged, renew_metadata, write_metadata
from crucible_lineage.server.catalogue.references import match_instrument
from crucible_lineage.server.catalogue.resources import change
from crucible_lineage.server.ingest.formats.findings import Found

__all__ = ["keep", "write_back"]

PROTECTED = "crucible_lineage"  # how keys of provenance begin: written by those who made the data, never by a parser
FILLABLE = ("dataset_name", "data_format", "data_type", "measurement", "session_name")
UNSET = (None, "", "unknown")


def keep(db: sqlite3.Connection, file: sqlite3.Row, found: Found) -> None:
    """The dataset's metadata, fields and thumbnails say what the file says, where nobody said otherwise."""
    dataset_id = file["dataset_id"]
    if db.execute("SELECT 1 FROM dataset WHERE id = ?", (dataset_id,)).fetchone() is None:
        return
    document = {key: value for key, value in found.metadata.items() if not key.startswith(PROTECTED)}
    before = db.execute("SELECT filled FROM parsed WHERE file_id = ?", (file["file_id"],)).fetchone()
    filled = _fill(db, file, found.attributes, json.loads(before["filled"]) if before else {})
    db.execute(
        "INSERT OR REPLACE INTO parsed (file_id, document, filled) VALUES (?, ?, ?)",
        (file["file_id"], json.dumps(document, ensure_ascii=False), json.dumps(filled, ensure_ascii=False)),
    )
    renew_metadata(db, dataset_id)
    _keep_thumbnail(db, file, found.thumbnail)


def write_back(db: sqlite3.Connection, file: sqlite3.Row, found: Found, picked_up: dict[str, Any]) -> None:
    """Fill empty fields, and merge into the dataset's metadata what was found and all that were `picked_up` before.

    So whatever changed in between under a key that was there then is undone.
    """
    dataset_id = file["dataset_id"]
    if db.execute("SELECT 1 FROM dataset WHERE id = ?", (dataset_id,)).fetchone() is None:
        return
    suffix = Path(file["filename"]).suffix.lstrip(".").lower()
    guessed = {"measurement": "Image" if found.thumbnail else "Other", "data_type": suffix or "unknown"}
    _fill(db, file, {**guessed, **found.attributes}, {})
    whole = merged(found.metadata, picked_up)
    write_metadata(db, dataset_id, merged(given_metadata(db, dataset_id), whole))
    _keep_thumbnail(db, file, found.thumbnail)


def _fill(
    db: sqlite3.Connection, file: sqlite3.Row, attributes: dict[str, str], before: dict[str, str]
) -> dict[str, str]:
    """The dataset's fields that have their value from this file; `before` are those that had it the last time."""
    row = db.execute(
        "SELECT dataset.*, owner_id, project_id, instrument_name FROM dataset JOIN resource USING (id)"
        " LEFT JOIN instrument ON instrument.id = instrument_id WHERE dataset.id = ?",
        (file["dataset_id"],),
    ).fetchone()
    suffix = Path(file["filename"]).suffix.lstrip(".").lower()
    parsed = {"dataset_name": file["filename"], "data_format": suffix, **attributes}
    current: dict[str, Any] = {name: row[name] for name in FILLABLE} | {
        "timestamp": row["timestamp"] if row["timed"] else None,
        "instrument_name": row["instrument_name"] or row["instrument_label"],
    }
    filled = {
        name: str(parsed[name])
        for name, value in current.items()
        if parsed.get(name) not in UNSET and (value in UNSET or value == before.get(name))
    }
    if "timestamp" in filled:
        filled["timestamp"] = moment(filled["timestamp"]).isoformat(timespec="microseconds")
    new = {name: value for name, value in filled.items() if value != current[name]}
    if values := _columns(db, row, new):
        change(db, "dataset", file["dataset_id"], values)
    return filled


def _columns(db: sqlite3.Connection, row: sqlite3.Row, filled: dict[str, str]) -> dict[str, Any]:
    """The columns of the dataset's row that these fields go to."""
    values: dict[str, Any] = {name: value for name, value in filled.items() if name != "instrument_name"}
    if "timestamp" in values:
        values["timed"] = 1
    if (name := filled.get("instrument_name")) is not None:
        whose = {"owner_id": row["owner_id"], "project_id": row["project_id"]}
        instrument = match_instrument(db, None, None, name, **whose)
        values["instrument_id"] = instrument["id"] if instrument else None
        values["instrument_label"] = None if instrument else name
    return values


def _keep_thumbnail(db: sqlite3.Connection, file: sqlite3.Row, image: bytes | None) -> None:
    """One thumbnail per file, renewed with it; a name that is taken belongs to somebody."""
    db.execute("DELETE FROM thumbnail WHERE file_id = ?", (file["file_id"],))
    name = (file["dataset_id"], file["filename"])
    if (
        image is not None
        and not db.execute("SELECT 1 FROM thumbnail WHERE dataset_id = ? AND name = ?", name).fetchone()
    ):
        db.execute(
            "INSERT INTO thumbnail (dataset_id, name, mime_type, image, file_id) VALUES (?, ?, 'image/png', ?, ?)",
            (*name, image, file["file_id"]),
        )
