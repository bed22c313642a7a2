"""What one machine parks, no machine tries, until it is let be tried again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crucible_lineage.failed_runs import failures, park, unpark
from crucible_lineage.ids import new_mfid
from crucible_lineage.server import start_server
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Session, Session]]:
    """Two machines with one Crucible."""
    with (
        start_server(tmp_path / "service") as server,
        Session(Settings(tmp_path / "one", server.url, server.api_key)) as one,
        Session(Settings(tmp_path / "other", server.url, server.api_key)) as other,
    ):
        one.client.projects.create(project_id="lab", organization="a lab", project_lead="local")
        yield one, other


def fail(session: Session, planned: str, subject: str, run: str, *, most: int = 1) -> None:
    session.journal.begin_run(run, "counting", "lab", Path("counting.yaml"))
    facts = {"error": "too dark\nTraceback", "log": None, "seconds": 1.0}
    facts |= {"name": planned, "about": json.dumps([subject]), "most": most}
    session.journal.end_step(run, "lab", f"scaled[{subject}]", "failed", {}, **facts)


def test_what_one_machine_parks_is_parked_on_the_other(machines: tuple[Session, Session]) -> None:
    one, other = machines
    planned, subject = new_mfid(), new_mfid()
    fail(one, planned, subject, "run", most=2)
    park(one, "lab")
    park(other, "lab")
    assert failures(other) == {}, "it is tried again"
    fail(one, planned, subject, "again", most=2)
    park(one, "lab")
    park(one, "lab")
    park(other, "lab")
    known = failures(other)[planned]
    assert (known.parked, known.failures, known.subject, known.error) == (True, 2, (subject,), "too dark")
    assert failures(other, "elsewhere") == {}
    assert len(one.mirror.statements()) == 1, "it is stated once"


def test_what_is_unparked_on_one_machine_is_tried_again_on_the_other(machines: tuple[Session, Session]) -> None:
    one, other = machines
    planned, subject = new_mfid(), new_mfid()
    fail(one, planned, subject, "run")
    park(one, "lab")
    time.sleep(1.1)  # statements are made to the second
    assert unpark(other, subject) == {("lab", "counting")}
    assert unpark(other, subject) == set()
    one.mirror.sync_statements()
    assert not failures(one)[planned].parked
    park(one, "lab")
    assert failures(one) == {}
    fail(one, planned, subject, "again")
    park(one, "lab")
    other.mirror.sync_statements()
    assert failures(other)[planned].parked, "it failed once more"


def test_what_has_another_recipe_since_is_not_parked_any_more(machines: tuple[Session, Session]) -> None:
    one, other = machines
    planned, subject = new_mfid(), new_mfid()
    fail(one, planned, subject, "run")
    park(one, "lab")
    time.sleep(1.1)
    fail(one, changed := new_mfid(), subject, "again", most=3)
    assert list(failures(one)) == [changed], "before that is stated"
    park(one, "lab")
    other.mirror.sync_statements()
    assert list(failures(one)) == [changed]
    assert failures(other) == {}


def test_a_project_is_the_same_however_its_name_is_spelled(machines: tuple[Session, Session]) -> None:
    one, other = machines
    subject = new_mfid()
    fail(one, new_mfid(), subject, "run")
    park(one, "lab")
    time.sleep(1.1)
    fail(one, changed := new_mfid(), subject, "again", most=3)
    park(one, "LAB")
    other.mirror.sync_statements()
    assert (list(failures(one)), failures(other)) == ([changed], {})
