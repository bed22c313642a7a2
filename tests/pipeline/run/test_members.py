"""Missing rights on results of other members stop no run; notes name what permitted accounts can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.server import start_server
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run

EQUAL = ("float(line) * factor", "factor * float(line)")


@pytest.fixture
def members(tmp_path: Path) -> Iterator[tuple[Session, Session]]:
    """Two contributors to one project, each with a machine of their own."""
    with start_server(tmp_path / "service") as server, CrucibleClient(server.url, server.api_key) as admin:
        admin.projects.create(project_id="lab", organization="lab", project_lead="local")
        settings = [Settings(tmp_path / name, server.url, _member(admin, name)) for name in ("ada", "bob")]
        with Session(settings[0]) as ada, Session(settings[1]) as bob:
            yield ada, bob


def _member(admin: CrucibleClient, name: str) -> str:
    ask = admin._connection.call
    made: dict[str, Any] = ask("POST", "/service_accounts", "make an account", body={"username": name})
    ask("POST", f"/projects/lab/users/{name}", "add a member", params={"role": "contributor"})
    return str(made["api_key"])


def edit(lab: Any, old: str, new: str, *, file: Path | None = None) -> None:
    path = file or lab.folder / f"{lab.module}.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_result_of_another_member_stays_current_and_is_linked_by_a_permitted_account(
    lab: Any, members: tuple[Session, Session]
) -> None:
    ada, bob = members
    total = run(bob, lab.pipeline).datasets["total"]["out"]
    edit(lab, *EQUAL)
    for _ in range(2):
        ran = run(ada, lab.pipeline)
        assert (ran.errors, ran.outcomes["total"], ran.datasets["total"]["out"]) == ({}, "reused", total)
        assert f"current, but not linked to {ran.datasets['scaled']['out']}" in ran.notes["total"]
        assert "owner or an editor of the project can add the links by running this once" in ran.notes["total"]
    assert run(bob, lab.pipeline).notes == {}
    assert ran.datasets["scaled"]["out"] in {one.unique_id for one in bob.client.datasets.list_parents(total)}
    assert run(ada, lab.pipeline).notes == {}, "it is linked by now"


def test_an_unfinished_result_of_another_member_is_finished_by_a_permitted_account_or_made_again(
    lab: Any, members: tuple[Session, Session], unfinish: Any
) -> None:
    ada, bob = members
    total = run(bob, lab.pipeline).datasets["total"]["out"]
    unfinish(bob.client, total)
    error = run(ada, lab.pipeline).errors["total"]
    assert f"dataset {total} was begun by another member and not finished" in error
    assert (
        "its owner or an editor of the project can, by running the same pipeline; "
        "or make another result with --force STEP"
    ) in error
