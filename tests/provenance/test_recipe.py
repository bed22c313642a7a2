"""Recipes: what enters an id and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible_lineage.ids import new_mfid, time_bits
from crucible_lineage.provenance.recipe import (
    StepCode,
    UsedDataset,
    derived_mfid,
    origin_of,
    raw_mfid,
    raw_recipe,
    step_recipe,
)
from crucible_lineage.refs import DatasetRef, FileRef

MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)
SPECTRUM = DatasetRef(new_mfid(MOMENT), "polystyrene", (FileRef("p.txt", "a" * 64, 10), FileRef("q.txt", "b" * 64, 11)))
NEON = DatasetRef(new_mfid(MOMENT.replace(hour=13)), "neon", (FileRef("neon.txt", "c" * 64, 12),))
CODE = StepCode("calibrate", "f" * 64, {})
USED = (UsedDataset("spectrum", SPECTRUM, SPECTRUM.files), UsedDataset("neon", NEON, NEON.files))
GIVEN: dict[str, Any] = {
    "project": "raman",
    "code": CODE,
    "output": "out",
    "params": {"degree": 3, "window": [1, 2]},
    "used": USED,
}


ORIGINS = [new_mfid(MOMENT.replace(minute=number)) for number in range(5)]
ORIGINS_WRITTEN = [f"0tr9htwkj6699bssksbnh83j{number:02d}" for number in (40, 7, 31, 18, 25, 2, 36, 13)]


def _used(origins: Sequence[str]) -> tuple[UsedDataset, ...]:
    """Derived datasets of these origins, all in one role."""
    return tuple(
        UsedDataset("spectra", replace(SPECTRUM, mfid=f"{number:026d}", origin=origin), SPECTRUM.files)
        for number, origin in enumerate(origins)
    )


def _mfid(**changes: Any) -> str:
    return derived_mfid(step_recipe(**{**GIVEN, **changes}))


def _with_file(**changes: Any) -> tuple[UsedDataset, ...]:
    return (replace(USED[0], files=(replace(SPECTRUM.files[0], **changes), SPECTRUM.files[1])), USED[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"project": "other"},
        {"output": "second"},
        {"code": replace(CODE, step="calibrate2")},
        {"code": replace(CODE, fingerprint="version:1")},
        {"code": replace(CODE, packages={"numpy": "2.0"})},
        {"params": {"degree": 4, "window": [1, 2]}},
        {"params": {"degree": 3, "window": [2, 1]}},
        {"params": {"degree": 3}},
        {"attempt": 1},
        {"used": _with_file(sha256="d" * 64)},
        {"used": _with_file(name="r.txt")},
        {"used": (replace(USED[0], role="sample"), USED[1])},
        {"used": (replace(USED[0], files=SPECTRUM.files[:1]), USED[1])},
        {"used": (UsedDataset("spectrum", NEON, NEON.files), UsedDataset("neon", SPECTRUM, SPECTRUM.files))},
        {"used": (replace(USED[0], dataset=replace(SPECTRUM, mfid=new_mfid(MOMENT))), USED[1])},
        {"used": USED[:1]},
    ],
)
def test_what_decides_the_result_decides_the_id(changes: dict[str, Any]) -> None:
    assert _mfid(**changes) != _mfid()


@pytest.mark.parametrize(
    "changes",
    [
        {"used": USED[::-1]},
        {"used": (replace(USED[0], files=SPECTRUM.files[::-1]), USED[1])},
        {"used": (replace(USED[0], dataset=replace(SPECTRUM, name="renamed")), USED[1])},
        {"params": {"window": [1, 2], "degree": 3}},
        {"params": {"window": [1.0, 2.0], "degree": 3.0}},
        {"attempt": 0},
    ],
)
def test_what_does_not_decide_the_result_leaves_the_id_alone(changes: dict[str, Any]) -> None:
    assert _mfid(**changes) == _mfid()


def test_the_order_of_datasets_in_one_role_counts() -> None:
    many = tuple(UsedDataset("spectra", dataset, dataset.files) for dataset in (SPECTRUM, NEON))

    assert _mfid(used=many) != _mfid(used=many[::-1])


def test_a_child_sorts_beside_its_youngest_parent() -> None:
    assert time_bits(_mfid()) == time_bits(NEON.mfid)


def test_raw_files_are_told_by_project_names_bytes_and_the_moment_they_were_taken() -> None:
    recipe = raw_recipe("raman", SPECTRUM.files)

    assert raw_mfid(recipe, MOMENT) == raw_mfid(raw_recipe("raman", SPECTRUM.files[::-1]), MOMENT)
    assert raw_mfid(recipe, MOMENT) != raw_mfid(recipe, MOMENT.replace(hour=13))
    assert raw_mfid(recipe, MOMENT) != raw_mfid(raw_recipe("other", SPECTRUM.files), MOMENT)
    assert raw_mfid(recipe, MOMENT) != raw_mfid(raw_recipe("raman", NEON.files), MOMENT)


@given(st.permutations(range(5)), st.lists(st.integers(0, 4), max_size=5))
def test_the_origin_of_a_result_is_that_of_its_parents_in_whatever_order_and_number(
    order: list[int], again: list[int]
) -> None:
    recipe = step_recipe(**{**GIVEN, "used": _used(ORIGINS)})
    other = step_recipe(**{**GIVEN, "used": _used([ORIGINS[n] for n in (*order, *again)])})
    assert origin_of(recipe) == origin_of(other)
    assert origin_of(step_recipe(**{**GIVEN, "used": _used([ORIGINS[0], ORIGINS[0]])})) == ORIGINS[0]


@given(st.permutations(range(5)), st.lists(st.integers(0, 4), max_size=5))
def test_what_was_made_by_hand_has_one_id_in_whatever_order_its_parents_are_named(
    order: list[int], again: list[int]
) -> None:
    parents = [replace(SPECTRUM, mfid=origin) for origin in ORIGINS]
    first = raw_recipe("raman", SPECTRUM.files, parents)
    other = raw_recipe("raman", SPECTRUM.files, [parents[n] for n in (*order, *again)])
    assert derived_mfid(first) == derived_mfid(other)


def test_ids_with_several_origins_are_the_same_in_every_process() -> None:
    """Texts of a set come in another order in each process; these ids are those that every process gave."""
    parents = [replace(SPECTRUM, mfid=origin) for origin in ORIGINS_WRITTEN]
    by_hand = raw_recipe("raman", SPECTRUM.files, parents)
    assert [entry["origin"] for entry in by_hand["inputs"]["parent"]] == sorted(ORIGINS_WRITTEN)
    assert origin_of(step_recipe(**{**GIVEN, "used": _used(ORIGINS_WRITTEN)})) == "0tr9htwkj6671fsgyv8q9ak8jm"


def test_the_origins_of_several_are_told_from_those_of_others() -> None:
    pairs = {origin_of(step_recipe(**{**GIVEN, "used": _used([ORIGINS[0], other])})) for other in ORIGINS[1:]}
    assert len(pairs) == 4
    assert not pairs & set(ORIGINS)
