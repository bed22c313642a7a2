"""Whole answers of the pure parts of a plan, on both sides of each boundary."""

# ruff: noqa: E501 (one case a line)
# fmt: off
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.inputs import CalibrationInput
from crucible_lineage.pipeline.declare.parts import TimeMatch
from crucible_lineage.pipeline.plan.differences import Ingredients, differences, file_changes
from crucible_lineage.pipeline.plan.inputs import InputItem
from crucible_lineage.pipeline.plan.inspect import validated_params
from crucible_lineage.pipeline.plan.naming import groups_of, groups_of_combinations, values_of_input
from crucible_lineage.pipeline.plan.partners import CalibrationChooser, Candidates, RelationRow
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.statements.calibrations import NO_END, Calibrations, Certificate
from crucible_lineage.step import step
from tests.golden.stored import run_examples


@pytest.mark.parametrize("name", ["plans", "parts", "expansions", "correcting"])
def test_the_examples_hold(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))


def files(**content: str) -> tuple[FileRef, ...]:
    return tuple(FileRef(name, sha * 10, len(sha)) for name, sha in content.items())


def made(code: str, facts: Any = None, **inputs: list[tuple[str, str, tuple[FileRef, ...]]]) -> Ingredients:
    used = [UsedDataset(role, DatasetRef(mfid, name, own), own) for role, of in inputs.items() for mfid, name, own in of]
    entries: dict[str, Any] = {role: [] for role in inputs}
    for part in used:
        entries[part.role].append({"mfid": part.dataset.mfid, "files": {file.name: file.sha256 for file in part.files}})
    recipe = {"code": code * 12, "params": {"degree": 3, "old": 1}, "packages": {"numpy": "1.0", "old": "1"}, "inputs": entries}
    if code == "b":
        recipe |= {"salt": code, "params": {"degree": 4, "new": None}, "packages": {"numpy": "2.0", "new": "1"}}
    return Ingredients(recipe | ({"facts": facts} if facts else {}), used=tuple(used))


def test_each_difference_is_said_once_and_in_order() -> None:
    one, other = ("m1", "n", files(x="aa")), ("m2", "n", files(x="aa"))
    was = {"alike": [one], "gone": [one], "named": [one], "order": [one, other], "same": [one], "two": [one, other], "unnamed": [one]}
    before = made("a", {role: [{"name": "n", "f": 1}] for role in ("alike", "same")}, **was)
    now = {"alike": [("m2", "n", files(x="bb"))], "named": [("m2", "p", one[2])], "order": [other, one], "same": [one]}
    facts = {"alike": [{"name": "n", "f": 2}], "same": [{"name": "p", "f": {"g": 1}}]}
    after = made("b", facts, **now, new=[one], unnamed=[("m2", "", one[2])], two=[("m1", "n", files(x="bb")), other])
    assert differences(before, after) == [
        "the code changed: aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "package new changed: None -> 1",
        "package numpy changed: 1.0 -> 2.0",
        "package old changed: 1 -> None",
        "the salt changed: not given -> 'b'",
        "parameter degree changed: 3 -> 4",
        "parameter new changed: not given -> None",
        "parameter old changed: 1 -> not given",
        "input alike: x changed: sha aaaaaaaa -> bbbbbbbb",
        "input gone has 0 datasets: 0 new, 1 gone",
        "input named is p instead of n",
        "input new has 1 dataset: 1 new, 0 gone",
        "input order has the same datasets in another order or with other files",
        "input two has the same datasets in another order or with other files: x changed",
        "input unnamed comes from other data: m1 -> m2",
        "name of 'n' (input same) changed: 'n' -> 'p'",
        "f of 'p' (input same) changed: 1 -> {'g': 1}",
    ]
    assert (differences(before, before), differences(made("a"), made("a"))) == ([], [])
    assert differences(made("a", {"x": []}), made("a")) == ["the step is no longer given facts"]


def test_changes_of_files_have_hashes_and_sizes() -> None:
    was = files(a="1", b="22", c="3", d="4", e="5", f="6", g="7", h="8")
    assert file_changes(was, was) == ""
    five = "a is gone; b changed: sha 22222222 -> 33333333, size 2 -> 3; c is new; d is gone; e changed: sha 55555555 -> 66666666"
    assert file_changes([*was[:2], *was[3:5]], files(b="333", c="4", e="6")) == five
    assert file_changes([*was[:2], *was[3:6]], files(b="333", c="4", e="6")) == f"{five} and 1 more"
    assert file_changes(was[:1], [FileRef("a", "x" * 10, -1)]) == "a changed: sha 11111111 -> xxxxxxxx"


