"""Groups downstream of a matrix keep its variants apart; references mean the same everywhere."""

# ruff: noqa: E501 (declarations as a person would write them)
from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.ask.explain import explain
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.table import make_table
from crucible_lineage.errors import InputError
from crucible_lineage.session import Session

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def smooth(spectrum: Path, *, window_nm: int = 1, order: int = 1, out: Path) -> dict:
    (out / "smooth.txt").write_text(str(float(spectrum.read_text()) * window_nm))
    return {}


@step
def mean(spectra: list[Path], *, sample: str = "", out: Path) -> dict:
    values = [float(path.read_text()) for path in spectra]
    (out / "mean.txt").write_text(str(sum(values) / len(values)))
    return {"mean": sum(values) / len(values), "spectra": len(values)}


@step
def show(spectrum: Path, *, out: Path) -> dict:
    (out / "shown.txt").write_text(spectrum.read_text())
    return {}
"""
SWEPT = """
pipeline: swept
project: lab
inputs:
  raw:
    each:
      - {file: s1.txt, metadata: {sample: gold}}
      - {file: s2.txt, metadata: {sample: gold}}
      - {file: s3.txt, metadata: {sample: iron}}
    timestamp: "2024-05-01T12:00:00Z"
    instrument_name: counter A
steps:
  smooth: {uses: "LABMODULE:smooth", inputs: {spectrum: raw}, matrix: {window_nm: [1, 10]}}
  mean: {uses: "LABMODULE:mean", inputs: {spectra: {from: smooth, group_by: metadata.sample}}}
"""


@pytest.fixture
def swept(lab: Any) -> Any:
    lab.file(f"{lab.module}.py", STEPS)
    for number in (1, 2, 3):
        lab.file(f"s{number}.txt", str(number))
    return lab


def test_a_group_downstream_of_a_matrix_has_an_instance_for_each_variant(
    swept: Any, run: Any, text_of: Any, session: Session, planned: Any
) -> None:
    result = run(swept.declare(SWEPT))
    means = {name: text_of(outputs["out"]) for name, outputs in result.datasets.items() if name.startswith("mean")}
    assert means == {
        "mean[gold, window_nm=1]": "1.5",
        "mean[gold, window_nm=10]": "15.0",
        "mean[iron, window_nm=1]": "3.0",
        "mean[iron, window_nm=10]": "30.0",
    }
    assert {step.state for step in planned(swept.pipeline).values()} == {"fresh"}, "each has a slot of its own"
    table = make_table(session, "lab", "mean", fields=["smooth.params.window_nm", "metadata.sample"])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert {(row["metadata.sample"], row["smooth.params.window_nm"], row["mean"]) for row in map(_short, rows)} == {
        ("gold", 1, 1.5), ("gold", 10, 15.0), ("iron", 1, 3.0), ("iron", 10, 30.0)
    }  # fmt: skip
    where = "swept.window_nm > 1 and step == 'mean' and pipeline == 'swept' and state == 'current'"
    listed = list_datasets(session, "lab", where=where).entries
    assert {entry.mfid for entry in listed} == {
        outputs["out"] for name, outputs in result.datasets.items() if "mean" in name and "window_nm=10" in name
    }
    with pytest.raises(InputError, match=r"did you mean 'swept.window_nm'\? there are: .*, swept.window_nm"):
        list_datasets(session, "lab", where="swept.window == 1")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("results."): value for name, value in row.items()}


def test_variants_are_joined_by_across_and_the_plan_shows_it(swept: Any, run: Any, text_of: Any, planned: Any) -> None:
    joined = SWEPT.replace("group_by: metadata.sample", "group_by: metadata.sample, across: window_nm")
    plan = planned(swept.declare(joined))
    assert plan["mean[gold]"].notes == ("spectra: joined across window_nm",)
    result = run(swept.pipeline)
    assert text_of(result.datasets["mean[gold]"]["out"]) == "8.25"
    two = joined.replace("window_nm: [1, 10]}", "window_nm: [1, 10], order: [1, 2]}")
    assert {name for name in planned(swept.declare(two)) if "iron" in name} == {
        "mean[iron, order=1]", "mean[iron, order=2]"
    }  # fmt: skip


def test_steps_after_a_group_of_a_variant_have_its_dimensions(swept: Any, run: Any, text_of: Any) -> None:
    text = SWEPT + '  show: {uses: "LABMODULE:show", inputs: {spectrum: mean}}\n'
    text += '  all: {uses: "LABMODULE:mean", inputs: {spectra: {from: mean, group_by: metadata.sample, across: window_nm}}}\n'
    result = run(swept.declare(text))
    assert result.ok, result.errors
    assert text_of(result.datasets["show[gold, window_nm=10]"]["out"]) == "15.0"
    assert text_of(result.datasets["all[iron]"]["out"]) == "16.5"


NAMED = """
pipeline: named
project: lab
inputs:
  raw:
    each:
      - {file: s1.txt, metadata: {sample: gold, power_mW: 5}}
    timestamp: "2024-05-01T12:00:00Z"
    instrument_name: counter A
