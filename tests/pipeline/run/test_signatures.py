"""Signatures: a result that needs them is a candidate, not current, and nothing is made from it until it has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.cli.run import exit_code
from crucible_lineage.core.slots import slots_of, slots_stated
from crucible_lineage.errors import InputError
from crucible_lineage.notebook.catalogue import Catalogue
from crucible_lineage.session import Session
from crucible_lineage.statements.stating import revoke, sign
from tests.runs import listed_states as states
from tests.runs import run


def needing(lab: Any, approve: str) -> Path:
    text = lab.pipeline.read_text().replace("params: {factor: 3}", f"params: {{factor: 3}}\n    approve: {approve}")
    path: Path = lab.declare(text, "approved.yaml")
    return path


def test_a_result_waits_for_another_account_and_its_descendants_run_once_it_is_signed(
    lab: Any, members: list[Session]
) -> None:
    ada, bob, _ = members
    path = needing(lab, "{count: 1, not: maker}")
    done = run(ada, path)
    scaled = done.datasets["scaled"]["out"]
    assert (done.outcomes["scaled"], exit_code(done)) == ("executed", 4)
    assert f"{scaled} is not signed yet" in done.errors["total"]
    assert states(bob)[scaled] == "candidate"
    with pytest.raises(
        InputError, match="the maker of a result does not sign it; 1 signature needed, of any member but"
    ):
        sign(ada, [scaled])
    assert sign(bob, [scaled], "looked at the fit").missing == {scaled: 0}
    assert states(ada)[scaled] == "current"
    assert "await" not in str(Catalogue(bob).show(scaled))
    again = run(ada, path)
    assert (again.outcomes, exit_code(again)) == ({"scaled": "reused", "total": "executed"}, 0)


def test_a_result_that_is_signed_is_of_each_pipeline_that_waited_for_it(lab: Any, members: list[Session]) -> None:
    ada, bob, eve = members
    path = needing(lab, "{count: 1, not: maker}")
    scaled = run(ada, path).datasets["scaled"]["out"]
    path.write_text(path.read_text().replace("pipeline: counting", "pipeline: renamed").replace("count: 1", "count: 2"))
    assert [run(ada, path).datasets["scaled"]["out"] for _ in range(2)] == [scaled] * 2
    assert sign(bob, [scaled]).missing == {scaled: 1}
    assert slots_of(ada.client.datasets.get(scaled, include_metadata=True).scientific_metadata) == {}
    sign(eve, [scaled])
    listed = Catalogue(bob).list(project="lab", pipeline="renamed").to_json()["datasets"]
    assert scaled in {dataset["mfid"] for dataset in listed}
    stated = Catalogue(bob).statements(project="lab", every=True).to_json()["statements"]
    assert [statement["verb"] for statement in stated].count("await") == 2, "one for each name, however often it runs"


def test_the_signed_result_stays_current_until_the_new_one_is_signed(lab: Any, members: list[Session]) -> None:
    ada, bob, _ = members
    path = needing(lab, "{}")
    first = run(ada, path).datasets["scaled"]["out"]
    sign(bob, [first])
    total = run(ada, path).datasets["total"]["out"]
    other = run(ada, path, scaled__factor=4).datasets["scaled"]["out"]
    now = states(bob)
    assert (now[first], now[total], now[other]) == ("current", "current", "candidate")
    claims = slots_of(ada.client.datasets.get(first, include_metadata=True).scientific_metadata).items()
    fast = {key: replace(claim, since="2126-01-01T00:00:00+00:00") for key, claim in claims}  # the clock of a machine
    ada.client.metadata.merge(first, slots_stated(fast))
    signature = sign(ada, [other]).statement
    now = states(bob)
    assert (now[first], now[other]) == ("superseded", "current")
    revoke(ada, [signature], "signed too early")
    assert states(bob)[other] == "candidate"


def test_a_result_that_waits_is_not_current_again_where_the_declaration_asks_for_no_signature_any_more(
    lab: Any, cli: Any, session: Session
) -> None:
    path = needing(lab, "{count: 1, not: maker}")
    assert cli("run", path, "--engine", "local").exit_code == 4
    path.write_text(path.read_text().replace("    approve: {count: 1, not: maker}\n", ""))
    again = cli("run", path, "--engine", "local")
    assert (again.exit_code, "on hold: " in again.stderr, "is not signed yet" in again.stderr) == (4, True, True)
    assert "current again" not in again.stdout
    (scaled,) = (mfid for mfid, state in states(session).items() if state == "candidate")
    assert scaled in again.stderr


def test_each_account_counts_once_and_only_named_ones_count(lab: Any, members: list[Session]) -> None:
    ada, bob, eve = members
    scaled = run(ada, needing(lab, "{by: [bob, eve], count: 2}")).datasets["scaled"]["out"]
    with pytest.raises(InputError, match="it waits for bob, eve; 2 signatures needed, of bob, eve"):
        sign(ada, [scaled])
    assert sign(bob, [scaled], "first look").missing == {scaled: 1}
    assert sign(bob, [scaled], "second look").missing == {scaled: 1}
    assert sign(eve, [scaled]).missing == {scaled: 0}