def test_items_are_told_apart_and_grouped_by_their_values() -> None:
    def item(label: str, about: str = "", **fields: Any) -> InputItem:
        return InputItem(label, None, fields, about=about)

    items = [item("a", n=10), item("a", n=9, kind="x"), item("b", "s", n="c"), item("c", n=""), item("d", n=2.5), item("e")]
    values = [(value.label, value.scope) for value in values_of_input(items)]
    assert values == [("a", "a"), ("a#2", "a#2"), ("b", "s"), ("c", "c"), ("d", "d"), ("e", "e")]
    without = "without n", (3, 5), "c and 1 more cannot be grouped: there is no n in the record"
    groups = [(value.label, value.members, value.fault) for value in groups_of(items, ["n"])]
    assert groups == [("2.5", (4,), ""), ("9", (1,), ""), ("10", (0,), ""), ("c", (2,), ""), without]
    both = [(value.label, value.members, value.fault) for value in groups_of(items, ["n", "kind"])]
    without_kind = "without kind", (0, 2, 4), "a and 2 more cannot be grouped: there is no kind in the record"
    assert both == [("9, x", (1,), ""), without_kind, without]
    (faulty,) = groups_of([InputItem("f", None, {}, blocked="it is on hold")], ["n"])
    assert (faulty.label, faulty.fault) == ("without n", "it is on hold")
    swept = groups_of_combinations([{"a": 1, "b": 2}, {"a": 2}, {"a": 1, "b": 3}, {"b": 4}], ["params.a"])
    assert [(value.label, value.members) for value in swept] == [("a=1", (0, 2)), ("a=2", (1,)), ("", (3,))]


def day(number: float) -> datetime:
    return datetime(2024, 5, 10, tzinfo=UTC) + timedelta(days=number)


def row(label: str, begin: float | None, end: float | None = None, value: str = "A", **more: Any) -> RelationRow:
    span = None if begin is None else (day(begin), day(begin if end is None else end))
    return RelationRow(label, label, (value,), span, label, undated=label if begin is None else "", **more)


DARKS = [row("d0", 0), row("group", 2, 4, size=3), row("d6", 6), row("lost", 8, fault="no gain"), row("new", 0, value="B"), row("none", None, value="B")]
PARTNERS = [
    ({}, (5, 5), "group 1 d before, counted from the last of its 3 (nearest before, same gain=A)"),
    ({}, (3, 3), "d0 3 d before (nearest before, same gain=A)"),
    ({"nearest": "after"}, (4, 9), "d6 2 d after (nearest after, same gain=A)"),
    ({"nearest": "after"}, (7, 7), "dark has nothing after scan (2024-05-17 00:00:00 UTC) with gain=A: the nearest before is d6 (2024-05-16 00:00:00 UTC, 1 d before), none was found after; to accept another one, add `else: nearest`, `earliest` or `none`"),
    ({"nearest": "either"}, (3, 3), "group measured before and after it (nearest on either side, same gain=A)"),
    ({"nearest": "either"}, (5, 5), "group 1 d before, counted from the last of its 3 (nearest on either side, same gain=A)"),
    ({"nearest": "either"}, (1, 9), "group 1 d after, counted from the first of its 3 (nearest on either side, same gain=A)"),
    ({"nearest": ["before", "after"]}, (6, 6), "dark has nothing after scan (2024-05-16 00:00:00 UTC) with gain=A: the nearest before is d6 (2024-05-16 00:00:00 UTC, 0 s before), the nearest after is d6 (2024-05-16 00:00:00 UTC, 0 s after); to accept another one, add `else: nearest`, `earliest` or `none`"),
    ({"nearest": ["before", "after"]}, (5, 5), "group 1 d before, counted from the last of its 3 (nearest before, same gain=A); d6 1 d after (nearest after, same gain=A)"),
    ({"nearest": ["before", "after"], "within": "1d"}, (1, 1), "d0 1 d before (nearest before, same gain=A); group 1 d after, counted from the first of its 3 (nearest after, same gain=A)"),
    ({"within": "23h", "else": "nearest"}, (5, 5), "dark has nothing before scan (2024-05-15 00:00:00 UTC) within 23 h with gain=A: the nearest before is group (2024-05-14 00:00:00 UTC, 1 d before), the nearest after is d6 (2024-05-16 00:00:00 UTC, 1 d after); to accept another one, add `else: nearest`, `earliest` or `none`"),
    ({"within": "1d", "else": "earliest"}, (2.5, 2.5), "dark has nothing before scan (2024-05-12 12:00:00 UTC) within 1 d with gain=A: the nearest before is d0 (2024-05-10 00:00:00 UTC, 2 d 12 h before), the nearest after is d6 (2024-05-16 00:00:00 UTC, 3 d 12 h after), group began before it and ended after it (`nearest: either` would take it); to accept another one, add `else: nearest`, `earliest` or `none`"),
    ({"else": "earliest"}, (None,), "d0 at an unknown time (else earliest, same gain=A)"),
    ({"else": "nearest"}, (None,), "scan has no time of measurement (timestamp), by which dark is chosen; set it"),
    ({"else": "nearest"}, (-1, -1), "d0 1 d after (else nearest, same gain=A)"),
    ({"else": "none"}, (-1, -1), "dark has nothing before scan (2024-05-09 00:00:00 UTC) with gain=A: none was found before, the nearest after is d0 (2024-05-10 00:00:00 UTC, 1 d after); to accept another one, add `else: nearest`, `earliest` or `none` or absent"),
    ({}, (1, 1, "B"), "dark is chosen by time for scan, and none has no time of measurement (timestamp); set it"),
    ({}, (1, 1, "C"), "dark has no dataset with gain=C, as scan has or absent"),
    ({}, (1, 1, "A", "it has no gain"), "scan cannot be matched with dark: it has no gain"),
]


