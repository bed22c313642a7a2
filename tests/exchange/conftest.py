"""An offline folder with a project of every kind of content, a service to bring it to, and what either of them says."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.exchange.copying import CopyOutcome, CopyPlan, bring, plan_project
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.provenance.record import KEY
from crucible_lineage.registration.ingestion import follow_ingestions
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run
from tests.serving import RunningServer, start_server

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PASSING = ("registrar", "completed", "attached", "agent")  # of a record: who registered it, and when


class Service:
    """A Crucible elsewhere that has an empty project `lab`."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        self.url, self.api_key, self.folder = server.url, server.api_key, folder

    @contextmanager
    def session(self, data: str | Path = "direct") -> Iterator[Session]:
        with Session(Settings(self.folder / data, self.url, self.api_key)) as session:
            yield session

    def state(self) -> dict[str, Any]:
        with self.session() as session:
            return project_state(session)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of its own for each test, since ids are the same in all of them."""
    with start_server(tmp_path / "service") as running:
        made = Service(running, tmp_path)
        with made.session() as session:
            lead = session.client.account.whoami().user_unique_id
            session.client.projects.create(project_id="lab", organization="x", project_lead=lead)
        yield made


def run_local(path: Path, session: Session) -> RunResult:
    result = run(session, path)
    assert result.ok, result.errors
    follow_ingestions(session.client, session.store, at_most_s=20)
    return result


@pytest.fixture
def offline(lab: Any, tmp_path: Path) -> Iterator[Session]:
    """An embedded Crucible in which the pipeline of the laboratory ran."""
    with Session(Settings(tmp_path / "offline")) as session:
        run_local(lab.pipeline, session)
        yield session


def furnish(session: Session, folder: Path) -> str:
    """A dataset of no registration, with everything that a dataset can have; its id."""
    client = session.client
    scans = client.datasets.list(project_id="lab", dataset_name="first")
    wafer = client.samples.create(unique_id="0rztm2jg0201b8b6d0znq6915g", sample_name="wafer", project_id="lab")
    chip = client.samples.create(
        unique_id="0rztm2jg021sb77z7kvdejhvp0", sample_name="chip", description="cut", project_id="lab"
    )
    client.samples.link_parent_child(wafer.unique_id, chip.unique_id)
    client.metadata.create(wafer.unique_id, {"supplier": "x"})
    (folder / "scan.bin").write_bytes(b"\x00scan" * 1000)
    (folder / "empty.txt").write_bytes(b"")
    made = client.datasets.create(
        {
            "dataset_name": "by hand", "measurement": "SEM", "data_type": "image", "data_format": "bin",
            "session_name": "monday", "timestamp": "2024-05-02T10:00:00Z", "project_id": "lab",
            "instrument_name": "old SEM", "public": True,
        },
        scientific_metadata={"kV": 5.0, "stage": {"x": 1, "y": 1e22}, "note": "Größe"},
        keywords=["SEM", "Überblick"],
    ).dsid  # fmt: skip
    client.files.upload(made, folder / "scan.bin")
    client.files.upload(made, folder / "empty.txt")
    client.datasets.add_thumbnail(made, PIXEL, name="view")
    client.datasets.add_sample(made, chip.unique_id)
    client.datasets.link_parent_child(scans[0].unique_id, made, relationship_type="is_part_of")
    return made


@pytest.fixture
def rich(offline: Session, tmp_path: Path) -> Session:
    """The same, with samples and with a dataset that has everything a dataset can have."""
    furnish(offline, tmp_path)
    return offline


def project_state(session: Session) -> dict[str, Any]:
    """Everything that a Crucible says of project `lab`, without who brought it, and when."""
    client = session.client
    state: dict[str, Any] = {}
    for dataset in client.datasets.list(project_id="lab", include_metadata=True, include_links=True):
        mfid, metadata = dataset.unique_id, dict(dataset.scientific_metadata or {})
        record = metadata.pop(KEY, None)
        state[mfid] = {
            **dataset.model_dump(include={
                "dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp",
                "instrument_name", "public", "size", "project_id",
            }),
            "metadata": metadata,
            "record": {key: value for key, value in (record or {}).items() if key not in PASSING},
            "keywords": sorted(word.keyword for word in client.datasets.get_keywords(mfid)),
            "files": sorted(
                (file.filename, file.size, file.sha256_hash, file.storage_backend, _address(file))
                for file in client.files.list(mfid)
            ),
            "links": sorted(
                (link.unique_id, link.direction, str(link.relationship_type)) for link in dataset.links or ()
            ),
            "pictures": sorted((p.thumbnail_name, p.thumbnail_b64str) for p in client.datasets.get_thumbnails(mfid)),
        }  # fmt: skip
    for sample in client.samples.list(project_id="lab", include_metadata=True, include_links=True):
        state[sample.unique_id] = sample.model_dump(
            include={"sample_name", "sample_type", "description", "timestamp", "scientific_metadata", "public"}
        ) | {"links": sorted((link.unique_id, link.direction) for link in sample.links or ())}
    return state


def _address(file: Any) -> str:
    return str(file.storage_path) if file.storage_backend not in (None, "gcs") else "stored"


@pytest.fixture
def state_of() -> Callable[[Session], dict[str, Any]]:
    """The function that tells the state of project `lab`."""
    return project_state


Push = Callable[..., tuple[CopyPlan, CopyOutcome]]


def push_to(service: Service, source: Session, **more: Any) -> tuple[CopyPlan, CopyOutcome]:
    """The plan, and what came of it."""
    with service.session(source.settings.data) as target:
        plan = plan_project(source, target, "lab", lambda *_: None)
        options: dict[str, Any] = {"ingests": True, "patience_s": 0.0, **more}
        outcome = bring(source, target, plan, lambda *_: None, lambda _: None, **options)
        follow_ingestions(target.client, target.store, at_most_s=20)
        return plan, outcome


@pytest.fixture
def push() -> Push:
    """Brings project `lab` from a session to a service."""
    return push_to


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request from now on that could change something, as `METHOD host path`."""
    seen: list[str] = []
    send = httpx.Client.send

    def noting(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method != "GET":
            seen.append(f"{request.method} {request.url.netloc.decode()} {request.url.path}")
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", noting)
    return seen


@pytest.fixture(name="run_local")
def run_local_fixture() -> Callable[[Path, Session], RunResult]:
    """Runs a pipeline in a session, and waits until all is ingested."""
    return run_local
