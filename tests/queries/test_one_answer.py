"""A random history on machines of two accounts: after each action, all commands and pages give the same answers."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.server.database import connect, now
from tests.nights import NIGHTLY
from tests.web.conftest import served

ACTS = int(os.environ.get("HISTORY_ACTS", "60" if NIGHTLY else "3"))
ACTS_TO_CHOOSE = (
    *("value", "value", "file", "new", "no", "run", "run", "force", "only", "stale"),
    *("hand", "hand", "replace", "hold", "lift", "lift", "set", "flag", "link", "link", "unlink", "rename"),
)
STATING = ("hold", "forge", "flag", "forge", "lift", "hold", "forge")  # by day, in this order
SEED = int(os.environ.get("HISTORY_SEED", "5"))
STEPS = """
from pathlib import Path

from crucible_lineage import step


@step(measurement="counting")
def scale(counts: Path, *, factor: int = 2, out: Path) -> dict:
    values = [int(text) * factor + {offset} for text in counts.read_text().split()]
    (out / "scaled.txt").write_text(" ".join(map(str, values)))
    return {{"sum": sum(values)}}


@step(outputs=("low", "high"))
def split(counts: Path, *, at: int = 20, low: Path, high: Path) -> dict:
    values = [int(text) for text in counts.read_text().split()]
    (low / "low.txt").write_text(" ".join(str(one) for one in values if one < at))
    (high / "high.txt").write_text(" ".join(str(one) for one in values if one >= at))
    return {{"low": {{"at": at}}, "high": {{"at": at}}}}


@step
def add(parts: list[Path], *, weight: int = 1, out: Path) -> dict:
    total = sum(int(text) for part in parts for text in part.read_text().split()) * weight
    (out / "total.txt").write_text(str(total))
    return {{"sum": total}}
"""
PIPELINE = """
pipeline: history
project: lab
inputs:
  raw: {{file: "data/*.txt", each: true, timestamp: "2024-05-01T12:00:00Z", ingest: false}}
steps:
  scaled: {{uses: "{module}:scale", inputs: {{counts: raw}}, params: {{factor: {factor}}}, output: {unread}}}
  parted: {{uses: "{module}:split", inputs: {{counts: scaled}}, params: {{at: {at}}}, output: {unread}}}
  low: {{uses: "{module}:add", inputs: {{parts: {{from: parted, output: low, collect: true}}}}, output: {unread}}}
  total:
    uses: "{module}:add"
    inputs: {{parts: {{from: scaled, collect: true}}}}
    params: {{weight: {weight}}}
    output: {unread}
"""

SELECTION = """
pipeline: selection
project: lab
inputs:
  taken: {{select: {{measurement: counting}}, each: true}}
steps:
  again: {{uses: "{module}:scale", inputs: {{counts: taken}}, output: {{ingest: false}}}}
