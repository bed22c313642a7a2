"""Pipelines whose measured files lie in a bucket."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.pipeline.plan.fetch import RemoteFile
from crucible_lineage.session import Session
from crucible_lineage.tasks.gcs import open_gcs

ONE = """
pipeline: from-bucket
project: lab
inputs:
  first: {file: "gs://beamline-raw/run7/first.txt", timestamp: "2024-05-01T12:00:00Z"MORE}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
"""
EACH = """
pipeline: all-from-bucket
project: lab
inputs:
  scan: {file: "gs://beamline-raw/run7/*.txt", each: true, timestamp: "since 2024-05-01T12:00:00Z"}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: scan}
"""


def downloads(fake: Any) -> list[str]:
    return [target for target in fake.requests if "alt=media" in target]


def about_objects(fake: Any) -> list[str]:
    return [target for target in fake.requests if "/o/" in target]


def result_of(session: Session, mfid: str, folder: Path) -> str:
    (path,) = session.client.datasets.download(mfid, folder)
    return path.read_text()


def test_a_file_in_a_bucket_is_registered_with_its_generation_and_processed(
    bucket: Any, lab: Any, run: Any, session: Session, tmp_path: Path
) -> None:
    bucket.put("run7/first.txt", "1\n2\n")
    ran = run(lab.declare(ONE.replace("MORE", "")))
    assert ran.ok, ran.errors
    (raw,) = ran.inputs["first"]
    assert result_of(session, ran.datasets["scaled"]["out"], tmp_path / "out") == "2.0\n4.0"
    assert result_of(session, raw, tmp_path / "raw") == "1\n2\n"
    noted = (session.client.metadata.get(raw) or {})["remote_files"]["first.txt"]
    assert (noted["bucket"], noted["name"]) == ("beamline-raw", "run7/first.txt")
    assert int(noted["generation"]) > 0


def test_the_same_file_on_disk_is_the_same_dataset(bucket: Any, lab: Any, run: Any) -> None:
    bucket.put("run7/first.txt", "1\n2\n3\n")
    remote = run(lab.declare(ONE.replace("MORE", "")))
    local = run(lab.declare(ONE.replace("MORE", "").replace("gs://beamline-raw/run7/", "")))
    assert remote.inputs == local.inputs
    assert local.executed == []


def test_every_object_that_fits_a_pattern_is_an_input(bucket: Any, lab: Any, run: Any) -> None:
    for name in ("run7/a.txt", "run7/b.txt", "run7/deeper/c.txt", "run7/notes.md", "run8/d.txt"):
        bucket.put(name, "1")
    ran = run(lab.declare(EACH))
    assert sorted(ran.datasets) == ["scaled[a.txt]", "scaled[b.txt]"]
    bucket.put("run7/e.txt", "7")
    assert run(lab.declare(EACH)).executed == ["scaled[e.txt]"]


def test_an_unchanged_object_is_downloaded_once(fake: Any, bucket: Any, lab: Any, run: Any) -> None:
    bucket.put("run7/a.txt", "1")
    bucket.put("run7/b.txt", "2")
    path = lab.declare(EACH)
    run(path)
    assert len(downloads(fake)) == 2
    asked = about_objects(fake)
    assert run(path).executed == []
    assert about_objects(fake) == asked, "the listing is all that is asked for again"


def test_new_bytes_are_a_new_input_and_a_new_generation_of_the_same_bytes_is_not(
    bucket: Any, lab: Any, run: Any
) -> None:
    path = lab.declare(ONE.replace("MORE", ""))
    bucket.put("run7/first.txt", "1")
    before = run(path)
    bucket.put("run7/first.txt", "1")
    same = run(path)
    bucket.put("run7/first.txt", "2")
    changed = run(path)
    assert (same.inputs, same.executed) == (before.inputs, [])
    assert changed.inputs != before.inputs
    assert changed.executed == ["scaled"]


def test_a_broken_download_is_taken_up_where_it_broke(
    fake: Any, bucket: Any, lab: Any, run: Any, session: Session, tmp_path: Path
) -> None:
    content = "\n".join(f"{number:0100000}" for number in range(27))
    bucket.put("run7/first.txt", content)
    fake.fault("cut", path="alt=media", bytes=1_000_000)
    fake.fault("status", path="run7%2Ffirst", status=503)
    ran = run(lab.declare(ONE.replace("MORE", "")))
    assert result_of(session, ran.inputs["first"][0], tmp_path) == content
    assert sum(fault.hits for fault in fake.faults) == 2


def test_other_bytes_than_the_storage_says_are_not_kept(fake: Any, bucket: Any, lab: Any, run: Any) -> None:
    bucket.put("run7/first.txt", "1234")
    fake.fault("changed", path="alt=media")
    with pytest.raises(Exception, match=r"arrived with CRC32C .*, the storage has"):
        run(lab.declare(ONE.replace("MORE", "")))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://beamline-raw/run7/absent-*.txt", "no file matches gs://beamline-raw/run7/absent-*.txt"),
        ("gs://no-such-bucket/*.txt", "could not list gs://no-such-bucket/*: it does not exist"),
    ],
)
def test_what_cannot_be_found_is_refused_before_anything_runs(
    fake: Any, lab: Any, run: Any, address: str, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        run(lab.declare(ONE.replace("MORE", "").replace("gs://beamline-raw/run7/first.txt", address)))
    assert said in str(refused.value)


def test_what_the_storage_answers_is_read_and_its_refusals_are_told(fake: Any, bucket: Any) -> None:
    bucket.put("run7/first.txt", "1234")
    files, url = open_gcs(None), "gs://beamline-raw/run7/first.txt"
    found = files.find(url, None)
    assert found == RemoteFile(url, found.generation, 4, 0xF63AF4EE)
    assert (files.find(url, found.generation), list(files.list("gs://beamline-raw/run7/"))) == (found, [found])
    assert (files.find(f"{url}.old", None), list(files.list("gs://beamline-raw/run8"))) == (None, [])
    kept = io.BytesIO()
    files.fetch(found, kept.write)
    assert kept.getvalue() == b"1234"
    asks: list[Callable[[], Any]] = [lambda: files.find(url, None), lambda: list(files.list("gs://beamline-raw/"))]
    asks.append(lambda: files.fetch(found, kept.write))
    told = []
    for status, ask in itertools.product((401, 403, 404, 400), asks):
        fake.faults = []
        fake.fault("status", path="beamline-raw", status=status, times=9)
        try:
            assert ask() is None, "an object that is not there"
        except LineageError as error:
            told.append(f"{type(error).__name__}: {error}".replace(found.generation, "N"))
    may_not, again = "these credentials may not", "run the same command again when it is back"
    what = [f"look for {url}", "list gs://beamline-raw/*", f"download {url}#N"]
    assert told == [
        *(f"InputError: could not {each}: {may_not} (401); ask for access" for each in what),
        *(f"InputError: could not {each}: {may_not} (403); ask for access" for each in what),
        *(f"InputError: could not {each}: it does not exist" for each in what[1:]),
        *(f"RunError: could not {each}: BadRequest; {again}" for each in what),
    ]


def test_without_any_credentials_one_is_told_what_to_do(
    fake: Any, lab: Any, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(InputError, match="no Google credentials for gs://; name a GcsBucket block"):
        run(lab.declare(ONE.replace("MORE", "")))


def test_fields_come_from_the_names_of_objects_and_a_misnamed_one_stops_only_itself(
    bucket: Any, lab: Any, run: Any, session: Session
) -> None:
    for name in ("run7/5mW.txt", "run7/odd.txt"):
        bucket.put(name, "1")
    ran = run(
        lab.declare(EACH.replace("each: true,", r"each: true, metadata: {power_mW: from name '^(\d+)mW\.txt$'},"))
    )
    assert ran.outcomes == {"scaled[5mW.txt]": "executed", "scaled[odd.txt]": "failed"}
    assert "'odd.txt' does not match" in ran.errors["scaled[odd.txt]"]
    (raw,) = ran.inputs["scan"]
    assert (session.client.metadata.get(raw) or {})["power_mW"] == 5
