"""Five groups on one machine, with two accounts and two workers that share a data folder, while everything dies.

    python tests/soak/groups.py [--seconds 720] [--seed 1]

Prefect keeps its state in PostgreSQL. Workers, their flow runs, the service and Prefect's server are killed at random,
and the service is away for a while, so that results of both accounts wait in the shared data folder. One group has a
file that no step can read. At the end each result is there once, by its group's account; no flow run names what is
another group's; and the last run of each group ends as its own results do, the bad one's alone with 1.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from conftest import Part, answers, free_port, wait_for
from crucible import CrucibleClient

from crucible_lineage.client import CrucibleClient as OurClient

ADMIN = "key-of-the-administrator-of-the-soak"
GROUPS = {"alpha": "svc-a", "beta": "svc-a", "gamma": "svc-a", "delta": "svc-b", "epsilon": "svc-b"}
BAD = "gamma"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
STEPS = """
import time
from pathlib import Path


def scaled(counts: Path, *, out: Path) -> dict:
    time.sleep(0.2)
    value = 2 * float(counts.read_text())
    (out / "scaled.txt").write_text(str(value))
    return {"value": value}
"""
PIPELINE = """
pipeline: night-NAME
project: NAME
defaults: {output: {ingest: false}}
inputs:
  counts: {file: "measured-NAME/*.txt", each: true, optional: true, ingest: false, known_since: "2024-05-01T12:00:00Z"}
steps:
  scaled_NAME: {uses: "group_steps:scaled", inputs: {counts: counts}}
