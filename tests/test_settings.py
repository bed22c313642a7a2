"""What the environment says of how long calls are repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, key_in, resolve_settings, retries_from_environment


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", text)
    with pytest.raises(InputError, match=f"CRUCIBLE_LINEAGE_RETRY_SECONDS is '{text}'; give seconds"):
        retries_from_environment()


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


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://crucible.lbl.gov", "https://crucible.lbl.gov/api/v3"),
        ("https://crucible.lbl.gov/", "https://crucible.lbl.gov/api/v3"),
        ("https://crucible.lbl.gov/api/v3/", "https://crucible.lbl.gov/api/v3"),
        ("http://127.0.0.1:8000/crucible/api/v2", "http://127.0.0.1:8000/crucible/api/v2"),
    ],
)
def test_an_address_without_a_path_is_completed(given: str, used: str) -> None:
    asked = resolve_settings(api_url=given, api_key="key")
    assert asked.api_url == used


def test_a_key_is_not_left_unused_where_a_data_folder_is_given_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRUCIBLE_API_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # without a configuration file
    with pytest.raises(InputError, match="an API key was given, but no address"):
        resolve_settings(data=tmp_path, api_key="key")


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
