"""Values, names and ids as people read them, on one line each."""

from __future__ import annotations

import pytest

from crucible_lineage.lineage.labels import ellipsised, first_lines, short_id, text_width, value_text, wrapped

VALUES = {
    **{"3": 3, "1234567890": 1234567890, "0.1": 0.1, "0.3333333": 1 / 3, "6.666667e-10": 2e-9 / 3, "nan": float("nan")},
    **{"123456.8": 123456.75, "1234568": 1234567.5, "1.234568e+08": 123456789.5, "true": True, "null": None},
    **{r"a\nb": "a\nb", "632.9613 nm": {"value": 632.96133333, "unit": "nm"}, "1.5 eV": {"value": 1.5, "units": "eV"}},
    **{'{"value": "3"}': {"value": "3"}, '[1.23456789, "x"]': [1.23456789, "x"]},
}


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=list(VALUES))
def test_a_value_is_one_short_line(text: str, value: object) -> None:
    assert value_text(value) == text


def test_long_texts_keep_what_distinguishes_them() -> None:
    assert (value_text("x" * 6, 5), value_text("x" * 5, 5)) == ("xxxxx… (6 characters)", "xxxxx")
    assert short_id("0td40y80027sn1w6x3snq5t6rc") == "0td40…5t6rc"
    assert list(first_lines("abc", 2, "and {} more")) == ["a", "b", "and 1 more"]
    assert list(first_lines("ab", 2, "and {} more")) == ["a", "b"]
    name = "polystyrene at 632 nm, measured twice"
    for width in (60, 90, 140):
        lines = [ellipsised(name, width, 12), *wrapped(name, width, 12)]
        assert max(text_width(line, 12) for line in lines) <= width
        assert lines[0][:3] == lines[1][:3] == "pol"
        assert lines[0].endswith("ice")
    assert wrapped(name, 500, 12) == [ellipsised(name, 500, 12)] == [name]
