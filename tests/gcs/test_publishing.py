"""Results copied to a bucket beside Crucible."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.session import Session

PUBLISHED = """
pipeline: to-bucket
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
    output: {publish: "gs://beamline-raw/results/"}
"""


def test_results_are_copied_once_they_are_registered_and_their_address_is_recorded(
    any_bucket: Any, lab: Any, run: Any, session: Session
) -> None:
    ran = run(lab.declare(PUBLISHED))
    assert ran.ok, ran.errors
    mfid = ran.datasets["scaled"]["out"]
    name = f"results/{mfid}/scaled.txt"
    assert any_bucket.get(name) == b"2.0\n4.0\n6.0"
    noted = (session.client.metadata.get(mfid) or {})["published"]["gs://beamline-raw/results/"]["scaled.txt"]
    assert noted["url"] == f"gs://beamline-raw/{name}"


def test_results_made_before_are_published_when_the_declaration_asks_for_it(bucket: Any, lab: Any, run: Any) -> None:
    run(lab.declare(PUBLISHED.replace('    output: {publish: "gs://beamline-raw/results/"}\n', "")))
    assert bucket.names() == []
    ran = run(lab.declare(PUBLISHED))
    assert ran.executed == []
    assert bucket.names() == [f"results/{ran.datasets['scaled']['out']}/scaled.txt"]


def test_what_could_not_be_published_fails_the_run_and_is_made_up_for_by_the_next(
    fake: Any, bucket: Any, lab: Any, run: Any
) -> None:
    fake.fault("status", method="POST", path="/upload/", status=403)
    path = lab.declare(PUBLISHED)
    failed = run(path)
    assert not failed.ok
    assert "its result is registered, but not published" in failed.errors["scaled"]
    again = run(path)
    assert (again.ok, again.executed) == (True, [])
    assert len(bucket.names()) == 1


def test_a_lost_answer_is_no_second_copy(fake: Any, bucket: Any, lab: Any, run: Any) -> None:
    fake.fault("lost", method="POST", path="/upload/")
    assert run(lab.declare(PUBLISHED)).ok
    assert len(bucket.names()) == 1


@pytest.mark.parametrize("held", [True, False], ids=["known here", "known only to the bucket"])
def test_other_content_at_the_address_is_left_as_it_is(
    any_bucket: Any, lab: Any, run: Any, session: Session, held: bool
) -> None:
    plain = PUBLISHED.replace('    output: {publish: "gs://beamline-raw/results/"}\n', "")
    name = f"results/{run(lab.declare(plain)).datasets['scaled']['out']}/scaled.txt"
    any_bucket.put(name, "2.0\n4.0\n6.0" if held else "theirs")
    ran = run(lab.declare(PUBLISHED))
    if held:
        assert ran.ok, ran.errors
    else:
        assert "taken by other content, which was left as it is" in ran.errors["scaled"]
        assert any_bucket.get(name) == b"theirs"
