"""The same pipeline on threads, processes, Dask and Ray: the same datasets, made where they were to be made.

By day the settings of runners are looked at, and tests/tasks/test_dropin.py runs a flow on threads and processes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file
from tests.nights import by_night

RUN = """
import json, os, sys
from crucible_lineage.flows import run_pipeline
from crucible_lineage.pipeline.declare.pipeline import Runner
from crucible_lineage.tasks import CrucibleConnection
told = {"process": os.getpid()}
os.environ["PYTHON_OF_RUNNERS"] = "ours"  # or supervisors are forked by another process: steps look above them
if __name__ == "__main__":
    for text in sys.argv[3:]:
        runner = Runner.model_validate(json.loads(text))
        data = os.path.join(sys.argv[2], runner.type)
        # A worker waits for the other one, however slowly that starts.
        os.environ["LAB_MEETS"] = data + "-workers" if runner.workers == 2 else ""
        state = run_pipeline(sys.argv[1], CrucibleConnection(data=data), runner=runner, return_state=True)
        told[runner.type] = state.result() if state.is_completed() else state.message
    print(json.dumps(told))
"""


@by_night("four runners, one after the other")
def test_every_runner_makes_the_same_datasets_each_in_its_own_way(
    many: Any, in_prefect: Any, metadata_of: Any, tmp_path: Path
) -> None:
    text = many.pipeline.read_text().partition("  broken:")[0]
    kinds = ("threads", "processes", "dask", "ray")
    workers = dict.fromkeys(kinds, 2) | {"ray": 1}  # each of Ray's starts for three seconds
    runners = [json.dumps({"type": kind, "workers": workers[kind]}) for kind in kinds]
    ran = in_prefect(RUN, many.declare(text), tmp_path, *runners)
    parent = ran.pop("process")
    datasets = {kind: result["datasets"] for kind, result in ran.items()}
    assert [datasets[kind] for kind in kinds] == [datasets["threads"]] * len(kinds)
    assert all(len(result["executed"]) == 7 for result in ran.values())
    runners_of = {
        kind: {made["runner"] for made in metadata_of(tmp_path / kind, result["datasets"]).values()}
        for kind, result in ran.items()
    }
    assert runners_of["threads"] == {parent}
    assert [len(runners_of[kind] - {parent}) for kind in kinds] == [0, 2, 2, 1]


def test_ray_of_our_own_has_the_workers_that_are_declared_and_no_dashboard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("prefect_ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    from crucible_lineage.flows.runners import task_runner
    from crucible_lineage.pipeline.declare.pipeline import Runner

    runner: Any = task_runner(Runner(type="ray", workers=3), tmp_path)
    assert runner.address is None
    asked = {"num_cpus": 3, "include_dashboard": False, "log_to_driver": False}
    assert {name: runner.init_kwargs.get(name) for name in asked} == asked
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("runner: {type: threads, address: tcp://host}", "threads have no address; only dask and ray clusters"),
        ("runner: {type: dask, address: tcp://host, workers: 3}", "remove `workers`"),
        ("runner: spark", "Input should be 'threads', 'processes', 'dask', 'ray' or 'slurm'"),
    ],
)
def test_a_runner_that_makes_no_sense_is_a_fault_in_the_declaration(lab: Any, declared: str, said: str) -> None:
    path = lab.declare(lab.pipeline.read_text() + declared + "\n")
    with pytest.raises(InputError) as refused:
        bind_file(path)
    assert said in str(refused.value)
