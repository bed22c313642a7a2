"""What lineage graphs cost: read, checked, asked and drawn, beside plain networkx and, where it is there, rustworkx.

    python tests/benchmarks/queries/lineage.py [--nodes 100000] [--parents 3] [--many 333334] [--rounds 3]

Each column of measurements is a process of its own. The graph is a project as records say it: each dataset with a
record of some 1,500 bytes and links to a few of the 500 datasets before it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
import multiprocessing
import platform
import random
import resource  # Linux and macOS; nothing else counts a process's peak memory without another dependency
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from crucible_lineage.ids import derive_mfid, mfid_from_bytes

sys.path.append(str(Path(__file__).parents[1]))
from measure import arguments

BEGAN = 1_772_357_400_000  # milliseconds: 2026-03-01, 09:30
CODE = hashlib.sha256(b"reconstruct").hexdigest()
SOURCE = "def reconstruct(scan, *, frame, out):\n" + "    volume[frame] = filtered(frame, scan)\n" * 12
OURS = ("bare", "ours", "copy")
HEAD = "| | CPU, s | peak memory, MiB |\n|---|---|---|"
DRAWN = (30, 300, 3_000, 10_000)


def main() -> None:
    given = arguments(nodes=100_000, parents=3, many=333_334, rounds=3)
    size = f"{given.nodes:,} datasets, {given.parents} parents each"
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}\n\n{size}\n")
    print(HEAD)
    for case in ("bare", "ours", "copy", "networkx", "rustworkx"):
        if case in OURS or importlib.util.find_spec(case):
            for label, value in measured(given.rounds, case, given.nodes, given.parents).items():
                print(f"| {case}: {label} |{value}|")
    print(f"\n{given.many:,} datasets: our graph alone, and with records\n\n{HEAD}")
    for case in ("bare", "copy"):
        for label, value in measured(1, case, given.many, given.parents).items():
            print(f"| {case}: {label} |{value}|")
    print("\n| datasets drawn | SVG, s | SVG, KiB | HTML, s | HTML, KiB | first view, wall s | boxes |")
    print("|---|---|---|---|---|---|---|")
    for nodes in DRAWN:
        cells = measured(1, "drawn", nodes, given.parents)
        print(f"| {nodes:,} | {' | '.join(cells.values())} |")


def measured(rounds: int, case: str, nodes: int, parents: int) -> dict[str, str]:
    """Table cells by label: medians over the rounds."""
    command = [sys.executable, __file__, "--case", case, str(nodes), str(parents)]
    found = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(rounds)]
    if case == "drawn":
        return {label: f"{value:.2f}" if label.endswith("s") else f"{value:.0f}" for label, value in found[0].items()}
    return {
        label: f" {median(one[label][0] for one in found):.2f} | {median(one[label][1] for one in found):.0f} "
        for label in found[0]
    }


class Stopwatch:
    """CPU seconds and peak memory so far, by label."""

    def __init__(self) -> None:
        self.costs: dict[str, tuple[float, float]] = {}

    def run(self, label: str, task: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = task()
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
        self.costs[label] = (seconds, peak)
        return result


def ours(nodes: int, parents: int, *, with_records: bool = True) -> dict[str, tuple[float, float]]:
    """Our own graph, checked and asked: from records, or from the graph endpoint's answer alone."""
    from crucible_lineage.lineage import LineageGraph, check, diff, impact_of_code, impact_of_dataset, impact_of_file

    watch = Stopwatch()
    if with_records:
        listed = list(records(nodes, parents))
        watch.run("the records themselves", lambda: None)
        graph = watch.run("read from records", lambda: LineageGraph.from_records(listed))
    else:
        answer = api_answer(nodes, parents)
        watch.run("the answer itself", lambda: None)
        graph = watch.run("read from the graph endpoint", lambda: LineageGraph.from_api(answer))
    first, *_, last = graph.nodes
    watch.run("all checks", lambda: check(graph))
    watch.run("ancestors of the last", lambda: graph.ancestors(last))
    impact = watch.run("impact of the first", lambda: impact_of_dataset(graph, first))
    watch.run("1,000 chains of it", lambda: [impact.chain(one) for one in impact.ids[-1000:]])
    if with_records:
        watch.run("impact of code", lambda: impact_of_code(graph, CODE))
        watch.run("impact of a file", lambda: impact_of_file(graph, sha256(5).hex()))
        watch.run("difference to itself", lambda: diff(graph, graph))
    return watch.costs


