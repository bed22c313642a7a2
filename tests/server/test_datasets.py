"""Datasets through the official client: what is created is found again, and errors are refused."""

from __future__ import annotations

import json

import pytest
import requests

from crucible_lineage.ids import derive_mfid, new_mfid


def test_dataset_keeps_the_mfid_its_client_chose(client, dataset):
    chosen = derive_mfid({"step": "calibrate"}, new_mfid())
    assert dataset(unique_id=chosen) == chosen
    assert client.datasets.get(chosen)["dataset_name"] == "polystyrene spectrum"


def test_taken_mfid_is_a_conflict_and_changes_nothing(client, dataset):
    mfid = dataset("first")
    with pytest.raises(requests.HTTPError, match="409"):
        dataset("second", unique_id=mfid)
    assert client.datasets.get(mfid)["dataset_name"] == "first"


@pytest.mark.parametrize(
    "fields",
    [
        {"project_id": "no-such-project"},
        {"instrument_id": "no-such-instrument"},
        {"unique_id": "not-an-mfid"},
        {"timestamp": "yesterday"},
        {"dataset_name": "x" * 20_000},
        {"owner": "local", "owner_orcid": "0000-0000-0000-0001"},
        {"dataset_name": "\ud800"},
    ],
)
def test_wrong_field_is_refused(api, fields):
    body = {"project_id": "raman-lab", **fields}
    answer = api.post("/datasets", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_unknown_query_parameter_is_refused(api, dataset):
    for path in ("/datasets", "/projects", f"/datasets/{dataset()}"):
        answer = api.get(path, params=[*api.build_request("GET", path).url.params.multi_items(), ("bogus", "1")])
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == "extra_forbidden"
        assert answer.json()["detail"][0]["loc"] == ["query", "bogus"]


@pytest.mark.parametrize("field", ["owner_orcid", "project_id", "unique_id", "instrument_id"])
def test_field_with_its_own_route_cannot_be_patched(api, dataset, field):
    assert api.patch(f"/datasets/{dataset()}", json={field: "0000-0000-0000-0002"}).status_code == 422


def test_the_size_is_that_of_the_files(api, dataset):
    assert api.patch(f"/datasets/{dataset()}", json={"size": 5}).status_code == 422
