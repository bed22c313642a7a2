"""MFIDs: the official pair, interoperability, and ids derived from recipes."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mfid as official  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage import ids
from tests.golden.stored import run_examples

PARENT = "0swqzb3a1sthv000xd8kta0vrw"
PAIR = uuid.UUID("06797fac-6a0e-751d-8000-eb513d281bc7")
MOMENT = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
recipes = st.dictionaries(st.text(min_size=1, max_size=6), values, min_size=1, max_size=5)
quickly = settings(max_examples=150, deadline=None)


def test_the_pair_of_the_contract_encodes_and_decodes() -> None:
    assert ids.mfid_from_bytes(PAIR.bytes) == PARENT
    assert ids.mfid_bytes(PARENT) == PAIR.bytes


@quickly
@given(st.binary(min_size=16, max_size=16))
def test_any_sixteen_bytes_are_spelled_as_the_official_package_spells_them(raw: bytes) -> None:
    spelled = ids.mfid_from_bytes(raw)

    assert spelled == official.uuid_to_cb32(uuid.UUID(bytes=raw))
    assert ids.mfid_bytes(spelled) == raw


def test_an_id_of_the_official_package_is_understood() -> None:
    made, value = official.mfid()

    assert ids.is_mfid(made)
    assert ids.mfid_bytes(made) == value.bytes
    assert abs(ids.mfid_time(made) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_new_id_is_a_version_7_of_now_and_never_twice_the_same() -> None:
    made = [ids.new_mfid() for _ in range(2000)]

    assert len(set(made)) == len(made)
    assert {uuid.UUID(bytes=ids.mfid_bytes(each)).version for each in made} == {7}
    assert abs(ids.mfid_time(made[0]) - datetime.now(UTC)) < timedelta(minutes=1)


@quickly
@given(recipes)
def test_a_derived_id_has_the_time_of_its_parent_and_says_version_8(recipe: dict[str, Any]) -> None:
    derived = ids.derive_mfid(recipe, PARENT)
    value = uuid.UUID(bytes=ids.mfid_bytes(derived))

    assert derived[:9] == PARENT[:9]
    assert ids.time_bits(derived) == ids.time_bits(PARENT)
    assert (value.version, value.variant) == (8, uuid.RFC_4122)


@quickly
@given(recipes, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_count(recipe: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            names = list(value)
            random.shuffle(names)
            return {name: shuffled(value[name]) for name in names}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert ids.derive_mfid(shuffled(recipe), PARENT) == ids.derive_mfid(recipe, PARENT)


@quickly
@given(recipes, recipes)
def test_different_recipes_have_different_ids(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = _told(one) == _told(two)

    assert (ids.derive_mfid(one, PARENT) == ids.derive_mfid(two, PARENT)) == same


def _told(value: Any) -> Any:
    """The value with types kept apart, except for 3 and 3.0, which are one number."""
    if isinstance(value, dict):
        return {name: _told(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    return (
        (isinstance(value, bool), value if abs(value) < 2**53 else repr(value))
        if isinstance(value, (int, float))
        else value
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"step": "ab", "output": "c"}, {"step": "a", "output": "bc"}),
        ({"params": {"a": "1,b"}}, {"params": {"a": "1", "b": ""}}),
        ({"params": {"a": ["x", "y"]}}, {"params": {"a": ["x,y"]}}),
        ({"params": {"a": "1"}}, {"params": {"a": 1}}),
        ({"params": {"a": 1}}, {"params": {"a": True}}),
        ({"params": {"a": None}}, {"params": {}}),
        ({"params": {"a.b": 1}}, {"params": {"a": {"b": 1}}}),
        ({"params": {"a": "\u00e9"}}, {"params": {"a": "e\u0301"}}),
    ],
)
def test_nothing_runs_together_at_its_borders(one: Any, two: Any) -> None:
    assert ids.derive_mfid(one, PARENT) != ids.derive_mfid(two, PARENT)


def test_a_number_that_a_database_writes_otherwise_is_the_same_number() -> None:
    assert ids.derive_mfid({"params": {"x": [3.0, {"y": 1e3}]}}, PARENT) == ids.derive_mfid(
        {"params": {"x": [3, {"y": 1000}]}}, PARENT
    )


def test_the_moment_of_acquisition_counts_whatever_its_time_zone() -> None:
    here = MOMENT.astimezone(timezone(timedelta(hours=-8)))

    assert ids.derive_mfid({"a": 1}, here) == ids.derive_mfid({"a": 1}, MOMENT)
    with pytest.raises(ValueError, match="no time zone"):
        ids.derive_mfid({"a": 1}, MOMENT.replace(tzinfo=None))


def test_other_processes_and_pythons_derive_the_same_ids(other_python: str) -> None:
    recipe = {"params": {"b": 0.1, "a": [1, 2.5e-7, 1e22, "\u00e9\u4e2d\U0001f52c"], "c": {"z": None, "y": True}}}
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\nfrom crucible_lineage.ids import derive_mfid\n"
        "print(derive_mfid(json.loads(sys.argv[2]), sys.argv[3]))\n"
    )
    root = Path(ids.__file__).parents[1]
    arguments = ["-c", script, str(root), json.dumps(recipe), PARENT]
    told = {
        subprocess.run([python, *arguments], capture_output=True, text=True, check=True).stdout.strip()
        for python in (sys.executable, other_python)
    }

    assert told == {ids.derive_mfid(recipe, PARENT)}


@pytest.mark.parametrize("examples", ["ids.txt", "refs.txt"])
def test_the_examples_hold(examples: str) -> None:
    run_examples(Path(__file__).with_name(examples))
