"""The tables of the mirror: their schema, their rows, and the columns of lists that are kept beside each record."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, slots_of, slots_to_json
from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, text
from crucible_lineage.lineage.records import (
    activity_code,
    declared_step,
    inherited_fields,
    is_support,
    maker,
    provenance,
    returned_numbers,
    state,
    swept_in,
    used_mfids,
)
from crucible_lineage.machine.checksums import sealed
from crucible_lineage.machine.process import collector_paused
from crucible_lineage.refs import PART, DatasetRef
from crucible_lineage.statements.statements import KEYWORD, Statement, SubjectFacts, statement_in
from crucible_lineage.text.amounts import Names
from crucible_lineage.text.times import without_default_time

MOST_NUMBERS = 6  # of what a step returned, that lists show
COLUMNS = ("mfid", "project", "statement", "supports", "replaces", "summary")  # in which the mirror keeps summaries
_STATEMENT, _SUPPORTS, _SUMMARY = map(COLUMNS.index, ("statement", "supports", "summary"))


class Producer(NamedTuple):
    """The run that made a dataset: its id, when the step began and ended, the engine, and the account."""

    run_id: str
    started: str
    ended: str
    engine: str
    who: str


@dataclass(frozen=True)
class Summary:
    """A dataset in one row. `pipeline` and `step` say what made it; both are empty for data that no step made.

    `numbers` are the first ones that its step returned; `size` is in bytes, `samples` are names; `parents` are those
    that its record names, `code` is the fingerprint, `statement` its packed body, if it is a statement.
    `supports` is True for the source or the environment of steps, `run` is the packed `Producer`.
    Of the fields `inherited`, those of its data count.
    """

    name: str
    measurement: str
    step: str
    pipeline: str
    created: str
    status: DatasetStatus
    data_type: str = ""
    data_format: str = ""
    session: str = ""
    instrument: str = ""
    timestamp: str = ""
    size: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    samples: str = ""
    parents: tuple[str, ...] = ()
    code: str = ""
    statement: str = ""
    supports: bool = False
    run: str = ""
    inherited: tuple[str, ...] = ()

    @property
    def fields(self) -> JsonObject:
        """The fields of its record that lists have, as in `fields_of`."""
        about = {"measurement": self.measurement, "data_type": self.data_type, "data_format": self.data_format}
        about |= {"dataset_name": self.name, "session_name": self.session, "instrument_name": self.instrument}
        return {name: value for name, value in about.items() if name not in self.inherited}

    @property
    def made_by(self) -> Producer | None:
        """The run that made the dataset; None if no run did."""
        return Producer(*json.loads(self.run)) if self.run else None

    @property
    def pipelines(self) -> Names:
        """The pipelines that made it or filled a slot with it, the one that made it first."""
        return self._declared_as(self.pipeline, 0)

    @property
    def steps(self) -> Names:
        """The steps of which it is a result, under all names by which it was declared, the one that made it first."""
        return self._declared_as(self.step, 1)

    def _declared_as(self, own: str, part: int) -> Names:
        filled = sorted({parts[part] for key in self.status.fills if len(parts := key.split("/", 2)) > part})
        return Names(filter(None, dict.fromkeys((own, *filled))))

    @property
    def swept(self) -> str:
        """The combinations of swept parameters that it is of, as in names of instances; empty without a sweep."""
        return swept_in(self.status.slots)

    @property
    def mfid(self) -> str:
        """The dataset's id."""
        return self.status.mfid

    def columns(self) -> tuple[object, ...]:
        """Return the values of the columns COLUMNS."""
        status = {**vars(self.status), "slots": slots_to_json(self.status.slots)}
        own = {**vars(self), "status": [*status.values()]}
        summary = json.dumps([*own.values()])  # read faster than with names
        found = (self.statement, int(self.supports), self.status.replaces or "")
        return self.mfid, self.status.project, *found, summary

    @property
    def facts(self) -> SubjectFacts:
        """The facts that decide which statements apply."""
        instrument = "" if "instrument_name" in self.inherited else self.instrument
        return SubjectFacts(self.status.project, self.parents, instrument, self.timestamp, self.code)

    @classmethod
    def from_columns(cls, columns: Sequence[Any]) -> Summary:
        """Return the summary in a row that begins with the columns COLUMNS."""
        values = json.loads(columns[_SUMMARY])
        status = values[_STATUS]
        status[_SLOTS] = slots_of(status[_SLOTS]) if status[_SLOTS] else {}
        values[_STATUS] = DatasetStatus(*status)
        values[_PARENTS], values[-1] = tuple(values[_PARENTS]), tuple(values[-1])
        return cls(*values)


