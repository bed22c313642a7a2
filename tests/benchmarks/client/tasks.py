"""Registrations by one client in this process: `tasks.py CLIENT URL KEY COUNT THREADS`; prints their cost as JSON."""

from __future__ import annotations

import json
import resource  # Linux and macOS; nothing else counts a process's peak memory without another dependency
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

FIELDS = {"dataset_name": "calibrated spectrum", "measurement": "Raman", "data_format": "csv"}
METADATA = {f"parameter_{number}": {"value": number / 7, "unit": "nm", "note": "as set"} for number in range(10)}
KEYWORDS = ["calibrated", "raman"]


class Ours:
    """The tasks' verbs by crucible-lineage's client."""

    def __init__(self, url: str, key: str) -> None:
        from crucible_lineage.client import CrucibleClient  # only the client that is measured is imported

        self.client = CrucibleClient(url, key)
        self.register("")  # opens the connection

    def register(self, parent: str) -> str:
        made = self.client.datasets.create(FIELDS, scientific_metadata=METADATA, keywords=KEYWORDS)
        if parent:
            self.client.datasets.link_parent_child(parent, made.dsid)
        return made.dsid


class Official:
    """The same by the official client."""

    def __init__(self, url: str, key: str) -> None:
        from crucible import CrucibleClient
        from crucible.models import Dataset

        self.client = CrucibleClient(url, key)
        self.dataset = Dataset
        self.register("")  # opens the connection

    def register(self, parent: str) -> str:
        made = self.client.datasets.create(self.dataset(**FIELDS), scientific_metadata=METADATA, keywords=KEYWORDS)
        if parent:
            self.client.datasets.link(parent, made["dsid"])
        return str(made["dsid"])


def registrations(client: Any, count: int, threads: int) -> None:
    """`count` datasets, each linked to the one before, by so many threads."""

    def chain(length: int) -> None:
        parent = ""
        for _ in range(length):
            parent = client.register(parent)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(chain, [count // threads] * threads))


def measured(work: Callable[[], None]) -> dict[str, float]:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {
        "wall_s": wall_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "extra_mib": (after.ru_maxrss - before.ru_maxrss) / unit,
    }


if __name__ == "__main__":
    name, url, key, count, threads = sys.argv[1:]
    subject = {"crucible-lineage": Ours, "nano-crucible": Official}[name](url, key)
    print(json.dumps(measured(lambda: registrations(subject, int(count), int(threads)))))
