"""Missing rights on results of other members stop no run; notes name what permitted accounts can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.session import Session
from tests.runs import run

EQUAL = ("float(line) * factor", "factor * float(line)")


def edit(lab: Any, old: str, new: str, *, file: Path | None = None) -> None:
    path = file or lab.folder / f"{lab.module}.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_result_of_another_member_stays_current_and_is_linked_by_a_permitted_account(
    lab: Any, members: list[Session]
) -> None:
    ada, bob, _ = members
    total = run(bob, lab.pipeline).datasets["total"]["out"]
    edit(lab, *EQUAL)
    for _ in range(2):
        ran = run(ada, lab.pipeline)
        assert (ran.errors, ran.outcomes["total"], ran.datasets["total"]["out"]) == ({}, "reused", total)
        assert f"current, but not linked to {ran.datasets['scaled']['out']}" in ran.notes["total"]
        assert "owner or an editor of the project can add the links by running this once" in ran.notes["total"]
    assert run(bob, lab.pipeline).notes == {}
    assert ran.datasets["scaled"]["out"] in {parent.unique_id for parent in bob.client.datasets.list_parents(total)}
    assert run(ada, lab.pipeline).notes == {}, "it is linked by now"


def test_an_unfinished_result_of_another_member_is_finished_by_a_permitted_account_or_made_again(
    lab: Any, members: list[Session], unfinish: Any
) -> None:
    ada, bob, _ = members
    total = run(bob, lab.pipeline).datasets["total"]["out"]
    unfinish(bob.client, total)
    error = run(ada, lab.pipeline).errors["total"]
    assert f"dataset {total} was begun by another member and not finished" in error
    assert (
        "its owner or an editor of the project can, by running the same pipeline; "
        "or make another result with --force STEP"
    ) in error
