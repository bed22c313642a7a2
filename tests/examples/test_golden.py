"""What the examples register: lineage, shape of ids, bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.pipelines import described
from tests.golden.stored import compare
from tests.nights import by_night

EXAMPLES = [("ebsd", "ebsd"), ("lab6", "lab6"), pytest.param("raman-instruments", "raman", marks=by_night("31 steps"))]


@pytest.mark.parametrize(("name", "data"), EXAMPLES)
def test_an_example_registers_what_it_registered(name: str, data: str, ran: Any, command: Any) -> None:
    folder = ran(name, data).data
    compare(
        f"pipelines/{name}.txt",
        described(lambda *words: json.loads(command(*words, "--data", folder, "--json").stdout), f"example-{name}"),
    )
