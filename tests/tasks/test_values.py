"""Values as files, origins, results and tasks of the API, as the examples in the texts beside this file say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel

from crucible_lineage.tasks.values import store_value
from tests.golden.stored import run_examples


class Peak(NamedTuple):
    place: float
    height: int


@dataclass
class Fit:
    peak: float
    count: int
    image: Any = None


class Row(BaseModel):
    name: str
    when: datetime = datetime(2026, 11, 27)


STORED = {
    "a number": (np.float64(0.1), "0.1"),
    "no number": (np.float64("nan"), '"nan"'),
    "a dict": ({"mean": np.float64(2), "n": np.int8(3), "none": float("inf")}, '{"mean":2.0,"n":3,"none":"inf"}'),
    "nested": ([(1, np.float16(2)), (3, np.float16(4))], "[[1,2.0],[3,4.0]]"),
    "keys that are places": ({(0, 1): "a"}, '[[[0,1],"a"]]'),
    "sets": ({"a": {2, 1}, "b": frozenset([3])}, '{"a":[1,2],"b":[3]}'),
    "dates": ([datetime(2026, 1, 1), date(2026, 1, 1)], '["2026-01-01T00:00:00","2026-01-01"]'),
    "models": ([Row(name="a")], '[{"name":"a","when":"2026-11-27T00:00:00"}]'),
    "exact numbers": ([UUID(int=7), Decimal("1.0")], '["00000000-0000-0000-0000-000000000007","1.0"]'),
    "a tuple with names": ([Peak(1.5, 2)], '[{"place":1.5,"height":2}]'),
    "a counter": (Counter("aab"), '{"a":2,"b":1}'),
}


@pytest.mark.parametrize(("value", "text"), STORED.values(), ids=STORED)
def test_a_value_is_one_file(value: object, text: str, tmp_path: Path) -> None:
    (file,) = store_value(value, tmp_path).files
    assert (file.ref.name, file.path.read_text()) == ("value.json", text)


def test_a_dataclass_with_an_array_is_stored_by_its_fields(tmp_path: Path) -> None:
    stored = store_value(Fit(1.5, 2, np.arange(3)), tmp_path)
    assert [file.ref.name for file in stored.files] == ["peak-value.json", "count-value.json", "image-value.npy"]


def test_files_of_keys_are_not_stored_with_the_folder_or_the_path_that_names_them(tmp_path: Path) -> None:
    results, kept = tmp_path / "results", tmp_path / "kept"
    for folder in (results, kept):
        folder.mkdir()
    for name in ("a.tif", "server.pem", ".env"):
        (results / name).write_text(f"content of {name}")
    assert [file.ref.name for file in store_value(results, kept).files] == ["a.tif"]
    refused = store_value(results / "server.pem", kept)
    assert (refused.is_whole, refused.described) == (False, {"value.txt": "the path of a file of keys: server.pem"})


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    assert store_value(object(), tmp_path).described == {"value.txt": "a builtins.object"}


@pytest.mark.parametrize("name", ["values", "results", "recording", "api"])
def test_the_examples_hold(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))
