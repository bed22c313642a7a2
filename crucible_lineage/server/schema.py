"""The tables, as SQL one can read; and checksums of rows: what a failing disk changed is refused, not served.

Each sealed table has a last column such as `file_seal10`, the checksum of the ten columns before it. Triggers write it,
and the connection compares it in each row that is read whole (`file.*`), so that no code can forget to.
`require_undamaged` reads everything, and so also finds lost rows and damaged indexes.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from functools import lru_cache

# ruff: noqa: S608 - SQL is built from constants of this module only; values are always bound

SEALED = ("user", "resource", "member", "metadata", "parsed", "keyword", "link", "file", "thumbnail")
REMEDY = "restore a backup: crucible-lineage data restore"
_SEAL = re.compile(r"(\w+)_seal(\d+)")


class DamagedError(sqlite3.DatabaseError):
    """A row that differs from what was written."""

    def __init__(self, table: str, row: object) -> None:
        super().__init__(f"a row of its table {table!r} ({row}) is not what was written")


def checksum(*values: object) -> int:
    """Return the CRC-32 of a row's values: it detects every change of up to 32 bits, and nearly every other one."""
    return zlib.crc32(repr(values).encode())


def seal_rows(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL function that writes seals, and rows that compare them."""
    connection.create_function("checksum", -1, checksum, deterministic=True)
    connection.row_factory = _checked_row


def _checked_row(cursor: sqlite3.Cursor, values: tuple[object, ...]) -> sqlite3.Row:
    for table, first, seal in _seals(tuple(column[0] for column in cursor.description)):
        if values[seal] != checksum(*values[first:seal]) and any(
            value is not None for value in values[first : seal + 1]
        ):
            raise DamagedError(table, values[first])
    return sqlite3.Row(cursor, values)


@lru_cache
def _seals(columns: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """Return tables that were read whole, each with the place of its first column and of its seal."""
    seals = ((at, match) for at, name in enumerate(columns) if (match := _SEAL.fullmatch(name)))
    return [(match[1], at - int(match[2]), at) for at, match in seals]


def create_tables(db: sqlite3.Connection) -> None:
    """Create tables, and triggers that seal their rows."""
    db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}")
    for table in SEALED:
        columns = [row["name"] for row in db.execute(f"PRAGMA table_info({table})")]
        seal = f"{table}_seal{len(columns)}"
        db.execute(f"ALTER TABLE {table} ADD COLUMN {seal} INTEGER")
        for event in ("INSERT", f"UPDATE OF {', '.join(columns)}"):
            db.execute(
                f"CREATE TRIGGER {table}_sealed_{event[:6].lower()} AFTER {event} ON {table} BEGIN UPDATE {table}"
                f" SET {seal} = checksum({', '.join(f'NEW.{name}' for name in columns)}) WHERE rowid = NEW.rowid; END"
            )


def require_undamaged(db: sqlite3.Connection) -> None:
    """Raise an sqlite3.DatabaseError if anything is wrong, after reading all: pages, indexes, and rows."""
    faults = [line for (line,) in db.execute("PRAGMA integrity_check(20)") if line != "ok"]
    if faults:
        raise sqlite3.DatabaseError("; ".join(faults))
    for table in SEALED:
        for _ in db.execute(f"SELECT * FROM {table}"):
            pass


TABLES = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE user (
    id INTEGER PRIMARY KEY,
    unique_id TEXT NOT NULL UNIQUE,               -- ORCID, or MFID for people without one and service accounts
    username TEXT UNIQUE COLLATE NOCASE,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    email TEXT UNIQUE COLLATE NOCASE,
    is_service_account INTEGER NOT NULL DEFAULT 0,
    platform_role TEXT NOT NULL DEFAULT 'none' CHECK (platform_role IN ('none', 'admin'))
) STRICT;

CREATE TABLE api_key (
    hash TEXT PRIMARY KEY,                        -- SHA-256 of the key; the key itself is random and long
    user_id INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
    created TEXT NOT NULL
) STRICT;
CREATE INDEX api_key_user ON api_key (user_id);

CREATE TABLE resource (                           -- each kind leaves the columns of others empty
    id INTEGER PRIMARY KEY,
    mfid TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL CHECK (type IN ('dataset', 'sample', 'project', 'instrument')),
    slug TEXT COLLATE NOCASE,                     -- of a project or instrument
    owner_id INTEGER REFERENCES user,
    project_id INTEGER REFERENCES resource,
    public INTEGER NOT NULL DEFAULT 0,
    hidden INTEGER NOT NULL DEFAULT 0,            -- its deletion was requested
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    timestamp TEXT,
    size INTEGER,
    files INTEGER NOT NULL DEFAULT 0,             -- how many there are, which have that size
    instrument_id INTEGER REFERENCES resource,
    instrument_label TEXT,                        -- the name given at create when it names no registered instrument
    dataset_name TEXT, measurement TEXT, data_type TEXT, data_format TEXT, session_name TEXT,
    sample_name TEXT, sample_type TEXT, description TEXT,
    title TEXT, organization TEXT, status TEXT,
    instrument_name TEXT, manufacturer TEXT, model TEXT, location TEXT, instrument_type TEXT,
    other_id TEXT, other_id_source TEXT,
    UNIQUE (slug, type)
) STRICT;
CREATE INDEX resource_type ON resource (type, mfid);
CREATE INDEX resource_project ON resource (project_id, type, mfid);
CREATE INDEX resource_owner ON resource (owner_id);
CREATE INDEX resource_instrument ON resource (instrument_id);

CREATE TABLE member (                             -- of a project, besides its lead
    project_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
    role INTEGER NOT NULL CHECK (role BETWEEN 1 AND 4),
    UNIQUE (project_id, user_id)
) STRICT;
CREATE INDEX member_user ON member (user_id, project_id);

CREATE TABLE metadata (
    id INTEGER PRIMARY KEY REFERENCES resource ON DELETE CASCADE,
    document TEXT NOT NULL                        -- what people wrote, without what ingestion found
) STRICT;

CREATE TABLE keyword (
    id INTEGER PRIMARY KEY,
    dataset_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    folded TEXT NOT NULL,                         -- without regard to case
    spelling TEXT NOT NULL,
    UNIQUE (dataset_id, folded)
) STRICT;
CREATE INDEX keyword_dataset ON keyword (folded, dataset_id);

CREATE TABLE link (                               -- also from a sample to its datasets
    parent_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    child_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    relationship_type TEXT,
    PRIMARY KEY (parent_id, child_id),
    CHECK (parent_id <> child_id)
) STRICT;
CREATE INDEX link_child ON link (child_id, parent_id);

CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    mfid TEXT NOT NULL UNIQUE,
    dataset_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    filename TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    UNIQUE (dataset_id, filename)
) STRICT;
CREATE INDEX file_sha256 ON file (sha256);

CREATE TABLE released_content (sha256 TEXT PRIMARY KEY, released TEXT NOT NULL) STRICT;

CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    part_size INTEGER NOT NULL,                   -- of each part but the last; a resumable upload is a single one
    dataset_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    replaces_id INTEGER REFERENCES file ON DELETE CASCADE,
    filename TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'uploading' CHECK (state IN ('uploading', 'completed')),
    file_mfid TEXT,                               -- once completed
    user_id INTEGER NOT NULL REFERENCES user,
    created TEXT NOT NULL
) STRICT;
CREATE INDEX upload_dataset ON upload (dataset_id, filename);
CREATE INDEX upload_replaces ON upload (replaces_id) WHERE replaces_id IS NOT NULL;
CREATE TABLE ingestion_request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE,
    status TEXT NOT NULL,
    ingestion_class TEXT,
    ingestion_githash TEXT,
    time_created TEXT NOT NULL,
    time_completed TEXT,
    error_message TEXT
) STRICT;
CREATE INDEX ingestion_file ON ingestion_request (file_id);
CREATE INDEX ingestion_open ON ingestion_request (id) WHERE status = 'requested';

CREATE TABLE request (                            -- for a result of a dataset, answered by a worker elsewhere
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    dataset_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    parameters TEXT NOT NULL,
    requester_id INTEGER NOT NULL REFERENCES user,
    status TEXT NOT NULL CHECK (status IN ('requested', 'complete', 'failed')),
    results TEXT NOT NULL DEFAULT '[]',
    reason TEXT,
    time_created TEXT NOT NULL,
    time_completed TEXT
) STRICT;
CREATE INDEX request_open ON request (id) WHERE status = 'requested';
CREATE TABLE thumbnail (
    id INTEGER PRIMARY KEY,
    dataset_id INTEGER NOT NULL REFERENCES resource ON DELETE CASCADE,
    name TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    image BLOB NOT NULL,
    file_id INTEGER REFERENCES file ON DELETE CASCADE  -- that ingestion made it from
) STRICT;
CREATE INDEX thumbnail_dataset ON thumbnail (dataset_id);
CREATE INDEX thumbnail_file ON thumbnail (file_id);

CREATE TABLE parsed (                             -- what ingestion found in a file, renewed with it
    file_id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
    document TEXT NOT NULL
) STRICT;

CREATE TABLE deletion (                           -- that was requested, or done
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    row_id INTEGER UNIQUE REFERENCES resource ON DELETE SET NULL,
    resource_id TEXT NOT NULL,                    -- its MFID
    resource_type TEXT NOT NULL,
    resource_name TEXT,
    project_id TEXT,                              -- the slug of its project
    requester INTEGER REFERENCES user,
    reason TEXT,
    request_time TEXT,
    deleted_at TEXT                               -- for good
) STRICT;
CREATE INDEX deletion_resource ON deletion (resource_id);

CREATE TABLE revision (                           -- of a project: what a client compares to know that nothing was lost
    project_id INTEGER PRIMARY KEY REFERENCES resource ON DELETE CASCADE,
    token TEXT NOT NULL,                          -- another one after each loss
    made INTEGER NOT NULL                         -- datasets and samples that ever came to the project
) STRICT;
"""
# The project of a lost row, when it counts as lost, by table and event. Triggers note each loss, so that no way of
# losing something can forget to: the project's token becomes another one.
_HOME = "(SELECT project_id FROM resource WHERE id = OLD.{})"
_LOSSES = (
    ("resource", "UPDATE OF project_id", "OLD.project_id IS NOT NEW.project_id", "OLD.project_id"),
    ("resource", "UPDATE OF hidden, public, owner_id",
     "OLD.hidden <> NEW.hidden OR OLD.public > NEW.public OR OLD.owner_id IS NOT NEW.owner_id", "NEW.project_id"),
    ("resource", "DELETE", "1", "OLD.project_id"),
    ("file", "DELETE", "1", _HOME.format("dataset_id")),
    ("file", "UPDATE OF sha256, filename", "OLD.sha256 IS NOT NEW.sha256 OR OLD.filename <> NEW.filename",
     _HOME.format("dataset_id")),
    ("link", "DELETE", "1", _HOME.format("child_id")),
    ("member", "DELETE", "1", "OLD.project_id"),
)  # fmt: skip
# A dataset has the number and the size of its files, at the same cost for each of many.
_SIZES = """
CREATE TRIGGER file_comes AFTER INSERT ON file BEGIN
    UPDATE resource SET files = files + 1, size = NEW.size + CASE files WHEN 0 THEN 0 ELSE size END
    WHERE id = NEW.dataset_id;
END;
CREATE TRIGGER file_changes AFTER UPDATE OF size ON file BEGIN
    UPDATE resource SET size = size - OLD.size + NEW.size WHERE id = NEW.dataset_id;
END;
CREATE TRIGGER file_goes AFTER DELETE ON file BEGIN
    UPDATE resource SET files = files - 1, size = CASE files WHEN 1 THEN NULL ELSE size - OLD.size END
    WHERE id = OLD.dataset_id;
END;
"""
LOSE = "UPDATE revision SET token = lower(hex(randomblob(8))) WHERE project_id = "
_CREATIONS = """
CREATE TRIGGER revision_begins AFTER INSERT ON resource WHEN NEW.type = 'project' BEGIN
    INSERT INTO revision VALUES (NEW.id, lower(hex(randomblob(8))), 0);
END;
CREATE TRIGGER resource_made AFTER INSERT ON resource WHEN NEW.project_id IS NOT NULL BEGIN
    UPDATE revision SET made = made + 1 WHERE project_id = NEW.project_id;
END;
CREATE TRIGGER resource_arrives AFTER UPDATE OF project_id ON resource
WHEN OLD.project_id IS NOT NEW.project_id BEGIN
    UPDATE revision SET made = made + 1 WHERE project_id = NEW.project_id;
END;
"""
SCHEMA = "".join((
    TABLES, _CREATIONS, _SIZES,
    *(f"CREATE TRIGGER loss_{number} AFTER {event} ON {table} WHEN {condition} BEGIN {LOSE}{project}; END;\n"
      for number, (table, event, condition, project) in enumerate(_LOSSES)),
))  # fmt: skip
