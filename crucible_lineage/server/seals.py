"""Checksums of rows: what a failing disk changed in the database is refused, not served.

Each checksummed table has a column `seal`. Triggers update it, so that no code can forget to, and reads compare it.
`damage` reads everything, and so also finds lost rows and damaged indexes.
"""

# ruff: noqa: S608 - SQL is built from constants of this module only; values are always bound
from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator

COLUMNS = {
    "user": ("id", "unique_id", "username", "first_name", "last_name", "email", "is_service_account", "platform_role"),
    "resource": ("id", "mfid", "type", "owner_id", "project_id", "public", "hidden", "created", "modified"),
    "project": ("id", "slug", "organization", "title", "status"),
    "instrument": ("id", "slug", "instrument_name", "manufacturer", "model", "location", "description",
                   "instrument_type", "other_id", "other_id_source", "status"),
    "dataset": ("id", "dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "size",
                "instrument_id", "instrument_label", "timed"),
    "sample": ("id", "sample_name", "sample_type", "description", "timestamp"),
    "member": ("project_id", "user_id", "role"),
    "metadata": ("id", "document", "given"),
    "parsed": ("file_id", "document", "filled"),
    "keyword": ("id", "folded"),
    "attached_keyword": ("id", "dataset_id", "keyword_id", "spelling"),
    "link": ("parent_id", "child_id", "relationship_type"),
    "association": ("dataset_id", "sample_id"),
    "file": ("id", "mfid", "dataset_id", "filename", "size", "sha256", "backend", "storage_path", "access_note",
             "version"),
    "thumbnail": ("id", "dataset_id", "name", "mime_type", "image", "file_id"),
}  # fmt: skip
KEYS = {"link": ("parent_id", "child_id"), "association": ("dataset_id", "sample_id")}  # for tables without a rowid
REMEDY = "restore a backup: crucible-lineage data restore"


class DamagedError(Exception):
    """A row that differs from what was written."""

    def __init__(self, table: str, row: object) -> None:
        super().__init__(f"a row of its table {table!r} ({row}) is not what was written")


def checksum(*values: object) -> int:
    """Return the CRC-32 of a row's values: it detects every change of up to 32 bits, and nearly every other one."""
    return zlib.crc32("\x1f".join(map(_text, values)).encode("utf-8", "surrogatepass"))


def add_checksum(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL function `checksum`, which writes to checksummed tables need."""
    connection.create_function("checksum", -1, checksum, deterministic=True)


def intact(table: str) -> str:
    """Return the SQL condition that a row of the table is as it was written."""
    return f"{table}.seal IS checksum({', '.join(f'{table}.{column}' for column in COLUMNS[table])})"


def require_rows(table: str, rows: Iterable[sqlite3.Row]) -> None:
    """Raise DamagedError unless these rows, with all columns of the table, are as they were written."""
    for row in rows:
        if checksum(*(row[column] for column in COLUMNS[table])) != row["seal"]:
            raise DamagedError(table, row[COLUMNS[table][0]])


def require_intact(db: sqlite3.Connection, **ids: Collection[int | None]) -> None:
    """Raise DamagedError unless the rows with these ids, by table, are as they were written."""
    queries = (
        f"SELECT '{table}', id FROM {table} WHERE id IN (SELECT value FROM json_each(:{table})) AND NOT {intact(table)}"
        for table in ids
    )
    values = {table: json.dumps([number for number in set(some) if number is not None]) for table, some in ids.items()}
    damaged = db.execute(" UNION ALL ".join(queries) + " LIMIT 1", values).fetchone()
    if damaged is not None:
        raise DamagedError(*damaged)


def damage(db: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong with the database, after reading all of it: pages, indexes, and changed rows."""
    for (line,) in db.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield str(line)
    for table in COLUMNS:
        (changed,) = db.execute(f"SELECT COUNT(*) FROM {table} WHERE NOT {intact(table)}").fetchone()
        if changed:
            yield f"{changed} rows of table {table!r} are not what was written"


def _text(value: object) -> str:
    if value is None:
        return "n"
    if isinstance(value, bytes):
        return f"b{len(value)}:{zlib.crc32(value)}"
    return f"{'s' if isinstance(value, str) else 'i'}{value}"


def _sealing() -> Iterator[str]:
    for table, columns in COLUMNS.items():
        keys = KEYS.get(table, ("rowid",))
        new = ", ".join(f"NEW.{column}" for column in columns)
        this = " AND ".join(f"{key} = NEW.{key}" for key in keys)
        yield f"ALTER TABLE {table} ADD COLUMN seal INTEGER;\n"
        for name, event in (("sealed", "INSERT"), ("resealed", f"UPDATE OF {', '.join(columns)}")):
            yield (
                f"CREATE TRIGGER {table}_{name} AFTER {event} ON {table} BEGIN\n"
                f"    UPDATE {table} SET seal = checksum({new}) WHERE {this};\nEND;\n"
            )


SEALING = "".join(_sealing())
