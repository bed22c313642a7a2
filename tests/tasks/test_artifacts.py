"""What the artifacts of a run show."""

from __future__ import annotations

from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import MOST_LINEAGES, lineage_of


def test_a_picture_shows_the_last_of_very_many_unconnected_datasets(session: Session) -> None:
    session.ensure_project("lab")
    fields = [{"project_id": "lab", "dataset_name": f"scan {number}"} for number in range(MOST_LINEAGES + 1)]
    mfids = [session.client.datasets.create(field).dsid for field in fields]
    assert set(lineage_of(mfids, session).nodes) == set(mfids[1:])
