"""A small laboratory whose records the lineage tests use: scans of a wafer, their derived data, and merged results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crucible_lineage.ids import derive_mfid
from crucible_lineage.lineage.graph import LineageGraph

START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
Record = dict[str, Any]


class Lab:
    """A generator of records like Crucible's, a minute apart, with reproducible ids."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.now = START

    @property
    def graph(self) -> LineageGraph:
        """Return the graph of the records."""
        return LineageGraph.from_records(self.records.values())

    def sample(self, name: str, **fields: Any) -> str:
        """Add a sample of that name and return its id."""
        return self._added({"resource_type": "sample", "sample_name": name, "links": [], **fields})

    def raw(self, name: str, measurement: str = "tomography", sample: str | None = None, **fields: Any) -> str:
        """Add a raw dataset with one file and return its id."""
        record = {
            "resource_type": "dataset",
            "dataset_name": name,
            "measurement": measurement,
            "data_type": "raw",
            "project_id": "demo",
            "timestamp": self.now.isoformat(),
            "scientific_metadata": {},
            "files": [{"filename": f"{name}.h5", "size": 8, "sha256_hash": sha256(name)}],
            "links": [self._link(sample, "undirected", None)] if sample else [],
            **fields,
        }
        return self._added(record)

    def derived(self, name: str, step: str, *parents: str, code: str = "c0de", **provenance: Any) -> str:
        """Add a complete dataset that `step` made from `parents` and return its id. Keywords go into its record."""
        used = [{"role": f"input{n}", "mfid": p, "files": self.files(p)} for n, p in enumerate(parents)]
        recipe = {
            "step": step,
            "output": name,
            "code": code,
            "params": provenance.pop("params", {}),
            "inputs": {use["role"]: [{"mfid": use["mfid"], "files": hashes(use["files"])}] for use in used},
        }
        written = {
            "schema": "crucible-lineage/provenance/1",
            "status": "complete",
            "step": step,
            "output": "out",
            "recipe": recipe,
            "used": used,
            "generated": [{"name": "out.h5", "sha256": sha256(name), "size": 9}],
            "activity": {
                "step": step,
                "function": f"lab:{step}",
                "code": {"fingerprint": code},
                "started": self.now.isoformat(),
            },
            **provenance,
        }
        record = {
            "resource_type": "dataset",
            "dataset_name": name,
            "measurement": "tomography",
            "data_type": step,
            "project_id": "demo",
            "timestamp": self.now.isoformat(),
            "scientific_metadata": {"score": 0.5, "crucible_lineage": written},
            "links": [self._link(parent, "source", "is_derived_from") for parent in parents],
        }
        return self._added(record, derive_mfid(recipe, max(parents, default=self.now)))

    def files(self, mfid: str) -> list[dict[str, Any]]:
        """Return the files of a dataset as in a provenance record."""
        record = self.records.get(mfid, {})
        written = record.get("scientific_metadata", {}).get("crucible_lineage", {})
        listed = [
            {"name": f["filename"], "sha256": f["sha256_hash"], "size": f["size"]} for f in record.get("files", [])
        ]
        return written.get("generated") or listed

    def tomography(self, batches: int) -> str:
        """Batches of four scans with a dark field each, joined by batch, then all together; gives the last id."""
        wafer = self.sample("wafer 7", sample_type="Si wafer")
        joins = []
        for batch in range(batches):
            dark = self.raw(f"dark field {batch}", "dark field")
            parts = []
            for scan in range(4):
                raw = self.raw(f"scan {batch}-{scan} of wafer 7", sample=wafer)
                flat = self.derived(f"scan {batch}-{scan} of wafer 7 (corrected)", "correct", raw, dark)
                parts.append(self.derived(f"scan {batch}-{scan} volume", "reconstruct", flat))
            joins.append(self.derived(f"batch {batch} joined", "join", *parts))
        return self.derived("summary of all batches", "summarize", *joins)

    def _link(self, mfid: str, direction: str, relationship: str | None) -> dict[str, Any]:
        record = self.records.get(mfid, {})
        kind = record.get("resource_type", "dataset")
        name = record.get(f"{kind}_name")
        return {
            "unique_id": mfid,
            "resource_type": kind,
            "name": name,
            "direction": direction,
            "relationship_type": relationship,
        }

    def _added(self, record: Record, mfid: str | None = None) -> str:
        mfid = mfid or derive_mfid({"n": len(self.records)}, self.now)
        self.now += timedelta(minutes=1)
        self.records[mfid] = {"unique_id": mfid, **record}
        return mfid


def sha256(content: str) -> str:
    """Return the SHA-256 of a file with that content."""
    return hashlib.sha256(content.encode()).hexdigest()


def hashes(files: list[dict[str, Any]]) -> dict[str, str]:
    """Return {name: SHA-256} of files as in provenance records."""
    return {file["name"]: file["sha256"] for file in files}


@pytest.fixture
def lab() -> Lab:
    """Provide an empty laboratory."""
    return Lab()


@pytest.fixture(scope="session")
def tomography() -> Callable[[int], tuple[Lab, str]]:
    """Provide a laboratory with that many batches of scans, and the id of their summary."""

    def made(batches: int) -> tuple[Lab, str]:
        lab = Lab()
        return lab, lab.tomography(batches)

    return made
