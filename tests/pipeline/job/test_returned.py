"""Returned values become plain JSON by the rule for parameters; others are refused, with their path."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.session import Session

# What a function returns, and what its dataset then says.
TAKEN = """
import dataclasses, datetime, enum, pathlib
from pathlib import Path
import numpy as np
import pydantic


class Lamp(enum.Enum):
    neon = "Ne"


@dataclasses.dataclass
class Fit:
    centre: float
    lamp: Lamp


class Model(pydantic.BaseModel):
    order: int
    where: pathlib.Path


def taken(counts: Path, *, out: Path):
    (out / "x.txt").write_text("1")
    return {
        "keys": {46: 1.0, 0.5: 2, True: 3, None: 4, Lamp.neon: 5, datetime.date(2024, 5, 1): 6, np.int64(7): 7},
        "numpy": [np.int32(3), np.float64(0.5), np.bool_(True), np.arange(3), np.datetime64("2024-05-01T12:00", "ns")],
        "fit": Fit(1.5, Lamp.neon),
        "model": Model(order=3, where=pathlib.Path("a") / "b"),
        "when": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        "set": {2, 1},
        "bytes": b"\\x00\\xff",
    }
"""
SAID = {
    "keys": {"46": 1.0, "0.5": 2, "true": 3, "null": 4, "Ne": 5, "2024-05-01": 6, "7": 7},
    "numpy": [3, 0.5, True, [0, 1, 2], "2024-05-01T12:00:00.000000000"],
    "fit": {"centre": 1.5, "lamp": "Ne"},
    "model": {"order": 3, "where": "a/b"},
    "when": "2024-05-01T10:00:00+00:00",
    "set": [1, 2],
    "bytes": {"bytes": "00ff"},
}
HEAD = """
pipeline: returning
project: lab
inputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
steps:
"""


def test_values_with_a_form_in_json_are_stored_in_it(lab: Any, session: Session, run: Any) -> None:
    lab.file(f"{lab.module}_taken.py", TAKEN)
    result = run(lab.declare(f"{HEAD}  taken: {{uses: {lab.module}_taken:taken, inputs: {{counts: first}}}}\n"))
    assert result.executed == ["taken"], result.errors
    found = session.client.datasets.get(result.datasets["taken"]["out"], include_metadata=True).scientific_metadata
    assert {name: (found or {}).get(name) for name in SAID} == SAID


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'a': float('nan')}", "the value 'a' that it returned is nan"),
        ("{'h': {(1, 2): 3}}", "the value 'h' that it returned has a key (1, 2) that is neither text nor a number"),
        ("{'text': chr(0xD800)}", "the value 'text' that it returned is '\\ud800', which is not valid Unicode text"),
        ("{'long': 'x' * (16 << 20)}", "returned 16.8 MB of metadata for 'out'"),
        (
            "{'fine': __import__('numpy').longdouble(1)}",
            "the value 'fine' that it returned is a numpy.longdouble, which",
        ),
        ("(lambda d: d.update(d=d) or d)({})", "has more than 90 levels, or contains itself"),
    ],
)
def test_values_without_a_form_in_json_are_refused_with_their_path_and_nothing_is_registered(
    odd: Any, session: Session, run: Any, returned: str, message: str
) -> None:
    result = run(odd(f"(out / 'x.txt').write_text('1')\nreturn {returned}"))
    assert message in result.errors["odd"]
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 1, "only the input"
