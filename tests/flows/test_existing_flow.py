"""An existing Prefect flow, changed as the README shows, registers its results."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.provenance.record import read_record
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")

FLOW = """
from pathlib import Path
import sys
from prefect import flow, task

@task
def smooth(spectrum: Path, *, width: int = 3, out: Path) -> Path:
    values = [float(line) for line in spectrum.read_text().split()]
    target = out / "smooth.txt"
    target.write_text("\\n".join(str(sum(values[i:i + width]) / width) for i in range(len(values) - width + 1)))
    return target

@task
def compare(smoothed: Path, spectrum: Path, *, out: Path) -> Path:
    target = out / "difference.txt"
    target.write_text(smoothed.read_text() + "\\n--\\n" + spectrum.read_text())
    return target

@flow
def process(spectrum: Path, out: Path):
    return compare(smooth(spectrum, out=out), spectrum, out=out)

if __name__ == "__main__":
    print(process(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def changed_lines() -> tuple[list[str], list[str]]:
    (diff,) = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    lines = diff.splitlines()
    return [line[1:] for line in lines if line[:1] == "-"], [line[1:] for line in lines if line[:1] == "+"]


@pytest.fixture
def flows(tmp_path: Path) -> tuple[Path, Path]:
    """Return the original flow, and the one after the README's change."""
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(FLOW)
    removed, (imported, decorated) = changed_lines()
    assert removed == []
    text = f"{imported}\n{FLOW}".replace("@flow\n", f"@flow\n{decorated}\n")
    after.write_text(text)
    return before, after


def run(path: Path, prefect: Any, spectrum: Path, out: Path, data: Path) -> str:
    out.mkdir(exist_ok=True)
    ran = prefect.python(path, spectrum, out, CRUCIBLE_LINEAGE_DATA=str(data), HOME=str(data.parent))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.skipif(os.name == "nt", reason="the flow is run by its path on POSIX")
def test_one_line_gives_an_existing_flow_its_lineage(
    flows: tuple[Path, Path], data: Path, tmp_path: Path, prefect: Any
) -> None:
    spectrum = tmp_path / "spectrum.txt"
    spectrum.write_text("1\n2\n6\n3\n")
    before, after = flows
    run(before, prefect, spectrum, tmp_path / "out-before", data)
    assert not data.exists(), "before the change nothing is registered"
    run(after, prefect, spectrum, tmp_path / "out-after", data)
    with Session(Settings(data)) as session:
        named = {d.dataset_name: d.unique_id for d in session.client.datasets.list(project_id="lab", limit=None)}
        assert set(named) == {"spectrum.txt", "spectrum.txt (smooth)", "spectrum.txt (compare)"}
        last = named["spectrum.txt (compare)"]
        parents = {parent.unique_id for parent in session.client.datasets.list_parents(last)}
        assert parents == {named["spectrum.txt"], named["spectrum.txt (smooth)"]}
        record = read_record(session.client.datasets.get(last, include_metadata=True).scientific_metadata)
        assert record is not None
        assert record.activity.run.engine == "prefect"
        assert record.is_complete
    made = json.dumps(named, sort_keys=True)
    run(after, prefect, spectrum, tmp_path / "out-after", data)
    with Session(Settings(data)) as session:
        again = {d.dataset_name: d.unique_id for d in session.client.datasets.list(project_id="lab", limit=None)}
    assert json.dumps(again, sort_keys=True) == made, "run again, nothing is made twice"
