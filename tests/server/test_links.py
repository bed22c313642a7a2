"""Links and graphs: parent to child, associations, no cycles, nothing that the caller may not see."""

from __future__ import annotations

import pytest
import requests


def test_link_that_closes_a_cycle_is_refused(client, dataset):
    a, b, c = dataset("a"), dataset("b"), dataset("c")
    client.datasets.link(a, b)
    client.datasets.link(b, c)
    for parent, child in ((c, a), (b, a), (a, a)):
        with pytest.raises(requests.HTTPError, match="422"):
            client.datasets.link(parent, child)


def test_a_link_that_exists_changes_nothing(client, dataset, sample):
    a, b, s = dataset("a"), dataset("b"), sample()
    client.datasets.link(a, b, relationship_type="is_part_of")
    client.datasets.link_sample(b, s)
    before = client.datasets.get(b, include_links=True)
    client.datasets.link(a, b)
    client.datasets.link_sample(b, s)
    assert client.datasets.get(b, include_links=True) == before
    client.datasets.link(a, b, relationship_type="is_derived_from")
    after = client.datasets.get(b, include_links=True)
    assert after["modification_time"] > before["modification_time"]
    assert {link["relationship_type"] for link in after["links"]} == {"is_derived_from", None}


def test_unknown_relationship_and_unlike_ends_are_refused(client, api, dataset, sample):
    a, b, s = dataset(), dataset(), sample()
    assert api.post(f"/datasets/{a}/children/{b}?relationship_type=cousin").status_code == 422
    assert api.post(f"/datasets/{a}/children/{s}").status_code == 404
    assert api.delete(f"/datasets/{a}/children/{b}").status_code == 404


def test_graph_holds_the_whole_component_once(client, dataset, sample):
    raw, mid, leaf, wafer = dataset("raw"), dataset("mid"), dataset("leaf"), sample()
    client.datasets.link(raw, mid, relationship_type="is_derived_from")
    client.datasets.link(mid, leaf)
    client.datasets.link_sample(raw, wafer)
    near, component = client.graphs.get(mid), client.graphs.get(leaf, recursive=True)
    assert {node["id"] for node in near["nodes"]} == {raw, mid, leaf}
    assert {node["id"] for node in component["nodes"]} == {raw, mid, leaf, wafer}
    assert {(edge["source"], edge["target"]) for edge in component["edges"]} == {(raw, mid), (mid, leaf), (wafer, raw)}
    assert component["edges"] == component["links"]
    assert client.graphs.get(leaf, recursive=True, as_networkx=True).is_directed()


def test_graph_leaves_out_what_the_caller_may_not_read(client, guest, dataset):
    secret, shown = dataset("secret parent"), dataset("public child")
    client.datasets.link(secret, shown)
    client.datasets.set_public(shown)
    assert [node["id"] for node in guest.graphs.get(shown)["nodes"]] == [shown]
    assert guest.datasets.get(shown, include_links=True)["links"] == []
