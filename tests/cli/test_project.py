"""`project` at a service: list, create, add members. Invalid requests are refused before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from tests.serving import RunningServer, start_server

Ask = Callable[..., Any]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningServer]:
    with start_server(tmp_path / "service") as server:
        yield server


@pytest.fixture
def client(running: RunningServer) -> Iterator[CrucibleClient]:
    with CrucibleClient(running.url, running.api_key) as opened:
        yield opened


@pytest.fixture
def ask(running: RunningServer, command: Any) -> Ask:
    """Run the command at the service; return its exit code and output."""

    def run(*words: str) -> tuple[int, str]:
        ran = command("project", *words, CRUCIBLE_API_URL=running.url, CRUCIBLE_API_KEY=running.api_key)
        return ran.returncode, ran.stdout + ran.stderr

    return run


def test_a_project_is_created_once_and_its_lead_is_the_owner_of_the_key(ask: Ask, client: CrucibleClient) -> None:
    code, output = ask("create", "beamline", "--title", "Beamline 7")
    assert code == 0, output
    (made,) = (project for project in client.projects.list() if project.project_id == "beamline")
    assert made.title == "Beamline 7"
    assert made.lead is not None
    assert made.lead.unique_id == client.account.whoami().user_unique_id
    assert "Beamline 7" in ask("list")[1]
    code, output = ask("create", "beamline")
    assert (code, "already exists" in output) == (2, True)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("create", "x"), "no project can be called 'x': a project id has 3 to 25 letters"),
        (("create", "beamline", "--lead", ""), "project_lead is empty; name a user, or leave it out"),
    ],
)
def test_an_invalid_project_is_refused_locally(
    ask: Ask, client: CrucibleClient, words: tuple[str, ...], fault: str
) -> None:
    before = [project.project_id for project in client.projects.list()]
    code, output = ask(*words)
    assert (code, fault in output) == (2, True), output
    assert [project.project_id for project in client.projects.list()] == before


def test_an_unknown_member_is_named(ask: Ask) -> None:
    assert ask("create", "beamline")[0] == 0
    assert ask("members", "beamline")[1].splitlines()[-1].split() == ["local", "lead"]
    code, output = ask("members", "beamline", "--add", "nobody")
    assert (code, "User not found: nobody" in output) == (2, True)
    assert ask("members", "nowhere")[0] == 2


def test_the_rights_in_its_data_are_stated_and_shown(ask: Ask) -> None:
    assert ask("create", "beamline")[0] == 0
    assert "nothing is stated" in ask("rights", "beamline")[1]
    code, output = ask("rights", "beamline", "--license", "CC-BY-4.0", "--creator", "Ada L <0000-0002-1825-0097>")
    assert code == 0, output
    assert ask("rights", "beamline", "--holder", "Our Lab")[0] == 0
    output = ask("rights", "beamline")[1]
    for line in ("licence: CC-BY-4.0", "creators: Ada L (0000-0002-1825-0097)", "rights: Our Lab"):
        assert line in output
    assert ask("rights", "nowhere", "--license", "MIT")[0] == 2


def test_only_a_project_that_is_seen_or_an_account_can_be_trusted(ask: Ask) -> None:
    assert ask("create", "beamline")[0] == 0
    code, output = ask("trust", "beamlin", "--project", "beamline")
    assert (code, "this key sees no project 'beamlin'" in output) == (2, True), output
    assert ask("trust", "0000-0002-1825-0097", "--project", "beamline")[0] == 0
