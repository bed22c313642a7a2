"""`table --over-time`: a number over the time of measurement, with robust limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from crucible_lineage.ask.table import make_table
from crucible_lineage.errors import InputError
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import state
from tests.runs import run as run_file

VALUES = (1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 9.0)


@pytest.fixture
def measured(lab: Any, session: Session) -> Session:
    """Make seven totals, a day apart, of which the last is far off; the code changes before the fifth."""
    entries = []
    for day, value in enumerate(VALUES, 1):
        lab.file(f"day{day}.txt", f"{value}\n")
        entries.append(f'{{file: day{day}.txt, timestamp: "2024-05-{day:02}T00:00:00Z", instrument_name: lamp}}')
    text = (
        "pipeline: days\nproject: lab\ninputs:\n  counts: {each: [ENTRIES]}\nsteps:\n"
        "  mean: {uses: LABMODULE:add, inputs: {left: counts, right: counts}}\n"
    )
    for some in (entries[:4], entries):
        run(session, lab.declare(text.replace("ENTRIES", ", ".join(some)), "days.yaml"))
    return session


def run(session: Session, path: Path) -> None:
    result = run_file(session, path)
    assert result.ok, result.errors


def test_limits_are_robust_and_the_last_value_gives_an_alarm(measured: Session) -> None:
    (series,) = make_table(measured, "lab", "mean", over_time="results.total", by=["instrument"]).series
    assert (series.label, series.median, series.alarm) == ("lamp", 2.0, True)
    assert [point.value for point in series.points] == [2 * value for value in VALUES]
    assert [point.beyond for point in series.points] == [False] * 6 + [True]
    assert series.low is not None
    assert series.low < 1.8


def test_doubtful_results_do_not_affect_limits(measured: Session) -> None:
    subject = About(instrument="lamp", since="2024-05-07T00:00:00+00:00")
    state(measured, "lab", HOLD, subject, why="lamp changed")
    (series,) = make_table(measured, "lab", "mean", over_time="results.total").series
    assert [point.doubtful for point in series.points] == [False] * 6 + [True]


def test_the_command_writes_a_picture_and_fails_on_an_alarm(measured: Session, tmp_path: Path, command: Any) -> None:
    picture = tmp_path / "it.svg"
    data = measured.settings.data
    words = ("table", "--step", "mean", "--over-time", "results.total", "--project", "lab", "--data", data)
    ran = command(*words, "-o", picture)
    assert ran.returncode == 1, ran.stderr
    assert "the last value, 18, is beyond the limits" in ran.stdout
    assert len(ElementTree.parse(picture).getroot().findall(".//{http://www.w3.org/2000/svg}circle")) == 7
    printed = json.loads(command(*words, "--json").stdout)
    assert printed["series"][0]["alarm"] is True
    assert [row["results.total"] for row in printed["rows"]] == [2 * value for value in VALUES]
    assert command(*words, "-o", tmp_path / "it.pdf").returncode == 2


def test_an_unknown_step_or_column_is_refused(measured: Session) -> None:
    with pytest.raises(InputError, match="none of 7 results has both this number and a time"):
        make_table(measured, "lab", "mean", over_time="results.nothing")
    with pytest.raises(InputError, match="project 'lab' has no dataset of this step"):
        make_table(measured, "lab", "median", over_time="results.total")
