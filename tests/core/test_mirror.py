"""The mirror of a project: a second snapshot downloads the changes, and only these."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from crucible import CrucibleClient as OfficialClient

from crucible_lineage.ask.lineages import fetch_projects
from crucible_lineage.core import stated, tables
from crucible_lineage.core.datasets import ONE_BY_ONE
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.server.database import connect
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import HOLD, About, StatementIndex
from crucible_lineage.statements.stating import put_on_hold
from tests.serving import start_server


def copied(records: Any) -> dict[str, Any]:
    return dict(records.session.mirror.snapshot("demo").records)


def truth(records: Any) -> dict[str, Any]:
    """Return all datasets as Crucible lists them."""
    listed = records.client.datasets.iter(project_id="demo", include_metadata=True, include_links=True)
    return {dataset.unique_id: dataset.model_dump() for dataset in listed}


def test_a_second_snapshot_of_a_thousand_datasets_costs_two_small_calls(records: Any, data: Path) -> None:
    first = records.dataset("frame 0")
    with closing(connect(data / "crucible" / "crucible.db")) as database, database:
        multiply(database, first, 999)
    assert len(fetch_projects(records.session, ["demo"])) == 1000

    with records.counted() as calls:
        again = fetch_projects(records.session, ["demo"])

    assert len(again) == 1000
    assert len(calls) == 2, calls
    assert all("modification_time_gte" in call or "limit=1&" in f"{call}&" for call in calls), calls


def multiply(database: sqlite3.Connection, mfid: str, times: int) -> None:
    """Add this number of datasets like the one of this id, written a year ago."""
    (source,) = database.execute("SELECT id FROM resource WHERE mfid = ?", (mfid,)).fetchone()
    for number in range(times):
        database.execute(
            "INSERT INTO resource (mfid, dataset_name, type, owner_id, project_id, created, modified, timestamp)"
            " SELECT ?, ?, type, owner_id, project_id, created, '2025-01-01T00:00:00.000000+00:00',"
            " '2025-01-01T00:00:00+00:00' FROM resource WHERE id = ?",
            (f"0td{number:023d}", f"frame {number + 1}", source),
        )


def test_unchanged_datasets_are_not_read_again(records: Any, data: Path) -> None:
    (one,) = records.chain(1)
    records.session.mirror.snapshot("demo")
    first = records.session.mirror.snapshot("demo")
    assert records.session.mirror.snapshot("demo") is first
    assert records.session.mirror.snapshot(EVERYTHING).records.keys() == first.records.keys()
    records.client.datasets.update(one, measurement="other")
    code = (
        "import sys; from pathlib import Path; from crucible_lineage.session import Session;"
        "from crucible_lineage.settings import Settings;"
        "print(len(Session(Settings(Path(sys.argv[1]))).mirror.snapshot('demo').records))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code, data], capture_output=True, text=True, timeout=120)
    assert elsewhere.stdout.strip() == "1", elsewhere.stderr
    with records.counted() as calls:
        assert copied(records)[one]["measurement"] == "other"
    assert len(calls) == 2, "another process has downloaded it"


def test_a_changed_dataset_a_new_link_and_a_removed_dataset_are_seen(records: Any) -> None:
    one, two, three = records.chain(3)
    lone = records.dataset("lone")
    copied(records)

    records.client.datasets.update(one, measurement="Raman Spectroscopy")
    assert copied(records)[one]["measurement"] == "Raman Spectroscopy"

    records.client.metadata.merge(two, {"laser_nm": 633})
    assert copied(records)[two]["scientific_metadata"] == {"laser_nm": 633}

    records.client.datasets.link_parent_child(three, lone, "is_derived_from")
    assert (three, lone) in fetch_projects(records.session, ["demo"]).edges

    records.client.datasets.unlink(three, lone)
    assert (three, lone) not in fetch_projects(records.session, ["demo"]).edges

    records.delete(lone)
    assert lone not in copied(records)
    assert copied(records) == truth(records)


def test_an_undated_change_is_seen_after_a_day(records: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = records.chain(2)

    def undated(statement: str) -> None:
        with closing(connect(data / "crucible" / "crucible.db")) as database, database:
            database.execute(statement)

    undated("UPDATE resource SET modified = '2025-01-01T00:00:00.000000+00:00'")
    records.client.datasets.update(one, measurement="Raman")  # alone is recent enough to be asked for again
    copied(records)
    undated("UPDATE link SET relationship_type = 'is_part_of'")
    assert relationship(copied(records)[two]) == "is_derived_from"
    monkeypatch.setattr(stated, "MAX_AGE_S", 0)
    assert relationship(copied(records)[two]) == "is_part_of"


def relationship(record: Any) -> str:
    return str(record["links"][0]["relationship_type"])


def test_old_statements_that_become_visible_count_at_once(records: Any, data: Path, tmp_path: Path) -> None:
    held = [records.dataset(f"frame {number}") for number in range(ONE_BY_ONE + 3)]
    for mfid in held[:-1]:
        put_on_hold(records.session, About((mfid,)), "saturated")
    with closing(connect(data / "crucible" / "crucible.db")) as database, database:
        hide = "UPDATE resource SET hidden = ? WHERE mfid = ?"
        made = records.session.mirror.statements()
        *hidden, _ = sorted(made, key=lambda mfid: made[mfid].when)
        database.executemany(hide, [(1, mfid) for mfid in hidden])
        database.commit()
        with closing(Mirror(tmp_path / "mirror.sqlite", lambda: records.client, "here")) as mirror:
            mirror.sync_statements()
            assert len(mirror.statements()) == 1
            database.executemany(hide, [(0, mfid) for mfid in hidden])
            database.commit()
            put_on_hold(records.session, About((held[-1],)), "saturated")
            mirror.sync_statements()
            assert StatementIndex.from_active(mirror.in_force(), HOLD).datasets.keys() == set(held)


def test_a_slow_process_does_not_overwrite_a_later_record(records: Any, data: Path) -> None:
    (one,) = records.chain(1)
    early = copied(records)[one]
    records.client.datasets.update(one, measurement="later")
    late = copied(records)[one]
    (path,) = (data / "mirror").glob("*.sqlite")
    with closing(LocalDatabase(path, tables.SCHEMA)) as database:
        database.transaction(lambda db: tables.write(db, [tables.Row.of(dict(early))]))
        assert database.transaction(lambda db: tables.snapshot_of(db, "demo"))[1].records == {one: late}


def test_processes_and_threads_share_a_copy(records: Any, data: Path) -> None:
    made = records.chain(5)
    go = threading.Barrier(4)

    def ask(number: int) -> set[str]:
        with Session(Settings(data)) as session:
            _ = session.client
            go.wait(30)
            seen: set[str] = set()
            for _ in range(5):
                seen |= session.mirror.snapshot("demo").records.keys()
                if number == 0:
                    session.client.datasets.update(made[0], measurement="other")
            return seen

    with ThreadPoolExecutor(4) as pool:
        assert all(seen == set(made) for seen in pool.map(ask, range(4)))
    assert copied(records) == truth(records)


def test_a_damaged_mirror_and_one_of_another_version_start_empty(records: Any, data: Path) -> None:
    made = records.chain(2)
    copied(records)
    (path,) = (data / "mirror").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    assert copied(records).keys() == set(made)

    for part in (data / "mirror").glob("*"):
        part.unlink()
    path.write_bytes(b"no database at all" * 100)
    with Session(Settings(data)) as another:
        assert another.mirror.snapshot("demo").records.keys() == set(made)


@pytest.mark.parametrize("column", ["summary", "project", "supports", "record", "mfid"])
def test_a_row_with_one_bit_changed_is_read_again_and_never_shown(records: Any, data: Path, column: str) -> None:
    records.chain(3)
    whole = copied(records)
    shown = {mfid: summary.name for mfid, summary in records.session.mirror.snapshot("demo").summaries.items()}
    (path,) = (data / "mirror").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as database, database:
        mfid, value = database.execute(f"SELECT mfid, {column} FROM dataset ORDER BY mfid LIMIT 1").fetchone()
        database.execute(f"UPDATE dataset SET {column} = ? WHERE mfid = ?", (flipped(value), mfid))
        database.execute("UPDATE feed SET token = 'other'")
    assert without_relation(copied(records)) == without_relation(whole) == without_relation(truth(records))
    assert {mfid: summary.name for mfid, summary in records.session.mirror.snapshot("demo").summaries.items()} == shown


def without_relation(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the records without the fields that only a listing has."""
    return {mfid: {**record, "project_relation": None} for mfid, record in found.items()}


