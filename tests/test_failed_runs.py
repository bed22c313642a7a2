"""A pipeline whose run failed on one machine is known on all; once it ends well, on none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import start_server

STEPS = """
from pathlib import Path

def scaled(counts: Path, *, out: Path) -> None:
    (out / "x.txt").write_text(str(2 * float(counts.read_text())))
"""


class Night:
    """A pipeline on two machines, which share a Crucible and nothing else."""

    def __init__(self, lab: Any, command: Any, server: Any, tmp_path: Path) -> None:
        self.lab, self.command, self.server, self.tmp_path = lab, command, server, tmp_path
        self.environment = {
            "CRUCIBLE_API_URL": server.url, "CRUCIBLE_API_KEY": server.api_key, "PREFECT_API_URL": ""
        }  # fmt: skip
        lab.file(f"{lab.module}_night.py", STEPS)
        self.declare()

    def declare(self, more: str = "") -> None:
        self.path = self.lab.declare(
            f"""
            pipeline: night
            project: lab
            inputs:
              counts: {{file: "counts-*.txt", each: true, ingest: false, timestamp: "2024-05-01T12:00:00Z"}}
            steps:
              scaled: {{uses: "{self.lab.module}_night:scaled", inputs: {{counts: counts}}, output: {{ingest: false}}}}
            {more}
            """
        )

    def run(self, machine: str, *options: str) -> int:
        return int(self.on(machine, "run", str(self.path), *options).returncode)

    def on(self, machine: str, *arguments: str) -> Any:
        here = {"CRUCIBLE_LINEAGE_DATA": str(self.tmp_path / machine)}
        return self.command(*arguments, **self.environment, **here)

    def known_on(self, machine: str) -> list[Any]:
        """What the machine knows of runs of others that failed."""
        found: list[Any] = json.loads(self.on(machine, "status", "--json").stdout)["failed_elsewhere"]
        return found

    def statements(self) -> list[Any]:
        told = json.loads(self.on("west", "statements", "--project", "lab", "--json").stdout)
        return [statement for statement in told["statements"] if statement["verb"] == "fail"]


@pytest.fixture
def night(lab: Any, command: Any, tmp_path: Path) -> Iterator[Night]:
    with start_server(tmp_path / "service") as server:
        found = Night(lab, command, server, tmp_path)
        found.on("west", "project", "create", "lab", "--title", "A lab")
        yield found


def test_a_run_that_failed_is_known_on_all_machines_until_one_there_ends_well(night: Night) -> None:
    night.lab.file("counts-a.txt", "dark")
    assert night.run("east") == 1
    (failed,) = night.known_on("west")
    assert (failed["project"], failed["pipeline"]) == ("lab", "night")
    assert "could not convert string to float: 'dark'" in failed["steps"]["scaled[counts-a.txt]"]
    assert night.known_on("east") == [], "there it is in the list of runs"

    every = night.on("west", "status", "--all")
    assert every.returncode == 1
    assert re.search(r"lab/night: the last run on \S+ by \S+ failed: .*'dark'", every.stdout), every.stdout

    assert night.run("east") == 1
    assert len(night.statements()) == 1, "the same failure is stated once"

    night.lab.file("counts-b.txt", "black")
    assert night.run("east") == 1
    assert len(night.statements()) == 1, "another one takes the place of the first"
    assert {*night.known_on("west")[0]["steps"]} == {"scaled[counts-a.txt]", "scaled[counts-b.txt]"}

    night.lab.file("counts-a.txt", "1")
    assert night.run("east", "--only", "scaled[counts-a.txt]") == 0
    assert len(night.known_on("west")) == 1, "only a whole run says that all is well"
    night.lab.file("counts-b.txt", "2")
    assert night.run("west") == 0
    assert len(night.known_on("west")) == 1, "what is well on one machine may not be on another"
    assert night.run("east") == 0
    assert night.known_on("west") == []
    assert night.on("west", "status", "--all").returncode == 0


def test_a_run_that_could_not_start_is_listed_where_it_was_to_run(night: Night) -> None:
    night.lab.file("counts-a.txt", "1")
    night.declare("banana: 3")
    assert night.run("east") == 2
    listed = night.on("east", "status").stdout
    assert re.search(r"pipeline +failed .*could not start: \S+: unknown key 'banana'", listed), listed
    (run,) = json.loads(night.on("east", "runs", "--json").stdout)["runs"]
    assert (run["state"], "banana" in run["error"]) == ("failed", True)
    night.declare()
    assert night.run("east", "--set", "scaled.factor=3") == 2
    assert len(json.loads(night.on("east", "runs", "--json").stdout)["runs"]) == 1, "a slip at the keyboard is no run"
    assert night.run("east") == 0


def test_a_start_with_a_revoked_key_is_on_record(night: Night) -> None:
    night.lab.file("counts-a.txt", "1")
    with httpx.Client(base_url=night.server.url, headers={"Authorization": f"Bearer {night.server.api_key}"}) as admin:
        account = admin.post("/service_accounts", json={"username": "shift"}).raise_for_status().json()
        admin.post(f"/service_accounts/{account['unique_id']}/rotate_key").raise_for_status()
    where = ("--data", str(night.tmp_path / "east"), "--url", night.server.url)
    environment = {**night.environment, "CRUCIBLE_API_KEY": account["api_key"]}
    revoked = night.command("run", night.path, *where, **environment)
    assert (revoked.returncode, "401" in revoked.stderr) == (1, True)

    every = night.command("status", "--all", *where, **night.environment)
    assert every.returncode == 1
    assert re.search(r"lab/night: the last run here could not start: .*401.* since", every.stdout), every.stdout
    assert f"  crucible-lineage run {night.path} {' '.join(where)}\n" in every.stdout
    assert night.run("east") == 0
    assert night.on("east", "status", "--all").returncode == 0


def test_a_run_that_found_crucible_away_is_listed(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.lab.file("counts-a.txt", "1")
    assert night.run("east") == 0  # whose key it is, is known from now on
    night.path.write_text(night.path.read_text().replace("pipeline: night", "pipeline: other"))
    night.server.close()
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", "0.5")
    assert night.run("east", "--patience", "0") == 3
    run, _ = json.loads(night.on("east", "status", "--json").stdout)["runs"]
    assert (run["pipeline"], "Connection refused" in run["error"]) == ("other", True)
