"""How long the pages of `serve` take over a project of many datasets, and whether they find what a plain search finds.

python tests/benchmarks/queries/pages.py [--datasets 20000]
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from many_datasets import PROJECT, fill

from crucible_lineage.client import CrucibleClient

sys.path.append(str(Path(__file__).parents[1]))
from measure import arguments

ROUNDS = 5
PAGES = (
    "/",
    f"/projects/{PROJECT}",
    f"/projects/{PROJECT}?page=300&sort=taken",
    f"/projects/{PROJECT}?where=measurement+%3D%3D+'fitting'&sort=-results.rms_cm1",
    f"/projects/{PROJECT}?q=spectrum+00123",
    f"/projects/{PROJECT}/runs",
    "/datasets",
    "/datasets?q=fitted&sort=-size",
    f"/projects/{PROJECT}/datasets.csv",
)
SEARCHES = (  # query of the page, and whether a dataset fits
    ("q=spectrum+0012", lambda one: "spectrum" in said(one) and "0012" in said(one)),
    ("where=session+%3D%3D+'session+3'", lambda one: one.session_name == "session 3"),
    ("q=raman+2&sort=size", lambda one: "raman" in said(one) and "2" in said(one)),
    ("where=measurement%3D%3D'fitting'&q=0199", lambda one: one.measurement == "fitting" and "0199" in said(one)),
)


def said(one: Any) -> str:
    """What of a dataset words are looked for in; those of the step and pipeline are alike in all results."""
    fields = [one.dataset_name, one.unique_id, one.measurement, one.data_type, one.instrument_name]
    fields += ["fitted", "fits"] if one.measurement == "fitting" else []
    return " ".join(filter(None, fields)).casefold()


def main() -> None:
    given = arguments(datasets=20_000)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        fill(data, given.datasets)
        with _served(data) as (browser, client):
            began = time.perf_counter()
            _seconds(browser, f"/projects/{PROJECT}")
            print(f"first look: {time.perf_counter() - began:.1f} s, and of all projects: ", end="", flush=True)
            began = time.perf_counter()
            _seconds(browser, "/datasets")
            print(f"{time.perf_counter() - began:.1f} s\n\n| page | s, the slowest of {ROUNDS} |\n|---|---|")
            for path in PAGES:
                print(f"| `{path}` | {max(_seconds(browser, path) for _ in range(ROUNDS)):.2f} |", flush=True)
            everything = list(client.datasets.iter(project_id=PROJECT))
            for query, fits in SEARCHES:
                text = browser.get(f"/projects/{PROJECT}/datasets.csv?all=1&{query}").text
                rows = list(csv.DictReader(io.StringIO(text)))
                expected = {one.unique_id for one in everything if fits(one)}
                assert {row["mfid"] for row in rows} == expected, query
                print(f"\n`{query}` finds the {len(expected)} of a plain search")


def _seconds(browser: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    answer = browser.get(path)
    assert answer.status_code == 200, path
    return time.perf_counter() - began


@contextmanager
def _served(data: Path) -> Iterator[tuple[httpx.Client, CrucibleClient]]:
    command = [sys.executable, "-m", "crucible_lineage", "serve", "--data", str(data), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        site, key = told["pages"].rstrip("/"), (data / "crucible" / "api_key").read_text().strip()
        with httpx.Client(base_url=site, timeout=120) as browser, CrucibleClient(told["url"], key) as client:
            browser.post("/sign-in", data={"key": key}, headers={"Origin": site})
            yield browser, client
    finally:
        process.terminate()
        process.communicate(timeout=20)


if __name__ == "__main__":
    main()