@pytest.mark.parametrize(("rule", "scan", "expected"), PARTNERS)
def test_the_partner_of_a_row(rule: dict[str, Any], scan: tuple[Any, ...], expected: str) -> None:
    given = row("scan", *scan[:3], fault=scan[3] if scan[3:] else "")
    found = Candidates("dark", DARKS, ["gain"], TimeMatch.model_validate(rule)).choose(given)
    text = "; ".join(f"{part.label} {part}" for part in found.chosen) + found.fault
    assert text + " or absent" * found.absent == expected


def certified(number: int, since: float, until: float | None, where: str = "") -> Certificate:
    span = day(since), NO_END if until is None else day(until)
    data = "axis", (("i", "R"),), where
    return Certificate(str(number), "lab", "ada", f"m{number}", *data, span[0], "", "ada", "2024-06-01", "", spans=(span,))


S1, S2, S3 = [certified(1, 0, 2), certified(2, 2, 4), certified(3, 6, None)]
CHOSEN = [
    ({}, 1, 1.9, "m1 valid then: certified from 2024-05-10 until 2024-05-12"),
    ({}, 2, 2, "m2 valid then: certified from 2024-05-12 until 2024-05-14"),
    ({}, -1, 0, "scan has no time of measurement (timestamp), by which its axis is chosen; set it"),
    ({"else": "none"}, -1, 0, "scan has no time of measurement (timestamp), by which its axis is chosen; set it or absent"),
    ({}, 0, 2, "scan was measured from 2024-05-10 until 2024-05-12, and the certified axis changes before 2024-05-12 00:00:00 UTC"),
    ({"else": "none"}, 1, 3, "scan was measured from 2024-05-11 until 2024-05-13, and the certified axis changes before 2024-05-13 00:00:00 UTC or absent"),
    ({}, 4, 4, "no axis is certified for scan (2024-05-14 00:00:00 UTC): m2 was valid until 2024-05-14 00:00:00 UTC, 0 s before and m3 is valid from 2024-05-16 00:00:00 UTC, 2 d after; certify one, or add `else: nearest` or `none` HINT"),
    ({}, -4.5, 7, "no axis is certified for scan (2024-05-14 12:00:00 UTC): m3 is valid from 2024-05-16 00:00:00 UTC, 1 d 12 h after; certify one, or add `else: nearest` or `none` HINT"),
    ({"else": "none"}, 4.5, 4.5, "no axis is certified for scan (2024-05-14 12:00:00 UTC): m2 was valid until 2024-05-14 00:00:00 UTC, 12 h before and m3 is valid from 2024-05-16 00:00:00 UTC, 1 d 12 h after; certify one, or add `else: nearest` or `none` HINT or absent"),
    ({"else": "nearest"}, 4.5, 4.5, "m2 else nearest: 12 h before"),
    ({"else": "nearest"}, 5.5, 5.5, "m3 else nearest: 12 h after"),
    ({"else": "nearest", "within": "1d"}, 5, 5, "m2 else nearest: 1 d before"),
    ({"else": "nearest", "within": "23h"}, 5, 5, "no axis is certified for scan (2024-05-15 00:00:00 UTC): m2 was valid until 2024-05-14 00:00:00 UTC, 1 d before and m3 is valid from 2024-05-16 00:00:00 UTC, 1 d after; certify one, or add `else: nearest` or `none` HINT"),
    ({"else": "nearest"}, 3.5, 3.5, "axis: 2 certificates fit scan (2024-05-13 12:00:00 UTC): m2 of i=R (certified by ada on 2024-06-01); m9 of i=R, n == 1 (certified by ada on 2024-06-01); lift one of them, or state conditions that exclude one another"),
    ({"else": "none"}, 3.5, 3.5, "axis: 2 certificates fit scan (2024-05-13 12:00:00 UTC): m2 of i=R (certified by ada on 2024-06-01); m9 of i=R, n == 1 (certified by ada on 2024-06-01); lift one of them, or state conditions that exclude one another"),
    ({"nearest": ["before", "after"], "within": "3d"}, 3, 3, "m2 valid then: certified from 2024-05-12 until 2024-05-14; m3 valid next: 3 d after"),
    ({"nearest": ["before", "after"], "within": "2d"}, 3, 3, "no axis is certified for scan (2024-05-13 00:00:00 UTC) that becomes valid next: m1 was valid until 2024-05-12 00:00:00 UTC, 1 d before and m3 is valid from 2024-05-16 00:00:00 UTC, 3 d after; certify one, or add `else: nearest` or `none`"),
    ({"nearest": ["before", "after"]}, 7, 7, "no axis is certified for scan (2024-05-17 00:00:00 UTC) that becomes valid next: m2 was valid until 2024-05-14 00:00:00 UTC, 3 d before; certify one, or add `else: nearest` or `none`"),
    ({"nearest": "after", "else": "nearest", "within": "1h"}, 3, 3, "m2 valid then: certified from 2024-05-12 until 2024-05-14"),
    ({"nearest": "after", "else": "nearest"}, -7, 7, "m3 valid then: certified from 2024-05-16 on"),
    ({"nearest": "after", "else": "nearest", "within": "1h"}, 3.5, 3.5, "no axis is certified for scan (2024-05-13 12:00:00 UTC) that becomes valid next: m1 was valid until 2024-05-12 00:00:00 UTC, 1 d 12 h before and m3 is valid from 2024-05-16 00:00:00 UTC, 2 d 12 h after; certify one, or add `else: nearest` or `none`"),
    ({"nearest": "after", "else": "none"}, 3.5, 3.5, "m3 valid next: 2 d 12 h after"),
    ({"nearest": "after", "else": "none"}, 7, 7, "no axis is certified for scan (2024-05-17 00:00:00 UTC) that becomes valid next: m2 was valid until 2024-05-14 00:00:00 UTC, 3 d before; certify one, or add `else: nearest` or `none` or absent"),
]