schedule: {interval: 15}
"""


class Site:
    """The machine, its service and its Prefect."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.lab = folder, folder / "lab"
        self.lab.mkdir()
        (self.lab / "group_steps.py").write_text(STEPS)
        for group in GROUPS:
            (self.lab / f"measured-{group}").mkdir()
            (self.lab / f"{group}.yaml").write_text(PIPELINE.replace("NAME", group))
        ports = free_port(), free_port()
        self.url, self.prefect_url = f"http://127.0.0.1:{ports[0]}/api/v3", f"http://127.0.0.1:{ports[1]}/api"
        self.common = {
            **os.environ,
            "HOME": str(folder),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.prefect_url,
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_API_PORT": str(ports[1]),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "CRUCIBLE_API_URL": self.url,
            "CRUCIBLE_LINEAGE_DATA": str(folder / "data"),
        }
        serve = ["crucible_lineage", "serve", "--data", str(folder / "service"), "--port", str(ports[0])]
        self.service = self._part("service", {}, *serve, "--api-key", ADMIN)
        self.server = self._part("prefect", {}, "prefect", "server", "start", "--host", "127.0.0.1")
        self.parts = [self.service, self.server]
        self.keys: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.workers: list[Part] = []

    def _part(self, name: str, more: dict[str, str], *command: str) -> Part:
        return Part(name, command, {**self.common, **more}, self.folder)

    def begin(self) -> None:
        """Service and server answer; accounts, projects, pools, deployments and workers are there."""
        self.look_after()
        self.wait()
        admin = CrucibleClient(api_url=self.url, api_key=ADMIN)
        for account in sorted(set(GROUPS.values())):
            made = admin.service_accounts.create(account)
            self.keys[account], self.ids[account] = made["api_key"], made["unique_id"]
            self.prefect("POST", "work_pools/", {"name": account, "type": "process"})
        for group, account in GROUPS.items():
            with OurClient(self.url, ADMIN) as ours:
                ours.projects.create(project_id=group, organization="local")
            admin.projects.add_user(account, group, role="contributor")
            deployed = self.command(account, "deploy", self.lab / f"{group}.yaml", "--pool", account)
            assert deployed.returncode == 0, deployed.stderr
        for account, key in self.keys.items():
            command = ["prefect", "worker", "start", "--pool", account, "--limit", "2"]
            self.workers.append(self._part(f"worker-{account}", {"CRUCIBLE_API_KEY": key}, *command))
        self.parts += self.workers

    def look_after(self) -> None:
        for part in self.parts:
            part.look_after()

    def wait(self) -> None:
        for part, url in ((self.service, f"{self.url}/health/ready"), (self.server, f"{self.prefect_url}/health")):
            wait_for(lambda url=url: self.look_after() or answers(url), f"{part.name} answers", 300)

    def command(self, account: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """What the command says to the account, in the shared data folder."""
        environment = {**self.common, "CRUCIBLE_API_KEY": self.keys[account]}
        command = [sys.executable, "-m", "crucible_lineage", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.prefect_url}/{path}", json=body, timeout=60)
        assert answer.is_success or (method == "DELETE" and answer.status_code == 404), answer.text
        return answer.json() if answer.content else None

    def runs(self) -> list[Any]:
        found: list[Any] = []
        while page := self.prefect("POST", "flow_runs/filter", {"limit": 200, "offset": len(found)}):
            found += page
        return found

    def close(self) -> None:
        for part in reversed(self.parts):
            part.close()


@contextmanager
def postgres() -> Iterator[str]:
    """Run a database. PostgreSQL refuses to run as root, so then somebody else runs it."""
    initdb = shutil.which("initdb")
    programs = Path(initdb).resolve().parent if initdb else max(Path("/usr/lib/postgresql").glob("*/bin"))
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        account: dict[str, Any] = {}
        if os.getuid() == 0:
            account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(folder, "nobody", "nogroup")
        quiet: dict[str, Any] = {**account, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        data = Path(folder, "data")
        made = ["-D", data, "-U", "prefect", "--auth", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([programs / "initdb", *made], check=True, **quiet)
        options = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F", "-c", "max_connections=80"]
        server = subprocess.Popen([programs / "postgres", *options], **quiet)
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        try:
            wait_for(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL starts")
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown
            server.wait(60)


def go_on(site: Site, dice: random.Random, seconds: float) -> tuple[dict[str, list[float]], Counter[str]]:
    """Measure and kill for so long; return what was measured by each group, and what was killed."""
    measured: dict[str, list[float]] = {group: [] for group in GROUPS}
    happened: Counter[str] = Counter()
    end = time.monotonic() + seconds
    next_file = next_fault = time.monotonic() + 3
    outage, away_s = time.monotonic() + seconds / 3, min(90.0, seconds / 6)
    (site.lab / f"measured-{BAD}" / "bad.txt").write_text("no number")
    while (now := time.monotonic()) < end:
        site.look_after()
        if now >= next_file:
            group = dice.choice(sorted(GROUPS))
            value = float(f"{len(measured[group])}.{dice.randrange(10**6)}")
            path = site.lab / f"measured-{group}" / f"{len(measured[group])}.part"
            path.write_text(str(value))
            path.rename(path.with_suffix(".txt"))
            measured[group].append(value)
            next_file = now + dice.uniform(1, 4)
        if now >= next_fault:
            kind = dice.choices(["worker", "worker alone", "flow runs", "service", "server"], [3, 2, 4, 3, 1])[0]
            down_s, worker = dice.uniform(0.5, 10), dice.choice(site.workers)
            if kind.startswith("worker"):
                worker.kill(down_s, alone=kind.endswith("alone"))
            elif kind == "flow runs":
                for process in worker.running_below:
                    process.kill()
            else:
                {"service": site.service, "server": site.server}[kind].kill(down_s)
            happened[kind] += 1
            next_fault = now + dice.uniform(8, 24)
        if now >= outage:
            site.service.kill(away_s)
            site.service.back_at = time.monotonic() + away_s
            happened["outage"] += 1
            outage = end
        time.sleep(0.2)
    return measured, happened


def settle(site: Site) -> dict[str, str]:
    """Bring all up, and let each group run once more, the bad one first; return the states of these flow runs."""
    for part in site.parts:
        part.back_at = min(part.back_at, time.monotonic())
    site.look_after()
    site.wait()
    deployments = {g: site.prefect("GET", f"deployments/name/run-pipeline/night-{g}")["id"] for g in GROUPS}
    for deployment in deployments.values():
        site.prefect("PATCH", f"deployments/{deployment}", {"paused": True})
    for run in site.runs():
        if run["state_type"] == "SCHEDULED":
            site.prefect("DELETE", f"flow_runs/{run['id']}")
    states: dict[str, str] = {}
    for _ in range(3):  # what another process had in hand when it was killed may take a run more
        for group in sorted(GROUPS, key=lambda one: one != BAD):
            run = site.prefect("POST", f"deployments/{deployments[group]}/create_flow_run", {})["id"]

            def is_final(run: str = run) -> bool:
                site.look_after()
                return site.prefect("GET", f"flow_runs/{run}")["state_type"] in FINAL

            wait_for(is_final, f"the run of {group} ends", 400)
            state = site.prefect("GET", f"flow_runs/{run}")["state"]
            states[group] = state["type"]
            print(f"{group}: {state['type']} {(state['message'] or '')[:200]}", flush=True)
        if all(is_as_wanted(*one) for one in states.items()):
            break
    return states


def is_as_wanted(group: str, state: str) -> bool:
    """Whether the last run of a group ended as its own files let it."""
    return state == ("FAILED" if group == BAD else "COMPLETED")


def judge(site: Site, measured: dict[str, list[float]], states: dict[str, str]) -> list[str]:
    """Return what is not as it has to be."""
    wrong: list[str] = []
    for group, account in GROUPS.items():
        with OurClient(site.url, ADMIN) as ours:
            listed = ours.datasets.list(project_id=group, include_metadata=True, limit=None)
        found = [one.model_dump() for one in listed]
        records = [(one, (one.get("scientific_metadata") or {})) for one in found]
        results = [(one, data) for one, data in records if one.get("data_type") != "fail" and "value" in data]
        values = Counter(data["value"] for _, data in results)
        if values != Counter(2 * value for value in measured[group]):
            wrong.append(f"{group}: {sum(values.values())} results of {len(measured[group])} files")
        for one, data in records:
            by = ((data.get("crucible_lineage") or {}).get("agent") or {}).get("unique_id")
            if {by, one["owner_orcid"]} != {site.ids[account]}:
                wrong.append(f"{group}: {one['unique_id']} says it is by {by} and is {one['owner_orcid']}'s")
        if not is_as_wanted(group, states[group]):
            wrong.append(f"{group}: its last flow run is {states[group]}")
        ran = site.command(account, "run", site.lab / f"{group}.yaml", "--engine", "local")
        if ran.returncode != (group == BAD):
            wrong.append(f"{group}: run exits {ran.returncode}: {ran.stderr[-300:]}")
        verified = site.command(account, "verify", "--project", group, "--bytes")
        if verified.returncode:
            wrong.append(f"{group}: verify exits {verified.returncode}: {verified.stdout[-300:]}")
    for run in site.runs():
        message, name = run["state"]["message"] or "", run["name"]
        own = next((group for group in GROUPS if name.startswith(group)), "")
        if others := [group for group in GROUPS if group != own and own and f"scaled_{group}" in message]:
            wrong.append(f"flow run {name} of {own} names results of {others}: {message[:200]}")
    for part in site.workers:
        log = (site.folder / f"{part.name}.log").read_text(errors="replace")
        own_groups = {group for group, account in GROUPS.items() if part.name.endswith(account)}
        if others := [group for group in GROUPS if group not in own_groups and f"scaled_{group}[" in log]:
            wrong.append(f"the log of {part.name} names results of {others}")
    return wrong


def main() -> None:
    """Run the chaos; exit with 1 if anything is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=720)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="groups-", ignore_cleanup_errors=True) as folder, postgres() as database:
        site = Site(Path(folder), database)
        try:
            site.begin()
            measured, happened = go_on(site, random.Random(given.seed), given.seconds)
            states = settle(site)
            counted = {group: len(values) for group, values in measured.items()}
            print(f"seed {given.seed}, {given.seconds:g} s: {dict(happened)}; measured {counted}", flush=True)
            print(f"flow runs: {dict(Counter(run['state_name'] for run in site.runs()))}", flush=True)
            wrong = judge(site, measured, states)
        finally:
            site.close()
    print("\n".join(wrong) or "each result once, by its account; no group moved by another", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