_STATUS, _PARENTS = ([column.name for column in fields(Summary)].index(name) for name in ("status", "parents"))
_SLOTS = [column.name for column in fields(DatasetStatus)].index("slots")


def summary_of(record: JsonMapping, *, is_stated: bool = False) -> Summary:
    """Summarize a dataset's record, which has metadata; `is_stated` says that it is listed among statements."""
    status = _status_of(record)
    pipeline, step = _declared_as(record, status)
    links = record.get("links") or ()
    samples = [link for link in links if link.get("resource_type") == "sample"]
    above = [  # parents by links, but not what it is a part of
        link
        for link in links
        if (link.get("resource_type"), link.get("direction")) == ("dataset", "source")
        and link.get("relationship_type") != PART
    ]
    size = record.get("size")
    stated = statement_in(record, is_listed=is_stated)
    return Summary(
        name=text(record.get("dataset_name")) or status.mfid,
        measurement=text(record.get("measurement")),
        step=step,
        pipeline=pipeline,
        created=text(record.get("creation_time")),
        status=status,
        data_type=text(record.get("data_type")),
        data_format=text(record.get("data_format")),
        session=text(record.get("session_name")),
        instrument=text(record.get("instrument_name")),
        timestamp=text(without_default_time(record).get("timestamp")),
        size=size if isinstance(size, int) else None,
        numbers=dict(islice(returned_numbers(record).items(), MOST_NUMBERS)) if step else {},
        samples=", ".join(text(link.get("name")) or text(link.get("unique_id")) for link in samples),
        parents=tuple(dict.fromkeys((*used_mfids(record), *(text(link.get("unique_id")) for link in above)))),
        code=activity_code(record) if status.derived else "",
        statement=stated.packed() if stated else "",
        supports=is_support(record),
        run=_run(record),
        inherited=tuple(sorted(inherited_fields(record))),
    )


def _status_of(record: JsonMapping) -> DatasetStatus:
    recorded = provenance(record)
    return DatasetStatus(
        mfid=text(record.get("unique_id")),
        project=text(record.get("project_id")),
        complete=state(record) in ("", "complete"),
        derived=bool(used_mfids(record) or recorded.get("step") or mapping(recorded.get("attached")).get("used")),
        slots=slots_of(mapping(record.get("scientific_metadata"))),
        replaces=text(not recorded.get("step") and recorded.get("supersedes")) or None,
    )


def _declared_as(record: JsonMapping, status: DatasetStatus) -> tuple[str, str]:
    """Return the pipeline and the step that made a dataset; both are empty for data that no step made."""
    recorded = provenance(record)
    pipeline, step = declared_step(record)
    step = step or text(recorded.get("step"))
    if status.derived and status.slots and not pipeline:  # made by a plain flow, or by hand to replace a result
        pipeline, made_for, *_ = f"{min(status.slots)}/".split("/")
        step = step or made_for
    return pipeline, step


def _run(record: JsonMapping) -> str:
    activity = mapping(provenance(record).get("activity"))
    run = mapping(activity.get("run"))
    if not (run_id := text(run.get("run_id"))):
        return ""
    began, ended = text(activity.get("started")), text(activity.get("ended"))
    return json.dumps(Producer(run_id, began, ended, text(run.get("engine")), maker(record)))


EVERYTHING = ""  # as a project: all that the key sees
READY = 256  # records that stay unpacked: more than all checks look at in one pass

