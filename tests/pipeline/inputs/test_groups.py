"""Groups of datasets by fields of their records: one instance each, with shared values as parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session

Run = Callable[..., Any]

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def mean(spectra: list[Path], *, power: float = 0, out: Path) -> dict:
    values = [float(path.read_text()) for path in spectra]
    (out / "mean.txt").write_text(str(sum(values) / len(values)))
    return {"power_mW": power, "repeats": len(values)}


@step
def gather(means: list[Path], *, out: Path) -> dict:
    (out / "all.txt").write_text(" ".join(path.read_text() for path in means))
    return {"rows": len(means)}


@step
def double(spectrum: Path, *, out: Path) -> dict:
    (out / "double.txt").write_text(str(2 * float(spectrum.read_text())))
    return {}


@step
def less(spectrum: Path, mean: Path, *, out: Path) -> dict:
    (out / "less.txt").write_text(str(float(spectrum.read_text()) - float(mean.read_text())))
    return {}
"""
GROUPED = r"""
pipeline: power
project: lab
inputs:
  spectra:
    file: "data/*.txt"
    each: true
    instrument_name: from name '^([AB])_'
    metadata: {power_mW: from name '(\d+)mW'}
steps:
  mean:
    uses: LABMODULE:mean
    inputs: {spectra: {from: spectra, group_by: [instrument_name, metadata.power_mW]}}
    params: {power: "{spectra.metadata.power_mW}"}
"""
HEAD = GROUPED.partition("steps:")[0] + "steps:\n"
MEAN = GROUPED.partition("steps:\n")[2]


@pytest.fixture
def spectra(lab: Any) -> Path:
    """Two instruments, three powers, three repeats."""
    return measured(lab, (1, 5, 20), 3)


def measured(lab: Any, powers: tuple[int, ...], repeats: int) -> Path:
    lab.file(f"{lab.module}.py", STEPS)
    folder: Path = lab.folder / "data"
    folder.mkdir()
    for instrument, offset in (("A", 0), ("B", 1000)):
        for power in powers:
            for repeat in range(1, repeats + 1):
                (folder / f"{instrument}_{power:02d}mW_{repeat}.txt").write_text(f"{offset + power * 10 + repeat}\n")
    return folder


def test_five_repeats_for_each_power_and_instrument_are_fourteen_lines(
    lab: Any, run: Run, session: Session, text_of: Any
) -> None:
    measured(lab, (1, 2, 5, 10, 20), 5)
    text = GROUPED
    text += "  slope: {uses: 'LABMODULE:gather', inputs: {means: {from: mean, group_by: instrument_name}}}\n"
    assert len(text.strip().splitlines()) == 14
    result = run(lab.declare(text))
    assert result.ok
    assert len(result.executed) == 12
    assert text_of(result.datasets["mean[A, 5]"]["out"]) == "53.0"
    assert text_of(result.datasets["slope[B]"]["out"]) == "1013.0 1023.0 1053.0 1103.0 1203.0"
    of_mean = session.client.metadata.get(result.datasets["mean[B, 20]"]["out"])
    assert (of_mean["power_mW"], of_mean["repeats"]) == (20.0, 5)
    (first, *_) = session.client.datasets.list_parents(result.datasets["mean[B, 20]"]["out"])
    raw = session.client.datasets.get(first.unique_id, include_metadata=True)
    assert (raw.instrument_name, raw.scientific_metadata["power_mW"]) == ("B", 20)
    assert run(lab.pipeline).executed == []
    names = {session.client.datasets.get(dataset["out"]).dataset_name for dataset in result.datasets.values()}
    assert len(names) == 12


def test_an_extra_file_joins_its_group_and_a_misnamed_one_stops_only_its_own(lab: Any, spectra: Path, run: Run) -> None:
    text = GROUPED + "  all: {uses: 'LABMODULE:gather', inputs: {means: mean}}\n"
    assert run(lab.declare(text)).ok
    (spectra / "A_01mW_6.txt").write_text("7")
    (spectra / "odd.txt").write_text("7")
    result = run(lab.pipeline)
    assert result.outcomes["mean[A, 1]"] == "executed"
    assert "'odd.txt' does not match '^([AB])_', from which its instrument_name is read" in " ".join(
        result.errors.values()
    )
    assert result.outcomes["mean[B, 1]"] == "reused"
    assert result.outcomes["all"] == "failed"
    (spectra / "odd.txt").unlink()
    assert run(lab.pipeline).executed == ["all"]


def test_each_dataset_is_combined_with_the_result_of_its_group(lab: Any, spectra: Path, run: Run, text_of: Any) -> None:
    text = (
        HEAD
        + "  twice: {uses: 'LABMODULE:double', inputs: {spectrum: spectra}}\n"
        + MEAN.replace("from: spectra", "from: twice")
        + "  less: {uses: 'LABMODULE:less', inputs: {spectrum: twice, mean: mean}}\n"
        + "  all: {uses: 'LABMODULE:gather', inputs: {means: {from: less, group_by: instrument_name}}}\n"
    )
    result = run(lab.declare(text))
    assert result.ok
    assert len(result.executed) == 18 + 6 + 18 + 2
    assert text_of(result.datasets["mean[B, 5]"]["out"]) == "2104.0"
    assert text_of(result.datasets["less[B_05mW_3.txt]"]["out"]) == "2.0"
    assert text_of(result.datasets["all[A]"]["out"]).split() == ["-2.0", "0.0", "2.0"] * 3


def test_a_group_has_the_partner_that_its_datasets_share(lab: Any, spectra: Path, run: Run, text_of: Any) -> None:
    dark = """
  dark:
    each:
      - {file: dark-a.txt, instrument_name: A}
      - {file: dark-b.txt, instrument_name: B}
    timestamp: "2024-05-01T11:00:00Z"
    match: {spectra: instrument_name}
"""
    lab.file("dark-a.txt", "3")
    lab.file("dark-b.txt", "1003")
    head = HEAD.replace("    each: true", "    each: true\n    timestamp: 2024-05-01T12:00:00Z")
    text = head.replace("steps:\n", f"{dark.strip(chr(10))}\nsteps:\n") + MEAN
    text += "  clean: {uses: 'LABMODULE:less', inputs: {spectrum: mean, mean: dark}}\n"
    result = run(lab.declare(text))
    assert result.ok
    assert len(result.executed) == 12
    assert text_of(result.datasets["clean[B, 1]"]["out"]) == "9.0"
    assert text_of(result.datasets["clean[A, 20]"]["out"]) == "199.0"


def test_a_parameter_on_which_the_data_of_a_step_differ_blocks_it(lab: Any, spectra: Path, session: Session) -> None:
    text = GROUPED.replace("group_by: [instrument_name, metadata.power_mW]", "group_by: instrument_name")
    (first, second) = make_plan(bind_file(lab.declare(text), session.store), session).steps
    cause = "parameter 'power' is {spectra.metadata.power_mW}, and they differ: 1, 5, 20; "
    cause += "group by metadata.power_mW"
    assert (first.state, first.causes) == ("blocked", (cause,))
    lab.declare(text.replace("{spectra.metadata.power_mW}", "{spectra.instrument_name}"))
    (first, second) = make_plan(bind_file(lab.pipeline, session.store), session).steps
    assert "parameter 'power' of step 'mean' is 'A'" in first.causes[0]
    assert second.state == "blocked"
