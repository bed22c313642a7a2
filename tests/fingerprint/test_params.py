"""Parameters: what is spelled how, what is refused by name, and what stands for a secret."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, SecretStr

from crucible_lineage.fingerprint.walk import canonical_params
from crucible_lineage.pipeline.plan.inspect import checked_params
from crucible_lineage.step import Step


class Login(BaseModel):
    user: str
    password: SecretStr


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
