"""Fields of records that a function or the ingestors read from files, and groups by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.session import Session

Run = Callable[..., Any]


HEADER = """
from pathlib import Path

from crucible_lineage import step


@step
def gather(means: list[Path], *, out: Path) -> dict:
    (out / "all.txt").write_text(" ".join(path.read_text() for path in means))
    return {"rows": len(means)}


def header(path: Path) -> dict:
    first, *_ = path.read_text().splitlines()
    with open(Path(__file__).with_name("headers-read"), "a") as calls:
        calls.write(path.name + " ")
    if not first.startswith("#"):
        raise ValueError("there is no header")
    instrument, power = first[1:].split()
    return {"instrument_name": instrument, "power_mW": float(power), "timestamp": "2024-05-01T12:00:00+00:00"}


@step
def rows(spectra: list[Path], *, power: float = 0, out: Path) -> dict:
    (out / "rows.txt").write_text(str(len(spectra)))
    return {"power_mW": power}
"""


def test_a_function_reads_fields_from_files(lab: Any, run: Run, session: Session) -> None:
    lab.file(f"{lab.module}.py", HEADER)
    for number, head in enumerate(("#A 5", "#A 5", "#B 10", "none")):
        lab.file(f"t{number}.txt", f"{head}\n{number}\n")
    text = """
    pipeline: headers
    project: lab
    inputs:
      spectra: {file: "t?.txt", each: true, header: "LABMODULE:header"}
    steps:
      rows:
        uses: LABMODULE:rows
        inputs: {spectra: {from: spectra, group_by: [instrument_name, metadata.power_mW]}}
        params: {power: "{spectra.metadata.power_mW}"}
    """
    result = run(lab.declare(text))
    assert result.outcomes == {
        "rows[A, 5]": "executed",
        "rows[B, 10]": "executed",
        "rows[without instrument_name]": "failed",
    }
    error = result.errors["rows[without instrument_name]"]
    assert f"{lab.module}:header cannot read t3.txt: ValueError: there is no header" in error
    raw = session.client.datasets.get(result.inputs["spectra"][0], include_metadata=True)
    assert (raw.instrument_name, raw.scientific_metadata["power_mW"]) == ("A", 5.0)
    assert raw.timestamp.startswith("2024-05-01T12:00:00")
    assert (lab.folder / "headers-read").read_text().split().count("t0.txt") == 1
    lab.file(f"{lab.module}_ours.py", "def header(path):\n    return {'crucible_lineage': 1}\n")
    errors = run(lab.declare(text.replace("LABMODULE:header", f"{lab.module}_ours:header"))).errors.values()
    assert any("gives 'crucible_lineage' for t0.txt, which is reserved" in line for line in errors), errors
    with pytest.raises(InputError, match="has no function 'heade'; did you mean 'header'"):
        bind_file(lab.declare(text.replace("LABMODULE:header", "LABMODULE:heade")))


def test_new_files_are_grouped_by_fields_that_ingestors_read(lab: Any, run: Run, session: Session) -> None:
    lab.file(f"{lab.module}.py", HEADER)
    for number, lines in enumerate((2, 2, 3)):
        lab.file(f"t{number}.csv", "x,y\n" + "".join(f"{number}{line},2\n" for line in range(lines)))
    lab.file("t9.bin", "no ingestor reads this")
    text = """
    pipeline: read
    project: lab
    inputs:
      spectra: {file: "t*", each: true, header: ingested, timestamp: "2024-05-01T12:00:00Z"}
    steps:
      all:
        uses: LABMODULE:gather
        inputs: {means: {from: spectra, group_by: metadata.table.rows}}
    """
    result = run(lab.declare(text))
    assert {name: outcome for name, outcome in result.outcomes.items() if outcome == "executed"} == {
        "all[2]": "executed",
        "all[3]": "executed",
    }
    assert "no ingestor reads files like t9.bin" in " ".join(result.errors.values())
    mfid = next(
        mfid for mfid in result.inputs["spectra"] if "t2" in (session.client.datasets.get(mfid).dataset_name or "")
    )
    assert session.client.metadata.get(mfid)["table"]["rows"] == 3
    (lab.folder / "t9.bin").unlink()
    assert run(lab.pipeline).executed == []
