"""The examples of docs/api-tasks.md run, sync and async, and name every task; the flow of docs/flows.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.tasks import API_TASKS
from tests.nights import share

DOCS = Path(__file__).parents[2] / "docs"
API = (DOCS / "api-tasks.md").read_text(encoding="utf-8")
DROP_IN = re.findall(r"```python\n(.*?)```", (DOCS / "flows.md").read_text(encoding="utf-8"), re.DOTALL)[0]
FLOW, *FRAGMENTS = re.findall(r"```python\n(.*?)```", API, re.DOTALL)

PROGRAM = """
import asyncio, base64, json, os, sys
from pathlib import Path
from crucible_lineage.tasks import *
FLOW
folder = Path(sys.argv[1])
for name in ("scan.csv", "dark.csv", "flat.csv", "averaged.csv", "notes.txt", "corrected/notes.txt"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x,y\\n1," + str(len(name)) + "\\n")
picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
(folder / "preview.png").write_bytes(base64.b64decode(picture))
BODY
"""


@pytest.mark.parametrize("asynchronous", share([True, False], 2))
def test_the_examples_run(asynchronous: bool, tmp_path: Path, data: Path, prefect: Any) -> None:
    lines = [f"    {line}" for fragment in FRAGMENTS for line in fragment.splitlines()]
    body = "\n".join(["@flow", "def example(raw):", *lines, "    return locals()"])
    run = "raw = take_in(folder / 'scan.csv'); found = example(raw)"
    code = FLOW
    if asynchronous:
        names = "|".join(API_TASKS)
        code, body = (re.sub(rf"(?<![\w.])({names})\(", r"await a\1(", text) for text in (code, body))
        code, body = code.replace("def take_in", "async def take_in"), body.replace("def example", "async def example")
        run = "raw = asyncio.run(take_in(folder / 'scan.csv')); found = asyncio.run(example(raw))"
    code = re.sub(r"from crucible_lineage.tasks import .*", "", code)
    parts = (
        "found['how_many']",
        "found['added']",
        "sorted(found['names'])",
        "found['status']",
        "found['projects']",
        "sorted(str(p.relative_to(folder / 'copies' / raw)) for p in found['paths'])",
        "found['metadata']",
        "found['averaged']",
        "len(found['pictures'])",
        "[d.unique_id for d in found['above']] == [raw]",
        "len(found['samples'])",
    )
    printing = f"print(json.dumps([{', '.join(parts)}]))"
    program = PROGRAM.replace("FLOW", code).replace("BODY", "\n".join([body, run, printing]))
    prefect.environment = {**prefect.environment, "CRUCIBLE_LINEAGE_DATA": str(data)}
    *first, averaged, pictures, linked, samples = prefect.run(program, tmp_path)
    assert first == [
        1,
        ["annealed", "gold"],
        ["dark.csv", "flat.csv", "notes.txt", "scan.csv"],
        "complete",
        ["lab"],
        ["dark.csv", "flat.csv", "scan.csv"],
        {"temperature_K": 301},
    ]
    assert (pictures, linked, samples) == (1, True, 1)
    assert (tmp_path / "lineage.svg").read_text().startswith("<svg")
    with Session(Settings(data)) as session:
        made = session.client.datasets.get(averaged, include_metadata=True)
        assert (made.scientific_metadata or {})["crucible_lineage"]["status"] == "complete"


def test_every_task_has_an_example() -> None:
    assert [name for name in API_TASKS if f"{name}(" not in "".join([FLOW, *FRAGMENTS])] == []


def test_the_flow_on_the_page_runs(tmp_path: Path, data: Path, prefect: Any) -> None:
    path = tmp_path / "pattern.csv"
    path.write_text("counts\n1\n5\n3\n")
    prefect.environment = {**prefect.environment, "CRUCIBLE_LINEAGE_DATA": str(data)}
    program = DROP_IN + "\nimport sys\nprint(process(Path(sys.argv[1])))"
    assert prefect.run(program, path) == 3.0
    with Session(Settings(data)) as session:
        (last,) = session.client.datasets.list(project_id="lab", measurement="X-ray diffraction")
        assert last.dataset_name == "pattern.csv (smooth [5])"
