"""Registration by our client and by the official one: create, metadata, two keywords, link. Prints tables of ratios."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parents[1]))
from compare import alternated, compare, cost, far_away
from measure import OFFICIAL, OURS, arguments, embedded_crucible, heading


def main() -> None:
    given = arguments(count=1000, rounds=3, delay_ms=20, delayed_count=160)
    print(heading())
    rates: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as folder, embedded_crucible(Path(folder)) as near:
        task = partial(cost, place=near, count=given.count, threads=1)
        costs = alternated(given.rounds, task)
        compare(f"{given.count} registrations in sequence, embedded Crucible", costs)
        with far_away(near, given.delay_ms) as place:
            for threads in (1, 8):
                task = partial(cost, place=place, count=given.delayed_count, threads=threads)
                costs = alternated(given.rounds, task)
                title = f"{given.delayed_count} registrations, {threads} at once, {given.delay_ms} ms per answer"
                compare(title, costs)
                for client in (OURS, OFFICIAL):
                    rates[client, threads] = given.delayed_count / median(run.wall_s for run in costs[client])
    print(f"\nRegistrations per second, {given.delay_ms} ms per answer\n\n| | 1 at once | 8 at once |\n|---|---|---|")
    for client in (OURS, OFFICIAL):
        print(f"| {client} | {rates[client, 1]:.1f} | {rates[client, 8]:.1f} |")
    print(f"\n8 at once by {OURS} against 1 at once by {OFFICIAL}: {rates[OURS, 8] / rates[OFFICIAL, 1]:.1f} times")


if __name__ == "__main__":
    main()
