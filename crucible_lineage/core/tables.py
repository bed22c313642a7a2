"""The tables of the local store, as one version of the library after the other made and changed them."""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

MIGRATIONS = (
    """
    CREATE TABLE file_checksums (
        path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        checksums TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE complete (
        instance TEXT NOT NULL, mfid TEXT NOT NULL, dataset TEXT NOT NULL, PRIMARY KEY (instance, mfid)
    ) WITHOUT ROWID;
    CREATE TABLE inspected (
        uses TEXT PRIMARY KEY, files TEXT NOT NULL, inspection TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE run (
        run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, project TEXT NOT NULL, started TEXT NOT NULL, ended TEXT,
        outcome TEXT
    ) WITHOUT ROWID;
    CREATE TABLE run_step (
        run_id TEXT NOT NULL REFERENCES run ON DELETE CASCADE, step TEXT NOT NULL, outcome TEXT NOT NULL,
        datasets TEXT NOT NULL, seconds REAL, error TEXT, PRIMARY KEY (run_id, step)
    ) WITHOUT ROWID;
    CREATE TABLE attempt (
        instance TEXT NOT NULL, first_mfid TEXT NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (instance, first_mfid)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE run ADD COLUMN declaration TEXT;
    ALTER TABLE run_step ADD COLUMN bytes INTEGER;
    CREATE INDEX run_by_pipeline ON run (pipeline, started)
    """,
    """
    CREATE TABLE remote_checksums (
        url TEXT NOT NULL, generation TEXT NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (url, generation)
    ) WITHOUT ROWID;
    CREATE TABLE published (
        instance TEXT NOT NULL, mfid TEXT NOT NULL, place TEXT NOT NULL, PRIMARY KEY (instance, mfid, place)
    ) WITHOUT ROWID
    """,
    # What is remembered is sealed from here on, and what was found out about steps knows by which rules.
    """
    DELETE FROM file_checksums;
    DELETE FROM remote_checksums;
    DELETE FROM complete;
    DROP TABLE inspected;
    CREATE TABLE inspected (
        asked TEXT PRIMARY KEY, rules TEXT NOT NULL, files TEXT NOT NULL, found TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE mark (
        instance TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (instance, name)
    ) WITHOUT ROWID;
    CREATE TABLE failure (
        instance TEXT NOT NULL, mfid TEXT NOT NULL, project TEXT NOT NULL, pipeline TEXT NOT NULL, step TEXT NOT NULL,
        subject TEXT NOT NULL, failures INTEGER NOT NULL, parked INTEGER NOT NULL, error TEXT NOT NULL,
        last TEXT NOT NULL, PRIMARY KEY (instance, mfid)
    ) WITHOUT ROWID
    """,
    # Which result was last relied on for each place of a pipeline, and what was seen of others' changes.
    """
    CREATE TABLE place (
        instance TEXT NOT NULL, project TEXT NOT NULL, pipeline TEXT NOT NULL, place TEXT NOT NULL, mfid TEXT NOT NULL,
        PRIMARY KEY (instance, project, pipeline, place)
    ) WITHOUT ROWID;
    CREATE TABLE look (
        instance TEXT NOT NULL, project TEXT NOT NULL, pipeline TEXT NOT NULL, revision TEXT NOT NULL, latest TEXT,
        written TEXT NOT NULL, PRIMARY KEY (instance, project, pipeline)
    ) WITHOUT ROWID;
    CREATE TABLE described (
        instance TEXT NOT NULL, project TEXT NOT NULL, pipeline TEXT NOT NULL, step TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (instance, project, pipeline, step)
    ) WITHOUT ROWID
    """,
    "ALTER TABLE run_step ADD COLUMN log TEXT",
    """
    CREATE TABLE ingestion (
        instance TEXT NOT NULL, request INTEGER NOT NULL, mfid TEXT NOT NULL, dataset TEXT NOT NULL,
        file TEXT NOT NULL, status TEXT NOT NULL, ingestor TEXT, error TEXT, asked TEXT NOT NULL,
        PRIMARY KEY (instance, request)
    ) WITHOUT ROWID
    """,
    # Datasets that are at two Crucibles, `instance` the one that they were brought to.
    """
    CREATE TABLE brought (
        instance TEXT NOT NULL, source TEXT NOT NULL, mfid TEXT NOT NULL, there TEXT NOT NULL, here TEXT NOT NULL,
        modified TEXT NOT NULL, PRIMARY KEY (instance, source, mfid)
    ) WITHOUT ROWID
    """,
    # What was taken for a result without a look at its project and its files is looked at again.
    "DELETE FROM complete",
)
