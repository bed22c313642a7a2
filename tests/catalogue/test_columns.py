"""A column of lists is declared once and appears in all lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.web import views
from crucible_lineage.web.rendering import Reader, SignIn


@pytest.fixture
def session(project: Any) -> Iterator[Session]:
    with Session(Settings(project.data)) as opened:
        yield opened


@pytest.fixture
def reader(session: Session, project: Any, tmp_path: Path) -> Any:
    """Return a function that makes the reader of a page of the project with a query."""
    sign_in = SignIn(session.client, "somebody", tmp_path / "reader", project.data, 0.0)

    def reading(query: str) -> Reader:
        scope = {
            "type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query.encode(),
            "path_params": {"project": "spectra"},
        }  # fmt: skip
        return Reader(Request(scope), sign_in)

    return reading


def test_interfaces_agree_about_a_dataset(project: Any, reader: Any) -> None:
    listed = {dataset["mfid"]: dataset for dataset in project.ask_json("list", "--all")["datasets"]}
    assert {name for dataset in listed.values() for name in dataset["results"]} == {"rms_cm1", "peak_nm"}
    shown = project.ask_json("show", project.fitted("weak-1.txt"))
    own = listed[shown["mfid"]]
    assert {key: shown[key] for key in own if key != "results"} == {key: own[key] for key in own if key != "results"}
    by_cli = project.ask("list", "--all", "--csv", "--sort=mfid").stdout.replace("\r", "")
    by_page = bytes(views.datasets_csv(reader("all=1&sort=mfid")).body).decode().replace("\r", "")
    assert by_cli == by_page
