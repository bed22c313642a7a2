"""The same pipeline on threads, on processes, on Dask: the same datasets, made where they were to be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind import bind_file
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

RUN = """
import json, os, sys
from crucible_lineage.flows import run_pipeline
from crucible_lineage.pipeline.spec import Runner
from crucible_lineage.tasks import CrucibleConnection
told = {"process": os.getpid()}
if __name__ == "__main__":
    for text in sys.argv[3:]:
        runner = Runner.model_validate(json.loads(text))
        data = os.path.join(sys.argv[2], runner.type)
        state = run_pipeline(sys.argv[1], CrucibleConnection(data=data), runner=runner, return_state=True)
        told[runner.type] = state.result() if state.is_completed() else state.message
    print(json.dumps(told))
"""


def metadata_of(data: Path, datasets: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """What the steps returned, by instance."""
    with Session(Settings(data)) as session:
        return {name: session.client.metadata.get(made["out"]) or {} for name, made in datasets.items()}


def test_threads_processes_and_dask_make_the_same_datasets_each_in_its_own_way(
    many: Any, in_prefect: Any, tmp_path: Path
) -> None:
    text = many.pipeline.read_text().replace(", resources: {press: 1}", "").partition("  broken:")[0]
    runners = [{"type": "threads", "workers": 2}, {"type": "processes", "workers": 2}, {"type": "dask", "workers": 2}]
    ran = in_prefect(RUN, many.declare(text), tmp_path, *map(json.dumps, runners))
    parent = ran.pop("process")
    datasets = {kind: result["datasets"] for kind, result in ran.items()}
    assert datasets["threads"] == datasets["processes"] == datasets["dask"]
    assert all(len(result["executed"]) == 7 for result in ran.values())
    processes = {
        kind: {made["process"] for made in metadata_of(tmp_path / kind, result["datasets"]).values()}
        for kind, result in ran.items()
    }
    assert processes["threads"] == {parent}
    assert parent not in processes["processes"] | processes["dask"]
    assert len(processes["processes"]) == len(processes["dask"]) == 2


class Cluster:
    """A Dask scheduler and two workers, processes of their own; only the second has a press."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "scheduler.json"
        self.processes = [self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)]
        wait_for(file.exists)
        for name, options in (("a", ()), ("b", ("--resources", "press=1"))):
            worker = ("worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard", "--no-nanny", *options)
            self.processes.append(self._start(*worker, LAB_WORKER=name))
        self.address = str(json.loads(file.read_text())["address"])

    def _start(self, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *map(str, arguments)],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()  # workers would wait for their scheduler, to say goodbye
            process.wait()


def wait_for(happened: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (folder := tmp_path / "dask").mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.close()


def test_a_step_goes_to_the_worker_of_a_dask_cluster_that_has_what_it_needs_and_a_failure_comes_back(
    many: Any, data: Path, command: Any, cluster: Cluster, prefect_server: Any
) -> None:
    ran = command(
        "run",
        many.pipeline,
        "--data",
        data,
        "--runner",
        f"dask={cluster.address}",
        "--json",
        **prefect_server.environment,
    )
    assert (ran.returncode, bool(ran.stdout)) == (1, True), ran.stderr
    result = json.loads(ran.stdout)
    assert list(result["errors"]) == ["broken"]
    assert result["errors"]["broken"].startswith("step 'broken' failed: RuntimeError: the lamp was off")
    made = metadata_of(data, result["datasets"])
    assert made.pop("summed")["worker"] == "b"
    assert {part["worker"] for part in made.values()} == {"a", "b"}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("runner: {type: threads, address: tcp://host}", "threads have no address; a dask or ray cluster has"),
        ("runner: {type: dask, adress: tcp://host}", "unknown key 'adress'; did you mean 'address'?"),
        ("runner: {type: dask, address: tcp://host, workers: 3}", "leave `workers` out"),
        ("runner: spark", "Input should be 'threads', 'processes', 'dask' or 'ray'"),
    ],
)
def test_a_runner_that_makes_no_sense_is_a_fault_in_the_declaration(lab: Any, declared: str, said: str) -> None:
    path = lab.declare(lab.pipeline.read_text() + declared + "\n")
    with pytest.raises(InputError) as refused:
        bind_file(path)
    assert said in str(refused.value)


def test_a_runner_and_the_local_engine_exclude_each_other(lab: Any, data: Path, command: Any) -> None:
    ran = command("run", lab.pipeline, "--data", data, "--engine", "local", "--runner", "dask")
    assert ran.returncode == 2
    assert "leave --engine local out" in ran.stderr


def test_a_runner_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from crucible_lineage.flows.runners import task_runner
    from crucible_lineage.pipeline.spec import Runner

    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(InputError, match=r"install crucible-lineage\[ray\]"):
        task_runner(Runner(type="ray"))