def copy(nodes: int, parents: int) -> dict[str, tuple[float, float]]:
    """The local copy of a project, which another process has written, read for a question."""
    from crucible_lineage.core import tables
    from crucible_lineage.core.sql import LocalDatabase
    from crucible_lineage.lineage import check
    from crucible_lineage.queries.graph.fetch import lineage_of_copies

    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.sqlite"
        writing = multiprocessing.get_context("spawn").Process(target=write_copy, args=(path, nodes, parents))
        writing.start()
        writing.join()
        with closing(LocalDatabase(path, tables.SCHEMA)) as database:
            read = watch.run(
                "the mirror, read", lambda: database.transaction(lambda db: tables.snapshot_of(db, "demo"))
            )
        copies = [read[1]]
        del read
        graph = watch.run("read from its records", lambda: lineage_of_copies(copies)).graph
        copies.clear()
        watch.run("all checks of that", lambda: check(graph))
    return watch.costs


def write_copy(path: Path, nodes: int, parents: int) -> None:
    from crucible_lineage.core import tables
    from crucible_lineage.core.sql import LocalDatabase

    rows = list(map(tables.Row.of, records(nodes, parents)))
    with closing(LocalDatabase(path, tables.SCHEMA)) as database:
        database.transaction(lambda db: tables.store(db, "demo", rows, everything=True))


def plain_networkx(nodes: int, parents: int) -> dict[str, tuple[float, float]]:
    watch = Stopwatch()
    answer = api_answer(nodes, parents)
    watch.run("the answer itself", lambda: None)
    networkx = watch.run("import", lambda: importlib.import_module("networkx"))
    graph = watch.run("read from the graph endpoint", lambda: networkx.node_link_graph(answer, edges="edges"))
    watch.run("is it acyclic", lambda: networkx.is_directed_acyclic_graph(graph))
    watch.run("ancestors of the last", lambda: networkx.ancestors(graph, mfid(nodes - 1)))
    watch.run("descendants of the first", lambda: networkx.descendants(graph, mfid(0)))
    return watch.costs


def plain_rustworkx(nodes: int, parents: int) -> dict[str, tuple[float, float]]:
    watch = Stopwatch()
    answer = api_answer(nodes, parents)
    watch.run("the answer itself", lambda: None)
    rustworkx = watch.run("import", lambda: importlib.import_module("rustworkx"))

    def built() -> Any:
        graph = rustworkx.PyDiGraph()
        numbers = dict(zip((n["id"] for n in answer["nodes"]), graph.add_nodes_from(answer["nodes"]), strict=True))
        graph.add_edges_from([(numbers[e["source"]], numbers[e["target"]], e) for e in answer["edges"]])
        return graph

    graph = watch.run("read from the graph endpoint", built)
    watch.run("is it acyclic", lambda: rustworkx.is_directed_acyclic_graph(graph))
    watch.run("ancestors of the last", lambda: rustworkx.ancestors(graph, nodes - 1))
    watch.run("descendants of the first", lambda: rustworkx.descendants(graph, 0))
    return watch.costs


def drawn(nodes: int, parents: int) -> dict[str, float]:
    """Seconds and KiB of the pictures."""
    from crucible_lineage.lineage import LineageGraph
    from crucible_lineage.lineage.draw.html import render_html
    from crucible_lineage.lineage.draw.svg import render_svg

    graph = LineageGraph.from_records(records(nodes, parents))
    found: dict[str, float] = {}
    for kind, render in (("SVG", render_svg), ("HTML", render_html)):
        began = time.process_time()
        picture = render(graph, list(graph.nodes)[-1])
        found[f"{kind}, s"] = time.process_time() - began
        found[f"{kind}, KiB"] = len(picture.encode()) / 1024
    found |= first_view(picture)
    return found


