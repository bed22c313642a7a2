"""Whatever is written comes back: metadata of any form, keywords of any text, pages of a list that grows meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError
from crucible_lineage.ids import new_mfid
from tests.serving import RunningServer, start_server

BOUNDED = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECT = st.dictionaries(TEXT | st.sampled_from(["laser", "nm"]), JSON | st.dictionaries(TEXT, JSON), max_size=5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("round trips")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[CrucibleClient]:
    with CrucibleClient(server.url, server.api_key) as client:
        yield client


def deep_merge(old: Any, new: Any) -> Any:
    """Return the expected merge: two objects become one, key by key; anything else is the new value."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    both = {key: deep_merge(old[key], new[key]) for key in old.keys() & new.keys()}
    return {**old, **new, **both}


@BOUNDED
@given(OBJECT, OBJECT, OBJECT)
def test_metadata_comes_back_as_it_was_written_and_merged(
    client: CrucibleClient, first: Any, second: Any, third: Any
) -> None:
    mfid = client.datasets.create({}).dsid
    assert client.metadata.merge(mfid, first) == first
    expected = deep_merge(first, second)
    assert client.metadata.merge(mfid, second) == expected
    assert client.metadata.get(mfid) == expected
    assert client.datasets.get(mfid, include_metadata=True).scientific_metadata == expected
    assert client.metadata.replace(mfid, third) == third
    assert client.metadata.get(mfid) == third


@BOUNDED
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_a_dataset_carries_each_keyword_once_and_is_found_by_it(client: CrucibleClient, words: list[str]) -> None:
    mfid = client.datasets.create({}).dsid
    carried: dict[str, str] = {}
    for word in words:
        if not word.strip():
            with pytest.raises(InputError):
                client.datasets.add_keyword(mfid, word)
            continue
        added = client.datasets.add_keyword(mfid, word)
        assert added.keyword.casefold() == word.strip().casefold()
        carried[added.keyword.casefold()] = added.keyword
    held = [keyword.keyword for keyword in client.datasets.get_keywords(mfid)]
    assert sorted(held) == sorted(carried.values())
    for word in carried.values():
        assert mfid in {found.unique_id for found in client.datasets.iter(keyword=[word])}


@BOUNDED
@given(name=TEXT, measurement=TEXT, session=TEXT)
def test_exact_filters_find_equal_names(client: CrucibleClient, name: str, measurement: str, session: str) -> None:
    fields = {"dataset_name": name, "measurement": measurement, "session_name": session}
    mfid = client.datasets.create(fields).dsid
    found = client.datasets.list(**fields, unique_id=mfid)
    assert [(dataset.unique_id, dataset.dataset_name) for dataset in found] == [(mfid, name)]
    assert client.datasets.count(**fields, unique_id=new_mfid()) == 0


@pytest.mark.parametrize("order", [{}, {"sort": "created"}, {"sort": "updated"}, {"sort": "name"}])
@settings(BOUNDED, max_examples=12)
@given(st.data())
def test_pages_of_a_growing_list_miss_nothing_and_repeat_nothing(
    client: CrucibleClient, server: RunningServer, order: dict[str, str], data: st.DataObject
) -> None:
    session_name = new_mfid()  # a list of this example's own
    names = data.draw(st.lists(st.sampled_from(["", "a", "b", "ä", "Z"]), min_size=1, max_size=9))
    add = lambda name: client.datasets.create({"dataset_name": name, "session_name": session_name}).dsid  # noqa: E731
    old = [add(name) for name in names]
    direction = data.draw(st.sampled_from(["asc", "desc"]))
    params = {"session_name": session_name, "limit": data.draw(st.integers(1, 4)), **order}
    params |= {"direction": direction} if order else {}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
        for _ in range(40):
            page = http.get("/datasets", params=params | cursor).raise_for_status().json()
            seen += [item["unique_id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
            if len(seen) < 12:
                add(data.draw(st.sampled_from(["", "a", "c", "ä"])))
    assert len(seen) == len(set(seen))
    assert set(old) <= set(seen)


@BOUNDED
@given(TEXT | st.builds(new_mfid))
def test_an_identifier_in_a_filter_finds_its_record_or_nothing(client: CrucibleClient, text: str) -> None:
    parent = client.datasets.create({"dataset_name": "the one"}).dsid
    sample = client.samples.create(sample_name="the sample").unique_id
    client.datasets.add_sample(parent, sample)
    assert [found.unique_id for found in client.datasets.iter(sample_mfid=sample)] == [parent]
    assert [found.unique_id for found in client.samples.iter(dataset_mfid=parent)] == [sample]
    assert client.datasets.count(sample_mfid=text) == 0
    assert client.datasets.count(instrument_mfid=text) == 0
    assert client.datasets.count(unique_id=text) == 0


@pytest.mark.parametrize("collection", ["datasets", "samples"])
@pytest.mark.parametrize("params", [{"sort": "colour"}, {"direction": "asc"}, {"cursor": "e30="}, {"limit": 1001}])
def test_an_invalid_order_or_position_is_refused(server: RunningServer, collection: str, params: Any) -> None:
    answer = httpx.get(
        f"{server.url}/{collection}", params=params, headers={"Authorization": f"Bearer {server.api_key}"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", next(iter(params))]
