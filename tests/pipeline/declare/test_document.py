"""YAML is read safely, and the position of every value is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.yaml import parse_document, read_document


def fault(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_document(text, "p.yaml")
    return str(caught.value)


def test_words_are_read_as_yaml_1_2_reads_them() -> None:
    data = parse_document("country: no\nswitch: on\nyes_: yes\nflag: true\nnothing: null\nquoted: 'true'\n", "p").data
    expected = {"country": "no", "switch": "on", "yes_": "yes", "flag": True, "nothing": None, "quoted": "true"}
    assert data == expected


def test_numbers_are_numbers_and_clock_times_are_text() -> None:
    data = parse_document("a: 12\nb: -1.5e3\nc: 0x1f\nd: 0o17\ne: 12:30:45\nf: 1_000\ng: .5\n", "p").data
    assert data == {"a": 12, "b": -1500.0, "c": 31, "d": 15, "e": "12:30:45", "f": "1_000", "g": 0.5}


def test_every_value_has_its_line_and_column() -> None:
    document = parse_document("steps:\n  axis:\n    params: {degree: 3}\n", "p.yaml")
    assert str(document.fault(("steps", "axis", "params", "degree"), "wrong")) == "p.yaml:3:14: wrong"
    assert str(document.fault(("steps", "axis", "unknown"), "missing")) == "p.yaml:2:3: missing"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!python/object/apply:os.system ['true']\n", "tags"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: 1\nb: 2\na: 3\n", "given twice"),
        ("a: [1, 2\nb: 3\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "a key must be"),
        ("", "empty"),
        ("a: 1\n---\nb: 2\n", "a second document begins here"),
    ],
)
def test_anything_but_plain_yaml_is_refused_with_its_position(text: str, words: str) -> None:
    message = fault(text)
    assert words in message
    assert message.startswith("p.yaml:")


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases" in fault("\n".join(lines))


def test_the_message_on_a_missing_file_names_existing_ones(tmp_path: Path) -> None:
    (tmp_path / "raman.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"there is no file .*ramn.yaml; did you mean 'raman.yaml'"):
        read_document(tmp_path / "ramn.yaml")
    with pytest.raises(InputError, match=r"is a folder; name a pipeline file \(in it there are: raman.yaml\)"):
        read_document(tmp_path)
