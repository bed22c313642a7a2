"""Calibrations chosen by time of measurement, for data of other programs, whose ids have the time of registration."""

# ruff: noqa: E501 (the declaration stands as a person writes it)
from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crucible_lineage.ask.explain import explain
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session
from tests.nights import share

STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def combine(frames: list[Path], *, out: Path) -> dict:
    values = [float(path.read_text()) for path in frames]
    (out / "master.txt").write_text(str(sum(values) / len(values)))
    return {"frames": len(values)}


@step
def flat(frames: list[Path], bias: Path, *, out: Path) -> dict:
    values = [float(path.read_text()) - float(bias.read_text()) for path in frames]
    (out / "flat.txt").write_text(str(sum(values) / len(values)))
    return {"frames": len(values)}


@step
def reduce(science: Path, bias: Path, flat: Path, *, out: Path) -> dict:
    value = (float(science.read_text()) - float(bias.read_text())) / float(flat.read_text())
    (out / "reduced.txt").write_text(str(value))
    return {"value": value}


@step
def scaled(data: Path, *, n: int, out: Path) -> None:
    (out / "scaled.txt").write_text(str(n * float(data.read_text())))


@step
def subtract(scan: Path, dark: Path, *, out: Path) -> dict:
    (out / "clean.txt").write_text(f"{scan.read_text()} - {dark.read_text()}")
    return {}
"""
NIGHT = """
pipeline: night
project: lab
inputs:
  science: {select: {measurement: exposure, metadata.kind: science}, each: true}
  bias:    {select: {metadata.kind: bias}}
  flat:    {select: {metadata.kind: flat}}
steps:
  master_bias: {uses: "LABMODULE:combine", inputs: {frames: {from: bias, group_by: [metadata.camera, night]}}}
  master_flat: {uses: "LABMODULE:flat", inputs: {frames: {from: flat, group_by: [metadata.camera, metadata.filter, night]}, bias: {from: master_bias, nearest: before, match: [metadata.camera], within: 3d}}}
  reduced:     {uses: "LABMODULE:reduce", inputs: {science: science, bias: {from: master_bias, nearest: before, match: [metadata.camera], within: 3d}, flat: {from: master_flat, nearest: either, match: [metadata.camera, metadata.filter], within: 7d}}}
"""
MASTERS = "\n".join(line for line in NIGHT.splitlines() if "flat" not in line and "science" not in line)
DARK = """
pipeline: darks
project: lab
inputs:
  scan: {select: {metadata.kind: scan}, each: true}
  dark: {select: {metadata.kind: dark}, match: {scan: metadata.camera}}
steps:
  clean: {uses: "LABMODULE:subtract", inputs: {scan: scan, dark: dark}}
"""


@dataclass(frozen=True)
class Frame:
    """A frame of a camera, as the official client registers it: its id has the time of registration."""

    mfid: str
    kind: str
    camera: str
    when: datetime | None
    value: float
    band: str = ""


SWEPT = """
pipeline: swept
project: lab
inputs:
  scan: {select: {metadata.kind: scan}, each: true}
  dark: {select: {metadata.kind: dark}, each: true}
steps:
  bright: {uses: "LABMODULE:scaled", inputs: {data: scan}, matrix: {n: [1, 2]}}
  scaled: {uses: "LABMODULE:scaled", inputs: {data: dark}, matrix: {n: [1, 2]}}
  clean:  {uses: "LABMODULE:subtract", inputs: {scan: bright, dark: {from: scaled, nearest: before, match: [params.n]}}}