def flipped(value: Any) -> Any:
    """Return the value with its lowest bit changed."""
    if isinstance(value, int):
        return value ^ 1
    content = bytearray(value if isinstance(value, bytes) else value.encode())
    content[-1] ^= 1
    return bytes(content) if isinstance(value, bytes) else content.decode()


def test_accounts_have_separate_mirrors(data: Path, tmp_path: Path) -> None:
    with start_server(data) as server:
        with Session(Settings(tmp_path / "shared", server.url, server.api_key)) as owner:
            owner.client.projects.create(project_id="demo", organization="lab", project_lead="local")
            private = owner.client.datasets.create({"dataset_name": "private", "project_id": "demo"}).dsid
            public = owner.client.datasets.create({"dataset_name": "x", "project_id": "demo", "public": True}).dsid
            assert owner.mirror.snapshot("demo").records.keys() == {private, public}
        key = OfficialClient(server.url, server.api_key).service_accounts.create("guest")["api_key"]
        with Session(Settings(tmp_path / "shared", server.url, key)) as guest:
            assert guest.mirror.snapshot("demo").records.keys() == {public}
    assert len(list((tmp_path / "shared" / "mirror").glob("*.sqlite"))) == 2
    names = [path.name for path in (tmp_path / "shared" / "mirror").iterdir()]
    assert not any(secret in name for name in names for secret in (server.api_key, key))


@pytest.mark.parametrize("column", ["statement", "summary", "mfid"])
def test_a_hold_whose_row_is_damaged_is_read_again_and_holds(records: Any, data: Path, column: str) -> None:
    frame = records.dataset("frame")
    put_on_hold(records.session, About((frame,)), "saturated")
    held = records.session.mirror.in_force().statements
    (path,) = (data / "mirror").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as database, database:
        rows = "FROM dataset WHERE statement <> ''"
        mfid, value = database.execute(f"SELECT mfid, {column} {rows}").fetchone()
        database.execute(f"UPDATE dataset SET {column} = ? WHERE mfid = ?", (flipped(value), mfid))
        database.execute("UPDATE feed SET token = 'other'")
    assert records.session.mirror.in_force().statements == held
    assert records.session.mirror.statements() == held
