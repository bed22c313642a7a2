"""Results have instrument, session and owner of their data, as Crucible itself lists and groups by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.provenance.record import read_record
from crucible_lineage.session import Session
from tests.runs import run as run_file

CONTEXT = """
pipeline: context
project: lab
inputs:
  first: {file: first.txt, session_name: monday, instrument_id: titan-1}
  second: {file: second.txt, session_name: tuesday, instrument_name: a scope}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}}
  both: {uses: "LABMODULE:add", inputs: {left: scaled, right: second}}
  own: {uses: "LABMODULE:scale", params: {factor: 7}, inputs: {counts: first}, output: {session_name: analysis}}
  none: {uses: "LABMODULE:scale", params: {factor: 9}, inputs: {counts: first}, output: {inherit: [samples]}}
"""
GROUPED = """
pipeline: grouped
project: lab
inputs: {made: {pipeline: context.yaml, from: scaled, each: true}}
steps: {all: {run: "cp {inputs.counts} {out}", inputs: {counts: {from: made, group_by: [session_name]}}}}
"""
KEYS = ("session_name", "instrument_name", "instrument_id")


def inherited(session: Session, mfid: str) -> tuple[list[object], object]:
    """Return the fields of a dataset, and what its record says that it inherited."""
    dataset = session.client.datasets.get(mfid, include_metadata=True)
    record = read_record(dataset.scientific_metadata)
    assert record is not None
    return [dataset[name] for name in KEYS], {**(record.inherited or {}), "owner_orcid": None}


def test_results_have_instrument_and_session_of_their_data(
    lab: Any, run: Callable[..., Any], session: Session, cli: Callable[..., Any]
) -> None:
    session.client.instruments.create(instrument_name="Titan", instrument_id="titan-1", location="here")
    ran = run(lab.declare(CONTEXT, "context.yaml"))
    assert ran.ok, ran.errors
    made = {step: outputs["out"] for step, outputs in ran.datasets.items()}
    titan, no_owner = {"instrument_id": ["titan-1"]}, {"owner_orcid": None}
    assert {step: inherited(session, mfid) for step, mfid in made.items()} == {
        "scaled": (["monday", "Titan", "titan-1"], {"session_name": ["monday"], **titan, **no_owner}),
        # The first input counts, and the record names the others.
        "both": (
            ["monday", "Titan", "titan-1"],
            {"session_name": ["monday", "tuesday"], "instrument_id": ["titan-1", "a scope"], **no_owner},
        ),
        "own": (["analysis", "Titan", "titan-1"], {**titan, **no_owner}),
        "none": ([None, None, None], no_owner),
    }
    there = session.client.datasets.list(instrument_id="titan-1", session_name="monday", limit=None)
    assert {dataset.unique_id for dataset in there} == {ran.inputs["first"][0], made["scaled"], made["both"]}
    # A value that was corrected at Crucible itself counts for the results in plans, whatever they still say.
    data = ran.inputs["first"][0]
    for day in ("holiday", "monday"):
        session.client.datasets.update(data, session_name=day)
        assert list(run(lab.declare(GROUPED, "grouped.yaml")).datasets) == [f"all[{day}]"]
    # A correction of the data reaches the results that inherited the value, as often as it is made.
    for day in ("friday", "sunday"):
        assert cli("set", data, f"session_name={day}").exit_code == 0
        listed = cli("list", "--where", f"session == '{day}'", "--project", "lab", "--json")
        found = {entry["mfid"] for entry in json.loads(listed.stdout)["datasets"]}
        assert found >= {data, made["scaled"], made["both"]}
        assert inherited(session, made["own"])[0][0] == "analysis"


def test_a_result_belongs_to_the_owner_of_its_data(lab: Any, run: Callable[..., Any], session: Session) -> None:
    ada = session.client.account.create("ada", "0000-0002-1825-0097").unique_id
    lab.declare(lab.pipeline.read_text().replace("file: first.txt,", f"file: first.txt, owner_orcid: {ada},"))
    ran = run(lab.pipeline)
    assert ran.ok, ran.errors
    datasets = [*ran.inputs["first"], *(outputs["out"] for outputs in ran.datasets.values())]
    found = [session.client.datasets.get(mfid, include_metadata=True) for mfid in datasets]
    assert {dataset.owner_orcid for dataset in found} == {ada}
    record = read_record(found[-1].scientific_metadata)
    assert record is not None
    assert record.agent.unique_id == session.agent["unique_id"] != ada, "the account that registered"


def test_a_key_that_may_not_register_for_others_says_so_once(
    lab: Any, members: list[Session], caplog: pytest.LogCaptureFixture
) -> None:
    ada, bob, _ = members
    assert run_file(ada, lab.pipeline).ok
    assert not [record for record in caplog.records if "register for" in record.message], "the owner is the account"
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 5"))
    ran = run_file(bob, lab.pipeline)
    assert ran.ok, ran.errors
    for outputs in ran.datasets.values():
        dataset = bob.client.datasets.get(outputs["out"], include_metadata=True)
        record = read_record(dataset.scientific_metadata)
        assert dataset.owner_orcid == bob.agent["unique_id"]
        assert record is not None
        assert record.inherited is None
    said = [record.message for record in caplog.records if "register for" in record.message]
    assert said == [
        f"datasets belong to the account of this key, since it may not register for {ada.agent['unique_id']}"
    ]