def first_view(page: str) -> dict[str, float]:
    """Seconds until a browser has drawn the page's boxes, from a file, and how many; NaN where there is no Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        return {"drawn, wall s": math.nan, "boxes": math.nan}
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = Path(folder) / "lineage.html"
        file.write_text(page, encoding="utf-8")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        times = []
        for _ in range(3):
            shown = browser.new_page(viewport={"width": 1400, "height": 800})
            shown.goto(file.as_uri())
            shown.wait_for_selector(".item")
            times.append(shown.evaluate("performance.now()") / 1000)
        boxes = shown.locator(".item").count()
        browser.close()
    return {"drawn, wall s": median(times), "boxes": boxes}


def mfid(number: int) -> str:
    """An id as a clock gives it: a time, and a random end."""
    return mfid_from_bytes((BEGAN + number).to_bytes(6, "big") + b"\x70" + sha256(number)[:9])


def sha256(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def ends(nodes: int, parents: int) -> Iterator[tuple[int, list[int]]]:
    """Each dataset's number with those of its parents."""
    chance = random.Random(7)
    for at in range(nodes):
        yield at, sorted({chance.randrange(max(0, at - 500), at) for _ in range(parents)}) if at else []


def api_answer(nodes: int, parents: int) -> dict[str, Any]:
    """What the graph endpoint would answer."""
    ids = [mfid(number) for number in range(nodes)]
    fields = {"entity_type": "dataset", "project_id": "demo"}
    listed = [{"id": one, "name": f"frame {n}", **fields} for n, one in enumerate(ids)]
    edges = [
        {"source": ids[parent], "target": ids[at], "relationship_type": "is_derived_from"}
        for at, above in ends(nodes, parents)
        for parent in above
    ]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": listed, "edges": edges}


def records(nodes: int, parents: int) -> Iterator[dict[str, Any]]:
    """What the list of datasets would answer, with metadata, provenance and links, as a pipeline leaves them."""
    ids: list[str] = []
    for at, above in ends(nodes, parents):
        files = [{"name": f"volume-{at}.h5", "sha256": sha256(at).hex(), "size": 1_000_000 + at}]
        used = [
            {
                "role": f"input{n}",
                "mfid": ids[p],
                "files": [{"name": f"volume-{p}.h5", "sha256": sha256(p).hex(), "size": 1_000_000 + p}],
            }
            for n, p in enumerate(above)
        ]
        inputs = {
            one["role"]: [{"mfid": one["mfid"], "files": {file["name"]: file["sha256"] for file in one["files"]}}]
            for one in used
        }
        recipe = {"kind": "step", "step": "reconstruct", "output": "out", "code": CODE, "params": {"frame": at}}
        recipe["inputs"] = inputs
        began = datetime.fromtimestamp((BEGAN + at) / 1000, UTC)
        ids.append(derive_mfid(recipe, began))
        link = {"resource_type": "dataset", "direction": "source", "relationship_type": "is_derived_from"}
        yield {
            "unique_id": ids[at],
            "resource_type": "dataset",
            "dataset_name": f"frame {at}",
            "measurement": "tomography",
            "data_type": "volume",
            "project_id": "demo",
            "modification_time": began.isoformat(),
            "timestamp": began.isoformat(),
            "scientific_metadata": {
                "score": int.from_bytes(sha256(at)[:3]) / (1 << 24),
                "crucible_lineage": {
                    "status": "complete",
                    "step": "reconstruct",
                    "recipe": recipe,
                    "used": used,
                    "generated": files,
                    "activity": {
                        "step": "reconstruct",
                        "code": {"fingerprint": CODE, "source": SOURCE},
                        "started": began.isoformat(),
                        "ended": began.isoformat(),
                        "run": {"engine": "local", "run_id": sha256(at // 1000).hex()[:32]},
                    },
                    "software": {"python": "3.12.1", "packages": {"numpy": "2.1.0", "scipy": "1.14.1"}},
                },
            },
            "links": [{"unique_id": ids[p], "name": f"frame {p}", **link} for p in above],
        }


CASES: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "ours": ours,
    "copy": copy,
    "bare": lambda nodes, parents: ours(nodes, parents, with_records=False),
    "networkx": plain_networkx,
    "rustworkx": plain_rustworkx,
    "drawn": drawn,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(CASES[sys.argv[2]](int(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
