"""What 10,000 statements cost: no-op, plan and list of one project, with and without them, alternated.

    .venv/bin/python tests/benchmarks/statements.py [STATEMENTS [RUNS]]

All is done by the command line, each time in a process of its own, on an embedded Crucible. The statements are holds on
datasets that are elsewhere, and conditions, so that nothing of the project is on hold; then one of its inputs is, too.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from crucible_lineage.ids import new_mfid
from crucible_lineage.provenance.record import statement_record
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements import HOLD, KEYWORD, MEASUREMENT, About, Statement, statement_id

STEPS = 200
LAB = """
from pathlib import Path
from crucible_lineage import step


@step
def twice(counts: Path, *, out: Path) -> dict:
    (out / "twice.txt").write_text(counts.read_text() * 2)
    return {"length": len(counts.read_text())}
"""
PIPELINE = """
pipeline: many
project: lab
inputs: {counts: {file: "data/*.txt", each: true}}
steps: {twice: {uses: "many_steps:twice", inputs: {counts: counts}}}
"""


def lab(folder: Path) -> Path:
    """A pipeline of many steps."""
    (folder / "data").mkdir(parents=True)
    for number in range(STEPS):
        (folder / "data" / f"{number}.txt").write_text(f"{number}\n")
    (folder / "many_steps.py").write_text(LAB)
    (folder / "many.yaml").write_text(PIPELINE)
    return folder / "many.yaml"


def command(*words: str | Path) -> float:
    """Run a command; return how long it took, in seconds."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "crucible_lineage", *map(str, words)], check=True, capture_output=True, timeout=600
    )
    return time.perf_counter() - began


def state_many(data: Path, count: int) -> None:
    """Register statements through the API."""
    with Session(Settings(data)) as session:
        client, agent = session.client, session.agent

        def one(number: int) -> None:
            if number % 10:
                about = About((new_mfid(),))
            else:
                about = About(instrument=f"lamp {number}", since="2020-01-01T00:00:00+00:00")
            by, when = str(agent["unique_id"]), "2026-11-01T00:00:00+00:00"
            said = Statement("", "lab", HOLD, about, by=by, when=when, why=f"number {number}")
            said = replace(said, mfid=statement_id(said))
            record = {**statement_record(said.recipe(), agent, when).document(), "status": "complete"}
            fields = {"project_id": "lab", "dataset_name": said.why, "measurement": MEASUREMENT}
            body = {**fields, "unique_id": said.mfid}
            client.datasets.create(body, scientific_metadata={"crucible_lineage": record})
            client.datasets.add_keyword(said.mfid, KEYWORD)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(count)))


def main(count: int, runs: int) -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = lab(Path(folder) / "lab")
        without, with_them = Path(folder) / "without", Path(folder) / "with"
        command("run", pipeline, "--engine", "local", "--data", without)
        shutil.copytree(without, with_them)
        began = time.perf_counter()
        state_many(with_them, count)
        print(f"{count} statements registered in {time.perf_counter() - began:.0f} s")
        for data in (without, with_them):
            print(f"first plan, which reads them: {command('plan', pipeline, '--data', data):.2f} s")
            command("list", "--project", "lab", "--data", data)
            command("plan", pipeline, "--force", "twice", "--data", data)
        asked = {
            "no-op": ("run", pipeline, "--engine", "local"),
            "plan, fresh": ("plan", pipeline),
            "plan, all forced": ("plan", pipeline, "--force", "twice"),
            "list": ("list", "--project", "lab"),
            "table": ("table", "--project", "lab", "--step", "twice"),
        }
        for name, words in asked.items():
            took: dict[Path, list[float]] = {without: [], with_them: []}
            for _ in range(runs):
                for data, found in took.items():
                    found.append(command(*words, "--data", data))
            before, after = (statistics.median(found) for found in took.values())
            least = min(took[with_them]) / min(took[without])
            print(
                f"{name}: {before:.3f} s, with statements {after:.3f} s, {after / before:.2f} x (least {least:.2f} x)"
            )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [10_000, 7][len(given) :]))
