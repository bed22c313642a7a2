"""A laboratory that runs by itself while everything in it dies now and then: nothing is lost, nothing is there twice.

`make soak` takes fifteen minutes (`SOAK_SECONDS`); what dies when is drawn from `SOAK_SEED`, which is printed. By night
it lasts some seconds, and always the same dies. By day tests/crash kills each part by itself.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.provenance.record import read_record
from tests.nights import NIGHTLY

SECONDS = float(os.environ.get("SOAK_SECONDS", "8"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
DEPLOYED = ("run-pipeline/soak-new", "run-pipeline/soak-files")
DOWN_S = min(12.0, SECONDS / 2)  # at most, after a part was killed
OUTAGE_S = min(240.0, SECONDS / 4)  # for so long the service goes away once: runs wait for it, or give up
MOST_RUNS = 8  # until a pipeline is at rest
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

pytestmark = [
    pytest.mark.skipif(not NIGHTLY and "SOAK_SECONDS" not in os.environ, reason="CRUCIBLE_NIGHTLY=1, or make soak"),
    pytest.mark.skipif(os.name == "nt", reason="kills process groups"),
    pytest.mark.timeout(SECONDS + 1200),
]


@dataclass
class Chaos:
    """What happens in the laboratory: measurements arrive, and parts of it die. All drawn from one seed."""

    site: Any
    dice: random.Random
    measured: dict[str, list[str]] = field(default_factory=lambda: {"inbox": [], "scans": []})
    happened: Counter[str] = field(default_factory=Counter)

    def go_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for where in self.measured:
            self.measure(where)
        next_arrival = next_fault = time.monotonic() + 3
        outage = end - 2 * seconds / 3
        while (now := time.monotonic()) < end:
            self.site.look_after()
            if now >= next_arrival:
                self.measure(self.dice.choice(["inbox", "inbox", "scans"]))
                next_arrival = now + self.dice.uniform(2, 6)
            if now >= next_fault:
                self.break_something()
                next_fault = now + self.dice.uniform(4, 16)
            if now >= outage:
                self.take_service_away()
                outage = end
            time.sleep(0.2)

    def take_service_away(self) -> None:
        """Nobody answers for minutes, whatever else dies meanwhile; what is made then waits."""
        self.site.service.kill(OUTAGE_S)
        self.site.service.back_at = time.monotonic() + OUTAGE_S  # also if it was down just now
        self.happened["outage"] += 1
        print(f"the service is away for {OUTAGE_S:.1f} s", flush=True)

    def measure(self, where: str) -> None:
        """A file is written into the inbox bit by bit, or stands among the scans at once."""
        texts = self.measured[where]
        number = len(texts) + (1000 if where == "scans" else 0)
        text = f"{number}.{self.dice.randrange(10**6)}"
        path: Path = getattr(self.site, where) / f"{len(texts)}.txt"
        if where == "scans":
            path.with_suffix(".part").write_text(text)
            path.with_suffix(".part").rename(path)
        else:
            with path.open("w") as file:
                file.write(text[:3])
                file.flush()
                time.sleep(0.2)
                file.write(text[3:])
        texts.append(text)

    def break_something(self) -> None:
        kind = self.dice.choices(
            ["worker", "worker alone", "flow run", "service", "server", "watcher"], [4, 2, 3, 3, 2, 2]
        )[0]
        worker = self.dice.choice(self.site.workers)
        down_s = self.dice.uniform(0.5, DOWN_S)
        if kind.startswith("worker"):
            worker.kill(down_s, alone=kind.endswith("alone"))
        elif kind == "flow run":
            for process in worker.running_below:
                process.kill()
        else:
            {"service": self.site.service, "server": self.site.server, "watcher": self.site.watcher}[kind].kill(down_s)
        self.happened[kind] += 1
        print(f"{kind} killed, down for {down_s:.1f} s", flush=True)


def settled(site: Any, measured: dict[str, list[str]]) -> None:
    """Everything is up again, and each pipeline has run once more with nothing left to do for it."""
    for part in site.parts:
        part.back_at = min(part.back_at, time.monotonic())
    site.look_after()
    site.wait()
    _until(site, lambda: registered(site) >= len(measured["inbox"]))
    deployments = {name: site.prefect("GET", f"deployments/name/{name}")["id"] for name in DEPLOYED}
    for deployment in deployments.values():
        site.prefect("PATCH", f"deployments/{deployment}", {"paused": True})
    for run in site.runs():
        if run["state_type"] == "SCHEDULED":  # ticks that nobody was there for
            site.prefect("DELETE", f"flow_runs/{run['id']}")
    for pipeline, deployment in deployments.items():
        for _ in range(MOST_RUNS):
            run = site.prefect("POST", f"deployments/{deployment}/create_flow_run", {})["id"]
            _until(site, lambda run=run: site.prefect("GET", f"flow_runs/{run}")["state_type"] in FINAL)
            state = site.prefect("GET", f"flow_runs/{run}")["state"]
            print(f"{pipeline}: {state['type']} {state['message'][:300]}", flush=True)
            if state["type"] == "COMPLETED":
                break
        assert state["type"] == "COMPLETED", state


def registered(site: Any) -> int:
    """How many of the inbox's files are datasets, whole ones."""
    with site.client() as client:
        found = client.datasets.list(project_id="lab", data_type="raw", limit=None, include_metadata=True)
    records = (read_record(dataset.scientific_metadata) for dataset in found)
    return sum(record is not None and record.is_complete for record in records)


