"""What the artifacts and events of a run show."""

from __future__ import annotations

from typing import Any

from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import ASSET, MOST_LINEAGES, lineage_of


def test_a_picture_shows_the_last_of_very_many_unconnected_datasets(session: Session) -> None:
    session.ensure_project("lab")
    fields = [{"project_id": "lab", "dataset_name": f"scan {number}"} for number in range(MOST_LINEAGES + 1)]
    mfids = [session.client.datasets.create(field).dsid for field in fields]
    assert set(lineage_of(mfids, session).nodes) == set(mfids[1:])


TELLING = """
import json
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from crucible_lineage.refs import DatasetRef
from crucible_lineage.tasks.artifacts import tell_asset

EventsWorker.set_client_override(AssertingEventsClient)
tell_asset(DatasetRef("made", "scan", ()), ["parent"], {})
EventsWorker.instance().drain()
emitted = [event for client in AssertingEventsClient.all for event in client.events]
print(json.dumps([[event.resource.id, event.related[0].id] for event in emitted]))
"""


def test_a_result_is_an_asset_where_prefect_draws_assets(prefect: Any) -> None:
    assert prefect.run(TELLING) == []
    prefect.environment = {**prefect.environment, "PREFECT_CLOUD_API_URL": prefect.url}
    assert prefect.run(TELLING) == [[f"{ASSET}made", f"{ASSET}parent"]]
