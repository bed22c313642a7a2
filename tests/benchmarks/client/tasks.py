"""One client doing one task in this process: `tasks.py CLIENT TASK URL KEY ARGUMENTS`; prints what it cost as JSON."""

from __future__ import annotations

import json
import resource  # Linux and macOS; nothing else counts a process's peak memory without another dependency
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FIELDS = {"dataset_name": "calibrated spectrum", "measurement": "Raman", "data_format": "csv"}
METADATA = {f"parameter_{number}": {"value": number / 7, "unit": "nm", "note": "as set"} for number in range(10)}
KEYWORDS = ["calibrated", "raman"]


class Ours:
    """The tasks' verbs by crucible-lineage's client."""

    def __init__(self, url: str, key: str) -> None:
        from crucible_lineage.client import CrucibleClient  # only the client that is measured is imported

        self.client = CrucibleClient(url, key)
        self.client.account.whoami()

    def register(self, parent: str) -> str:
        made = self.client.datasets.create(FIELDS, scientific_metadata=METADATA, keywords=KEYWORDS)
        if parent:
            self.client.datasets.link_parent_child(parent, made.dsid)
        return made.dsid

    def upload(self, dataset: str, path: Path) -> None:
        """With the reading that tells whether the file is stale, whose checksums the upload then uses."""
        from crucible_lineage.client import scan_file

        self.client.files.upload(dataset, path, checksums=scan_file(path))

    def download(self, dataset: str, folder: Path) -> None:
        (file,) = self.client.files.list(dataset)
        self.client.files.download(file, folder)


class Official:
    """The same by the official client."""

    def __init__(self, url: str, key: str) -> None:
        from crucible import CrucibleClient
        from crucible.models import Dataset

        self.client = CrucibleClient(url, key)
        self.dataset = Dataset
        self.client.live()

    def register(self, parent: str) -> str:
        made = self.client.datasets.create(self.dataset(**FIELDS), scientific_metadata=METADATA, keywords=KEYWORDS)
        if parent:
            self.client.datasets.link(parent, made["dsid"])
        return str(made["dsid"])

    def upload(self, dataset: str, path: Path) -> None:
        self.client.datasets.add_file(dataset, str(path), skip_ingestion=True)

    def download(self, dataset: str, folder: Path) -> None:
        (file,) = self.client.datasets.list_files(dataset)
        self.client.files.download(dict(file)["mfid"], output_dir=str(folder))


def registrations(client: Any, *, count: int, threads: int) -> None:
    """`count` datasets, each linked to the one before, by so many threads."""

    def chain(length: int) -> None:
        parent = ""
        for _ in range(length):
            parent = client.register(parent)

    run_in(threads, chain, [count // threads] * threads)


def run_in(threads: int, work: Callable[[int], None], shares: Iterable[int]) -> None:
    if threads == 1:
        work(sum(shares))
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, shares))


def upload(client: Any, *, path: str, dataset: str) -> None:
    client.upload(dataset, Path(path))


def download(client: Any, *, dataset: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        client.download(dataset, Path(folder))


def measured(work: Callable[[], None]) -> dict[str, float | int | None]:
    before, read_before, start = resource.getrusage(resource.RUSAGE_SELF), bytes_read(), time.perf_counter()
    work()
    wall_s, after, read_after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF), bytes_read()
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {
        "wall_s": wall_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "extra_mib": (after.ru_maxrss - before.ru_maxrss) / unit,
        "read_bytes": None if read_before is None or read_after is None else read_after - read_before,
    }


def bytes_read() -> int | None:
    """What this process has read from files and sockets so far; None where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


TASKS: dict[str, Callable[..., None]] = {"registrations": registrations, "upload": upload, "download": download}

if __name__ == "__main__":
    name, task, url, key, arguments = sys.argv[1:]
    subject = {"crucible-lineage": Ours, "nano-crucible": Official}[name](url, key)
    print(json.dumps(measured(lambda: TASKS[task](subject, **json.loads(arguments)))))
