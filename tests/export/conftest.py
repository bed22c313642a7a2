"""A small pipeline that ran once, its lineage, and a colleague who may see a part of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.ask.bundle import to_share
from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.cli import main
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.server.database import connect
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Run `crucible-lineage` within this process, which is quicker than a separate one."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments)])

    return run


class Made:
    """The project `lab`: raw `first` and `second`, `scaled` of the first, `total` of scaled and second."""

    def __init__(self, session: Session, mfids: dict[str, str]) -> None:
        self.session = session
        self.data = session.settings.data
        self.first, self.second = mfids["first"], mfids["second"]
        self.scaled, self.total = mfids["scaled"], mfids["total"]

    @property
    def graph(self) -> LineageGraph:
        return to_share(self.session, fetch_lineage(self.session, self.total))

    def sql(self, statement: str, *values: object) -> None:
        """Change the database behind the server's back."""
        with closing(connect(self.data / "crucible" / "crucible.db")) as database, database:
            assert database.execute(statement, values).rowcount > 0


@pytest.fixture(scope="session")
def prepared() -> dict[str, Any]:
    """Prepare the data folder in which the pipeline ran, and the ids, for the first test that needs them."""
    return {}


@pytest.fixture
def made(
    request: pytest.FixtureRequest,
    prepared: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    command: Any,
) -> Iterator[Made]:
    """Provide the laboratory's pipeline after a run; each test has a copy that it may change."""
    if not prepared:
        origin = tmp_path_factory.mktemp("export") / "data"
        lab = request.getfixturevalue("lab")
        ran = command("run", lab.pipeline, "--data", origin, "--engine", "local", "--json")
        assert ran.returncode == 0, ran.stderr
        printed = json.loads(ran.stdout)
        mfids = {name: _only(found) for part in ("inputs", "datasets") for name, found in printed[part].items()}
        prepared.update(origin=origin, mfids=mfids)
    folder = tmp_path / "exported"
    shutil.copytree(prepared["origin"], folder, ignore=shutil.ignore_patterns("serving.json"))  # of a server that ends
    with Session(Settings(folder)) as session:
        yield Made(session, prepared["mfids"])


@pytest.fixture
def colleague(made: Made, colleague: Session) -> Session:
    """Hide the dataset `first` from the user who may read the project `lab`."""
    made.session.ensure_project("secret")
    made.session.client.datasets.assign_project(made.first, "secret")
    return colleague


def _only(found: Any) -> str:
    """Return the only id of an input or a step in the output of `run --json`."""
    while not isinstance(found, str):
        (found,) = found.values() if isinstance(found, dict) else found
    return found