"""
STATES = r">(raw|current|candidate|doubtful|superseded|incomplete)<"  # as pages show them
EXISTING = ("fresh", "superseded", "doubtful", "candidate")  # states of a step that has its results


@dataclass
class World:
    """Files, code and declaration, and the machines that work with them, each with its command options."""

    folder: Path
    chance: random.Random
    views: dict[str, list[str]]
    pages: httpx.Client
    values: dict[str, int] = field(default_factory=lambda: {"factor": 3, "at": 20, "weight": 1, "offset": 0})
    files: dict[str, str] = field(default_factory=lambda: {"a.txt": "1 8", "b.txt": "30"})
    history: list[str] = field(default_factory=list)
    by_hand: set[str] = field(default_factory=set)
    linked: list[tuple[str, str]] = field(default_factory=list)
    acts: tuple[str, ...] = ACTS_TO_CHOOSE
    forged: set[str] = field(default_factory=set)

    @property
    def module(self) -> str:
        return f"history_{abs(hash(str(self.folder)))}"

    @property
    def pipeline(self) -> Path:
        return self.folder / "history.yaml"

    def write(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        for path in (self.folder / "data").iterdir():
            if path.name not in self.files:
                path.unlink()
        for name, text in self.files.items():
            if not (path := self.folder / "data" / name).exists() or path.read_text() != text:
                path.write_text(text)
        (self.folder / f"{self.module}.py").write_text(STEPS.format(offset=self.values["offset"]))
        self.pipeline.write_text(PIPELINE.format(module=self.module, unread="{ingest: false}", **self.values))

    def ask(self, view: str, *words: object, codes: tuple[int, ...] = (0,)) -> Result:
        sys.modules.pop(self.module, None)
        found = CliRunner().invoke(main, [*map(str, words), *self.views[view]], catch_exceptions=False)
        assert found.exit_code in codes, (view, words, found.exit_code, found.output, self.history)
        return found

    def ask_json(self, view: str, *words: object, codes: tuple[int, ...] = (0,)) -> Any:
        return json.loads(self.ask(view, *words, "--json", codes=codes).stdout)

    def listed(self, view: str, *more: str) -> dict[str, Any]:
        return {
            dataset["mfid"]: dataset for dataset in self.ask_json(view, "list", "--project", "lab", *more)["datasets"]
        }

    @property
    def selection(self) -> Path:
        """A pipeline that selects, with a step for each dataset that it takes."""
        path = self.folder / "selection.yaml"
        path.write_text(SELECTION.format(module=self.module))
        return path

    def plan(self, view: str, path: Path | None = None) -> dict[str, Any]:
        """Plan, and check that the exit code and a note say which statements nobody vouches for."""
        planned = self.ask(view, "plan", path or self.pipeline, "--json", codes=(0, 1))
        found, faulty = json.loads(planned.stdout), self.unvouched(view)
        assert planned.exit_code == bool(faulty), (faulty, self.history)
        assert all(any(mfid in note for note in found["notes"]) for mfid in faulty), (faulty, self.history)
        return {step["name"]: step for step in found["steps"]}

    def unvouched(self, view: str) -> set[str]:
        """Check that only those statements count that nobody forged, and holds; return the forged ones."""
        asked = self.ask(view, "statements", "--project", "lab", "--all", "--json", codes=(0, 1))
        listed = {statement["mfid"]: statement for statement in json.loads(asked.stdout)["statements"]}
        assert {mfid for mfid, dataset in listed.items() if dataset["fault"]} == self.forged, self.history
        faulty = {mfid for mfid in self.forged if listed[mfid]["revoked_by"] is None}
        for mfid in faulty:
            assert listed[mfid]["in_force"] == (listed[mfid]["verb"] == "hold"), (mfid, self.history)
        assert asked.exit_code == bool(faulty), (faulty, self.history)
        return faulty


def state_of(entry: Any) -> tuple[str, tuple[str, ...]]:
    return entry["state"], tuple(sorted(entry["superseded_by"]))


def require_one_answer(world: World, view: str, others: tuple[str, ...]) -> None:
    """Check that every command reports the same current results, on each machine, after one history."""
    history = world.history
    every = world.listed(view, "--all")
    states = {mfid: state_of(dataset) for mfid, dataset in every.items()}
    for other in others:
        theirs = world.listed(other, "--all")
        assert {mfid: state_of(dataset) for mfid, dataset in theirs.items()} == states, history
        assert {mfid for mfid, dataset in theirs.items() if dataset["doubtful"]} == {
            mfid for mfid, dataset in every.items() if dataset["doubtful"]
        }, history
    for mfid, (state, by) in states.items():
        assert bool(by) == (state == "superseded") or state in ("superseded", "incomplete"), (mfid, state, by, history)
        assert all(states[one][0] in ("current", "raw", "doubtful") for one in by if one in states), (mfid, by, history)
    shown = world.ask_json(view, "list", "--project", "lab")
    current = {
        mfid for mfid, dataset in every.items() if dataset["state"] in ("current", "raw") and not dataset["doubtful"]
    }
    assert {dataset["mfid"] for dataset in shown["datasets"]} == current, history
    _require_lineage(world, view, states)
    for step in ("scaled", "total"):
        expected = {mfid for mfid, dataset in every.items() if dataset["step"] == step and mfid in current}
        if any(dataset["step"] == step for dataset in every.values()):
            rows = world.ask_json(view, "table", "--step", step, "--project", "lab")["rows"]
            assert {row["mfid"] for row in rows} == expected, (step, history)
    counted = Counter(dataset["state"] for dataset in every.values() if dataset["pipeline"] == "history")
    for pipeline in world.ask_json(view, "status", "--all", codes=(0, 1))["pipelines"]:
        if pipeline["pipeline"] == "history":
            assert pipeline["states"] == dict(counted), history
    found = _findings(world, view)
    for other in others:
        assert _findings(world, other) == found, history
    plan = world.plan(view)
    for other in others:
        theirs = world.plan(other)
        assert {name: (step["state"], step["datasets"]) for name, step in theirs.items()} == {
            name: (step["state"], step["datasets"]) for name, step in plan.items()
        }, history
    for name, one in plan.items():
        for mfid in one["datasets"].values() if one["state"] in EXISTING else ():
            stands = every[mfid]["state"] if mfid in every else ""
            words = {"fresh": ("current",), "doubtful": ("doubtful", "current")}.get(one["state"], (one["state"],))
            assert stands in (*words, "superseded"), (name, mfid, history)  # of several outputs, one may be held
    taken = {name.partition("[")[2].rstrip("]") for name in world.plan(view, world.selection)}
    assert taken == {
        mfid
        for mfid, dataset in every.items()
        if dataset["measurement"] == "counting" and dataset["state"] in ("raw", "current", "doubtful")
    }, history
    if view != "copy":
        _require_pages(world, every)


def _require_lineage(world: World, view: str, states: dict[str, tuple[str, tuple[str, ...]]]) -> None:
    drawn = json.loads(world.ask(view, "lineage", "--project", "lab", "--superseded", "--format", "json").stdout)
    nodes = {node["id"]: node for node in drawn["nodes"]}
    for mfid, (state, by) in states.items():
        assert nodes[mfid].get("state", "") == state, (mfid, world.history)
        assert set(nodes[mfid].get("superseded_by") or ()) == set(by), (mfid, world.history)
    links = {(edge["source"], edge["target"]) for edge in drawn["edges"]}
    for mfid in world.chance.sample(sorted(states), min(3, len(states))):
        shown = world.ask_json(view, "show", mfid, codes=(0, 1))
        assert state_of(shown) == states[mfid], (mfid, world.history)
        story = world.ask_json(view, "why", mfid)
        assert state_of(story) == states[mfid], (mfid, world.history)
        alone = json.loads(world.ask(view, "lineage", mfid, "--superseded", "--format", "json").stdout)
        for node in alone["nodes"]:
            assert node.get("state", "") == states[node["id"]][0], (mfid, node, world.history)
        equal = {one for some in shown["equal_parents"].values() for one in some}
        assert {*shown["parents"], *equal} == {one for one, other in links if other == mfid}, (mfid, world.history)
        assert set(shown["children"]) == {other for one, other in links if one == mfid}, (mfid, world.history)
        redo = world.ask_json(view, "impact", mfid)
        below = _below(mfid, links)
        assert {one["mfid"] for one in redo["redo"]} == {one for one in below if states[one][0] != "superseded"}
        assert set(redo["superseded"]) == {one for one in below if states[one][0] == "superseded"}, world.history


def _below(mfid: str, links: set[tuple[str, str]]) -> set[str]:
    found, waiting = set[str](), [mfid]
    while waiting:
        one = waiting.pop()
        new = {child for parent, child in links if parent == one} - found
        found |= new
        waiting += new
    return found


def _findings(world: World, view: str) -> set[tuple[str, str, str]]:
    verified = world.ask_json(view, "verify", "--project", "lab", codes=(0, 1))["findings"]
    found = {(one["class"], one["severity"], " ".join(one["mfids"])) for one in verified}
    assert not [one for one in found if one[1] == "error" and one[2] not in world.forged], (found, world.history)
    return found


def _require_pages(world: World, every: dict[str, Any]) -> None:
    answer = world.pages.get("/projects/lab/datasets.csv", params={"all": "1"})
    assert answer.status_code == 200, answer.text
    listed = {one["mfid"]: one["state"] for one in csv.DictReader(io.StringIO(answer.text))}
    assert listed, world.history
    assert all(every[mfid]["state"] == state for mfid, state in listed.items()), world.history
    page = world.pages.get("/pipelines").text
    counted = Counter(dataset["state"] for dataset in every.values() if dataset["pipeline"] == "history")
    assert ", ".join(f"{number} {state}" for state, number in sorted(counted.items())) in page, world.history
    for run_id in {one["run_id"] for one in world.ask_json("one", "runs", "--project", "lab")["runs"]}:
        answer = world.pages.get(f"/projects/lab/runs/{run_id}", follow_redirects=True)
        for row in re.findall(r"<tr>.*?</tr>", answer.text, re.DOTALL) if answer.status_code == 200 else ():
            named, word = re.search(r"/datasets/([0-9a-z]{26})", row), re.search(STATES, row)
            if named and word:
                assert every[named[1]]["state"] == word[1], (run_id, named[1], world.history)


def run(world: World, view: str) -> None:
    """Check that a run makes exactly what was planned, and that its results are current unless replaced by hand."""
    before = world.plan(view)
    made = world.ask_json(view, "run", world.pipeline, "--engine", "local", codes=(0, 4))
    executed = set(made["executed"])
    for name, step in before.items():
        if step["state"] in (*EXISTING, "blocked"):
            assert name not in executed, (name, world.history)
        elif None not in step["datasets"].values():
            assert name in executed, (name, step, world.history)
        if step["state"] in EXISTING or (name in executed and None not in step["datasets"].values()):
            assert made["datasets"][name] == step["datasets"], (name, world.history)
    after = world.plan(view)
    there = {name: step["datasets"] for name, step in after.items() if step["state"] in EXISTING}
    assert there == made["datasets"], world.history
    assert {step["state"] for name, step in after.items() if name not in there} <= {"blocked"}, world.history
    every = world.listed(view, "--all")
    for name, outputs in made["datasets"].items():
        for mfid in outputs.values():
            state, by = state_of(every[mfid])
            is_by_hand = bool(by) and world.by_hand.issuperset(by)
            assert state in ("current", "doubtful") or is_by_hand, (name, mfid, state, by, world.history)


def act(world: World, view: str) -> str:
    """Perform a random action and describe it."""
    chance = world.chance
    kind = chance.choice(world.acts)
    every = world.listed(view, "--all")
    current = [dataset for dataset in every.values() if dataset["state"] == "current" and dataset["step"]]
    raw = [dataset for dataset in every.values() if dataset["state"] == "raw"]
    if kind == "value":
        name = chance.choice(list(world.values))
        world.values[name] = chance.choice({"at": [5, 20]}.get(name, [1, 2, 3]))
        return f"{name}={world.values[name]}"
    if kind == "file":
        name = chance.choice(list(world.files))
        world.files[name] = " ".join(str(chance.randrange(9)) for _ in range(2))
        return f"{name}: {world.files[name]}"
    if kind == "new" and len(world.files) < 4:
        name = chance.choice("abcd") + ".txt"
        world.files[name] = str(chance.randrange(9))
        return f"{name}: {world.files[name]}"
    if kind == "no" and len(world.files) > 1:
        name = chance.choice(list(world.files))
        del world.files[name]
        return f"no {name}"
    return _at_crucible(world, view, kind, current, raw)


def _at_crucible(world: World, view: str, kind: str, current: list[Any], raw: list[Any]) -> str:
    """Perform an action by a command and describe it; empty if it is not possible."""
    chance = world.chance
    if kind == "run":
        run(world, view)
        return f"run on {view}"
    if kind in ("force", "only"):
        step = chance.choice(["scaled", "parted", "low", "total"])
        world.ask_json(view, "run", world.pipeline, "--engine", "local", f"--{kind}", step, codes=(0, 1, 4))
        return f"run --{kind} {step} on {view}"
    if kind == "stale" and current:
        world.ask_json(view, "rerun", "--stale", "--project", "lab", codes=(0, 1, 4))
        return f"rerun --stale on {view}"
    if kind == "hand" and current:
        old = chance.choice(current)
        parent = chance.choice(world.ask_json(view, "show", old["mfid"], codes=(0, 1))["parents"])
        path = world.folder / f"hand-{len(world.by_hand)}.txt"
        path.write_text(path.name)
        options = ["--project", "lab", "--parent", parent, "--supersedes", old["mfid"]]
        world.by_hand.add(world.ask_json(view, "register", path, *options)["mfid"])
        return f"{old['mfid']} ({old['step']}) replaced by hand on {view}"
    if kind == "replace" and raw:
        old = chance.choice(raw)
        path = world.folder / f"again-{len(world.history)}.txt"
        path.write_text(" ".join(str(chance.randrange(9)) for _ in range(3)))
        world.ask_json(view, "register", path, "--replaces", old["mfid"])
        return f"{old['mfid']} replaced by {path.name} on {view}"
    if kind in ("hold", "flag") and (raw or current):
        one = chance.choice(raw + current)
        flag = ["--flag", "odd"] if kind == "flag" else []
        world.ask_json(view, "hold", one["mfid"], "--why", "odd", *flag)
        return f"{kind} {one['mfid']} on {view}"
    if kind == "lift":
        held = [statement["mfid"] for statement in _statements(world, view) if statement["verb"] == "hold"]
        if held:
            world.ask_json(view, "lift", held[0])
            return f"lift the hold {held[0]} on {view}"
    if kind == "forge":
        return _forged(world, view)
    return _corrected(world, view, kind, current, raw)


def _statements(world: World, view: str) -> list[Any]:
    listed: list[Any] = world.ask_json(view, "statements", "--project", "lab", codes=(0, 1))["statements"]
    return listed


def _forged(world: World, view: str) -> str:
    """Change a statement as another member may, or hand it over to the other account, and describe it."""
    if not (
        honest := [statement["mfid"] for statement in _statements(world, view) if statement["mfid"] not in world.forged]
    ):
        return ""
    mfid, is_patched = world.chance.choice(honest), len(world.forged) % 2 == 0
    if is_patched:
        with CrucibleClient(*world.views[view][3::2]) as client:
            client.metadata.merge(mfid, {"crucible_lineage": {"recipe": {"why": "changed"}}})
    else:
        with closing(connect(world.folder.parent / "service" / "crucible" / "crucible.db")) as db:
            sql = "UPDATE resource SET owner_id = 3 - owner_id, modified = ? WHERE mfid = ?"
            db.execute(sql, (now(), mfid))
    world.forged.add(mfid)
    return f"{'change' if is_patched else 'hand over'} statement {mfid} on {view}"


def _corrected(world: World, view: str, kind: str, current: list[Any], raw: list[Any]) -> str:
    """Correct a dataset or its links by a command and describe it; empty if there is nothing to correct."""
    chance = world.chance
    if kind == "link" and len(raw + current) > 1:
        parent, child = (one["mfid"] for one in chance.sample(raw + current, 2))
        is_linked = child in world.ask_json(view, "show", parent, codes=(0, 1))["children"]
        if not is_linked and world.ask(view, "set", child, f"parent+={parent}", codes=(0, 2)).exit_code == 0:
            world.linked.append((parent, child))
            return f"link {parent} to {child} on {view}"
    if kind == "unlink" and world.linked:
        parent, child = world.linked.pop()
        world.ask(view, "set", child, f"parent-={parent}")
        return f"unlink {parent} from {child} on {view}"
    if kind == "rename" and raw + current:
        one = chance.choice(raw + current)
        world.ask(view, "set", one["mfid"], f"dataset_name=name {chance.randrange(99)}")
        return f"rename {one['mfid']} on {view}"
    if kind == "set" and raw:
        one = chance.choice(raw)
        world.ask_json(view, "set", one["mfid"], f"metadata.power={chance.randrange(9)}")
        return f"set {one['mfid']} on {view}"
    return ""


@pytest.fixture
def world(tmp_path: Path, begin: Any) -> Iterator[World]:
    """Prepare the machines of two accounts at one service."""
    with served(begin, tmp_path / "service", "--port", 0) as (history, key):
        with CrucibleClient(history["url"], key) as client:
            client.projects.create(project_id="lab", organization="a lab", project_lead="local")
            other = client.account.create("other")
            client.projects.add_member("lab", "other", "editor")
        keys = {"one": key, "two": other.api_key}
        views = {
            name: ["--data", str(tmp_path / name), "--url", history["url"], "--api-key", keys[name]] for name in keys
        }
        url = history["pages"].rstrip("/")
        with httpx.Client(base_url=url, timeout=30) as pages:
            assert pages.post("/sign-in", data={"key": key}, headers={"Origin": url}).status_code == 303
            made = World(tmp_path / "lab", random.Random(SEED), views, pages)
            made.write()
            yield made


@pytest.mark.parametrize("acts", [ACTS_TO_CHOOSE, STATING], ids=["any", "statements"])
def test_every_command_gives_one_answer_after_any_act(world: World, acts: tuple[str, ...]) -> None:
    run(world, "one")
    world.history.append("run on one")
    in_order = acts is STATING and not NIGHTLY
    for number in range(len(acts) if in_order else ACTS):
        world.acts = acts[number : number + 1] if in_order else acts
        view = world.chance.choice(list(world.views))
        history = act(world, view)
        if not history:
            continue
        world.history.append(history)
        world.write()
        if world.chance.random() < 0.5:
            runner = world.chance.choice(list(world.views))
            world.history.append(f"run on {runner}")
            run(world, runner)
        view = world.chance.choice(list(world.views))
        require_one_answer(world, view, tuple(one for one in world.views if one != view))
