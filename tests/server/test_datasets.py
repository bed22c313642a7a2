"""Datasets through the official client: what is created is found again, and errors are refused."""

from __future__ import annotations

import json

import pytest
import requests

from crucible_lineage.ids import derive_mfid, is_mfid, new_mfid


def test_dataset_keeps_the_mfid_its_client_chose(client, dataset):
    chosen = derive_mfid({"step": "calibrate"}, new_mfid())
    assert dataset(unique_id=chosen) == chosen
    assert client.datasets.get(chosen)["dataset_name"] == "polystyrene spectrum"


def test_taken_mfid_is_a_conflict_and_changes_nothing(client, dataset):
    mfid = dataset("first")
    with pytest.raises(requests.HTTPError, match="409"):
        dataset("second", unique_id=mfid)
    assert client.datasets.get(mfid)["dataset_name"] == "first"


def test_server_makes_an_mfid_where_none_was_sent(api):
    answer = api.post("/datasets", json={"dataset_name": "x", "project_id": "raman-lab"})
    assert answer.status_code == 201
    assert is_mfid(answer.json()["unique_id"])


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


def test_unknown_query_parameter_is_refused_in_fastapis_words(api, dataset):
    for path in ("/datasets", "/projects", f"/datasets/{dataset()}"):
        answer = api.get(path, params=[*api.build_request("GET", path).url.params.multi_items(), ("bogus", "1")])
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == "extra_forbidden"
        assert answer.json()["detail"][0]["loc"] == ["query", "bogus"]


def test_update_changes_only_what_was_given(client, dataset):
    mfid = dataset(measurement="Raman Spectroscopy")
    before = client.datasets.get(mfid)
    after = client.datasets.update(mfid, dataset_name="renamed")
    assert (after["dataset_name"], after["measurement"]) == ("renamed", "Raman Spectroscopy")
    assert after["modification_time"] > before["modification_time"]


@pytest.mark.parametrize("field", ["owner_orcid", "project_id", "unique_id", "instrument_id"])
def test_field_with_its_own_route_cannot_be_patched(api, dataset, field):
    assert api.patch(f"/datasets/{dataset()}", json={field: "0000-0000-0000-0002"}).status_code == 422


def test_direction_without_sort_is_refused(api):
    assert api.get("/datasets", params={"direction": "asc"}).status_code == 422


def test_keyword_is_added_once_and_found_by_any_part_of_it(client, dataset):
    mfid = dataset()
    client.datasets.add_keyword(mfid, "Gold nanorods & Öl")
    client.datasets.add_keyword(mfid, "gold NANORODS & öl")
    assert [keyword["keyword"] for keyword in client.datasets.get_keywords(mfid)] == ["Gold nanorods & Öl"]
    assert mfid in [record["unique_id"] for record in client.datasets.list(keyword=["NANOROD", "öl"])]
    assert client.datasets.list(keyword=["nanorod", "silver"]) == []


def test_search_finds_a_part_of_a_name(client, dataset):
    mfid = dataset("Lithium niobate reference")
    for query in ("niobate", "LITHIUM niob", "te ref"):
        assert mfid in [record["unique_id"] for record in client.datasets.search(query)]
    assert client.datasets.search("nioabte") == []


def test_instrument_name_becomes_the_instrument_if_it_names_one(client, dataset):
    record = client.instruments.create(
        {"instrument_id": "renishaw-1", "instrument_name": "Renishaw inVia", "location": "Lab 67"}
    )
    with pytest.warns(DeprecationWarning, match="instrument_name"):
        known = dataset(instrument_name="Renishaw inVia")
    with pytest.warns(DeprecationWarning, match="instrument_name"):
        free = dataset(instrument_name="a lens in a tube")
    known, label = client.datasets.get(known), client.datasets.get(free)
    assert known["instrument_mfid"] == record["unique_id"]
    assert (label["instrument_name"], label["instrument_id"]) == ("a lens in a tube", None)
    moved = client.datasets.assign_instrument(label["unique_id"], "renishaw-1")
    assert moved.previous_instrument_name == "a lens in a tube"
