"""Datasets through the official client: what is created is found again, and errors are refused."""

from __future__ import annotations

import base64
from hashlib import sha256

import httpx

from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.server import database
from tests.serving import start_server


def test_dataset_keeps_the_mfid_its_client_chose(client, dataset):
    chosen = derive_mfid({"step": "calibrate"}, new_mfid())
    assert dataset(unique_id=chosen) == chosen
    assert client.datasets.get(chosen)["dataset_name"] == "polystyrene spectrum"


def test_the_size_is_that_of_the_files(api, client, dataset, tmp_path):
    mfid = dataset(size=99)
    assert api.patch(f"/datasets/{mfid}", json={"size": 5}).status_code == 422
    sizes, files = [], {}
    for name, text in (("a", "12"), ("b", "3456"), ("a", "1")):
        (tmp_path / name).write_text(text)
        files[name] = client.datasets.add_file(mfid, str(tmp_path / name), replace=True)["associated_file"]["mfid"]
        sizes.append(client.datasets.get(mfid)["size"])
    for file in files.values():
        client.files.delete(file)
        sizes.append(client.datasets.get(mfid)["size"])
    assert sizes == [2, 6, 5, 4, None]


def test_a_file_more_costs_the_same_in_a_dataset_of_many(tmp_path, monkeypatch):
    """Counted in steps of SQLite's machine, by tens."""
    steps, connect = [], database.connect

    def counted(path):
        connection = connect(path)
        connection.set_progress_handler(lambda: steps.append(1), 10)
        return connection

    monkeypatch.setattr(database, "connect", counted)
    with start_server(tmp_path) as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
            path = f"/datasets/{http.post('/datasets', json={}).json()['unique_id']}/upload/initiate"

            def cost(number):
                steps.clear()
                for size, content in ((0, b""), (3, b"x,y")):
                    new = {"filename": f"{number}.{size}", "size": size, "sha256_hash": sha256(content).hexdigest()}
                    http.post(path, json=new).raise_for_status()
                return len(steps)

            costs = [cost(number) for number in range(300)]
    assert max(costs[-20:]) < 1.5 * max(costs[20:40])


def test_a_dataset_comes_with_all_its_parts_or_not_at_all(api, dataset):
    parent, content = dataset(), b"1,2"
    file = {"filename": "a.csv", "size": 3, "sha256_hash": sha256(content).hexdigest(), "ingest": True}
    file["content"] = base64.b64encode(content).decode()
    for mfid, wrong in ((new_mfid(), {"parents": [new_mfid()]}), (new_mfid(), {"files": [file, file | {"size": 4}]})):
        body = {"unique_id": mfid, "scientific_metadata": {"a": 1}, "parents": [parent], "files": [file], **wrong}
        assert api.post("/datasets", json=body).status_code in (404, 422)
        assert api.get(f"/datasets/{mfid}").status_code == 404
        made = api.post("/datasets", json=body | {"parents": [parent], "files": [file]}).raise_for_status().json()
        assert [given["filename"] for given in made["files"]] == ["a.csv"]
        assert [request["file_mfid"] for request in made["ingestion_requests"]] == [made["files"][0]["mfid"]]


def test_metadata_has_bounds(api, dataset):
    path = f"/resources/{dataset()}/metadata"
    refused = [api.patch(path, json={"a": "x" * (size << 20)}) for size in (5, 9)]
    assert [(answer.status_code, answer.json()["detail"]) for answer in refused] == [
        (413, "Metadata is larger than 4194304 bytes"),
        (413, "The request body is larger than 8388608 bytes"),
    ]
    assert api.get(path).json() is None
