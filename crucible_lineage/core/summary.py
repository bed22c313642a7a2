"""Columns of lists, derived from a dataset's record and kept beside it in the mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, slots_of, slots_to_json
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.model import PART
from crucible_lineage.lineage.records import (
    activity_code,
    is_support,
    maker,
    mapping,
    provenance,
    returned_numbers,
    state,
    text,
    used_mfids,
)
from crucible_lineage.statements import SubjectFacts, statement_in
from crucible_lineage.times import without_default_time

MOST_NUMBERS = 6  # of what a step returned, that lists show
COLUMNS = (
    *("mfid", "project", "name", "measurement", "step", "pipeline", "created", "data_type"),
    *("data_format", "session", "instrument", "timestamp", "size", "numbers", "samples", "complete", "derived"),
    *("replaces", "slots", "parents", "code", "statement", "supports", "run"),
)
"""The columns in which the mirror keeps a summary."""


class Producer(NamedTuple):
    """The run that made a dataset: its id, when the step began and ended, the engine, and the account."""

    run_id: str
    started: str
    ended: str
    engine: str
    who: str


@dataclass(frozen=True)
class Summary:
    """A dataset in one row. `pipeline` and `step` say what made it; both are empty for data that no step made.

    `numbers` are the first ones that its step returned; `size` is in bytes, `samples` are names; `parents` are those
    that its record names, `code` is the fingerprint, `statement` its packed body, if it is a statement.
    `supports` is True for the source or the environment of steps, `run` is the packed `Producer`.
    """

    name: str
    measurement: str
    step: str
    pipeline: str
    created: str
    status: DatasetStatus
    data_type: str = ""
    data_format: str = ""
    session: str = ""
    instrument: str = ""
    timestamp: str = ""
    size: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    samples: str = ""
    parents: tuple[str, ...] = ()
    code: str = ""
    statement: str = ""
    supports: bool = False
    run: str = ""

    @property
    def made_by(self) -> Producer | None:
        """The run that made the dataset; None if no run did."""
        return Producer(*json.loads(self.run)) if self.run else None

    @property
    def mfid(self) -> str:
        """The dataset's id."""
        return self.status.mfid

    def columns(self) -> tuple[object, ...]:
        """Return the values of the columns COLUMNS."""
        status = self.status
        numbers = json.dumps(dict(self.numbers)) if self.numbers else ""
        slots = json.dumps(slots_to_json(status.slots)) if status.slots else ""
        own = (self.name, self.measurement, self.step, self.pipeline, self.created)
        about = (self.data_type, self.data_format, self.session, self.instrument, self.timestamp, self.size)
        holds = (int(status.complete), int(status.derived), status.replaces or "", slots)
        origin = (" ".join(self.parents), self.code, self.statement, int(self.supports), self.run)
        return status.mfid, status.project, *own, *about, numbers, self.samples, *holds, *origin

    @property
    def facts(self) -> SubjectFacts:
        """The facts that decide which statements apply."""
        return SubjectFacts(self.status.project, self.parents, self.instrument, self.timestamp, self.code)

    @classmethod
    def from_columns(cls, columns: Sequence[Any]) -> Summary:
        """Return the summary with these values of the columns COLUMNS."""
        mfid, project, name, measurement, step, pipeline, created, *columns = columns
        data_type, data_format, session, instrument, timestamp, size, *columns = columns
        numbers, samples, complete, derived, replaces, slots, parents, code, statement, supports, run = columns
        claims = slots_of(json.loads(slots)) if slots else {}
        status = DatasetStatus(mfid, project, bool(complete), bool(derived), claims, replaces or None)
        figures = json.loads(numbers) if numbers else {}
        own = (name, measurement, step, pipeline, created, status)
        origin = (tuple(parents.split()), code, statement, bool(supports), run)
        return cls(*own, data_type, data_format, session, instrument, timestamp, size, figures, samples, *origin)


def summary_of(record: JsonMapping) -> Summary:
    """Summarize a dataset's record, which has metadata."""
    metadata = record.get("scientific_metadata")
    recorded = provenance(record)
    declared = recorded.get("pipeline")
    declared = declared if isinstance(declared, Mapping) else {}
    slots = slots_of(metadata if isinstance(metadata, Mapping) else None)
    pipeline, step = text(declared.get("name")), text(declared.get("step")) or text(recorded.get("step"))
    used = used_mfids(record)
    derived = bool(used or recorded.get("step") or mapping(recorded.get("attached")).get("used"))
    if derived and slots and not pipeline:  # made by a plain flow, or by hand to replace a result
        pipeline, made_for = _made_for(slots)
        step = step or made_for
    return Summary(
        name=text(record.get("dataset_name")) or text(record.get("unique_id")),
        measurement=text(record.get("measurement")),
        step=step,
        pipeline=pipeline,
        created=text(record.get("creation_time")),
        status=DatasetStatus(
            mfid=text(record.get("unique_id")),
            project=text(record.get("project_id")),
            complete=state(record) in ("", "complete"),
            derived=derived,
            slots=slots,
            replaces=text(recorded.get("supersedes")) or None,
        ),
        data_type=text(record.get("data_type")),
        data_format=text(record.get("data_format")),
        session=text(record.get("session_name")),
        instrument=text(record.get("instrument_name")),
        timestamp=text(without_default_time(record).get("timestamp")),
        size=size if isinstance(size := record.get("size"), int) else None,
        numbers=dict(islice(returned_numbers(record).items(), MOST_NUMBERS)) if step else {},
        samples=", ".join(_samples(record)),
        parents=tuple(dict.fromkeys((*used, *_linked_above(record)))),
        code=activity_code(record) if derived else "",
        statement=stated.packed() if (stated := statement_in(record)) else "",
        supports=is_support(record),
        run=_run(record),
    )


def _run(record: JsonMapping) -> str:
    recorded = provenance(record)
    activity = mapping(recorded.get("activity"))
    run = mapping(activity.get("run"))
    if not (run_id := text(run.get("run_id"))):
        return ""
    began, ended = text(activity.get("started")), text(activity.get("ended"))
    return json.dumps(Producer(run_id, began, ended, text(run.get("engine")), maker(record)))


def _made_for(slots: Mapping[str, SlotClaim]) -> tuple[str, str]:
    parts = min(slots).split("/")
    return parts[0], parts[1] if len(parts) > 1 else ""


def _samples(record: JsonMapping) -> Iterator[str]:
    for link in record.get("links") or ():
        if link.get("resource_type") == "sample":
            yield text(link.get("name")) or text(link.get("unique_id"))


def _linked_above(record: JsonMapping) -> Iterator[str]:
    """Yield the parents by links, except the datasets that it is a part of."""
    for link in record.get("links") or ():
        is_above = link.get("resource_type") == "dataset" and link.get("direction") == "source"
        if is_above and link.get("relationship_type") != PART:
            yield text(link.get("unique_id"))
