"""Services that do not do what is needed are refused in a plain sentence, and nothing wrong is left there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.ask.verify import verify_project
from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import RefusedError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run

Opened = Callable[..., Session]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Opened]:
    """Open a session of a service with a data folder of this name."""
    with ExitStack() as stack:

        def opened(door: Any, name: str = "here") -> Session:
            return stack.enter_context(Session(Settings(tmp_path / name, door.url, door.api_key)))

        yield opened


def there(door: Any) -> list[Any]:
    with CrucibleClient(door.behind, door.api_key) as client:
        return client.datasets.list(project_id="lab", include_metadata=True)


@pytest.mark.parametrize("variant", ["plain", "upserts"])
def test_a_run_works_once(variant: str, behind: Any, machine: Opened, lab: Any) -> None:
    door = behind(variant)
    own_session = machine(door)
    first = run(own_session, lab.pipeline)
    assert (first.ok, sorted(first.executed)) == (True, ["scaled", "total"])
    total = first.datasets["total"]["out"]
    made = {total, first.datasets["scaled"]["out"], *first.inputs["first"], *first.inputs["second"]}
    assert set(fetch_lineage(own_session, total).nodes) == made
    again = run(machine(door, "elsewhere"), lab.pipeline)
    assert (again.ok, again.executed, again.datasets) == (True, [], first.datasets)
    assert len(there(door)) == 4
    assert verify_project(own_session, "lab").findings == ()


def test_without_graphs_lineages_are_refused(behind: Any, machine: Opened, lab: Any) -> None:
    own_session = machine(behind("no_graphs"))
    made = run(own_session, lab.pipeline)
    assert made.ok
    with pytest.raises(RefusedError, match="exists, but Crucible has no graph of it"):
        fetch_lineage(own_session, made.datasets["total"]["out"])


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ("own_ids", "this Crucible cannot be used: it gave the id"),
        ("version_7", "unique_id must be a UUID version 7"),
        ("plain_keywords", "only letters, digits, blanks, - and _"),
        ("strict_metadata", "unknown metadata key 'crucible_lineage'"),
    ],
)
def test_what_the_service_refuses_or_replaces_ends_the_run_in_its_words(
    variant: str, told: str, behind: Any, machine: Opened, lab: Any
) -> None:
    door = behind(variant)
    try:
        text = str(run(machine(door), lab.pipeline).errors)
    except RefusedError as refusal:  # of an input, before the run
        text = str(refusal)
    assert told in text
    results = [one for one in there(door) if one.data_type in ("scaled", "sum")]
    assert "complete" not in [
        (result.scientific_metadata or {}).get("crucible_lineage", {}).get("status") for result in results
    ]
