"""What drawing a lineage costs: `python tests/benchmarks/queries/lineage.py [--parents 3]`.

The graph is a project as records say it: each dataset with links to a few of the 500 datasets before it.
"""

from __future__ import annotations

import hashlib
import math
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
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
DRAWN = (30, 300, 3_000, 10_000)


def main() -> None:
    given = arguments(parents=3)
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}\n")
    print("| datasets drawn | SVG, s | SVG, KiB | HTML, s | HTML, KiB | first view, wall s | boxes |")
    print("|---|---|---|---|---|---|---|")
    for nodes in DRAWN:
        cells = drawn(nodes, given.parents)
        shown = (f"{value:.2f}" if label.endswith("s") else f"{value:.0f}" for label, value in cells.items())
        print(f"| {nodes:,} | {' | '.join(shown)} |")


def drawn(nodes: int, parents: int) -> dict[str, float]:
    """Seconds and KiB of the pictures."""
    from crucible_lineage.lineage.graph import LineageGraph
    from crucible_lineage.lineage.page import render_html
    from crucible_lineage.lineage.svg import render_svg

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


if __name__ == "__main__":
    main()
