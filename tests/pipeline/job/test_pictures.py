"""Figures and images that a step returns are files of its result, and its picture."""

from __future__ import annotations

from typing import Any

import matplotlib.font_manager  # noqa: F401 (else the first step on a new machine says that it looks for fonts)
import pytest

from crucible_lineage.session import Session

STEPS = """
import sys
from pathlib import Path

from crucible_lineage import step


def figure_of(values):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot(values)
    return figure


@step
def fitted(counts: Path, *, out: Path) -> dict:
    values = [float(line) for line in counts.read_text().split()]
    (out / "fit.txt").write_text(str(sum(values)))
    return {"fit": figure_of(values), "sum": sum(values)}


@step
def alone(counts: Path, *, out: Path):
    from PIL import Image

    return Image.new("L", (8, 8), 128)


@step(outputs=("low", "high"))
def both(counts: Path, *, low: Path, high: Path) -> dict:
    (low / "low.txt").write_text("1")
    return {"low": {"seen": figure_of([1])}, "high": {"seen": figure_of([2]), "above": 5}}


@step
def twice(counts: Path, *, out: Path) -> dict:
    (out / "fit.png").write_bytes(b"x")
    return {"fit": figure_of([1])}


@step
def shown(counts: Path, *, out: Path) -> None:
    import matplotlib.pyplot as plt

    plt.plot([1, 2])
    plt.show()
    (out / "fit.txt").write_text("1")


@step
def saved(counts: Path, *, out: Path) -> None:
    shown.function(counts, out=out)
    sys.modules["matplotlib.pyplot"].savefig(out / "fit.svg")
"""
PIPELINE = """
pipeline: pictures
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  made: {uses: "LABMODULE:NAME", inputs: {counts: first}}
"""


def made(lab: Any, run: Any, name: str) -> Any:
    lab.file(f"{lab.module}.py", STEPS)
    return run(lab.declare(PIPELINE.replace("NAME", name)))


def files_of(session: Session, mfid: str) -> set[str]:
    return {file.filename for file in session.client.datasets.list_files(mfid)}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("fitted", {"out": ({"fit.txt", "fit.png"}, {"fit": "fit.png", "sum": 6.0})}),
        ("alone", {"out": ({"figure.png"}, {"figure": "figure.png"})}),
        (
            "both",
            {
                "low": ({"low.txt", "seen.png"}, {"seen": "seen.png"}),
                "high": ({"seen.png"}, {"seen": "seen.png", "above": 5}),
            },
        ),
    ],
)
def test_a_returned_figure_is_the_picture_of_the_result(
    lab: Any, run: Any, session: Session, name: str, found: dict[str, tuple[set[str], dict[str, Any]]]
) -> None:
    result = made(lab, run, name)
    assert result.ok, result.errors
    for output, (files, metadata) in found.items():
        mfid = result.datasets["made"][output]
        assert files_of(session, mfid) == files
        assert {
            key: value for key, value in session.client.metadata.get(mfid).items() if "lineage" not in key
        } == metadata
        names = [thumbnail.thumbnail_name for thumbnail in session.client.datasets.get_thumbnails(mfid)]
        assert next(name for name in files if name.endswith(".png")) in names
    assert run(lab.pipeline).executed == []


def test_a_figure_replaces_no_file_of_the_step(lab: Any, run: Any) -> None:
    result = made(lab, run, "twice")
    assert "the figure 'fit' that it returned would replace fit.png, which it has written" in result.errors["made"]


@pytest.mark.parametrize(("name", "noted"), [("shown", ["made"]), ("saved", [])])
def test_a_figure_that_is_shown_and_not_kept_is_noted(
    lab: Any, run: Any, monkeypatch: pytest.MonkeyPatch, name: str, noted: list[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    result = made(lab, run, name)
    assert result.ok, result.errors
    note = "it drew a figure with pyplot and saved no picture; a returned figure is kept, one that is shown is not"
    assert result.notes == dict.fromkeys(noted, note)
