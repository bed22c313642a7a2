"""A lineage as OpenLineage events, one JSON object per line, by the library `openlineage-python`.

Each execution becomes a START and a COMPLETE event, in order of time. A step is a job in its project's namespace; a
dataset is named by its MFID, in the namespace of its Crucible. OpenLineage cannot express links without an activity.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from crucible_lineage.errors import InputError, missing_library
from crucible_lineage.ids import is_mfid, mfid_time
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.export.activities import ExportedActivity, ExportedLineage, exported, instant
from crucible_lineage.lineage.graph import LineageGraph

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

PRODUCER = "https://w3id.org/crucible-lineage/"
NAMESPACE = "crucible"  # if the address of the Crucible is not known


def render_openlineage(graph: LineageGraph, namespace: str = NAMESPACE) -> str:
    """Return the events as JSON Lines; `namespace` identifies the Crucible with the datasets.

    Raises InputError if no activity is recorded in the graph, or if `openlineage-python` is not installed.
    """
    lineage = exported(graph)
    if not lineage.activities:
        raise InputError("write OpenLineage events: no dataset in this lineage has a recorded activity")
    try:
        from openlineage.client.serde import Serde  # an optional library
    except ImportError as error:
        raise missing_library("OpenLineage events", "openlineage-python", "export") from error
    events = [event for activity in lineage.activities for event in _events(lineage, activity, namespace)]
    events.sort(key=lambda event: event.eventTime)
    return "".join(f"{Serde.to_json(event)}\n" for event in events)


def _events(lineage: ExportedLineage, activity: ExportedActivity, namespace: str) -> list[RunEvent]:
    from openlineage.client.event_v2 import RunEvent, RunState

    job, run = _job(lineage, activity), _run(lineage, activity)
    inputs = [_input(lineage, use.mfid, namespace) for use in activity.used]
    outputs = [_output(lineage, made.mfid, namespace) for made in activity.made]
    common: JsonObject = {"run": run, "job": job, "inputs": inputs, "producer": PRODUCER}
    ended = activity.ended or _time_of(lineage, activity.made[0].mfid)
    started = activity.started or ended
    return [
        RunEvent(eventType=RunState.START, eventTime=started, outputs=[], **common),
        RunEvent(eventType=RunState.COMPLETE, eventTime=ended, outputs=outputs, **common),
    ]


def _job(lineage: ExportedLineage, activity: ExportedActivity) -> Job:
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import job_type_job, source_code_job

    facets: JsonObject = {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="CRUCIBLE_LINEAGE", jobType="TASK", producer=PRODUCER
        )
    }
    if activity.source:
        language = "python" if ":" in activity.function else "command"
        source = source_code_job.SourceCodeJobFacet(language=language, sourceCode=activity.source, producer=PRODUCER)
        facets["sourceCode"] = source
    name = ".".join(filter(None, (activity.pipeline, activity.step)))
    return Job(namespace=_project(lineage, activity), name=name, facets=facets)


def _run(lineage: ExportedLineage, activity: ExportedActivity) -> Run:
    from openlineage.client.event_v2 import Run
    from openlineage.client.facet_v2 import execution_parameters_run, parent_run

    facets: JsonObject = {}
    if activity.params:
        parameters = [
            execution_parameters_run.ExecutionParameter(key=name, name=name, value=_text(value))
            for name, value in activity.params.items()
        ]
        facets["executionParameters"] = execution_parameters_run.ExecutionParametersRunFacet(
            parameters=parameters, producer=PRODUCER
        )
    if activity.pipeline and (parent := _uuid(activity.run)):
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=parent),
            job=parent_run.Job(namespace=_project(lineage, activity), name=activity.pipeline),
            producer=PRODUCER,
        )
    return Run(runId=activity.id, facets=facets)


def _input(lineage: ExportedLineage, mfid: str, namespace: str) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(namespace=namespace, name=mfid, facets=_dataset_facets(lineage, mfid))


def _output(lineage: ExportedLineage, mfid: str, namespace: str) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    files = lineage.files.get(mfid, ())
    size = sum(file.size or 0 for file in files)
    statistics_facet = statistics.OutputStatisticsOutputDatasetFacet(size=size, fileCount=len(files), producer=PRODUCER)
    facets: JsonObject = {"outputStatistics": statistics_facet} if files else {}
    return OutputDataset(namespace=namespace, name=mfid, facets=_dataset_facets(lineage, mfid), outputFacets=facets)


def _dataset_facets(lineage: ExportedLineage, mfid: str) -> JsonObject:
    """Return the facets with the dataset's name and files."""
    from openlineage.client.facet_v2 import documentation_dataset

    documentation = documentation_dataset.DocumentationDatasetFacet(
        description=lineage.nodes[mfid].name, producer=PRODUCER
    )
    facets: JsonObject = {"documentation": documentation}
    if files := lineage.files.get(mfid):
        entries = [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in files]
        facets["crucible_files"] = _files_facet()(producer=PRODUCER, files=entries)
    return facets


@functools.cache
def _files_facet() -> Any:
    """Return the class of our facet with files and their hashes, which OpenLineage lacks."""
    import attr  # openlineage-python brings it
    from openlineage.client.facet_v2 import DatasetFacet

    @attr.define
    class CrucibleFilesDatasetFacet(DatasetFacet):
        files: list[JsonObject] = attr.field(kw_only=True)

    return CrucibleFilesDatasetFacet


def _project(lineage: ExportedLineage, activity: ExportedActivity) -> str:
    return lineage.nodes[activity.made[0].mfid].project or NAMESPACE


def _time_of(lineage: ExportedLineage, mfid: str) -> str:
    """Return the dataset's registration time, or the time in its id."""
    record = lineage.nodes[mfid].record or {}
    return instant(str(record.get("creation_time") or "")) or (
        mfid_time(mfid).isoformat() if is_mfid(mfid) else "1970-01-01T00:00:00+00:00"
    )


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