@pytest.mark.parametrize(("rule", "begin", "end", "expected"), CHOSEN)
def test_the_calibration_of_an_exposure(rule: dict[str, Any], begin: float, end: float, expected: str) -> None:
    known = Calibrations([S1, S2, S3, certified(9, 3, 4, "n == 1")] if begin >= 0 else [S3])
    declared = CalibrationInput.model_validate({"calibration": "axis", "for": "scan", **rule})
    span = (day(abs(begin)), day(end)) if end else None
    found = CalibrationChooser("axis", declared, known, "", " HINT").choose("scan", {"i": "R", "n": int(begin == 3.5)}, span)
    text = "; ".join(f"{part.label} {part.rule}: {part.note}" for part in found.chosen) + found.fault
    assert text + " or absent" * found.absent == expected


@step
def fit(spectrum: Path, *, degree: int, window: int = 3, out: Path) -> None: ...


GIVEN = [
    ({"degree": 2}, {"degree": 2, "window": 3}),
    ({"degree": "2", "window": "x"}, ["params.window.value: parameter 'window' of step 'fit' is 'x': Input should be a valid integer, unable to parse string as an integer"]),
    ({}, ["params: step 'fit' needs the parameter 'degree', which has no default"]),
    ({"degre": 2}, ["params.degre: step 'fit' has no parameter 'degre'; did you mean 'degree'?"]),
    ({"window": 1}, ["params: step 'fit' needs the parameter 'degree', which has no default"]),
    ({"degree": 1, "window": "later"}, {"degree": 1, "window": "later"}),
    ({"degree": 1, "spectrum": 2}, ["params.spectrum: step 'fit' has no parameter 'spectrum'; it has: degree, window"]),
]


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_parameters_given_to_a_step(given: dict[str, object], expected: object) -> None:
    try:
        found: object = validated_params(fit, given, ("window",) if given.get("window") == "later" else ())
    except InputError as error:
        found = [f"{'.'.join(map(str, fault.location))}: {fault.message}" for fault in error.faults]
    assert found == expected


@pytest.mark.parametrize("given", [{"spectrum": "0tr5k2ndm5zvd000nr21qakeh4"}, {"spectrum": [DatasetRef("m1", "n", ())]}])
def test_datasets_are_taken_where_steps_are_registered_only(given: dict[str, Any]) -> None:
    for call in (lambda: fit(**given, degree=1, out=Path()), lambda: fit(given["spectrum"], degree=1, out=Path())):
        with pytest.raises(InputError, match="step fit was called with datasets, but nothing here says where"):
            call()
    assert fit(Path("x"), degree=1, out=Path()) is None
