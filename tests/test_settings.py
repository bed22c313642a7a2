"""Which Crucible is used, with which key, and how long calls are repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError, UnreachableError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, key_in
from tests.golden.stored import run_examples
from tests.serving import start_server


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("settings.txt"))


def test_a_session_goes_on_as_long_as_the_environment_says(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", "7.5")
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRIES", "3")
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_AFTER_SECONDS", "12")
    with Session(Settings(session.settings.data, "http://x.test", "k")) as other:
        retry = other.client._connection.retry
        assert (retry.total_s, retry.attempts, retry.asked_total_s) == (7.5, 3, 12)


@pytest.mark.parametrize(("given", "used"), [("0.2", 0.2), ("7.5", 5.0), ("", 5.0)])
def test_what_is_delivered_beside_a_run_is_given_up_no_later_than_the_environment_says(
    session: Session, monkeypatch: pytest.MonkeyPatch, given: str, used: float
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", given)
    with Session(Settings(session.settings.data, "http://x.test", "k")) as other, other.connect(at_most_s=5.0) as more:
        assert (more._connection.retry.total_s, more._connection.retry.asked_total_s) == (used, 5.0)


@pytest.mark.parametrize("key", ["", "two\nlines", "schlüssel"])
def test_a_key_that_no_request_could_carry_is_refused_alike_wherever_it_is_given(key: str, tmp_path: Path) -> None:
    refusal = "cannot be sent: it must be one line of visible ASCII characters, without blanks"
    with pytest.raises(InputError, match=f"the API key {refusal}"):
        CrucibleClient("http://x.test", key)
    served = CliRunner().invoke(main, ["serve", "--api-key", key, "--data", str(tmp_path)])
    assert (served.exit_code, f"the API key {refusal}" in served.stderr) == (2, True), served.stderr
    file = tmp_path / "key"
    file.write_text(key, encoding="utf-8")
    with pytest.raises(InputError, match=f"the key in {file} {refusal}"):
        key_in(file)


def test_the_account_of_a_key_is_known_in_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", "0.1")
    with start_server(tmp_path / "there") as server:
        at = Settings(tmp_path / "here", server.url, server.api_key)
        with Session(at) as session:
            known = session.account, session.agent
            assert session.agent is session.agent
    with Session(at) as session:
        assert (session.account, session.agent) == known
        session.set_agent({"username": "another"})
        assert session.agent == known[1]
    for other in (replace(at, api_key="a-key-of-another"), replace(at, api_url="http://127.0.0.1:9/api/v3")):
        with Session(other) as session, pytest.raises(UnreachableError):
            _ = session.account
