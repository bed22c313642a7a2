"""A task done by our client and by the official one, each in a process of its own: measured, and printed as a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import OFFICIAL, OURS, Place, serving

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cost:
    """What a task took: seconds by the clock, seconds of CPU, and memory beyond that of the idle client."""

    wall_s: float
    cpu_s: float
    extra_mib: float


@contextmanager
def far_away(place: Place, delay_ms: int) -> Iterator[Place]:
    """The same Crucible behind a proxy that takes its time for every answer."""
    proxy = [sys.executable, str(HERE.parent / "runs" / "far_away.py")]
    with serving([*proxy, place.url, str(delay_ms), os.devnull]) as url:
        yield Place(url, place.api_key)


def cost(client: str, place: Place, count: int, threads: int) -> Cost:
    """What so many registrations cost when `client` makes them in so many threads."""
    command = [sys.executable, str(HERE / "tasks.py"), client, place.url, place.api_key, str(count), str(threads)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(ran.stdout.splitlines()[-1]))


def alternated(rounds: int, task: Callable[[str], Cost]) -> dict[str, list[Cost]]:
    """The costs by client, each round in the other order."""
    costs: dict[str, list[Cost]] = {OURS: [], OFFICIAL: []}
    for number in range(rounds):
        for client in (OURS, OFFICIAL) if number % 2 == 0 else (OFFICIAL, OURS):
            costs[client].append(task(client))
            print(f"  {client}: {costs[client][-1]}", file=sys.stderr)
    return costs


def compare(title: str, costs: Mapping[str, Sequence[Cost]]) -> None:
    """Prints a table: medians of both clients and ours as a share of the other's."""
    print(f"\n{title}\n\n| | {OURS} | {OFFICIAL} | ratio |\n|---|---|---|---|")
    for label, part in (("wall, s", "wall_s"), ("CPU, s", "cpu_s"), ("memory beyond idle, MiB", "extra_mib")):
        ours, other = (median(getattr(one, part) for one in costs[client]) for client in (OURS, OFFICIAL))
        print(f"| {label} | {ours:.2f} | {other:.2f} | {f'{ours / other:.2f}' if other else ''} |")
