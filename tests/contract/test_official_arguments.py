"""Every argument of the official client, for the calls that both have: accepted, or the error says what to use."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible import CrucibleClient as Official

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.official import argument_hint, our_name
from crucible_lineage.server import start_server

SUBJECTS = ("account", "datasets", "deletions", "files", "graphs", "ingestions", "instruments", "projects", "samples")
VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrucibleClient]:
    with (
        start_server(tmp_path_factory.mktemp("arguments")) as running,
        CrucibleClient(running.url, running.api_key) as one,
    ):
        yield one


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_argument_of_a_common_call_is_accepted_or_has_a_hint(client: CrucibleClient, subject: str) -> None:
    theirs = getattr(Official(api_url=client.api_url, api_key="x"), subject)
    own = getattr(client, subject)
    unknown = []
    for name in dir(theirs):
        call = getattr(theirs, name)
        if name.startswith("_") or not inspect.isroutine(call) or not hasattr(type(own), name):
            continue
        known = inspect.signature(getattr(own, name)).parameters
        takes_more = any(one.kind in VARIABLE for one in known.values())
        for argument, one in inspect.signature(call).parameters.items():
            if one.kind in VARIABLE or argument in known or takes_more:
                continue
            if not our_name(argument, known) and not argument_hint(argument):
                unknown.append(f"{subject}.{name}({argument}=)")
    assert unknown == []


def test_calls_with_official_argument_names_work(client: CrucibleClient, tmp_path: Path) -> None:
    lead = client.account.whoami().user_unique_id
    client.projects.create(project_id="lab-1", organization="test", project_lead=lead)
    assert (
        client.projects.get(project_id="lab-1").project_id == client.projects.get(proj_id="lab-1").project_id == "lab-1"
    )
    parent, child = (client.datasets.create({"dataset_name": name, "project_id": "lab-1"}).dsid for name in ("a", "b"))
    sample = client.samples.create({"sample_name": "wafer", "project_id": "lab-1"}).unique_id
    (tmp_path / "x.txt").write_text("1 2 3")
    datasets: Any = client.datasets  # type checkers know our own names
    assert datasets.get(dataset_mfid=parent).dataset_name == "a"
    datasets.update(dataset_mfid=parent, data_type="image")
    datasets.add_keyword(dataset_mfid=parent, keyword="gold")
    assert [one.keyword for one in datasets.get_keywords(dataset_mfid=parent)] == ["gold"]
    datasets.link_parent_child(parent_mfid=parent, child_mfid=child)
    datasets.link_parent_child(parent_dataset_id=parent, child_dataset_id=child)
    assert [one.unique_id for one in datasets.list_children(parent_mfid=parent)] == [child]
    assert [one.unique_id for one in datasets.list_parents(child_mfid=child)] == [parent]
    datasets.add_sample(dataset_mfid=parent, sample_mfid=sample)
    added = datasets.add_file_to_dataset(dataset_mfid=parent, file_path=tmp_path / "x.txt", ingest=False)
    assert (
        datasets.download(dataset_mfid=parent, output_dir=tmp_path / "out", file_name="x.txt")[0].read_text() == "1 2 3"
    )
    samples: Any = client.samples
    assert samples.get(sample_mfid=sample).sample_name == "wafer"
    files: Any = client.files
    assert files.get(file_id=added.file.mfid).filename == "x.txt"
    assert datasets.update_scientific_metadata(resource_mfid=parent, metadata={"a": 1})["a"] == 1
    datasets.set_public(mfid=parent)
    assert datasets.get(parent).public


def test_missing_arguments_have_a_hint(client: CrucibleClient) -> None:
    datasets: Any = client.datasets
    mfid = "0tr5k2ndm5zvd000nr21qakeh4"
    for call, words in (
        (
            lambda: datasets.get_keywords(dataset_mfid=mfid, limit=3),
            "client.datasets.get_keywords() takes no 'limit'; omit",
        ),
        (lambda: client.graphs.get(mfid, as_networkx=True), "takes no 'as_networkx'; use crucible_lineage.lineage"),  # type: ignore[call-arg]
        (lambda: datasets.get(mfid, include_metdata=True), "did you mean 'include_metadata'?"),
        (lambda: datasets.get(mfid, dataset_mfid=mfid), "takes no 'dataset_mfid'; it takes: dsid"),
        (lambda: datasets.get(), "missing 1 required positional argument: 'dsid'"),
    ):
        with pytest.raises(TypeError) as told:
            call()
        assert words in str(told.value)
