"""Steps called in a Python flow give the ids of the declaration; values of the run cross to other processes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run

TABLE = """
from pathlib import Path

from crucible_lineage import step


@step
def table(values: list[Path], *, out: Path) -> dict:
    (out / "table.txt").write_text(" ".join(path.read_text() for path in values))
    return {"rows": len(values)}
"""

PIPELINE = """
pipeline: counting
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
  second: {file: second.txt, timestamp: "2024-05-01T12:05:00Z"}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, matrix: {factor: [2, 3]}}
  halves: {uses: "LABMODULE:split", inputs: {counts: second}, params: {at: 5}}
  one: {uses: "LABMODULE:scale", inputs: {counts: halves.high}}
  all: {uses: "LABMODULE_table:table", inputs: {values: [scaled, one]}}
"""

# In a process of its own, since Prefect reads its settings once.
FLOW = """
import json, sys
from pathlib import Path

from prefect import flow

folder, module, data = sys.argv[1:]
sys.path.append(folder)
steps, tables = __import__(module), __import__(module + "_table")

from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection, registering

crucible = CrucibleConnection(data=data)

@flow
@registering("lab", crucible=crucible)
def counting(first: Path, second: Path):
    scaled = [steps.scale(first, factor=factor) for factor in (2, 3.0)]
    halves = steps.split(second, at=5)
    one = steps.scale(halves["high"])
    return {"one": one.mfid, "halves": halves["low"].mfid, "all": tables.table([*scaled, one]).mfid}

made = counting(Path(folder, "first.txt"), Path(folder, "second.txt"))
state = run_pipeline(folder + "/pipeline.yaml", crucible, {"one.factor": 7}, return_state=True)
print(json.dumps({"made": made, "run": state.result()}))
"""


def test_steps_called_in_a_flow_give_the_ids_of_the_declaration(lab: Any, data: Path, prefect: Any) -> None:
    lab.file(f"{lab.module}_table.py", TABLE)
    lab.declare(PIPELINE)
    with Session(Settings(data)) as session:
        first = run(session, lab.pipeline)
        assert first.ok, first.errors
        known = {dataset.unique_id for dataset in session.client.datasets.list(project_id="lab", limit=None)}
    answer = prefect.run(FLOW, lab.folder, lab.module, data)
    assert answer["made"] == {
        "one": first.datasets["one"]["out"],
        "halves": first.datasets["halves"]["low"],
        "all": first.datasets["all"]["out"],
    }, "called in a flow"
    assert answer["run"]["executed"] == ["one", "all"], "with another value for this run, only what depends on it"
    with Session(Settings(data)) as session:
        now = {dataset.unique_id for dataset in session.client.datasets.list(project_id="lab", limit=None)}
        assert now - known == {answer["run"]["datasets"][step]["out"] for step in ("one", "all")}
        (step_plan,) = (s for s in make_plan(bind_file(lab.pipeline), session).steps if s.name == "one")
        assert step_plan.exists, "the declaration's own value was made before and is still there"
        assert "a run makes it current" in step_plan.causes[0], "the other value has its place"


FACTS = """
from pathlib import Path

from crucible_lineage import Facts, step


@step
def power(counts: Path, *, facts: Facts, out: Path) -> dict:
    found = facts.one("counts").metadata["power_mW"]
    (out / "power.txt").write_text(str(found))
    return {"power_mW": 2 * found}
"""
GIVEN_FACTS = """
pipeline: powers
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z", metadata: {power_mW: 5}}
steps:
  power: {uses: "LABMODULE_facts:power", inputs: {counts: first}}
  again: {uses: "LABMODULE_facts:power", inputs: {counts: power}}
"""
RUN = """
import json, sys

from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection

state = run_pipeline(sys.argv[1], CrucibleConnection(data=sys.argv[2]), return_state=True)
print(json.dumps(state.result()))
"""


def test_facts_about_parents_cross_to_whoever_makes_the_step(
    lab: Any, data: Path, tmp_path: Path, prefect: Any
) -> None:
    lab.file(f"{lab.module}_facts.py", FACTS)
    lab.declare(GIVEN_FACTS)
    with Session(Settings(data)) as session:
        here = run(session, lab.pipeline)
        assert here.ok, here.errors
    ran = prefect.run(RUN, lab.pipeline, tmp_path / "other")
    assert ran["datasets"] == {k: dict(v) for k, v in here.datasets.items()}
