"""After every act of random histories, all doors say the same of each dataset.

An act is what people do to one small project at a served Crucible: run, hold, sign, correct, replace, delete, and so
on, also by another account, from a copy of the folder, or with an older copy of the data folder put back.

By day, too, each of nine disagreements of the past is found when put back: plans, pages, ends of runs and the lineage
page by history 0, parameters and sweeps by 1, renamed and copied pipelines by 5, corrections by 16, selections by 19.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from crucible_lineage.ask.assistant import tool_of
from crucible_lineage.ask.question import find_question
from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.notebook.catalogue import connect
from crucible_lineage.pipeline.plan.plan import EXISTING
from tests.nights import NIGHTLY
from tests.page import page_data
from tests.web.conftest import served

# By night, all doors are asked after each act; by day some, and all after the last. Of the night: the first history,
# how many, and the acts of each after a first run.
FIRST, COUNT, MOST_ACTS = map(int, os.environ.get("CRUCIBLE_HISTORIES", "0 300 5").split()) if NIGHTLY else (0, 20, 3)
HISTORIES = range(FIRST, FIRST + COUNT) if NIGHTLY else (0, 1, 5, 16, 19)
ANY = (0, 1, 2, 4)  # exit codes
States = dict[str, str]

STEPS = """
from pathlib import Path

from crucible_lineage import step

@step(measurement="scaled")
def scale(counts: Path, axis: Path, *, factor: int = 2, out: Path) -> dict:
    (out / "scaled.txt").write_text(f"{counts.read_text()} {axis.read_text()} {factor}")
    return {"factor": factor}

@step(measurement="pooled")
def pool(parts: list[Path], *, title: str = "", by: str = "", out: Path) -> dict:
    (out / "pool.txt").write_text(title + "".join(part.read_text() for part in parts))
    return {"count": len(parts)}

def header(path: Path) -> dict:
    return {"power": 1}
"""
MANY = """
pipeline: PIPELINE
project: PROJECT
inputs:
  raw: {file: "data/*.txt", each: true, ingest: false, measurement: counts, instrument_name: Raman 1,
        header: "LABMODULE:header", timestamp: "2026-05-02T12:00:00Z"}
  axis: {calibration: axis, for: raw}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: raw, axis: axis}, output: {ingest: false}}
  total: {uses: "LABMODULE:pool", inputs: {parts: {from: scaled, group_by: []GAPS}}, output: {ingest: false}}
  both: {uses: "LABMODULE:pool", inputs: {parts: total}, matrix: {title: [u, v]},
         params: {by: "on {parts.instrument_name}"}, output: {ingest: false, dataset_name: both}}
  report: {uses: "LABMODULE:pool", inputs: {parts: total}, approve: {count: 1}, output: {ingest: false}}
  last: {uses: "LABMODULE:pool", inputs: {parts: report}, params: {title: x}, output: {ingest: false}}
"""
SELECTS = """
pipeline: selects
project: PROJECT
inputs:
  raw: {select: {measurement: counts}, each: true}
steps:
  seen: {uses: "LABMODULE:pool", inputs: {parts: raw}, output: {ingest: false}}
