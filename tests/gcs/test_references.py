"""Files that are catalogued by reference: verified where they lie, and fetched from there into a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client.models import RemoteFileCreate
from crucible_lineage.queries.bundle import write_bundle
from crucible_lineage.queries.verify.verify import verify_project
from crucible_lineage.session import Session

PIPELINE = """
pipeline: by-reference
project: lab
inputs:
  first: {file: "gs://beamline-raw/run7/first.txt", timestamp: "2024-05-01T12:00:00Z", copy: false}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}}
"""


@pytest.fixture
def made(bucket: Any, lab: Any, run: Any) -> Any:
    """The run of a pipeline whose input stays in its bucket."""
    bucket.put("run7/first.txt", "1\n2\n")
    ran = run(lab.declare(PIPELINE))
    assert ran.ok, ran.errors
    return ran


def delete(bucket: Any) -> None:
    httpx.delete(f"{bucket.url}/storage/v1/b/{bucket.name}/o/run7%2Ffirst.txt").raise_for_status()


def test_verification_reads_their_bytes_where_they_lie(made: Any, bucket: Any, session: Session) -> None:
    whole = verify_project(session, "lab", read_bytes=True)
    assert (whole.findings, whole.bytes_read) == ((), len("1\n2\n") + len("2.0\n4.0"))
    delete(bucket)
    assert verify_project(session, "lab").findings == (), "without --bytes no bucket is asked"
    (gone,) = verify_project(session, "lab", read_bytes=True).findings
    assert (gone.check, gone.ids) == ("source-unreadable", made.inputs["first"])
    assert "gs://beamline-raw/run7/first.txt#" in gone.message
    assert "no longer exists" in gone.message
    bucket.put("run7/first.txt", "1\n2\n")
    assert verify_project(session, "lab", read_bytes=True).findings == (), "another generation of the same bytes"
    bucket.put("run7/first.txt", "1\n3\n")
    (changed,) = verify_project(session, "lab", read_bytes=True).findings
    assert (changed.check, changed.ids) == ("source-changed", made.inputs["first"])


def test_what_nothing_here_reads_is_no_finding(session: Session, made: Any) -> None:
    dataset = session.client.datasets.create({"project_id": "lab", "dataset_name": "on tape"}).dsid
    new = RemoteFileCreate(filename="a.bin", storage_backend="tape", size=3, sha256_hash="0" * 64)
    session.client.datasets.add_remote_file(dataset, new, storage_path="tape://vault/7/a.bin")
    assert verify_project(session, "lab", read_bytes=True).findings == ()


def bundled(session: Session, mfid: str, target: Path) -> tuple[Any, str]:
    """What `write_bundle` says, and what the bundle's own verify.py says."""
    taken = write_bundle(session, mfid, target)
    folder = target.with_suffix("")
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder)
    command = [sys.executable, "-I", "-S", str(folder / "verify.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout
    return taken, ran.stdout


def test_a_bundle_has_their_bytes_or_says_where_they_lie(
    made: Any, bucket: Any, session: Session, tmp_path: Path
) -> None:
    (raw,), scaled = made.inputs["first"], made.datasets["scaled"]["out"]
    taken, said = bundled(session, scaled, tmp_path / "whole.zip")
    assert (taken.absent, taken.files) == ((), 2)
    assert (tmp_path / "whole" / "data" / raw / "first.txt").read_text() == "1\n2\n"
    assert "not in the bundle" not in said
    delete(bucket)
    taken, said = bundled(session, scaled, tmp_path / "without.zip")
    assert taken.files == 1
    (reason,) = taken.absent
    assert f"{raw}: it is catalogued by reference, at gs://beamline-raw/run7/first.txt#" in reason
    assert f"note: {raw}: the bytes of first.txt are not in the bundle: it is catalogued by reference" in said
    (entry,) = [
        one for one in json.loads((tmp_path / "without" / "bundle.json").read_text())["datasets"] if one["absent"]
    ]
    assert entry["mfid"] == raw
    assert not (tmp_path / "without" / "data" / raw / "first.txt").exists()
