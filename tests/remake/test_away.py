"""Evicted results: the plan lists which are made again first, and `status` how much space can be freed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.files.fetch import away
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.server.running import start_server
from crucible_lineage.session import Session
from crucible_lineage.statements import REMAKE, About
from crucible_lineage.stating import state

pytestmark = pytest.mark.usefixtures("keeping")


def run(lab: Any, session: Session) -> RunResult:
    bound = bind_file(lab.pipeline, session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def ask(session: Session, *arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--data", str(session.settings.data)])


def asked(session: Session, *arguments: object) -> Any:
    return json.loads(ask(session, *arguments, "--json").stdout)


def remade_elsewhere(session: Session, mfid: str) -> None:
    body = {"verdict": "identical", "own": False, "machine": "elsewhere", "architecture": "x86_64"}
    state(session, "lab", REMAKE, About((mfid,)), why="identical", body=body)


def change(lab: Any, old: str, new: str) -> None:
    path = lab.folder / f"{lab.module}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_status_says_how_much_room_could_be_freed_and_what_it_takes(lab: Any, session: Session) -> None:
    scaled = run(lab, session).datasets["scaled"]["out"]
    assert asked(session, "status")["could_go"] == {"bytes": 0, "seconds": 0.0}
    assert "can be evicted" not in ask(session, "status").output
    remade_elsewhere(session, scaled)
    found = asked(session, "status")["could_go"]
    assert found["bytes"] == len("3.0\n6.0\n9.0")
    assert found["seconds"] > 0
    assert "can be evicted: 11 B, " in ask(session, "status").output
    assert ask(session, "evict", "--to-free", "11B").exit_code == 0
    assert asked(session, "status")["could_go"]["bytes"] == 0


def test_the_plan_says_which_inputs_are_made_again_first(lab: Any, session: Session) -> None:
    scaled = run(lab, session).datasets["scaled"]["out"]
    remade_elsewhere(session, scaled)
    (went,) = asked(session, "evict", "--to-free", "11B")["evicted"]
    assert asked(session, "plan", lab.pipeline)["away"] == [], "nothing is to be made"
    change(lab, "both added", "both were added")
    away = asked(session, "plan", lab.pipeline)["away"]
    assert away == [{"mfid": scaled, "name": went["name"], "bytes": went["bytes"], "seconds": went["seconds"]}]
    shown = ask(session, "plan", lab.pipeline).output
    assert "remade first, because the bytes were evicted: 1 input, 11 B, about " in shown
    assert scaled in shown
    assert ask(session, "run", lab.pipeline, "--engine", "local").exit_code == 0
    assert asked(session, "plan", lab.pipeline)["away"] == [], "the run has made it again"


def test_what_is_away_needs_what_it_was_made_from(lab: Any, session: Session) -> None:
    done = run(lab, session)
    scaled, total = done.datasets["scaled"]["out"], done.datasets["total"]["out"]
    for mfid in (scaled, total):
        remade_elsewhere(session, mfid)
    assert {one["mfid"] for one in asked(session, "evict", "--to-free", "1GB")["evicted"]} == {scaled, total}
    text = (
        lab.pipeline.read_text()
        + f"  more: {{uses: {lab.module}:scale, inputs: {{counts: {{from: total, files: total.txt}}}}}}\n"
    )
    lab.pipeline.write_text(text)
    planned = ask(session, "plan", lab.pipeline, "--json")
    assert [one["mfid"] for one in json.loads(planned.stdout)["away"]] == [scaled, total]


def test_what_is_lost_was_not_let_go(lab: Any, session: Session) -> None:
    done = run(lab, session)
    scaled, total = done.datasets["scaled"]["out"], done.datasets["total"]["out"]
    remade_elsewhere(session, scaled)
    ask(session, "evict", "--to-free", "11B")
    for file in session.client.files.list(total):
        digest = str(file.sha256_hash)
        (session.settings.data / "crucible" / "contents" / digest[:2] / digest[2:]).unlink()
    found = asked(session, "verify", "--project", "lab", "--bytes")["findings"]
    assert {(one["class"], *one["mfids"]) for one in found} == {("file-evicted", scaled), ("file-damaged", total)}


def test_a_service_is_never_asked_to_let_go_of_bytes(tmp_path: Path) -> None:
    with start_server(tmp_path / "service") as running:
        where = ["--url", running.url, "--api-key", running.api_key, "--data", str(tmp_path / "data")]
        refused = CliRunner().invoke(main, ["evict", "--to-free", "1GB", *where])
    assert refused.exit_code == 2
    assert "deletes a file together with its record" in refused.output
    assert "clean --cache" in refused.output


def test_a_chain_longer_than_calls_can_be_nested_is_listed_from_its_first(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}" for number in range(2000)]
    used = {name: {"used": [{"mfid": before}]} for before, name in itertools.pairwise(names)}
    records = {name: {"scientific_metadata": {"crucible_lineage": used.get(name, {})}} for name in names}
    monkeypatch.setattr(type(session.stated), "evicted", lambda _: dict.fromkeys(names, ("0" * 64,)))
    monkeypatch.setattr(session.mirror, "records", lambda mfids: {mfid: records[mfid] for mfid in mfids})
    assert [one.mfid for one in away(session, [names[-1], names[0]])] == names