SCHEMA = f"""
CREATE TABLE feed (
    project TEXT NOT NULL COLLATE NOCASE, scope TEXT NOT NULL, state TEXT NOT NULL, listed REAL NOT NULL,
    token TEXT NOT NULL, PRIMARY KEY (project, scope)
) WITHOUT ROWID;
CREATE TABLE dataset (
    mfid TEXT PRIMARY KEY, project TEXT NOT NULL COLLATE NOCASE,
    {", ".join(f"{name} NOT NULL" for name in COLUMNS[2:])},
    modified TEXT NOT NULL, record BLOB NOT NULL, seal INTEGER NOT NULL
);
CREATE INDEX dataset_of_project ON dataset (project, statement = '', mfid);
CREATE INDEX statement ON dataset (mfid) WHERE statement <> '';
CREATE TABLE member (
    project TEXT NOT NULL COLLATE NOCASE, scope TEXT NOT NULL, mfid TEXT NOT NULL, seen TEXT NOT NULL,
    PRIMARY KEY (project, scope, mfid)
) WITHOUT ROWID;
CREATE TABLE slot (
    project TEXT NOT NULL COLLATE NOCASE, slot TEXT NOT NULL, mfid TEXT NOT NULL, filled TEXT NOT NULL,
    PRIMARY KEY (project, slot, mfid)
) WITHOUT ROWID;
CREATE INDEX slot_of_dataset ON slot (mfid);
CREATE TABLE trusted (mfid TEXT PRIMARY KEY, there TEXT NOT NULL, ref TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempt (first TEXT PRIMARY KEY, attempt INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE absent (mfid TEXT PRIMARY KEY, asked REAL NOT NULL) WITHOUT ROWID
"""
READ = (*COLUMNS, "modified", "record", "seal")
_SET = ", ".join(f"{name} = excluded.{name}" for name in READ[1:])
_WRITE = (
    f"INSERT INTO dataset ({', '.join(READ)}) VALUES ({', '.join('?' * len(READ))})"  # noqa: S608  texts of ours
    f" ON CONFLICT DO UPDATE SET {_SET} WHERE excluded.modified >= modified"
    " AND (excluded.record <> record OR excluded.project <> project OR excluded.statement > statement)"
)


class StoredRecord(Mapping[str, Any]):
    """A record as deflated JSON, unpacked on access: as Python objects, records take ten times as much memory."""

    __slots__ = ("stored",)

    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def __getitem__(self, key: str) -> Any:
        return _unpacked(self.stored)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_unpacked(self.stored))

    def __len__(self) -> int:
        return len(_unpacked(self.stored))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A project's datasets by id, read-only, one object for all callers."""

    records: dict[str, StoredRecord]
    summaries: dict[str, Summary]


class Row(NamedTuple):
    """A dataset as the mirror stores it: its summary, its modification time, its deflated record."""

    summary: Summary
    modified: str
    record: bytes

    @classmethod
    def of(cls, record: JsonMapping, *, is_stated: bool = False) -> Row:
        return cls(summary_of(record, is_stated=is_stated), record["modification_time"] or "", packed(record))

    @property
    def mfid(self) -> str:
        return self.summary.mfid

    @property
    def values(self) -> tuple[object, ...]:
        columns = (*self.summary.columns(), self.modified, self.record)
        return (*columns, seal_of(columns))


class FeedState(NamedTuple):
    """A state of Crucible: its revision, empty where the service has none, and the time of the latest change."""

    revision: str
    latest: str


def of_project(project: str) -> str:
    """Return the SQL condition for the rows of a project; it takes the project as its value."""
    return "project = ?" if project != EVERYTHING else "? = ''"


def store_project(db: sqlite3.Connection, project: str, rows: Sequence[Row], feed: FeedState) -> None:
    """Store the rows of all listed datasets of a project, never over later ones."""
    drop(db, modified_of(db, project).keys() - {row.mfid for row in rows} - unlisted_statements(db))
    write(db, rows)
    set_feed(db, project, EVERYTHING, feed)


def set_feed(db: sqlite3.Connection, project: str, scope: str, feed: FeedState, *, is_listed: bool = True) -> None:
    """Record the state of Crucible as of a sync; `is_listed` says that nothing older is unseen."""
    state = sealed(feed, project.casefold(), scope)
    if is_listed:
        row = (project, scope, state, time.time())
        db.execute("INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?, hex(randomblob(8)))", row)
    else:
        db.execute("UPDATE feed SET state = ? WHERE project = ? AND scope = ?", (state, project, scope))