steps:
  smooth: {uses: "LABMODULE:smooth", inputs: {spectrum: raw}}
  mean:
    uses: LABMODULE:mean
    inputs: {spectra: smooth}
    params: {sample: "{spectra.metadata.sample}"}
    output:
      dataset_name: "{spectra.metadata.sample} at {spectra.metadata.power_mW:.1f} mW on {spectra.instrument_name}"
      metadata: {set: "{1, 2}"}
"""


def test_a_reference_means_the_same_in_parameters_and_names(swept: Any, run: Any, session: Session) -> None:
    result = run(swept.declare(NAMED))
    assert result.ok, result.errors
    made = session.client.datasets.get(result.datasets["mean"]["out"], include_metadata=True)
    assert made.dataset_name == "gold at 5.0 mW on counter A"
    metadata = made.scientific_metadata
    assert metadata["set"] == "{1, 2}"
    assert metadata["crucible_lineage"]["recipe"]["params"]["sample"] == "gold"


GAPS = """
pipeline: gaps
project: lab
inputs:
  raw:
    each:
      - {file: s1.txt, metadata: {sample: gold}}
      - {file: s2.txt, metadata: {power_mW: 3}}
      - {file: s3.txt, metadata: {sample: gold}}
    timestamp: "2024-05-01T12:00:00Z"
steps:
  labelled: {uses: "LABMODULE:label", inputs: {spectrum: raw}, params: {sample: "{spectrum.metadata.sample}"}}
  mean: {uses: "LABMODULE:mean", inputs: {spectra: {from: labelled, gaps: allow}}}
"""
LABEL = """

@step
def label(spectrum: Path, *, sample: str, out: Path) -> dict:
    (out / "label.txt").write_text(spectrum.read_text())
    return {}
"""


def test_a_summary_with_gaps_uses_existing_parents_and_names_the_missing_ones(
    swept: Any, run: Any, text_of: Any, planned: Any, record_of: Any, session: Session
) -> None:
    swept.file(f"{swept.module}.py", STEPS + LABEL)
    without = GAPS.replace("{from: labelled, gaps: allow}", "labelled")
    assert planned(swept.declare(without))["mean"].state == "blocked"
    plan = planned(swept.declare(GAPS))["mean"]
    gap = "labelled[s2.txt]: parameter 'sample' is {spectrum.metadata.sample}, and s2.txt has none"
    assert plan.notes == (f"without {gap}",)
    result = run(swept.pipeline)
    made = result.datasets["mean"]["out"]
    assert text_of(made) == "2.0"
    assert record_of(made)["activity"]["gaps"] == [gap]
    assert f"made without {gap}" in str(explain(session, made))
    assert f"made without {gap}" in str(result.notes)
    swept.declare(GAPS.replace("power_mW: 3", "sample: iron"))
    assert planned(swept.pipeline)["mean"].state == "stale"
    assert text_of(run(swept.pipeline).datasets["mean"]["out"]) == "2.0"
