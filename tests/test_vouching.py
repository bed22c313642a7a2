"""Attacks on statements by members and strangers of a served Crucible: nobody vouches for them, and commands say so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.server.database import connect
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import FLAG, HOLD, REVOKE, SIGN, About
from crucible_lineage.statements.stating import state
from tests.web.conftest import served

Ran = subprocess.CompletedProcess[str]
NOBODY = "nobody vouches for statement"


@dataclass
class Lab:
    """A served Crucible with a project `lab`, and the machines of its people: the lead, members, a stranger."""

    folder: Path
    url: str
    keys: dict[str, str]
    command: Callable[..., Ran]
    pipeline: Path
    ids: dict[str, str] = field(default_factory=dict)

    def ask(self, who: str, *words: object, codes: tuple[int, ...] = (0,), machine: str = "") -> Ran:
        """Run a command of somebody on the own machine, or on another one."""
        place = ["--data", self.folder / (machine or who), "--url", self.url, "--api-key", self.keys[who]]
        ran = self.command(*words, *place)
        assert ran.returncode in codes, (who, words, ran.returncode, ran.stdout, ran.stderr)
        return ran

    def ask_json(self, who: str, *words: object, codes: tuple[int, ...] = (0,), machine: str = "") -> Any:
        return json.loads(self.ask(who, *words, "--json", codes=codes, machine=machine).stdout)

    def run(self, who: str, *words: object, codes: tuple[int, ...] = (0,), path: Path | None = None) -> Any:
        return self.ask_json(who, "run", path or self.pipeline, "--engine", "local", *words, codes=codes)

    def session(self, who: str) -> Session:
        """Open a session of somebody, for what no command does."""
        return Session(Settings(self.folder / f"{who}-raw", self.url, self.keys[who]))

    def patch(self, who: str, mfid: str, metadata: Mapping[str, object]) -> None:
        """Change the metadata of a dataset, as a contributor may."""
        with CrucibleClient(self.url, self.keys[who]) as client:
            client.metadata.merge(mfid, metadata)

    def hand_over(self, mfid: str, to: str) -> None:
        """Give a dataset to another account, as its owner may at other services (`transfer_ownership`)."""
        with closing(connect(self.folder / "service" / "crucible" / "crucible.db")) as db:
            sql = "UPDATE resource SET owner_id = (SELECT id FROM user WHERE username = ?), modified = ? WHERE mfid = ?"
            db.execute(sql, (to, "2126-01-01T00:00:00.000000+00:00", mfid))

    def approved(self, policy: str) -> None:
        """Let the first step of the pipeline need signatures."""
        text = self.pipeline.read_text().replace("params: {factor: 3}", f"params: {{factor: 3}}\n    approve: {policy}")
        self.pipeline.write_text(text)

    def state_of(self, who: str, mfid: str, codes: tuple[int, ...] = (0,)) -> str:
        return str(self.ask_json(who, "show", mfid, codes=codes)["state"])


@pytest.fixture
def crucible(tmp_path: Path, begin: Any, command: Any, lab: Any) -> Iterator[Lab]:
    with served(begin, tmp_path / "service", "--port", 0) as (printed, key):
        made = Lab(tmp_path, printed["url"], {"local": key}, command, lab.pipeline)
        made.ask("local", "project", "create", "lab")
        for name in ("ada", "bob", "eve"):
            invited = made.ask_json("local", "project", "invite", name, "--project", "lab")
            made.keys[name], made.ids[name] = invited["api_key"], invited["unique_id"]
        made.ask("local", "project", "create", "elsewhere")
        made.keys["stranger"] = made.ask_json("local", "project", "invite", "stranger", "--project", "elsewhere")[
            "api_key"
        ]
        yield made


def statements(crucible: Lab, who: str, codes: tuple[int, ...]) -> dict[str, Any]:
    found = crucible.ask_json(who, "statements", "--all", codes=codes)["statements"]
    return {one["mfid"]: one for one in found}


def test_a_maker_cannot_sign_and_hand_the_signature_over(crucible: Lab) -> None:
    crucible.approved("{count: 1, not: maker}")
    scaled = crucible.run("ada", codes=(4,))["datasets"]["scaled"]["out"]
    refused = crucible.ask("ada", "sign", scaled, codes=(2,)).stderr
    assert "the maker of a result does not sign it; 1 signature needed, of any member but its maker" in refused
    assert not [one for one in statements(crucible, "ada", (0,)).values() if one["verb"] == "sign"]
    with crucible.session("ada") as ada:
        ada.set_agent({**ada.agent, "username": "bob"})
        signature = state(ada, "lab", SIGN, About((scaled,))).statement.mfid
    crucible.hand_over(signature, "bob")
    planned = crucible.ask("bob", "plan", crucible.pipeline, codes=(1,)).stdout
    assert f"{scaled} is not signed yet: it waits for any member but its maker" in planned
    assert f"{NOBODY} {signature}, which has no effect: its author is {crucible.ids['ada']}" in planned
    assert crucible.state_of("bob", scaled, (1,)) == "candidate"
    assert signature in crucible.ask("bob", "show", scaled, codes=(1,)).stdout
    listed = statements(crucible, "bob", (1,))[signature]
    assert crucible.ids["bob"] in listed["fault"]
    assert not listed["in_force"]
    assert f"{scaled} is not signed yet" in crucible.run("bob", codes=(4,))["errors"]["total"]["message"]
    crucible.ask("bob", "lift", signature)
    assert statements(crucible, "bob", (0,))[signature]["in_force"] is False
    assert "is signed by bob" in crucible.ask("bob", "sign", scaled).stdout
    assert crucible.run("bob")["outcomes"]["total"] == "executed"


def test_a_name_in_a_record_is_no_account(crucible: Lab) -> None:
    crucible.approved("{by: [bob]}")
    scaled = crucible.run("ada", codes=(4,))["datasets"]["scaled"]["out"]
    refused = crucible.ask("eve", "sign", scaled, codes=(2,)).stderr
    assert "it waits for bob; 1 signature needed, of bob" in refused
    with crucible.session("eve") as eve:
        eve.set_agent({**eve.agent, "username": "bob"})
        state(eve, "lab", SIGN, About((scaled,)))
    assert crucible.state_of("ada", scaled) == "candidate"
    crucible.ask("bob", "sign", scaled)
    assert crucible.state_of("ada", scaled) == "current"


def test_a_maker_does_not_lift_or_loosen_what_waits(crucible: Lab) -> None:
    crucible.approved("{count: 1, not: maker}")
    scaled = crucible.run("ada", codes=(4,))["datasets"]["scaled"]["out"]
    waiting = next(one["mfid"] for one in statements(crucible, "ada", (0,)).values() if one["verb"] == "await")
    assert "the maker of a result" in crucible.ask("ada", "lift", waiting, codes=(2,)).stderr
    with crucible.session("ada") as ada:
        state(ada, "lab", REVOKE, About(), revokes=[waiting])
    assert crucible.state_of("bob", scaled) == "candidate"
    assert f"{scaled} is not signed yet" in crucible.run("bob", codes=(4,))["errors"]["total"]["message"]


def test_a_result_that_was_made_without_its_policy_waits_from_the_next_run_on(crucible: Lab) -> None:
    loose = crucible.pipeline.with_name("loose.yaml")
    loose.write_text(crucible.pipeline.read_text())
    scaled = crucible.run("ada", path=loose)["datasets"]["scaled"]["out"]
    with crucible.session("ada") as ada:
        body = {"by": [], "count": 1, "makers": [crucible.ids["bob"]], "not": "maker", "slots": {}}
        state(ada, "lab", "await", About((scaled,)), body=body)
        state(ada, "lab", SIGN, About((scaled,)))
    crucible.approved("{count: 1, not: maker}")
    crucible.run("bob", codes=(0, 4))
    assert crucible.state_of("bob", scaled) == "candidate"


@pytest.mark.parametrize("change", [{"recipe": {"about": {"datasets": []}}}])
def test_a_hold_that_a_member_changes_blocks_and_is_named(crucible: Lab, change: Mapping[str, object]) -> None:
    datasets = crucible.run("ada")["datasets"]
    first = next(
        dataset["mfid"]
        for dataset in crucible.ask_json("ada", "list", "--project", "lab")["datasets"]
        if dataset["state"] == "raw"
    )
    hold = crucible.ask_json("ada", "hold", first, "--why", "lamp")["mfid"]
    crucible.run("ada", "--force", "scaled", codes=(4,))
    crucible.patch("bob", hold, {"crucible_lineage": change})
    for machine in ("ada", "new"):
        blocked = crucible.ask(
            "ada", "plan", crucible.pipeline, "--force", "scaled", codes=(1,), machine=machine
        ).stdout
        assert f"{NOBODY} {hold}, which blocks until it is lifted" in blocked
        assert "x scaled" in blocked
        shown = crucible.ask("ada", "show", first, codes=(1,), machine=machine).stdout
        assert "doubtful" in shown
        assert hold in shown
        assert hold in crucible.ask("ada", "statements", codes=(1,), machine=machine).stdout
    crucible.ask("ada", "lift", hold)
    assert crucible.ask("ada", "plan", crucible.pipeline, machine="new").stdout
    assert crucible.run("ada")["datasets"] == datasets
    again = crucible.ask_json("ada", "hold", first, "--why", "lamp")
    assert again["mfid"] != hold
    assert crucible.state_of("bob", first) == "doubtful"


def test_what_strangers_state_does_nothing_and_is_listed(crucible: Lab) -> None:
    scaled = crucible.run("ada")["datasets"]["scaled"]["out"]
    with CrucibleClient(crucible.url, crucible.keys["local"]) as client, crucible.session("stranger") as stranger:
        said = [
            state(stranger, "elsewhere", HOLD, About((scaled,)), why="mine"),
            state(stranger, "elsewhere", FLAG, About((scaled,)), why="odd", body={"flag": "odd"}),
        ]
        for statement_outcome in said:
            client._connection.call("PUT", f"/resources/{statement_outcome.statement.mfid}/access/public", "publish")
    shown = crucible.ask_json("ada", "show", scaled)
    assert shown["state"] == "current"
    listed = statements(crucible, "ada", (0,))
    assert {listed[statement_outcome.statement.mfid]["counts"] for statement_outcome in said} == {True}
    assert "does not count here" in crucible.ask("ada", "show", scaled).stdout


def test_the_local_account_of_another_machine_is_somebody_else(crucible: Lab, tmp_path: Path) -> None:
    datasets = crucible.run("ada")["datasets"]
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        ran = crucible.command("run", crucible.pipeline, "--engine", "local", "--json", "--data", folder)
        assert json.loads(ran.stdout)["datasets"] == datasets
    scaled = datasets["scaled"]["out"]
    signed = json.loads(crucible.command("sign", scaled, "--json", "--data", there).stdout)
    own = json.loads(crucible.command("sign", scaled, "--json", "--data", here).stdout)
    assert (signed["who"], own["who"]) == ("local", "local")
    assert signed["by"] != own["by"]
    assert signed["mfid"] != own["mfid"]
