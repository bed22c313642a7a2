"""At services that differ from the assumptions, a substitute works and is reported once, or nothing is left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import ConflictError, InputError, RefusedError
from crucible_lineage.ids import new_mfid
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.queries.verify.verify import verify_project
from crucible_lineage.registration.server_ids import make_dataset
from crucible_lineage.service import COLONS, DERIVED_IDS, FILES_BY_HASH, GRAPHS, TAKEN_IDS
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

Opened = Callable[..., Session]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Opened]:
    """Open a session of a service with a data folder of this name."""
    with ExitStack() as stack:

        def opened(door: Any, name: str = "here") -> Session:
            return stack.enter_context(Session(Settings(tmp_path / name, door.url, door.api_key)))

        yield opened


def run(path: Path, session: Session) -> RunResult:
    bound = bind_file(path, session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def there(door: Any) -> list[Any]:
    with CrucibleClient(door.behind, door.api_key) as client:
        return client.datasets.list(project_id="lab", include_metadata=True)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("plain", None),
        ("own_ids", DERIVED_IDS),
        ("version_7", DERIVED_IDS),
        ("plain_keywords", COLONS),
        ("no_files", FILES_BY_HASH),
        ("no_graphs", GRAPHS),
        ("upserts", None),
    ],
)
def test_a_run_works_once_and_reports_once_what_is_lost(
    variant: str, name: str | None, behind: Any, machine: Opened, lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lab.declare(lab.pipeline.read_text().replace(', timestamp: "2024-05-01T12:05:00Z"', ""))
    door = behind(variant)
    own_session = machine(door)
    with caplog.at_level(logging.WARNING, "crucible_lineage.service"):
        first = run(lab.pipeline, own_session)
        assert (first.ok, sorted(first.executed)) == (True, ["scaled", "total"])
        total = first.datasets["total"]["out"]
        graph = fetch_lineage(own_session, total)
        assert set(graph.nodes) == {
            total,
            first.datasets["scaled"]["out"],
            *first.inputs["first"],
            *first.inputs["second"],
        }
        for session in (own_session, machine(door, "elsewhere")):
            again = run(lab.pipeline, session)
            assert (again.ok, again.executed, again.datasets) == (True, [], first.datasets)
    assert len(there(door)) == 4
    assert verify_project(own_session, "lab").findings == ()
    messages = [record.getMessage() for record in caplog.records if record.name == "crucible_lineage.service"]
    by_machine = {"no_graphs": 1, "plain": 0, "upserts": 0}.get(variant, 2)
    assert len(messages) == by_machine
    assert name is None or all(name in line for line in messages)
    assert name is None or own_session.mirror.service.holds(name) is False


def test_without_a_stand_in_it_is_one_line_before_anything_is_made(behind: Any, machine: Opened, lab: Any) -> None:
    door = behind("strict_metadata")
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"cannot be used: metadata may hold any keys.*'crucible_lineage'"):
            run(lab.pipeline, machine(door))
    assert "POST /datasets" not in door.seen
    assert there(door) == []


def test_a_refusal_after_creating_a_dataset_leaves_none(
    behind: Any, machine: Opened, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "_test_metadata", lambda self: None)  # a service may look for the dataset first
    door = behind("strict_metadata")
    for _ in range(2):
        with pytest.raises(RefusedError, match="cannot be used"):
            run(lab.pipeline, machine(door))
    assert door.seen.count("POST /datasets") == 1
    assert there(door) == []


def test_what_is_known_of_a_service_is_not_tried_again(behind: Any, machine: Opened, lab: Any) -> None:
    door = behind("version_7")
    run(lab.pipeline, machine(door))
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 5"))
    door.seen.clear()
    again = run(lab.pipeline, machine(door))
    assert (again.ok, len(again.executed)) == (True, 2)
    assert door.seen.count("POST /datasets") == 2, "no id of version 8 was tried"


def test_an_id_that_would_be_overwritten_is_looked_for_first(behind: Any, machine: Opened, lab: Any) -> None:
    door = behind("upserts")
    session = machine(door)
    session.mirror.service.note(TAKEN_IDS, False, "overwritten", by="doctor")
    total = run(lab.pipeline, session).datasets["total"]["out"]
    before = session.client.datasets.get(total)
    with pytest.raises(ConflictError, match="it exists already"):
        make_dataset(session.client, total, {"project_id": "lab", "dataset_name": "mine"})
    assert session.client.datasets.get(total) == before


def test_without_graphs_the_lineage_of_a_sample_works(behind: Any, machine: Opened, lab: Any) -> None:
    door = behind("no_graphs")
    session = machine(door)
    wafer = session.client.samples.create(sample_name="wafer 7", project_id="lab").unique_id
    lab.declare(lab.pipeline.read_text().replace("file: first.txt,", f"file: first.txt, samples: [{wafer}],"))
    made = run(lab.pipeline, session)
    assert {wafer, made.datasets["total"]["out"]} <= set(fetch_lineage(session, wafer).nodes)
    unused = session.client.samples.create(sample_name="wafer 8", project_id="lab").unique_id
    assert set(fetch_lineage(session, unused).nodes) == {unused}
    with pytest.raises(InputError, match="there is no dataset or sample"):
        fetch_lineage(session, new_mfid())


@pytest.mark.parametrize("variant", ["plain", "own_ids"])
def test_under_another_name_of_the_pipeline_nothing_is_executed(
    variant: str, behind: Any, machine: Opened, lab: Any
) -> None:
    lab.declare(lab.pipeline.read_text().replace(', timestamp: "2024-05-01T12:05:00Z"', ""))
    door = behind(variant)
    first = run(lab.pipeline, machine(door))
    lab.declare(lab.pipeline.read_text().replace("pipeline: counting", "pipeline: renamed"))
    assert "pipeline: renamed" in lab.pipeline.read_text()
    again = run(lab.pipeline, machine(door, "elsewhere"))
    assert (again.ok, again.executed, again.datasets) == (True, [], first.datasets)
    assert len(there(door)) == 4
