"""The time of a measurement is shown, compared and inherited only if it is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.ask.impact import instrument_impact
from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.lineage.page import render_html
from crucible_lineage.session import Session
from crucible_lineage.text.times import measured_at, utc
from tests.page import page_data

TIMES = """
pipeline: times
project: lab
inputs:
  then: {file: first.txt, timestamp: "2024-05-01T12:00:00Z", instrument_name: counter}
  since: {file: second.txt, timestamp: "since 2020-02-02T00:00:00Z", instrument_name: counter}
steps:
  timed: {uses: "LABMODULE:scale", inputs: {counts: then}}
  untimed: {uses: "LABMODULE:scale", inputs: {counts: since}, output: {dataset_name: "of {counts.timestamp}"}}
  after: {uses: "LABMODULE:scale", inputs: {counts: untimed}}
  both: {uses: "LABMODULE:add", inputs: {left: timed, right: untimed}}
"""


@pytest.fixture
def made(lab: Any, run: Callable[..., Any]) -> dict[str, str]:
    ran = run(lab.declare(TIMES, "times.yaml"))
    assert ran.ok, ran.errors
    ids = {name: mfids[0] for name, mfids in ran.inputs.items()}
    return ids | {step: outputs["out"] for step, outputs in ran.datasets.items()}


def test_a_time_is_inherited_if_it_is_known_of_all_source_data(made: dict[str, str], session: Session) -> None:
    found = {name: measured_at(session.client.datasets.get(mfid).model_dump()) for name, mfid in made.items()}
    moment = utc("2024-05-01T12:00:00Z")
    assert found == {
        "then": moment, "timed": moment, "since": None, "untimed": None, "after": None, "both": None,
    }  # fmt: skip


def test_a_time_of_registration_is_not_shown_as_a_time_of_measurement(made: dict[str, str], session: Session) -> None:
    assert session.client.datasets.get(made["untimed"]).dataset_name == "of time not known"
    graph = fetch_lineage(session, made["after"])
    shown = page_data(render_html(graph))
    details = zip(shown["nodes"]["id"], shown["details"], strict=True)
    timestamps = {mfid: detail["record"]["Taken"] for mfid, detail in details if detail}
    assert timestamps[made["since"]] == timestamps[made["after"]] == "not known"
    assert "2020-02-02" not in json.dumps(timestamps)


def test_data_of_unknown_time_count_and_are_named(
    made: dict[str, str], session: Session, cli: Callable[..., Any]
) -> None:
    late = instrument_impact(session, "counter", ["lab"], since=utc("2024-06-01"))
    assert set(late.impact.ids) == {made["untimed"], made["after"], made["both"]}
    assert late.untimed == (made["since"],)
    early = instrument_impact(session, "counter", ["lab"], until=utc("2024-06-01"))
    assert set(early.impact.ids) == {made["timed"], made["untimed"], made["after"], made["both"]}
    asked = ("impact", "--instrument", "counter", "--since", "2024-06-01", "--project", "lab")
    assert "1 dataset was measured at an unknown time" in cli(*asked).stdout
    answer = json.loads(cli(*asked, "--json").stdout)
    assert answer["of_unknown_time"] == [made["since"]]


@pytest.mark.parametrize(
    ("timestamp", "created", "known"),
    [
        ("2024-05-01T12:00:00Z", "2026-05-01T12:00:00Z", True),
        ("2026-05-01T12:00:00.000100+00:00", "2026-05-01T12:00:00.000200+00:00", False),
        ("2026-05-01T14:00:00+02:00", "2026-05-01T12:00:00", False),
        ("2026-05-01T12:00:05Z", "2026-05-01T12:00:00Z", True),
        (None, "2026-05-01T12:00:00Z", False),
        ("yesterday", None, False),
        ("2024-05-01T12:00:00Z", None, True),
    ],
)
def test_the_time_set_by_crucible_does_not_count(timestamp: str, created: str, known: bool) -> None:
    assert (measured_at({"timestamp": timestamp, "creation_time": created}) is not None) is known
