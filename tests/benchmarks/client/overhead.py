"""What a registered output costs beside the bare HTTP calls that it needs: calls, and CPU of the client's process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from crucible_lineage.client import CrucibleClient

sys.path.append(str(Path(__file__).parents[1]))
from measure import Place, arguments, embedded_crucible, heading

HERE = Path(__file__).parent

TITLES = {
    "new": "new output of one small file",
    "known": "output that is there already",
    "many": "one of many outputs that are there, looked up in bulk",
}


def main() -> None:
    given = arguments(count=40, rounds=3)
    print(heading())
    numbers = count(step=given.count)
    costs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder, embedded_crucible(Path(folder)) as place:
        with CrucibleClient(place.url, place.api_key) as client:
            parent = client.datasets.create({"project_id": "benchmark", "dataset_name": "counts"}).dsid
        for number in range(given.rounds):
            for who in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
                what = {"parent": parent, "first": next(numbers), "count": given.count}
                for task in ("new", "known"):
                    costs.setdefault((who, task), []).append(cost(who, task, place, what))
        everything = given.rounds * 2 * given.count
        for number in range(given.rounds):
            for who in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
                what = {"parent": parent, "first": 0, "count": 0}
                costs.setdefault((who, "many"), []).append(cost(who, "many", place, what))
    print("\n| | calls | ours, CPU ms | bare calls, CPU ms | ratio |\n|---|---|---|---|---|")
    for task, title in TITLES.items():
        each = everything if task == "many" else given.count
        calls = {who: costs[who, task][0]["calls"] / each for who in ("ours", "bare")}
        ours, bare = (1000 * median(one["cpu_s"] for one in costs[who, task]) / each for who in ("ours", "bare"))
        print(f"| {title} | {calls['ours']:g} | {ours:.2f} | {bare:.2f} | {ours / bare:.2f} |")
        assert calls["ours"] == calls["bare"], f"not the same calls: {calls}"


def cost(who: str, task: str, place: Place, given: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "registered.py"), who, task, place.url, place.api_key, json.dumps(given)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    print(f"  {who} {task}: {found}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
