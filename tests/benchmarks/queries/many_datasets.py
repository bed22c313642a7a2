"""Fills an embedded Crucible with a project of many datasets, straight into its store: spectra, and a fit of each.

python tests/benchmarks/queries/many_datasets.py DATA NUMBER
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import SlotClaim, slot, slots_to_json
from crucible_lineage.ids import derive_mfid
from crucible_lineage.provenance.environment import agent
from crucible_lineage.provenance.recipe import StepCode, UsedDataset, derived_mfid, raw_recipe, result_of, step_recipe
from crucible_lineage.provenance.record import KEY, Activity, raw_record, step_record
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.server.database import open_database
from crucible_lineage.server.datasets import attach_keyword
from crucible_lineage.server.resources import insert, write_metadata
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

PROJECT = "many"
PIPELINE = "fits"
TIMES = ("created", "modified")
BEGAN = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
INSTRUMENTS = ("Raman 1", "Raman 2", "Raman 3")
SESSIONS = tuple(f"session {number}" for number in range(1, 21))
SOURCE = "def fit(spectrum, *, degree, out):\n" + "    peaks[degree] = fitted(spectrum, degree)\n" * 12
SOFTWARE = {"python": "3.12.0", "platform": "Linux", "packages": {"numpy": "2.0.0"}}
WHO = agent({"unique_id": "0000-0000-0000-0001", "username": "local", "is_service_account": False})


@dataclass(frozen=True)
class _New:
    mfid: str
    values: dict[str, Any]
    metadata: dict[str, Any]
    keywords: tuple[str, ...]
    parent: str = ""


def fill(data: Path, number: int, seed: int = 0) -> None:
    """The data folder has a project `many` with so many datasets, half of them results; nothing else may use it."""
    with Session(Settings(data)) as session:
        session.ensure_project(PROJECT, "Many spectra")
    dice = random.Random(seed)
    database = open_database(data / "crucible" / "crucible.db")
    try:
        with database.write() as db:
            owner = db.execute("SELECT owner_id FROM resource WHERE type = 'project'").fetchone()[0]
            project = db.execute("SELECT id FROM project WHERE slug = ?", (PROJECT,)).fetchone()[0]
            for count in range(number // 2):
                raw = _spectrum(count, dice)
                _put(db, owner, project, raw)
                _put(db, owner, project, _fit(count, raw, dice))
            ago = "'-' || (100000 - id) || ' seconds'"  # as if somebody had registered one a second
            spread = ", ".join(f"{one} = strftime('%Y-%m-%dT%H:%M:%f000+00:00', {one}, {ago})" for one in TIMES)
            db.execute(f"UPDATE resource SET {spread} WHERE type = 'dataset'")
    finally:
        database.close()


def _spectrum(count: int, dice: random.Random) -> _New:
    taken = BEGAN + timedelta(minutes=count)
    file = FileRef(f"{count:05d}.txt", hashlib.sha256(str(count).encode()).hexdigest(), 20_000)
    recipe = raw_recipe(PROJECT, [file])
    metadata = {"power_mW": dice.choice((1, 2, 5, 10, 20)), "sample": f"wafer {dice.randrange(200)}"}
    values = {
        "dataset_name": f"Spectrum {count:05d}",
        "measurement": "Raman",
        "data_type": "spectrum",
        "data_format": "txt",
        "session_name": dice.choice(SESSIONS),
        "timestamp": taken.isoformat(),
        "size": 20_000,
        "instrument_label": dice.choice(INSTRUMENTS),
    }
    record = _complete(raw_record(recipe, [file], WHO).document(), metadata)
    return _New(derive_mfid(recipe, taken), values, {**metadata, KEY: record}, ("raw", f"batch-{count // 500}"))


def _fit(count: int, raw: _New, dice: random.Random) -> _New:
    source = DatasetRef(raw.mfid, raw.values["dataset_name"], ())
    file = FileRef("fit.csv", hashlib.sha256(b"fit" + str(count).encode()).hexdigest(), 900)
    spectrum = FileRef(f"{count:05d}.txt", hashlib.sha256(str(count).encode()).hexdigest(), 20_000)
    used = [UsedDataset("spectrum", source, (spectrum,))]
    params = {"degree": dice.choice((2, 3, 4))}
    recipe = step_recipe(PROJECT, StepCode("fit", hashlib.sha256(b"fit").hexdigest(), {}), "out", params, used)
    mfid = derived_mfid(recipe)
    metadata = {"rms_cm1": round(dice.random(), 6), "peak_cm1": round(1000 + dice.gauss(0, 5), 4), "peaks": count % 9}
    started = (BEGAN + timedelta(days=30, seconds=count)).isoformat()
    run = {"engine": "local", "run_id": f"{count // 1000:032x}"}
    record = step_record(
        recipe=recipe,
        pipeline={"name": PIPELINE, "hash": "abc", "step": "fitted"},
        used=used,
        generated=[file],
        activity=Activity("fit", "lab:fit", recipe["code"], started, started, source=SOURCE, run=run),
        software=SOFTWARE,
        who=WHO,
        supersedes=None,
    )
    held = {slot(PIPELINE, "fitted", "out", spectrum.name): SlotClaim(started, run["run_id"])}
    document = {**metadata, KEY: _complete(record.document(), metadata), **slots_to_json(held)}
    values = {
        "dataset_name": f"Spectrum {count:05d} (fitted)",
        "measurement": "fitting",
        "data_type": "fit",
        "data_format": "csv",
        "timestamp": raw.values["timestamp"],
        "size": 900,
    }
    return _New(mfid, values, document, (f"pipeline:{PIPELINE}",), raw.mfid)


def _complete(record: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    done = {"status": "complete", "registrar": "a-1", "completed": {"a-1": BEGAN.isoformat()}}
    return {**record, **done, "result": result_of(metadata, record["generated"])}


def _put(db: sqlite3.Connection, owner: int, project: int, new: _New) -> None:
    number = insert(db, "dataset", new.values, mfid=new.mfid, owner_id=owner, project_id=project)
    write_metadata(db, number, new.metadata)
    for word in new.keywords:
        attach_keyword(db, number, word)
    if new.parent:
        (parent,) = db.execute("SELECT id FROM resource WHERE mfid = ?", (new.parent,)).fetchone()
        db.execute(
            "INSERT INTO link (parent_id, child_id, relationship_type) VALUES (?, ?, 'is_derived_from')",
            (parent, number),
        )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
