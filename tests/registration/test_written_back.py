"""An ingestion that merges back older metadata does not undo any registration."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.core.slots import SlotClaim, slots_of, slots_stated
from crucible_lineage.errors import UnreachableError
from crucible_lineage.ids import derive_mfid
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.registration import register as registering
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.read import read
from crucible_lineage.registration.register import add_equal_parents, register_output
from tests.serving import RunningServer
from tests.written_back import writing_back

HISTORIES = int(os.environ.get("WRITTEN_BACK_HISTORIES", "4"))  # `make crash` tries 200
SLOT = "lab/smooth/out/all"


@pytest.fixture(params=[(0.0, 0.05), (0.02, 0.1)], ids=str)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    with writing_back(tmp_path / "service", *request.param) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[CrucibleClient]:
    with CrucibleClient(server.url, server.api_key) as made:
        made.projects.create(project_id="lab", organization="x", project_lead="local")
        yield made


def test_histories(client: CrucibleClient, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete result stays as it was registered, with its slots and equal parents."""
    chance = random.Random(HISTORIES)
    parents = [client.datasets.create({"dataset_name": name, "project_id": "lab"}).dsid for name in ("one", "other")]
    expected: dict[str, Any] = {}
    for number in range(HISTORIES):
        attempts = [_attempt(dataset, parents[0], tmp_path, number, attempt) for attempt in range(3)]
        for attempt in attempts[: chance.randint(0, 2)]:
            _die_before_the_end(client, attempt, monkeypatch, asks=chance.random() < 0.5)
        done = register_output(client, attempts[-1], "here", patience_s=0.01)
        if chance.random() < 0.5:
            client.metadata.merge(done.mfid, slots_stated({SLOT: SlotClaim("2026-06-01T00:00:00+00:00", "later")}))
        if chance.random() < 0.5:
            add_equal_parents(client, done.mfid, {parents[1]: parents[0]})
        expected[done.mfid] = read(client, done.mfid)
    for request in client.ingestions.list():
        if request.is_open:
            client.ingestions.wait(request.id)
    written_back = 0
    for mfid, before in expected.items():
        after = read(client, mfid)
        assert after is not None
        was, now = before.dataset.scientific_metadata, after.dataset.scientific_metadata
        assert (after.ref, after.record, slots_of(now)) == (before.ref, before.record, slots_of(was))
        assert after.dataset.scientific_metadata["seed"] == before.dataset.scientific_metadata["seed"]
        written_back += "table" in (after.dataset.scientific_metadata or {})
    assert written_back > HISTORIES // 3


def test_corrected_fields_outlive_the_worker(server: RunningServer, client: CrucibleClient, tmp_path: Path) -> None:
    mfid = client.datasets.create({"project_id": "lab", "dataset_name": "scan", "measurement": "Raman"}).dsid
    (tmp_path / "scan.csv").write_text("x,y\n1,2\n")
    stored = client.files.upload(mfid, tmp_path / "scan.csv").file

    def ask(*words: str) -> Any:
        options = ("--url", server.url, "--api-key", server.api_key, "--data", str(tmp_path / "data"))
        found = CliRunner().invoke(main, [*words, "--json", *options])
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    values = {"measurement": "XPS", "dataset_name": "scan 2", "timestamp": "2024-05-10T12:00:00+00:00"}
    old = {name: client.datasets.get(mfid)[name] for name in values}
    texts = [f"{name}={value}" for name, value in values.items()]
    ask("set", mfid, *texts)
    client.datasets.update(mfid, **old)  # as a worker that has read the record before
    client.ingestions.wait(client.ingestions.request(stored.mfid).id)
    shown = ask("show", mfid)
    assert {name: shown[name] for name in values} == values
    (listed,) = ask("list", "--project", "lab")["datasets"]
    assert {name: listed[name] for name in values} == values
    (finding,) = ask("verify", "--project", "lab")["findings"][:1]
    assert (finding["class"], finding["mfids"]) == ("correction-overwritten", [mfid])
    ask("set", mfid, *texts)
    assert {name: client.datasets.get(mfid)[name] for name in values} == values  # read without corrections
    assert "correction-overwritten" not in str(ask("verify", "--project", "lab"))


def _attempt(dataset: Any, parent: str, folder: Path, number: int, attempt: int) -> NewDataset:
    recipe = {
        "kind": "step", "version": 2,
        "project": "lab", "step": "smooth", "output": "out", "code": "c0de", "params": {"n": number},
        "inputs": {"spectrum": [{"origin": parent, "files": {}}]},
    }  # fmt: skip
    attempt_folder = folder / str(number) / str(attempt)
    attempt_folder.mkdir(parents=True)
    path = attempt_folder / "smooth.csv"
    path.write_text(f"x,y\n1,{attempt}\n2,3\n")
    made: NewDataset = dataset(parent, path, recipe)
    file = LocalFile.of(path, scan_file(path))
    return replace(
        made,
        mfid=derive_mfid(recipe, parent),
        metadata={"seed": attempt},
        files=(file,),
        slots={SLOT: SlotClaim("2026-01-01T00:00:00+00:00", str(attempt))},
    )


def _die_before_the_end(
    client: CrucibleClient, new: NewDataset, monkeypatch: pytest.MonkeyPatch, *, asks: bool
) -> None:
    """All is there but the last word; and, as older versions did, or the service by itself, ingestion is asked for."""

    def lose(held_client: CrucibleClient, held: Any) -> Any:
        if asks:
            for file in held_client.files.list(held.mfid):
                held_client.ingestions.request(file.mfid)
        raise UnreachableError("killed")

    with monkeypatch.context() as broken, suppress(UnreachableError):
        broken.setattr(registering, "complete", lose)
        register_output(client, new, "elsewhere", patience_s=0.01)
