"""Pipeline runs of a project, as the provenance of their outputs tells them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.exceptions import HTTPException
from starlette.responses import Response

from crucible_lineage.client.filters import DatasetFilters
from crucible_lineage.client.models import Dataset
from crucible_lineage.core.slots import INCOMPLETE
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.records import mapping, provenance, text
from crucible_lineage.times import utc
from crucible_lineage.web.pages.copying import still_reading
from crucible_lineage.web.pages.listing import Row, rows_of
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["Run", "run", "runs", "runs_of"]

AT_A_TIME = 500  # datasets whose provenance is read for one page of runs
REGISTERED = "pipeline run"  # the measurement of a dataset that stands for a run


@dataclass(frozen=True)
class Run:
    """One run, as far as its outputs among the datasets at hand tell."""

    run_id: str
    pipeline: str
    engine: str
    started: str
    ended: str
    outputs: tuple[Row, ...]

    @property
    def incomplete(self) -> int:
        """Count the outputs whose registration did not end."""
        return sum(row.state == INCOMPLETE for row in self.outputs)

    @property
    def since(self) -> str:
        """When the first of the outputs was created at Crucible."""
        return min(row.record.creation_time or "" for row in self.outputs)

    @property
    def until(self) -> str:
        """When the last of them was."""
        return max(row.record.creation_time or "" for row in self.outputs)


def runs(reader: Reader) -> Response:
    """The runs that made the datasets of a project which were registered last; older ones a page further."""
    project = reader.client.projects.get(reader.request.path_params["project"])
    if waiting := still_reading(reader, project, "Runs"):
        return waiting
    page = reader.client.dataset_page(
        AT_A_TIME, reader.asked("cursor"), project_id=project.project_id, include_metadata=True, sort="created"
    )
    registered = reader.client.dataset_page(20, project_id=project.project_id, measurement=REGISTERED)
    return rendered(
        "runs.html",
        reader.name,
        project=project,
        runs=runs_of(reader, page.datasets),
        registered=registered.datasets,
        next_cursor=page.next_cursor,
        is_first="cursor" not in reader.query,
        read=len(page.datasets),
    )


def run(reader: Reader) -> Response:
    """One run with all its outputs."""
    project = reader.client.projects.get(reader.request.path_params["project"])
    if waiting := still_reading(reader, project, "Runs"):
        return waiting
    run_id = reader.request.path_params["run"]
    filters: DatasetFilters = {"project_id": project.project_id, "include_metadata": True, "sort": "created"}
    if since := _time(reader, "since"):
        filters["creation_time_gte"] = since
    if until := _time(reader, "until"):
        filters["creation_time_lte"] = until
    datasets = reader.client.datasets.iter(**filters)
    found = [one for one in runs_of(reader, datasets) if one.run_id == run_id]
    if not found:
        raise HTTPException(404)
    return rendered("run.html", reader.name, project=project, run=found[0])


def runs_of(reader: Reader, datasets: Iterable[Dataset]) -> list[Run]:
    """The runs that made these datasets, the last one first."""
    outputs: dict[str, list[Row]] = {}
    for row in rows_of(reader, [dataset for dataset in datasets if _run(dataset).get("run_id")]):
        if run_id := text(_run(row.record).get("run_id")):
            outputs.setdefault(run_id, []).append(row)
    found = [_one_run(run_id, made) for run_id, made in outputs.items()]
    return sorted(found, key=lambda one: (one.started, one.run_id), reverse=True)


def _one_run(run_id: str, rows: list[Row]) -> Run:
    made = [row.record for row in rows]
    activities = [_activity(dataset) for dataset in made]
    return Run(
        run_id=run_id,
        pipeline=next(filter(None, map(_pipeline, made)), ""),
        engine=text(_run(made[0]).get("engine")),
        started=min(filter(None, (text(activity.get("started")) for activity in activities)), default=""),
        ended=max((text(activity.get("ended")) for activity in activities), default=""),
        outputs=tuple(rows),
    )


def _activity(dataset: Dataset) -> Mapping[str, object]:
    return mapping(provenance({"scientific_metadata": dataset.scientific_metadata}).get("activity"))


def _run(dataset: Dataset) -> Mapping[str, object]:
    return mapping(_activity(dataset).get("run"))


def _pipeline(dataset: Dataset) -> str:
    record = provenance({"scientific_metadata": dataset.scientific_metadata})
    return text(mapping(record.get("pipeline")).get("name"))


def _time(reader: Reader, name: str) -> datetime | None:
    """A moment from the query, as links to runs give it; without one, all datasets are looked through."""
    asked = reader.asked(name)
    try:
        return utc(asked) if asked else None
    except ValueError as error:
        raise InputError(f"{name}={asked} is no moment; follow the link from the list of runs") from error