def write(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Store rows with the slots that they fill."""
    changed = [row for row in rows if db.execute(_WRITE, row.values).rowcount > 0]
    db.executemany("DELETE FROM slot WHERE mfid = ?", [(row.mfid,) for row in changed])
    for row in changed:
        status = row.summary.status
        if status.complete and status.fills:
            fill(db, status.project, row.mfid, status.fills)
    if changed:
        _renew(db)


def fill(db: sqlite3.Connection, project: str, mfid: str, slots: Mapping[str, SlotClaim]) -> None:
    entries = [(project, slot, mfid, sealed(claim.to_json(), slot, mfid)) for slot, claim in slots.items()]
    db.executemany("INSERT OR REPLACE INTO slot VALUES (?, ?, ?, ?)", entries)


def join(db: sqlite3.Connection, project: str, scope: str, seen: Mapping[str, str]) -> None:
    """Record the members of a scope, each with the time of its last change that a list has shown."""
    rows = [(project, scope, mfid, when) for mfid, when in seen.items()]
    db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)", rows)


def trust(db: sqlite3.Connection, datasets: Mapping[str, DatasetRef]) -> None:
    rows = [(mfid, ref.mfid, sealed(ref.to_json(), mfid)) for mfid, ref in datasets.items()]
    db.executemany("INSERT OR REPLACE INTO trusted VALUES (?, ?, ?)", rows)


def forget_scope(db: sqlite3.Connection, project: str, scope: str) -> None:
    """Forget a pipeline whose project does not exist, and the trusted datasets that may be lost with it."""
    for table in ("feed", "member"):
        where = "project = ? AND scope = ?"
        db.execute(f"DELETE FROM {table} WHERE {where}", (project, scope))  # noqa: S608  texts of ours
    db.execute("DELETE FROM trusted WHERE mfid NOT IN (SELECT mfid FROM member)")


def drop(db: sqlite3.Connection, mfids: Iterable[str]) -> None:
    rows = [(mfid,) for mfid in mfids]
    for table in ("dataset", "slot", "trusted", "member") if rows else ():
        db.executemany(f"DELETE FROM {table} WHERE mfid = ?", rows)  # noqa: S608  a name of ours
    if rows:
        _renew(db)


def statements_of(
    db: sqlite3.Connection, mfids: Collection[str] | None = None, damaged: list[str] | None = None
) -> dict[str, Statement]:
    """Return these statements, or all."""
    rows = among(db, mfids) if mfids is not None else undamaged(db, "statement <> ''", damaged=damaged)
    return {row[0]: Statement.unpacked(row[_STATEMENT]) for row in rows if row[_STATEMENT]}


def among(db: sqlite3.Connection, mfids: Collection[str]) -> Iterator[list[Any]]:
    """Yield the undamaged rows of these datasets."""
    return undamaged(db, "mfid IN (SELECT value FROM json_each(?))", json.dumps(list(mfids)))


def undamaged(
    db: sqlite3.Connection, where: str, *values: str, damaged: list[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the columns READ, without the checksum, of all that meet the condition; collect the ids of `damaged`."""
    sql = f"SELECT {', '.join(READ)} FROM dataset WHERE {where}"  # noqa: S608  texts of ours
    for *row, seal in db.execute(sql, values):
        if seal_of(row) == seal:
            yield row
        elif damaged is not None:
            damaged.append(row[0])


def _renew(db: sqlite3.Connection) -> None:
    """Mark rows as changed, so that snapshots in memory are read again."""
    db.execute("UPDATE feed SET token = hex(randomblob(8))")


def unlisted_statements(db: sqlite3.Connection) -> set[str]:
    """Return the statements of this machine that no list has shown yet."""
    return {mfid for (mfid,) in db.execute("SELECT mfid FROM member WHERE scope = ? AND seen = ''", (KEYWORD,))}


def modified_of(db: sqlite3.Connection, project: str) -> dict[str, str]:
    """Return when each dataset of a project was modified, as last read."""
    sql = f"SELECT mfid, modified FROM dataset WHERE {of_project(project)}"  # noqa: S608  a text of ours
    return dict(db.execute(sql, (project,)).fetchall())


def snapshot_of(db: sqlite3.Connection, project: str) -> tuple[str | None, Snapshot, list[str]]:
    """Return the token (None if the project was never listed), the snapshot, and the ids of damaged rows."""
    row = db.execute("SELECT token FROM feed WHERE project = ? AND scope = ''", (project,)).fetchone()
    records: dict[str, StoredRecord] = {}
    summaries: dict[str, Summary] = {}
    damaged = list[str]()
    with collector_paused():
        for columns in undamaged(db, f"{of_project(project)} ORDER BY mfid DESC", project, damaged=damaged):
            if columns[_STATEMENT] or columns[_SUPPORTS]:
                continue  # asked of the row, since its damage might hide it
            records[columns[0]] = StoredRecord(columns[-1])
            summaries[columns[0]] = Summary.from_columns(columns)
    return row[0] if row else None, Snapshot(records, summaries), damaged


def seal_of(values: Sequence[object]) -> int:
    """Return a checksum over the columns of a row, the record last."""
    start = zlib.crc32("\0".join(map(str, values[:-1])).encode("utf-8", "surrogatepass"))
    return zlib.crc32(values[-1], start)  # type: ignore[arg-type]


def packed(record: JsonMapping) -> bytes:
    """Return a record as the mirror stores it."""
    return zlib.compress(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(), 1)


@lru_cache(READY)
def _unpacked(stored: bytes) -> dict[str, object]:
    """Return the packed record, which callers must not change."""
    record: JsonObject = json.loads(zlib.decompress(stored).decode())
    return record
