"""`table` over many results: how long it takes, and whether it says what pandas makes of the official client's list.

python tests/benchmarks/queries/table.py [--results 10000]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas
from crucible.client import CrucibleClient
from many_datasets import PROJECT, fill

from crucible_lineage.ask.table import make_table
from crucible_lineage.server import start_server
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

sys.path.append(str(Path(__file__).parents[1]))
from measure import arguments

KEY = "crucible_lineage"
COLUMNS = [
    "params.degree",
    "results.rms_cm1",
    "results.peak_cm1",
    "results.peaks",
    "raw.metadata.power_mW",
    "instrument",
]
WHERE = "params.degree > 2 and results.rms_cm1 < 0.5"
ROUNDS = 3


def main() -> None:
    given = arguments(results=10_000)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        fill(data, 2 * given.results)
        began = time.perf_counter()
        theirs, listed_s = _by_the_official_client(data)
        print(f"{given.results:,} results and as many spectra\n\n| | s |\n|---|---|")
        print(f"| the official client's list, with metadata | {listed_s:.1f} |")
        print(f"| the same as a table by pandas | {time.perf_counter() - began - listed_s:.1f} |")
        print(f"| `table`, the first time, in a process of its own | {_by_the_command(data):.1f} |")
        print(f"| `table` again | {min(_by_the_command(data) for _ in range(ROUNDS)):.1f} |")
        print(f"| `table --where ... --by ...` | {_by_the_command(data, '--where', WHERE, '--by', 'instrument'):.1f} |")
        with Session(Settings(data)) as session:
            ours = make_table(session, PROJECT, "fitted", fields=["raw.metadata.power_mW"])
            again = time.perf_counter()
            some = make_table(session, PROJECT, "fitted", where=WHERE, fields=["raw.metadata.power_mW"])
            print(f"| `catalogue.table(where=...)` again in one process | {time.perf_counter() - again:.1f} |")
        _require_equal(ours, theirs)
        _require_equal(some, theirs[(theirs["params.degree"] > 2) & (theirs["results.rms_cm1"] < 0.5)])
        print(f"\nBoth are equal in {', '.join(COLUMNS)}: {len(ours)} rows, and {len(some)} where {WHERE}")


def _by_the_official_client(data: Path) -> tuple[pandas.DataFrame, float]:
    """What pandas makes of everything that the official client lists, and how long the list took."""
    with start_server(data / "crucible") as server:
        began = time.perf_counter()
        client = CrucibleClient(api_url=server.url, api_key=server.api_key)
        listed = client.datasets.list(project_id=PROJECT, include_metadata=True, limit=1_000_000)
        seconds = time.perf_counter() - began
    raw = {one["unique_id"]: one for one in listed if one["measurement"] == "Raman"}
    rows = []
    for one in listed:
        metadata = one["scientific_metadata"]
        if one["measurement"] != "fitting":
            continue
        (used,) = metadata[KEY]["used"]
        spectrum = raw[used["mfid"]]
        rows.append(
            {
                "mfid": one["unique_id"],
                "params.degree": metadata[KEY]["recipe"]["params"]["degree"],
                **{f"results.{name}": metadata[name] for name in ("rms_cm1", "peak_cm1", "peaks")},
                "raw.metadata.power_mW": spectrum["scientific_metadata"]["power_mW"],
                "instrument": spectrum["instrument_name"],
            }
        )
    return pandas.DataFrame(rows).set_index("mfid").sort_index(), seconds


def _by_the_command(data: Path, *options: str) -> float:
    command = [sys.executable, "-m", "crucible_lineage", "table", "--step", "fitted", "--data", str(data), "--json"]
    began = time.perf_counter()
    ran = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    assert json.loads(ran.stdout)["rows"]
    return seconds


def _require_equal(ours: Any, theirs: pandas.DataFrame) -> None:
    made = pandas.DataFrame(ours.rows, columns=list(ours.columns)).set_index("mfid").sort_index()
    pandas.testing.assert_frame_equal(made[COLUMNS], theirs[COLUMNS])


if __name__ == "__main__":
    main()
