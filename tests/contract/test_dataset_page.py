"""Crucible's page about datasets with our client: each call, and differences from the official client."""

from __future__ import annotations

import base64
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from crucible import CrucibleClient as Official

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.datasets import CreatedDataset
from crucible_lineage.client.models import Dataset, DatasetCreate
from crucible_lineage.client.wire import parse
from crucible_lineage.errors import FileConflictError, InputError, RefusedError, ServerError
from tests.serving import RunningServer, start_server

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def official_settings(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    monkeypatch.setenv("CRUCIBLE_API_URL", server.url)
    monkeypatch.setenv("CRUCIBLE_API_KEY", server.api_key)
    return server


def test_each_call_of_the_page_works_as_it_is_written(official_settings: RunningServer, tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the official model, for instrument_name
            from dataset_page import page
    finally:
        sys.path.remove(str(Path(__file__).parent))
    (tmp_path / "image.dat").write_bytes(bytes(range(256)))
    (tmp_path / "notes.txt").write_text("as measured")
    (tmp_path / "preview.png").write_bytes(base64.b64decode(PIXEL))
    with CrucibleClient() as client:
        client.projects.create(project_id="nano", organization="lab", project_lead="local")
        sample = client.samples.create(sample_name="gold on carbon", project_id="nano").mfid
    shown = page(tmp_path, sample, "nano")
    assert {name for name, value in shown.items() if value is False} == set()
    assert shown["created"] == "Gold nanoparticle TEM image"
    assert shown["metadata at once"] == {"magnification": 50000, "temperature_K": 295.0}
    assert shown["files"] == 2
    assert shown["got"] == ("Gold nanoparticle TEM image", "TEM", 50000, [])
    assert shown["updated"] == ("image", "2026-03-02")
    assert shown["names"] == ["image.dat", "notes.txt"]
    assert (shown["links"], shown["downloaded"]) == (2, ["image.dat"])
    assert {"detector", "magnification", "temperature_K"} <= set(shown["merged"])
    assert shown["replaced"] == {"only": 1}
    assert shown["thumbnails"]
    assert shown["deletion"] == "pending"


def test_without_arguments_it_is_the_official_clients_crucible(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: RunningServer
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(InputError, match="set CRUCIBLE_API_KEY"):
        CrucibleClient()
    monkeypatch.setenv("CRUCIBLE_API_KEY", "k")
    with CrucibleClient() as ours:
        assert ours.api_url == Official(api_key="k").api_url == "https://crucible.lbl.gov/api/v3"
    monkeypatch.delenv("CRUCIBLE_API_KEY")
    (tmp_path / "nano-crucible").mkdir()
    config = f"[crucible]\napi_url = \"{server.url}/\"\napi_key = '{server.api_key}'\n"
    (tmp_path / "nano-crucible" / "config.ini").write_text(config)
    with CrucibleClient() as ours:
        assert ours.api_url == server.url
        assert ours.account.whoami().user_unique_id
        assert server.api_key not in repr(vars(ours))
    monkeypatch.setenv("CRUCIBLE_PRIVILEGE_MODE", "emperor")
    with pytest.raises(InputError, match="it is normal or elevated"):
        CrucibleClient()
    monkeypatch.setenv("CRUCIBLE_PRIVILEGE_MODE", "elevated")
    with CrucibleClient() as ours:
        assert ours.account.whoami().user_unique_id


def test_an_object_that_is_no_dataset_is_refused_before_anything_is_sent() -> None:
    with CrucibleClient("http://127.0.0.1:9", "key") as client:
        with pytest.raises(InputError, match="nothing was created"):
            client.datasets.create(7)  # type: ignore[arg-type]
        created = CreatedDataset(Dataset(unique_id="x"))
        with pytest.raises(KeyError, match="did you mean 'dsid'"):
            _ = created["dsd"]


def test_links_updates_and_models_work_as_on_the_page(official_settings: RunningServer, tmp_path: Path) -> None:
    with CrucibleClient() as client:
        client.projects.create(project_id="page-lab", organization="lab", project_lead="local")
        client.instruments.create(instrument_id="titan", instrument_name="Titan", location="B67")
        made = client.datasets.create(DatasetCreate(dataset_name="of our own model", project_id="page-lab"))
        child = client.datasets.create(DatasetCreate(dataset_name="child", project_id="page-lab"))
        for parent_name, child_name in (("parent_dataset_id", "child_dataset_id"), ("parent_mfid", "child_mfid")):
            client.datasets.link_parent_child(**{parent_name: made.dsid, child_name: child.dsid})
            assert [dataset.unique_id for dataset in client.datasets.list_children(made.dsid)] == [child.dsid]
            client.datasets.unlink(made.dsid, child.dsid)
        updated = client.datasets.update(made.dsid, instrument_name="Titan", measurement="TEM")
        assert (updated.instrument_id, updated.measurement) == ("titan", "TEM")
        assert client.datasets.update(made.dsid, instrument_name="a balance").instrument_name == "a balance"


def test_the_service_names_a_filter_that_it_does_not_know(official_settings: RunningServer) -> None:
    with (
        CrucibleClient() as client,
        pytest.raises(RefusedError, match=r"list datasets: .* 422 mesurement: .*\ncorrect"),
    ):
        client.datasets.list(mesurement="SEM")


def test_an_answer_without_an_id_is_no_dataset() -> None:
    with pytest.raises(ServerError, match="unique_id: Field required"):
        parse(Dataset, {"dataset_name": "nameless"}, "read a dataset")


def test_other_content_under_a_name_is_a_conflict_and_replaced_on_request(
    official_settings: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "spectrum.txt"
    with CrucibleClient() as client:
        client.projects.create(project_id="page-files", organization="lab", project_lead="local")
        dsid = client.datasets.create({"dataset_name": "spectrum", "project_id": "page-files"}).dsid
        path.write_text("first")
        first = client.datasets.add_file_to_dataset(dsid, path, ingest=False)
        path.write_text("second")
        with pytest.raises(FileConflictError, match=r"with other content .*\n.*upload it with replace=True"):
            client.datasets.add_file_to_dataset(dsid, path, ingest=False)
        second = client.datasets.add_file_to_dataset(dsid, path, ingest=False, replace=True)
        assert second.file.mfid == first.file.mfid
        assert client.files.download_bytes(second.file) == b"second"
