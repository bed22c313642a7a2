"""The hash of what was registered: the same for the same values however a database spells them, no other."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.provenance.recipe import MOST_KEYS, changed_keys, result_of

FIT = {"fit": {"width": 3.0, "peaks": [520.7, 1e22], "a/b": {"~": None}}, "ok": True, "extra": {}}


def test_every_value_has_its_json_pointer() -> None:
    assert result_of(FIT, [])["keys"] == ["/fit/a~1b/~0", "/fit/peaks", "/fit/width", "/ok"]


@pytest.mark.parametrize(
    "now",
    [
        FIT,
        {**FIT, "read": 1, "extra": {"lines": 3}, "fit": {**FIT["fit"], "read": 2}},  # type: ignore[dict-item]
        {**FIT, "fit": {"width": 3, "peaks": [520.7, 10**22], "a/b": {"~": None}}},
    ],
)
def test_what_came_later_and_another_spelling_of_numbers_change_nothing(now: dict[str, Any]) -> None:
    assert changed_keys(result_of(FIT, []), now) == []


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ({"fit": FIT["fit"]}, ["/ok"]),
        ({**FIT, "ok": 1}, ["/fit/a~1b/~0", "/fit/peaks", "/fit/width", "/ok"]),
        ({**FIT, "fit": "good"}, ["/fit/a~1b/~0", "/fit/peaks", "/fit/width"]),
    ],
)
def test_what_is_gone_is_named_and_a_changed_value_is_among_all(now: dict[str, Any], changed: list[str]) -> None:
    assert changed_keys(result_of(FIT, []), now) == changed


def test_very_many_values_are_told_by_their_outermost_keys() -> None:
    many = {"map": {str(number): number for number in range(MOST_KEYS + 1)}, "unit": "nm"}
    result = result_of(many, [])
    assert result["keys"] == ["/map", "/unit"]
    assert changed_keys(result, many) == []
    assert changed_keys(result, {**many, "map": {**many["map"], "5": 6}}) == ["/map", "/unit"]  # type: ignore[dict-item]


def test_the_order_of_files_does_not_count_and_everything_else_does() -> None:
    files = [{"name": "a", "sha256": "0" * 64, "size": 1}, {"name": "b", "sha256": "1" * 64, "size": 2}]
    digest = result_of({}, files)["generated_sha256"]
    assert result_of({}, files[::-1])["generated_sha256"] == digest
    for changed in ({"name": "c"}, {"sha256": "2" * 64}, {"size": 3}, {"preview": True}):
        assert result_of({}, [{**files[0], **changed}, files[1]])["generated_sha256"] != digest
