"""A project made by a small pipeline, and ways to damage it: our client, the raw API, and the server's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.marks import settled
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.provenance.record import KEY
from crucible_lineage.server.database import connect
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run as run_file

Found = set[tuple[str, tuple[str, ...]]]


class Made:
    """The project `lab`: raw `first` and `second`, `scaled` of the first, `total` of scaled and second."""

    def __init__(self, session: Session, result: RunResult) -> None:
        self.session = session
        self.first, self.second = result.inputs["first"][0], result.inputs["second"][0]
        self.scaled, self.total = result.datasets["scaled"]["out"], result.datasets["total"]["out"]

    def findings(self, *, read_bytes: bool = False) -> Found:
        """Return (class, ids) of each finding in the project."""
        found = verify_project(self.session, "lab", read_bytes=read_bytes)
        return {(finding.check, finding.ids) for finding in found.findings}

    def record(self, mfid: str) -> dict[str, Any]:
        metadata = settled(self.session.client.metadata.get(mfid))
        return dict(metadata[KEY])

    def edit_record(self, mfid: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change a record with `edit`, and write it through our client."""
        metadata = settled(self.session.client.metadata.get(mfid))
        edit(metadata[KEY])
        self.session.client.metadata.replace(mfid, metadata)

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request to the raw API."""
        key = (self.folder / "api_key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}", "Crucible-Privilege-Mode": "elevated"}
        answer = httpx.request(method, f"{self.session.client.api_url}{path}", headers=headers, **options)
        assert answer.status_code < 300, answer.text
        return answer

    @property
    def folder(self) -> Path:
        """The embedded Crucible's folder."""
        return self.session.settings.data / "crucible"

    def sql(self, statement: str, *values: object) -> None:
        """Change the database behind the server's back."""
        with closing(connect(self.folder / "crucible.db")) as database, database:
            database.execute("PRAGMA foreign_keys=ON")
            assert database.execute(statement, values).rowcount > 0

    def stored(self, mfid: str, filename: str) -> Path:
        """Return the path of a file's bytes in the server's storage."""
        (file,) = [f for f in self.session.client.files.list(mfid) if f.filename == filename]
        assert file.sha256_hash is not None
        return self.folder / "contents" / file.sha256_hash[:2] / file.sha256_hash[2:]

    def file_mfid(self, mfid: str, filename: str) -> str:
        (file,) = [f for f in self.session.client.files.list(mfid) if f.filename == filename]
        return file.mfid


Prepared = tuple[Path, RunResult]


@pytest.fixture(scope="session")
def prepared() -> dict[bool, Prepared]:
    """Return a mapping, filled by tests, of whether sources are kept to the data folder of a run, and the run."""
    return {}


@pytest.fixture
def made(
    request: pytest.FixtureRequest,
    prepared: dict[bool, Prepared],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> Iterator[Made]:
    """Run the laboratory's pipeline; each test has a copy that it may damage."""
    keeps = "keeping" in request.fixturenames
    if keeps not in prepared:
        origin = tmp_path_factory.mktemp("verify") / "data"
        prepared[keeps] = origin, run(request.getfixturevalue("lab").pipeline, origin)
    origin, result = prepared[keeps]
    folder = tmp_path / "verified"
    shutil.copytree(origin, folder)
    with Session(Settings(folder)) as session:
        yield Made(session, result)


def run(pipeline: Path, data: Path) -> RunResult:
    with Session(Settings(data)) as session:
        result = run_file(session, pipeline)
        assert result.ok, json.dumps(result.to_json())
        return result