"""


@pytest.fixture
def register(lab: Any, session: Session) -> Callable[..., Frame]:
    lab.file(f"{lab.module}.py", STEPS)
    session.ensure_project("lab")

    def registered(kind: str, camera: str, when: datetime | None, value: float, band: str = "") -> Frame:
        path = lab.file(f"{kind}-{value}.txt", str(value))
        fields = {"timestamp": when.isoformat()} if when else {}
        metadata = {"kind": kind, "camera": camera, **({"filter": band} if band else {})}
        created = session.client.datasets.create(
            {"project_id": "lab", "dataset_name": path.name, "measurement": "exposure", **fields},
            scientific_metadata=metadata,
        )
        session.client.files.upload(created.dsid, path)
        return Frame(created.dsid, kind, camera, when, value, band)

    return registered


def a_week(register: Callable[..., Frame], seed: int) -> list[Frame]:
    """Register nights of two cameras in random order, some without biases or flats."""
    chance = random.Random(seed)
    frames: list[tuple[str, str, datetime, str]] = []
    for day, camera in ((day, camera) for day in range(4) for camera in "AB"):
        dusk = datetime(2024, 5, 10 + day, 19, tzinfo=UTC)
        if day == 0 or chance.random() < 0.6:
            frames += [("bias", camera, dusk + timedelta(minutes=chance.randrange(90)), "") for _ in range(2)]
        for band in "rg":
            if day == 0 or chance.random() < 0.7:
                frames += [("flat", camera, dusk + timedelta(minutes=95 + chance.randrange(30)), band)]
                frames += [("flat", camera, dusk + timedelta(minutes=600 + chance.randrange(30)), band)]
            frames += [("science", camera, dusk + timedelta(minutes=200 + chance.randrange(300)), band)]
    chance.shuffle(frames)
    return [register(kind, camera, when, 100.0 + number, band) for number, (kind, camera, when, band) in
            enumerate(frames)]  # fmt: skip


def night_of(moment: datetime) -> str:
    return (moment - timedelta(hours=12)).date().isoformat()


def mean(frames: list[Frame]) -> float:
    return sum(frame.value for frame in frames) / len(frames)


def masters(frames: list[Frame], kind: str, **same: str) -> Iterator[list[Frame]]:
    """Yield the frames of a kind, grouped by night."""
    fitting = [frame for frame in frames if frame.kind == kind and all(getattr(frame, k) == v for k, v in same.items())]
    for night in sorted({night_of(frame.when) for frame in fitting}):
        yield [frame for frame in fitting if night_of(frame.when) == night]


def bias_before(frames: list[Frame], camera: str, moment: datetime) -> float | None:
    """Return the mean of the biases of the last night before a moment, at most three days earlier."""
    over = [group for group in masters(frames, "bias", camera=camera) if max(frame.when for frame in group) <= moment]
    if not over:
        return None
    latest = max(over, key=lambda group: max(frame.when for frame in group))
    return mean(latest) if moment - max(frame.when for frame in latest) <= timedelta(days=3) else None


def expected(frames: list[Frame], science: Frame) -> float | None:
    """Return the number that a person would compute from the frames' times."""
    bias = bias_before(frames, science.camera, science.when)

    def distance(group: list[Frame]) -> timedelta:
        first, last = min(frame.when for frame in group), max(frame.when for frame in group)
        return max(first - science.when, science.when - last, timedelta())

    groups = list(masters(frames, "flat", camera=science.camera, band=science.band))
    flats = min(groups, key=distance)
    their_bias = bias_before(frames, science.camera, max(flat.when for flat in flats))
    if bias is None or their_bias is None or distance(flats) > timedelta(days=7):
        return None
    return (science.value - bias) / (mean(flats) - their_bias)


@pytest.mark.parametrize("seed", share([1, 2], 2))
def test_a_week_of_ccd_nights_in_one_declaration_gives_the_expected_numbers(
    lab: Any, session: Session, run: Any, register: Any, text_of: Any, seed: int
) -> None:
    assert len(NIGHT.strip().splitlines()) <= 15
    frames = a_week(register, seed)
    result = run(lab.declare(NIGHT))
    numbers = {frame: expected(frames, frame) for frame in frames if frame.kind == "science"}
    assert sum(value is None for value in numbers.values()) < 4
    for frame, value in numbers.items():
        outputs = result.datasets.get(f"reduced[{frame.mfid}]")
        assert (outputs is None) == (value is None), (frame, result.errors)
        if outputs:
            assert float(text_of(outputs["out"])) == pytest.approx(value)


