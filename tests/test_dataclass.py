"""Frozen dataclasses of the package behave as the standard ones do, and commands start without what they do not use."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from typing import Any

import pytest

from crucible_lineage.dataclass import dataclass, field, replace


@dataclass(frozen=True)
class Base:
    name: str
    size: int = 2
    note: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Ours(Base):
    parts: list[str] = field(default_factory=list)


FIELDS = [(part.name, Any, part) for part in dataclasses.fields(Ours)]  # type: ignore[misc]
Standard = dataclasses.make_dataclass("Ours", FIELDS, frozen=True)


def test_they_equal_the_standard_ones() -> None:
    made = [[kind("a"), kind("a", note="b"), kind(name="a", size=3, parts=["c"])] for kind in (Ours, Standard)]
    assert [repr(value) for value in made[0]] == [repr(value) for value in made[1]]
    assert made[0][0] == made[0][1] != made[0][2]
    assert hash(Base("a", note="b")) == hash(Base("a"))
    assert Base("a") != Ours("a")
    assert replace(made[0][0], size=3, parts=["c"]) == made[0][2] == pickle.loads(pickle.dumps(made[0][2]))
    assert made[0][0].parts is not made[0][1].parts
    for value in (Ours("a"), Standard("a")):
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'size'"):
            value.size = 1
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'size'"):
            del value.size
    with pytest.raises(TypeError, match=r"Ours.__init__\(\) missing 1 required positional argument: 'name'"):
        Ours()  # type: ignore[call-arg]


def test_models_are_built_without_plugins_and_the_client_without_http2() -> None:
    code = """
import sys
from pathlib import Path
from crucible_lineage.client.models import Person
from crucible_lineage.pipeline.declare.parts import Reproduce
Person(unique_id="a"), Reproduce()
print(*{"importlib.metadata", "h2", "pydantic.plugin._loader"} & sys.modules.keys())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
