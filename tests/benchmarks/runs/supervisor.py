"""What it costs that a command is watched over: processes started plainly and under a supervisor, in turns.

    python tests/benchmarks/runs/supervisor.py [ROUNDS]

Prints a line of JSON: medians in milliseconds of a command that does nothing, with and without, and of a Python that
imports nothing; and the ratio of the two for a command that takes half a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from crucible_lineage.pipeline.processes.supervised import Supervised

COMMANDS = {"true": ["true"], "python": [sys.executable, "-c", "pass"], "half a second": ["sleep", "0.5"]}


def plain(command: list[str]) -> None:
    """As `subprocess` does it, with its output read."""
    subprocess.run(command, check=True, capture_output=True, start_new_session=True)


def supervised(command: list[str]) -> None:
    """As steps are run."""
    process = Supervised(command, lambda data: None, "bench")
    process.finish()
    process.wait()
    assert process.code == 0


def milliseconds(run: Callable[[list[str]], None], command: list[str]) -> float:
    """How long one took."""
    began = time.perf_counter()
    run(command)
    return (time.perf_counter() - began) * 1000


def main(rounds: int) -> None:
    """Both ways in turns, so that a busy machine slows both."""
    found = {}
    for name, command in COMMANDS.items():
        times: dict[Callable[[list[str]], None], list[float]] = {plain: [], supervised: []}
        for _ in range(rounds):
            for run, taken in times.items():
                taken.append(milliseconds(run, command))
        alone, watched = (statistics.median(taken) for taken in times.values())
        found[name] = {
            "plain_ms": round(alone, 1),
            "supervised_ms": round(watched, 1),
            "ratio": round(watched / alone, 2),
        }
    print(json.dumps({"rounds": rounds, "commands": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
