"""Values are unchanged after packing and unpacking."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.lineage.draw.html import packed, unpacked

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(values, max_size=40), st.integers(1, 3))
def test_what_was_packed_comes_out_again(given_values, times):
    repeated = given_values * times
    names = [f"d{number % 3}" for number in range(len(repeated))]

    found = json.loads(json.dumps(packed(repeated, names)))

    assert json.dumps(unpacked(found, names)) == json.dumps(repeated)


def test_truth_numbers_and_texts_that_are_equal_in_python_stay_apart():
    mixed = [True, 1, 1.0, "1", False, 0, None, "", [], {}, [1], [True]]

    assert json.dumps(unpacked(packed([mixed], ["a"]), ["a"])) == json.dumps([mixed])


def test_what_many_records_share_is_written_once():
    source = "def reconstruct(scan): ..." * 50
    records = [{"code": {"source": source}, "used": [f"d{n // 2}"], "frame": n} for n in range(1000)]

    text = json.dumps(packed(records, [f"d{n}" for n in range(1000)]))

    assert text.count(source) == 1
    assert '"d7"' not in text  # named in records, and known as a name
    assert len(text) < 60 * len(records)
