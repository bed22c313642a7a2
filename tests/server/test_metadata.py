"""Scientific metadata: merged deeply, replaced on demand, limited in size, and searched by their words."""

from __future__ import annotations

import pytest


def test_post_replaces_only_on_request(api, dataset):
    path = f"/resources/{dataset()}/metadata"
    assert api.get(path).json() is None
    assert api.post(path, json={"a": 1}).status_code == 201
    assert api.post(path, json={"b": 2}).status_code == 409
    assert api.post(path, json={"b": 2}, params={"overwrite": "True"}).json()["scientific_metadata"] == {"b": 2}


@pytest.mark.parametrize("body", ["[1]", "{", '{"a": NaN}', '{"a": "\\ud800"}'])
def test_body_that_is_no_good_object_is_refused(api, dataset, body):
    answer = api.patch(f"/resources/{dataset()}/metadata", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_metadata_has_bounds(api, dataset):
    path = f"/resources/{dataset()}/metadata"
    assert api.patch(path, json={"a": "x" * (5 << 20)}).status_code == 413
    assert api.patch(path, json={"a": "x" * (9 << 20)}).status_code == 413
    assert api.get(path).json() is None


def test_search_finds_key_names_and_texts_in_any_form(client, dataset, sample):
    d, s = dataset(), sample()
    client.datasets.update_scientific_metadata(d, {"chamber_pressure_mbar": 3, "remarks": "annealed twice in argon"})
    client.samples.update_scientific_metadata(s, {"treatment": "annealing in argon"})
    for query, expected in (
        ("anneal argon", {d, s}),
        ("chamber pressure", {d}),
        ("twice", {d}),
        ("argon helium", set()),
        ('"; DROP', set()),
        ("***", set()),
    ):
        found = client.datasets.search_metadata(query)
        assert {hit["unique_id"] for hit in found} & {d, s} == expected, query
    hit = client.datasets.search_metadata("twice argon")[0]
    assert hit["scientific_metadata"]["remarks"] == "annealed twice in argon"


def test_thumbnail_comes_back_with_its_type(client, api, dataset):
    mfid = dataset()
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    path = f"/datasets/{mfid}/thumbnails"
    assert api.post(path, json={"thumbnail_name": "map", "thumbnail_b64str": png}).json()["mime_type"] == "image/png"
    assert client.datasets.get_thumbnails(mfid)[0]["thumbnail_b64str"] == png
    for wrong in ("not base64!", "aGVsbG8="):
        assert api.post(path, json={"thumbnail_name": "map", "thumbnail_b64str": wrong}).status_code == 422