"""


class Machine:
    """A data folder with an account, from which commands are given as from its shell."""

    def __init__(self, data: Path, url: str, key: str, module: str) -> None:
        self.data, self.url, self.key, self.module, self.code = data, url, key, module, 0

    def __call__(self, *words: object, codes: tuple[int, ...] = (0, 1, 4), text: bool = False) -> Any:
        sys.modules.pop(self.module, None)
        options = ["--data", self.data, "--url", self.url, "--api-key", self.key, *([] if text else ["--json"])]
        found = CliRunner().invoke(main, [*map(str, words), *map(str, options)])
        self.code = found.exit_code
        assert found.exception is None or isinstance(found.exception, SystemExit), (words, found.exc_info)
        assert found.exit_code in codes, (words, found.exit_code, found.output)
        return (found.stdout or found.stderr) if text else json.loads(found.stdout or "{}")


class Project:
    """One small project, what was done to it, and the machine of each of its two people."""

    def __init__(self, folder: Path, name: str, ada: Machine, bob: Machine, browser: httpx.Client, seed: int) -> None:
        self.folder, self.name, self.ada, self.bob, self.browser = folder, name, ada, bob, browser
        self.chance = random.Random(seed)
        self.pipeline, self.gaps, self.tries = "many", "", 0
        self.steps: dict[str, str] = {}
        self.withdrawn, self.some, self.states = set[str](), list[str](), dict[str, str]()
        self.ends: dict[str, str] = {}  # of runs here, by their ids
        (folder / "data").mkdir(parents=True)
        (folder / f"{ada.module}.py").write_text(STEPS)
        for number in range(2):
            (folder / "data" / f"{number}.txt").write_text(f"{name} {number}")
        (folder / "selects.yaml").write_text(self._filled(SELECTS))
        self.do(*self.certificate(ada))
        self.do(*self.declared())

    def do(self, who: Machine, *words: object) -> None:
        """Give a command; note how a run ends, which executes just what the plan has said."""
        planned = who("plan", words[1], codes=ANY).get("steps", ()) if words[0] == "run" else ()
        found = who(*words, codes=ANY)
        executed = found.get("executed", ())
        for step in planned if who.code in (0, 4) and len(words) == 2 else ():
            is_done, is_known = step["state"] in (*EXISTING, "blocked"), None not in step["datasets"].values()
            assert (step["name"] in executed) is (not is_done) or not (is_done or is_known), (words, step)
        if words[0] == "run" and who is self.ada and "run_id" in found:
            self.ends[found["run_id"]] = {0: "complete", 4: "on hold"}.get(who.code, "failed")

    def _filled(self, text: str) -> str:
        for word, value in (("PIPELINE", self.pipeline), ("PROJECT", self.name), ("LABMODULE", self.ada.module)):
            text = text.replace(word, value)
        return text.replace("GAPS", self.gaps)

    def file(self) -> Path:
        """A new small file outside of the inputs."""
        self.tries += 1
        path = self.folder / f"new{self.tries}.txt"
        path.write_text(f"{self.name} new {self.tries}")
        return path

    def new_input(self) -> str:
        """A new file among the inputs."""
        return str(self.file().rename(self.folder / "data" / f"more{self.tries}.txt"))

    def certificate(self, who: Machine) -> tuple[Any, ...]:
        axis = who("register", self.file(), "--project", self.name, "--measurement", "axis")["mfid"]
        of = ("--for", "instrument=Raman 1", "--from", "2026-01-01", "--why", "measured", "--replace")
        return who, "certify", axis, *of

    def replacement(self) -> tuple[Any, ...]:
        """Replace data; the new ones may be of another measurement."""
        new = self.ada("register", self.file(), "--replaces", self.one("raw"), codes=ANY)
        return self.ada, "set", new.get("mfid"), f"measurement={self.chance.choice(('counts', 'other'))}"

    def older_data(self) -> tuple[Any, ...]:
        """Let the data folder be what it was when this was done last."""
        kept = self.ada.data.with_name(f"{self.ada.data.name} kept")
        if kept.exists():
            shutil.rmtree(self.ada.data)
            shutil.move(kept, self.ada.data)
        shutil.copytree(self.ada.data, kept)
        return self.ada, "status"

    def declared(self, **changes: str) -> tuple[Any, ...]:
        """Declare the pipeline as it is now; return the command that runs it."""
        vars(self).update(changes)
        (self.folder / "many.yaml").write_text(self._filled(MANY))
        return self.ada, "run", self.folder / "many.yaml"

    def deletion(self) -> tuple[Any, ...]:
        mfid = self.one()
        self.withdrawn.add(mfid)
        return self.ada, "delete", mfid, "--why", "a twin", "--yes"

    def page(self, address: str) -> str:
        answer = self.browser.get(address)
        assert answer.status_code == 200, (address, answer.text)
        return answer.text

    def one(self, *states: str, results: bool = False) -> str:
        """An id of a dataset in one of these states, or of any."""
        found = [mfid for mfid, state in self.states.items() if not states or state in states]
        found = [mfid for mfid in found if not results or mfid in self.steps]
        return self.chance.choice(sorted(found) or sorted(self.states))


# The doors: what each says, {MFID: state}, of all datasets or of some


def by_list(project: Project) -> States:
    found = project.ada("list", "--project", project.name, "--all")["datasets"]
    project.steps = {one["mfid"]: one["step"] for one in found if one["step"]}
    return states_in(found)


def by_list_of_another_machine(project: Project) -> States:
    return states_in(project.bob("list", "--project", project.name, "--all")["datasets"])


def states_in(entries: Sequence[Mapping[str, str]]) -> States:
    return {entry["mfid"]: entry["state"] for entry in entries}


def by_show_and_why(project: Project) -> States:
    shown = {mfid: project.ada("show", mfid)["state"] for mfid in project.some}
    assert shown == {mfid: project.bob("why", mfid)["state"] for mfid in project.some}, shown
    return shown


def by_table(project: Project) -> States:
    asked = ("table", "--project", project.name, "--step", project.chance.choice(sorted(set(project.steps.values()))))
    states = states_in(project.ada(*asked, "--all")["rows"])
    usual = {mfid for mfid, state in states.items() if state == "current"}
    assert {row["mfid"] for row in project.bob(*asked)["rows"]} == usual
    return states


def by_plan(project: Project) -> States:
    found = project.ada("plan", project.folder / "many.yaml", codes=ANY)
    assert not found.get("differences"), found["differences"]  # a correction is none
    planned = found.get("steps", ())
    existing = [one for one in planned if one["state"] in EXISTING and not any(map(is_elsewhere, one["causes"]))]
    return {mfid: one["state"].replace("fresh", "current") for one in existing for mfid in one["datasets"].values()}


def is_elsewhere(cause: str) -> bool:
    """Return whether a plan says that a result is current under another name of the pipeline, and not yet here."""
    return cause.startswith("current as ")


def by_sweep(project: Project) -> States:
    """What was swept, and what a parameter has of its data, is seen in lists, tables and questions."""
    asked = ("--project", project.name, "--step", "both")
    listed = {one["mfid"]: one for one in project.ada("list", *asked, codes=ANY).get("datasets", ())}
    swept = {mfid: one["swept"] for mfid, one in listed.items()}
    assert set(swept.values()) <= {"title=u", "title=v"}, swept
    table = project.bob("table", *asked, "--field", "params.by", codes=ANY)
    if "rows" in table:
        assert {row["mfid"]: row["swept"] for row in table["rows"]} == swept, (swept, table)
        assert {row["params.by"] for row in table["rows"]} <= {"on Raman 1", None}, table
    if len(swept) > 1:
        said = project.ada("show", "both", "--project", project.name, codes=(2,), text=True)
        assert all(f"{mfid} (both, {one})" in said for mfid, one in swept.items()), (swept, said)
    return states_in([*listed.values()])


def by_select(project: Project) -> States:
    nodes = project.ada("lineage", project.folder / "selects.yaml", codes=(0, 2)).get("nodes", ())
    inputs = {node["id"]: node["state"] for node in nodes if not node.get("step")}
    fitting = project.ada("list", "--project", project.name, "--all", "--where", "measurement == 'counts'")["datasets"]
    usual = {one["mfid"] for one in fitting if one["state"] in ("raw", "current", "doubtful")}
    assert inputs.keys() == usual, (inputs, usual)
    return inputs


def by_lineage(project: Project) -> States:
    nodes = project.ada("lineage", "--project", project.name)["nodes"]
    return {node["id"]: node.get("state", "") for node in nodes if node["entity_type"] == "dataset"}


def by_lineage_of_one(project: Project) -> States:
    """JSON and the page have the same datasets."""
    mfid, page = project.some[0], project.folder / "it.html"
    nodes = project.bob("lineage", mfid)["nodes"]
    project.ada("lineage", mfid, "-o", page, text=True)
    shown: Any = page_data(page.read_text())["nodes"]
    states = dict(zip(shown["id"], shown["state"], strict=True))
    assert states == {node["id"]: node.get("state", "") for node in nodes}, (mfid, states, nodes)
    return states


def by_tree(project: Project) -> States:
    printed = project.ada("lineage", "--project", project.name, "--all", "--superseded", text=True)
    usual = {mfid: "current" if mfid in project.steps else "raw" for mfid in project.states}
    found: States = {}
    for mfid, rest in re.findall(r"([0-9a-z]{26}) (.*)$", printed, re.MULTILINE):
        state = re.search(r" \[(\w+)", rest)
        found.setdefault(mfid, state[1] if state else usual[mfid])
    return found


def by_notebook(project: Project) -> States:
    with connect(project.ada.data, url=project.ada.url, api_key=project.ada.key, project=project.name) as catalogue:
        return {dataset.mfid: dataset.state for dataset in catalogue.find(every=True)}


def by_assistant(project: Project) -> States:
    with connect(project.bob.data, url=project.bob.url, api_key=project.bob.key) as catalogue:
        tool = tool_of(find_question("list"), catalogue.session, project.folder, threading.Lock())
        found: Any = tool(project=project.name, every=True)
        return states_in(found["datasets"])


def by_pages(project: Project) -> States:
    runs = [run["run_id"] for run in project.ada("runs", "--project", project.name)["runs"] if run["made"]]
    asked = ("all=1", f"run={project.chance.choice(runs)}")
    pages = [project.page(f"/projects/{project.name}?{query}") for query in asked]
    rows = [re.findall(r'<code title="(\w{26})">.*?<span class="state \w+">(\w+)<', page, re.DOTALL) for page in pages]
    assert set(rows[1]) <= set(rows[0]), rows
    return dict(rows[0])


def by_status(project: Project) -> States:
    """The status of a pipeline counts what the list has of it, in both its forms, and says how its last run ended."""
    name, asked = project.pipeline, ("--all", "--project", project.name)
    listed = project.ada("list", *asked, "--pipeline", name, codes=(0, 2)).get("datasets", ())
    status = project.ada("status", *asked)["pipelines"]
    counted = {one["pipeline"]: one["states"] for one in status}
    for run in project.ada("runs", "--project", project.name)["runs"]:
        assert run["state"] in (None, project.ends.get(run["run_id"], run["state"])), (run, project.ends)
    for one in status:
        run = one["run"] or {"state": None}  # an older data folder knows no end of a later run
        if run["state"] and (end := project.ends.get(run["run_id"])):
            said = [todo["what"] for todo in one["todo"] if todo["what"].startswith("the last run here is")]
            is_said_by_cause = end == "failed" and not said and one["todo"]
            assert is_said_by_cause or said == ([] if end == "complete" else [f"the last run here is {end}"]), (
                end,
                one,
            )
    assert "side by side" not in project.ada("status", text=True)  # one file declares each, or copies of it do
    assert counted.get(name, {}) == Counter(one["state"] for one in listed), (listed, counted)
    page = project.page(f"/pipelines?project={project.name}")
    shown = re.search(rf'\?pipeline={name}">.*?<td class="wide">([^<]*)</td><td>(?:<p>|<span)', page)
    words = re.findall(r"(\d+) (\w+)", shown[1]) if shown else []
    assert {state: int(count) for count, state in words} == counted.get(name, {}), (page, counted)
    planned = {mfid for mfid, state in by_plan(project).items() if state == "current" == project.states.get(mfid)}
    assert planned <= states_in(listed).keys(), (name, planned, listed)
    return states_in(listed)


DOORS: tuple[Callable[[Project], States], ...] = (
    *(by_list_of_another_machine, by_show_and_why, by_table, by_sweep, by_plan, by_select, by_status, by_lineage),
    *(by_lineage_of_one, by_tree, by_notebook, by_assistant, by_pages),
)


def require_one_standing(project: Project, doors: Sequence[Callable[[Project], States]]) -> None:
    """Raise AssertionError if a door says of a dataset what the list does not."""
    before, project.states = project.states, by_list(project)
    changed = sorted(mfid for mfid, state in project.states.items() if before.get(mfid) != state)
    some = project.chance.sample(changed, min(2, len(changed))) or [project.one()]
    project.some = [*some, *sorted(project.withdrawn)[:1]]
    truth = {**project.states, **dict.fromkeys(project.withdrawn, "withdrawn")}
    for door in doors:
        for mfid, state in door(project).items():
            assert truth.get(mfid) == state, (door.__name__, mfid, truth.get(mfid), state)


# The acts: the command that each ends with, and on which machine. Being refused is an act, too.

ACTS: Mapping[str, Callable[[Project], tuple[Any, ...]]] = {
    "hold": lambda it: (it.ada, "hold", it.one(), "--why", "laser drifted"),
    "hold of another": lambda it: (it.bob, "hold", it.one(), "--why", "seen by another"),
    "flag": lambda it: (it.ada, "hold", it.one(), "--why", "looks odd", "--flag", "odd"),
    "lift": lambda it: (it.ada, "lift", it.one("doubtful")),
    "lift by another": lambda it: (it.bob, "lift", it.one("doubtful")),
    "sign": lambda it: (it.bob, "sign", it.one("candidate")),
    "sign again": lambda it: (it.ada, "sign", it.one("candidate")),
    "run what is selected": lambda it: (it.ada, "run", it.folder / "selects.yaml"),
    "correct": lambda it: (it.ada, "set", it.one(), f"metadata.power={it.chance.randrange(3)}"),
    "correct a header": lambda it: (it.ada, "set", it.one("raw"), f"metadata.power={2 + it.chance.randrange(2)}"),
    "rename a measurement": lambda it: (
        *(it.ada, "set", it.one("raw", "current"), f"measurement={it.chance.choice(('counts', 'axis', 'other'))}"),
    ),
    "link": lambda it: (it.ada, "set", it.one(results=True), f"parent+={it.one('raw')}"),
    "unlink": lambda it: (it.ada, "set", it.one(results=True), f"parent-={it.one('raw')}"),
    "replace": lambda it: it.replacement(),
    "supersede": lambda it: (
        *(it.ada, "register", it.file(), "--parent", it.one("raw"), "--supersedes", it.one(results=True)),
    ),
    "run": lambda it: it.declared(),
    "run of another": lambda it: (it.bob, *it.declared()[1:]),
    "run with another value": lambda it: (*it.declared(), "--set", "scaled.factor=3"),
    "run again": lambda it: (*it.declared(), "--force", it.chance.choice(("scaled", "total"))),
    "add data": lambda it: it.declared(more=it.new_input()),
    "rename the pipeline": lambda it: it.declared(pipeline="few" if it.pipeline == "many" else "many"),
    "allow gaps": lambda it: it.declared(gaps="" if it.gaps else ", gaps: allow"),
    "delete": lambda it: it.deletion(),
    "certify": lambda it: it.certificate(it.chance.choice((it.ada, it.bob))),
    "run in a copy": lambda it: (
        *(it.ada, "run", Path(shutil.copytree(it.folder, f"{it.folder} copied", dirs_exist_ok=True), "many.yaml")),
    ),
    "put an older copy of the data folder back": lambda it: it.older_data(),
}


@pytest.mark.timeout(0)  # 5 histories, by night 300
def test_all_doors_say_the_same_of_each_dataset_after_every_act(begin: Any, tmp_path: Path, lab: Any) -> None:
    with (
        served(begin, tmp_path / "service", "--port", 0) as (printed, key),
        CrucibleClient(printed["url"], key) as client,
        httpx.Client(base_url=printed["pages"].rstrip("/"), timeout=30, verify=False) as browser,
    ):
        browser.post("/sign-in", data={"key": key}, headers={"Origin": printed["pages"].rstrip("/")})
        ask = client._connection.call
        bob: dict[str, Any] = ask("POST", "/service_accounts", "make an account", body={"username": "bob"})
        keys, faults = (key, str(bob["api_key"])), []
        for seed in HISTORIES:
            name = f"lab{seed}"
            client.projects.create(project_id=name, organization="a lab", project_lead="local")
            ask("POST", f"/projects/{name}/users/bob", "add a member", params={"role": "editor"})
            ada, other = (Machine(tmp_path / f"{name} {n}", printed["url"], keys[n], lab.module) for n in (0, 1))
            project = Project(tmp_path / name, name, ada, other, browser, seed)
            require_one_standing(project, ())
            acts = project.chance.choices(list(ACTS), k=MOST_ACTS)
            try:
                for number, act in enumerate(acts, 1):
                    project.do(*ACTS[act](project))
                    is_sample = not NIGHTLY and number < MOST_ACTS
                    require_one_standing(project, random.Random(seed + number).sample(DOORS, 5) if is_sample else DOORS)
            except AssertionError as error:
                faults.append(f"history {seed}: {acts[:number]}: {error}")
        assert not faults, "\n".join(faults)