def test_a_late_calibration_makes_only_results_stale_whose_choice_it_changes(
    lab: Any, run: Any, register: Any, planned: Any
) -> None:
    hours = {hour: register("scan", "A", datetime(2024, 5, 10, hour, tzinfo=UTC), hour) for hour in (10, 12, 14, 16)}
    other = register("scan", "B", datetime(2024, 5, 10, 14, tzinfo=UTC), 24)
    for camera in "AB":
        register("dark", camera, datetime(2024, 5, 10, 9, tzinfo=UTC), 0.1 if camera == "A" else 0.2)
        register("dark", camera, datetime(2024, 5, 10, 15, tzinfo=UTC), 0.3 if camera == "A" else 0.4)
    path = lab.declare(DARK)
    assert run(path).ok
    register("dark", "A", datetime(2024, 5, 10, 13, tzinfo=UTC), 0.5)
    states = {name: step.state for name, step in planned(path).items()}
    stale = {name for name, state in states.items() if state != "fresh"}
    assert stale == {f"clean[{hours[14].mfid}]"}
    assert f"clean[{other.mfid}]" in states


def test_a_later_reference_is_not_used_unless_the_declaration_allows_it(
    lab: Any, run: Any, register: Any, planned: Any, text_of: Any
) -> None:
    scan = register("scan", "A", datetime(2024, 5, 10, tzinfo=UTC), 1)
    dark = register("dark", "A", datetime(2024, 5, 10, 6, tzinfo=UTC), 2)
    path = lab.declare(DARK)
    (step,) = planned(path).values()
    assert step.state == "blocked"
    assert (
        f"none was found before, the nearest after is {dark.mfid} (2024-05-10 06:00:00 UTC, 6 h after)"
        in (step.causes[0])
    )
    nearest = run(lab.declare(DARK.replace("metadata.camera}", "metadata.camera}, else: nearest")))
    (outputs,) = nearest.datasets.values()
    assert text_of(outputs["out"]) == "1 - 2"
    assert f"clean[{scan.mfid}]" in nearest.datasets


def test_data_without_a_time_block_choices_by_time_and_are_named(lab: Any, register: Any, planned: Any) -> None:
    scan = register("scan", "A", None, 1)
    register("dark", "A", datetime(2024, 5, 10, tzinfo=UTC), 2)
    (step,) = planned(lab.declare(DARK)).values()
    assert f"{scan.mfid} has no time of measurement (timestamp)" in step.causes[0]
    undated = register("dark", "B", None, 3)
    register("scan", "B", datetime(2024, 5, 11, tzinfo=UTC), 4)
    (step,) = (step for step in planned(lab.pipeline).values() if scan.mfid not in step.name)
    assert f"{undated.mfid} has no time of measurement (timestamp)" in step.causes[0]


def test_the_choice_is_in_plan_record_explanation_and_picture(
    lab: Any, session: Session, run: Any, register: Any, planned: Any, record_of: Any, cli: Any
) -> None:
    register("scan", "A", datetime(2024, 5, 10, 12, tzinfo=UTC), 1)
    register("dark", "A", datetime(2024, 5, 10, 9, 30, tzinfo=UTC), 2)
    path = lab.declare(DARK)
    (step,) = planned(path).values()
    (chosen,) = step.choices["dark"]
    assert (chosen["side"], chosen["seconds"], chosen["same"]) == ("before", 9000.0, {"metadata.camera": "A"})
    assert "2 h 30 min before (nearest before, same metadata.camera=A)" in cli("plan", path).stdout
    (outputs,) = run(path).datasets.values()
    (used,) = (entry for entry in record_of(outputs["out"])["used"] if entry["role"] == "dark")
    assert used["chosen"] == {
        "rule": "nearest before",
        "side": "before",
        "seconds": 9000.0,
        "same": {"metadata.camera": "A"},
    }
    story = str(explain(session, outputs["out"]))
    assert "chosen by time: 2 h 30 min before (nearest before, same metadata.camera=A)" in story
    assert "(2 h 30 min before)" in cli("lineage", path).stdout
    target = lab.folder / "drawn.svg"
    cli("lineage", outputs["out"], "-o", target)
    assert "2 h 30 min before" in target.read_text()


