"""Recipes of the official client (`.crux`) as inputs, read as that client reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.declare.crux import crux_input, recipe_datasets

official = pytest.importorskip("crucible.cast")

RECIPE = """
config:
  version: "1"
  project_id: lab
---
sample:
  id: wafer
  name: Wafer 7
  datasets:
    - name: Map of the wafer
      files: [first.txt]
---
sample:
  name: Neon lamp
---
dataset:
  name: Neon lamp
  measurement: Raman Spectroscopy
  instrument: Horiba
  session: "2024-05"
  keywords: [neon, lamp]
  metadata: meta.json
  timestamp: "2024-05-01T12:00:00Z"
  public: true
  files: [first.txt, "sec*.txt"]
  samples:
    - {ref: wafer}
    - {mfid: 0tr5k2ndm5zvd000nr21qakeh4}
    - name: inline sample
  children:
    - name: Neon lamp
      files: [first.txt]
    - {ref: lamp}
---
dataset:
  id: bare
  name: bare
  parents:
    - name: "Übergrößen, 2nd"
      files: [second.txt]
---
dataset:
  name: Neon lamp
  id: lamp
  files: [first.txt]
"""

PIPELINE = """
pipeline: counting
project: lab
inputs:
  first: {crux: session.crux, id: ID}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: {from: first, files: first.txt}}}
