"""Parameters: what is spelled how, what is refused by name, and what stands for a secret."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, SecretStr

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.walk import canonical_params, canonical_value
from crucible_lineage.pipeline.plan.inspect import checked_params
from crucible_lineage.step import Step


class Method(Enum):
    FIT = "fit"


class Window(BaseModel):
    low: float
    high: float = 5.0


class Login(BaseModel):
    user: str
    password: SecretStr


@dataclass(frozen=True)
class Range:
    low: float
    method: Method = Method.FIT


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (Path("data") / "neon.txt", "data/neon.txt"),
        (Method.FIT, "fit"),
        (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00+00:00"),
        (datetime(2024, 5, 1, 4, tzinfo=timezone(timedelta(hours=-8))), "2024-05-01T12:00:00+00:00"),
        (date(2024, 5, 1), "2024-05-01"),
        (Decimal("0.10"), "0.10"),
        (Range(1.0), {"low": 1.0, "method": "fit"}),
        (Window(low=1), {"low": 1.0, "high": 5.0}),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (b"\x01\x02", {"bytes": "0102"}),
        (None, None),
    ],
    ids=repr,
)
def test_values_of_many_kinds_have_one_spelling(value: Any, spelled: Any) -> None:
    told = canonical_value(value, "x")

    assert told == spelled
    assert json.loads(json.dumps(told)) == spelled


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (float("nan"), "'x'"),
        (np.float64("nan"), "'x'"),
        ({"low": {"at": float("nan")}}, "'x.low.at'"),
        (Range(float("nan")), "'x.low'"),
        (object(), "'x'"),
        ({1: "one", "1": "another"}, "'x'"),
        ("\ud800", "'x'"),
        (SecretStr("hunter2"), "'x'"),
        (Login(user="me", password=SecretStr("hunter2")), "'x.password'"),
        (iter([1]), "'x'"),
    ],
)
def test_what_has_no_stable_spelling_is_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(InputError) as refused:
        canonical_params({"x": value})

    assert named in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_function_is_told_by_its_code() -> None:
    def twice(value: float) -> float:
        return value * 2

    def thrice(value: float) -> float:
        return value * 3

    same = twice

    assert canonical_value(twice, "x") == canonical_value(same, "x")
    assert canonical_value(twice, "x") != canonical_value(thrice, "x")
    assert canonical_value(functools.partial(pow, exp=2), "x") != canonical_value(functools.partial(pow, exp=3), "x")
    assert canonical_value(np.mean, "x") != canonical_value(np.median, "x")
    assert canonical_value(np.sin, "x") != canonical_value(np.cos, "x")
    assert canonical_value(len, "x") != canonical_value(sum, "x")


def _fetch(spectrum: Path, *, token: SecretStr, pin: str = "1234", degree: int = 3, out: Path) -> None: ...


fetch = Step(_fetch, name="fetch", secrets=["pin"])


def test_a_secret_is_told_by_a_digest_only() -> None:
    told = canonical_params({"token": SecretStr("hunter2"), "pin": "1234", "degree": 3}, fetch)

    assert told["degree"] == 3
    assert [set(told[name]) for name in ("token", "pin")] == [{"secret"}, {"secret"}]
    assert "hunter2" not in json.dumps(told)
    assert "1234" not in json.dumps(told)


def test_another_secret_has_another_digest_and_the_same_one_the_same() -> None:
    one, same, other = (canonical_params({"token": SecretStr(text)}, fetch) for text in ("a", "a", "b"))

    assert one == same != other


def test_one_secret_cannot_be_recognized_in_another_parameter_or_step() -> None:
    elsewhere = Step(_fetch, name="other", secrets=["pin"])
    told = canonical_params({"token": "a", "pin": "a"}, fetch)

    assert told["token"] != told["pin"]
    assert canonical_params({"token": "a"}, elsewhere)["token"] != told["token"]


def test_a_model_that_holds_a_secret_can_be_declared_secret() -> None:
    def log_in(spectrum: Path, *, login: Login, out: Path) -> None: ...

    declared = Step(log_in, secrets=["login"])
    one, other = (
        canonical_params({"login": Login(user="me", password=SecretStr(word))}, declared) for word in ("hunter2", "x")
    )

    assert one != other
    assert "hunter2" not in json.dumps(one)


def test_a_default_counts_as_given() -> None:
    def run(spectrum: Path, *, degree: int = 3, out: Path) -> None: ...

    assert checked_params(Step(run), {}) == checked_params(Step(run), {"degree": 3})