def test_a_result_is_not_named_by_the_variant_of_a_partner(
    lab: Any, session: Session, run: Any, register: Any, text_of: Any
) -> None:
    register("scan", "A", datetime(2024, 5, 10, 12, tzinfo=UTC), 1)
    register("dark", "A", datetime(2024, 5, 10, 9, tzinfo=UTC), 2)
    path = lab.declare(SWEPT)
    texts = {name: text_of(found["out"]) for name, found in run(path).datasets.items()}
    instances = make_plan(bind_file(path, session.store), session).instances
    made = [one for name, one in instances.items() if name.startswith("clean")]
    shown = [(one.label, one.slots["out"][0].partition(", ")[2], texts[one.name]) for one in made]
    assert shown == [("n=1", "n=1", "1.0 - 2.0"), ("n=2", "n=2", "2.0 - 4.0")]


def test_a_result_has_the_time_of_its_data_and_not_of_a_later_calibration(
    lab: Any, session: Session, run: Any, register: Any
) -> None:
    register("scan", "A", datetime(2024, 5, 10, 12, tzinfo=UTC), 1)
    register("dark", "A", datetime(2024, 5, 12, 12, tzinfo=UTC), 2)
    text = DARK.replace(", match: {scan: metadata.camera}", "").replace(
        "dark: dark", "dark: {from: dark, nearest: after, match: metadata.camera}"
    )
    (outputs,) = run(lab.declare(text)).datasets.values()
    made = session.client.datasets.get(outputs["out"])
    assert made.timestamp.startswith("2024-05-10T12:00:00")


def test_results_of_another_pipeline_are_chosen_by_the_fields_and_times_of_their_data(
    lab: Any, run: Any, register: Any, planned: Any, text_of: Any
) -> None:
    for day in (10, 11, 12):
        for camera, offset in (("A", 0), ("B", 100)):
            for minute in range(2):
                register("bias", camera, datetime(2024, 5, day, 19, minute, tzinfo=UTC), day + offset + minute / 10)
    lab.declare(MASTERS, "masters.yaml")
    when = datetime(2024, 5, 12, 2, tzinfo=UTC)
    scans = [register("scan", camera, when, 7 + number) for number, camera in enumerate("AB")]
    text = DARK.replace(
        "dark: {select: {metadata.kind: dark}", "dark: {pipeline: masters.yaml, from: master_bias, each: true"
    )
    path = lab.declare(text)
    blocked = {step.state for step in planned(path).values()}
    assert blocked == {"blocked"}
    assert run(lab.folder / "masters.yaml").ok
    made = run(path)
    assert made.ok, made.errors
    assert text_of(made.datasets[f"clean[{scans[0].mfid}]"]["out"]) == "7 - 11.05"
    assert text_of(made.datasets[f"clean[{scans[1].mfid}]"]["out"]) == "8 - 111.05"


def test_nights_are_those_of_the_declared_time_zone(lab: Any, register: Any, planned: Any) -> None:
    for hour in (4, 8, 13):  # one night in California, 21:00 to 6:00
        register("bias", "A", datetime(2024, 5, 11, hour, tzinfo=UTC), hour)
    assert len(planned(lab.declare(MASTERS))) == 2
    local = MASTERS.replace("project: lab", "project: lab\ntimezone: America/Los_Angeles")
    assert list(planned(lab.declare(local))) == ["master_bias[A, 2024-05-10]"]
