"""Values as files: one JSON file where possible, read back as equal values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from crucible_lineage.tasks.storing import NotStorableError, equal, loaded, store_value


class Phase(Enum):
    SOLID = 1
    LIQUID = "l"


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


READ_AGAIN = {
    "a number": np.float64(0.1),
    "a short float": np.float32(0.1),
    "a whole number": np.int64(3),
    "a truth value": np.bool_(True),
    "no number": np.float64("nan"),
    "a list of fifty": [np.float64(n) / 3 for n in range(50)],
    "a dict": {"mean": np.float64(2), "n": np.int8(3), "none": float("nan")},
    "nested": [(1, np.float16(2)), (3, np.float16(4))],
    "keys that are numbers": {1: 2, 2: np.int64(3)},
    "keys that are places": {(0, 1): "a"},
    "sets": {"a": {1, 2}, "b": frozenset([3])},
    "dates": [datetime(2026, 1, 1), date(2026, 1, 1)],
    "members of an enum": [Phase.SOLID, Phase.LIQUID],
    "models": [Row(name="a"), Row(name="b")],
    "dataclasses": [Fit(1.5, 2), Fit(2.5, 3)],
    "exact numbers": [UUID(int=7), Decimal("1.0")],
    "many rows": [{"id": n, "when": datetime(2026, 1, 1 + n % 20)} for n in range(300)],
}
STORED = {
    "a tuple with names": ([Peak(1.5, 2)], '[{"place":1.5,"height":2}]'),
    "a counter": (Counter("aab"), '{"a":2,"b":1}'),
    "a text of a class of its own": (np.str_("abc"), '"abc"'),
    "a moment of pandas": ([pd.Timestamp("2026-01-01")], '["2026-01-01T00:00:00"]'),
    "a field that is a number of NumPy": (Fit(1.5, np.int64(3)), '{"peak":1.5,"count":3,"image":null}'),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("value", READ_AGAIN.values(), ids=READ_AGAIN)
def test_a_value_is_one_file_and_read_again_as_it_was(value: object, tmp_path: Path) -> None:
    stored = store_value(value, tmp_path)
    assert [file.ref.name for file in stored.files] == ["value.json"]
    assert equal(loaded(stored.document, tmp_path), value)


@pytest.mark.parametrize(("value", "text"), STORED.values(), ids=STORED)
def test_a_value_of_another_class_is_one_file_too(value: object, text: str, tmp_path: Path) -> None:
    (file,) = store_value(value, tmp_path).files
    assert file.path.read_text() == text


def test_a_dataclass_with_an_array_is_stored_by_its_fields(tmp_path: Path) -> None:
    stored = store_value(Fit(1.5, 2, np.arange(3)), tmp_path)
    assert [file.ref.name for file in stored.files] == ["peak-value.json", "count-value.json", "image-value.npy"]
    with pytest.raises(NotStorableError, match="by its fields"):
        loaded(stored.document, tmp_path)


def test_files_of_keys_are_not_stored_with_the_folder_or_the_path_that_names_them(tmp_path: Path) -> None:
    results, kept = tmp_path / "results", tmp_path / "kept"
    for folder in (results, kept):
        folder.mkdir()
    for name in ("a.tif", "server.pem", ".env"):
        (results / name).write_text(f"content of {name}")
    assert [file.ref.name for file in store_value(results, kept).files] == ["a.tif"]
    with pytest.raises(NotStorableError, match=r"a file of keys: server\.pem"):
        store_value(results / "server.pem", kept)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotStorableError):
        store_value(object(), tmp_path)
