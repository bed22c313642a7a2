"""What stands in a declaration is read as the examples in the text beside this file say."""

from __future__ import annotations

from pathlib import Path

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.yaml import parse_document
from tests.golden.stored import run_examples


def test_words_references_names_and_inputs_are_read_as_the_examples_say() -> None:
    run_examples(Path(__file__).with_name("values.txt"))


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InputError, match="aliases"):
        parse_document("\n".join(lines), "p.yaml")