def require_all_once(site: Any, measured: dict[str, list[str]]) -> None:
    """`verify` is clean, and of all that was measured there is each result, once."""
    ways_out = [finding["command"] for finding in findings(site) if finding["class"] == "incomplete"]
    for command in ways_out:  # a total that was begun when there were fewer scans; no later run comes by it again
        print(command, flush=True)
        assert site.command(*command.split()[1:]).returncode == 0, command
    assert findings(site) == []
    with site.client() as client:
        found = client.datasets.list(project_id="lab", limit=None, include_metadata=True)
        raw_files = [file for file in client.files.list() if file.filename.split(".")[0].isdigit()]
    made: Counter[tuple[str, tuple[str, ...]]] = Counter()
    values: dict[str, list[float]] = {"scaled": [], "halved": [], "total": []}
    for dataset in found:
        metadata = dataset.scientific_metadata or {}
        record = read_record(metadata)
        assert record is not None
        if step := record.as_step:
            made[step.step, tuple(sorted(step.parents))] += 1
            values[step.step].append(metadata["value"])
    assert max(made.values()) == 1, "nothing is there twice"
    assert sorted(Counter(file.sha256_hash for file in raw_files).values()) == [1] * len(raw_files)
    inbox = [float(text) for text in measured["inbox"]]
    scans = [float(text) for text in measured["scans"]]
    assert len(raw_files) == len(measured["inbox"]) + len(scans)
    assert sorted(values["halved"]) == sorted(inbox), "nothing is missing"
    assert sorted(values["scaled"]) == sorted([2 * value for value in inbox] + [3 * value for value in scans])
    if scans:
        assert max(values["total"]) == pytest.approx(3 * sum(scans))


def findings(site: Any) -> list[Any]:
    """What `verify` has to say of the project, bytes included."""
    verified = site.command("verify", "--project", "lab", "--bytes", "--json")
    found: list[Any] = json.loads(verified.stdout)["findings"]
    return found


def _until(site: Any, happened: Any, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        site.look_after()
        time.sleep(0.5)


def test_whatever_dies_nothing_is_lost_and_nothing_is_there_twice(site: Any) -> None:
    print(f"\nSOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g}", flush=True)
    chaos = Chaos(site, random.Random(SEED))
    chaos.go_on(SECONDS)
    settled(site, chaos.measured)
    print(f"{dict(chaos.happened)}; measured { ({name: len(t) for name, t in chaos.measured.items()}) }", flush=True)
    print(f"ended by themselves: { ({part.name: part.deaths for part in site.parts}) }", flush=True)
    print(f"flow runs: {dict(Counter(run['state_name'] for run in site.runs()))}", flush=True)
    require_all_once(site, chaos.measured)