"""
MADE = "0tr5k2ndm5zvd000nr21qakeh4"


@pytest.fixture
def recipe(lab: Any) -> Path:
    lab.file("meta.json", json.dumps({"laser_nm": 632.9}))
    path: Path = lab.file("session.crux", RECIPE)
    lab.declare(PIPELINE.replace("ID", "neon_lamp_2"))
    return path


def test_the_official_client_reads_the_same_datasets_under_the_same_ids(recipe: Path) -> None:
    theirs = official.load(recipe).datasets
    ours = dict(recipe_datasets(recipe))
    assert list(ours) == list(theirs)
    assert len(ours) == 6, ours.keys()
    for name, body in theirs.items():
        if not body.files:
            continue
        declared = crux_input({"crux": recipe.name, "id": name}, recipe.parent)
        assert declared["dataset_name"] == body.name
        assert declared.get("measurement") == body.measurement
        assert declared.get("instrument_name") == body.instrument
        assert declared.get("session_name") == body.session
        assert declared.get("timestamp") == body.timestamp
        assert tuple(declared.get("keywords", ())) == tuple(body.keywords)
        assert declared.get("metadata", {}) == body.metadata
        assert declared.get("public", False) == body.public


def test_a_dataset_of_a_recipe_is_an_input_of_files(lab: Any, recipe: Path) -> None:
    declared = bind_file(lab.pipeline).spec.inputs["first"]
    theirs = official.load(recipe).datasets["neon_lamp_2"]
    assert [str(path) for path in declared.paths] == theirs.files  # type: ignore[union-attr]
    assert declared.metadata == {"laser_nm": 632.9}  # type: ignore[union-attr]
    assert declared.samples == (MADE,), "samples that do not exist yet are left out"  # type: ignore[union-attr]


def test_a_dataset_in_the_lock_file_is_used_as_it_is(lab: Any, recipe: Path) -> None:
    lock = {"ids": {"neon_lamp_2": {"server_id": MADE, "hash": "x", "files": {}}, "wafer": MADE}, "links": []}
    lab.file("session.crux.lock", json.dumps(lock))
    assert crux_input({"crux": "session.crux", "id": "neon_lamp_2"}, lab.folder) == {"dataset": MADE}
    assert crux_input({"crux": "session.crux", "id": "neon_lamp_2", "match": {"a": "b"}}, lab.folder) == {
        "dataset": MADE,
        "match": {"a": "b"},
    }


def test_samples_in_the_lock_file_are_linked(lab: Any, recipe: Path) -> None:
    made = {"wafer": "0tr5k2ndm5zvd000nr21qakeh5", "inline_sample": "0tr5k2ndm5zvd000nr21qakeh6"}
    lab.file("session.crux.lock", json.dumps({"ids": {k: {"server_id": v} for k, v in made.items()}}))
    declared = crux_input({"crux": "session.crux", "id": "neon_lamp_2"}, lab.folder)
    assert declared["samples"] == [made["wafer"], MADE, made["inline_sample"]]


def test_keys_beside_the_recipe_win(lab: Any, recipe: Path) -> None:
    lab.declare(PIPELINE.replace("id: ID", "id: neon_lamp_2, measurement: other, metadata: {a: 1}, each: true"))
    declared = bind_file(lab.pipeline).spec.inputs["first"]
    assert (declared.measurement, declared.metadata, declared.each) == ("other", {"a": 1}, True)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "content", "words"),
    [
        ("crux: session.crux", None, "select a dataset with `id:`; it declares map_of_the_wafer, neon_lamp_2"),
        ("crux: session.crux, id: neon", None, "select a dataset with `id:`"),
        ("crux: session.crux, id: bare", None, "dataset 'bare' has no files, and has not been created yet"),
        ("crux: none.crux", None, "none.crux; "),
        ("crux: [a]", None, "crux takes the name of a file"),
        ("crux: session.crux", "- a\n", "a recipe's document is a mapping"),
        ("crux: session.crux", "sample: {name: x}\n", "declares no dataset"),
        ("crux: session.crux", "dataset: {name: x, files: first.txt}\n", "files"),
        ("crux: session.crux", "dataset: {name: x, files: [gone.txt]}\n", "there is no file"),
        ("crux: session.crux", "dataset: {name: x, files: [first.txt], metadata: gone.json}\n", "gone.json"),
        ("crux: session.crux", "dataset: {name: x, files: [first.txt], metadata: first.txt}\n", "first.txt"),
        ("crux: session.crux", "dataset: {id: x, name: x}\n---\ndataset: {id: x, name: y}\n", "'x' is given twice"),
        ("crux: session.crux", "dataset: {name: x, files: [first.txt], timestamp: '2024-05-01'}\n", "time zone"),
        ("crux: session.crux", "dataset: {name: x, children: [y]}\n", "has no files"),
        ("crux: session.crux", "dataset: {name: x, children: y, samples: 3}\n", "has no files"),
    ],
)
def test_an_unusable_recipe_is_reported_where_it_is_named(
    lab: Any, recipe: Path, faults: Callable[..., list[str]], given: str, content: str | None, words: str
) -> None:
    if content is not None:
        recipe.write_text(content)
    found = faults(lab.declare(PIPELINE.replace("crux: session.crux, id: ID", given)))
    assert any(words in message for message in found), found
    assert any(message.startswith("5:") for message in found), found


def test_an_unreadable_lock_file_is_reported(lab: Any, recipe: Path, faults: Callable[..., list[str]]) -> None:
    lab.file("session.crux.lock", "[1, 2]")
    assert any("session.crux.lock cannot be read" in message for message in faults(lab.pipeline))


def test_applying_the_recipe_invalidates_the_cached_binding(lab: Any, recipe: Path, session: Any) -> None:
    assert bind_file(lab.pipeline, session.store).spec.inputs["first"].metadata == {"laser_nm": 632.9}  # type: ignore[union-attr]
    lab.file("meta.json", json.dumps({"laser_nm": 785.2}))
    assert bind_file(lab.pipeline, session.store).spec.inputs["first"].metadata == {"laser_nm": 785.2}  # type: ignore[union-attr]
    lab.file("session.crux.lock", json.dumps({"ids": {"neon_lamp_2": {"server_id": MADE}}}))
    assert bind_file(lab.pipeline, session.store).spec.inputs["first"].dataset == (MADE,)  # type: ignore[union-attr]
