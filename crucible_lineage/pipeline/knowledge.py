"""What is known of a pipeline's datasets: the local store first, then one bulk look-up by the pipeline's keyword."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from crucible_lineage.attached import whole_record
from crucible_lineage.datasets import DatasetRef
from crucible_lineage.errors import NotFoundError, RefusedError
from crucible_lineage.provenance import is_complete, read_record
from crucible_lineage.recipe import derived_mfid, first_attempt
from crucible_lineage.registry import known_dataset
from crucible_lineage.session import Session

__all__ = ["ProjectKnowledge", "pipeline_keyword"]


def pipeline_keyword(pipeline: str) -> str:
    """The keyword that all datasets made by a pipeline carry."""
    return f"pipeline:{pipeline}"


class ProjectKnowledge:
    """Answers from the store; asks Crucible once, for all datasets of the pipeline, when the store does not know."""

    def __init__(self, session: Session, project: str, pipeline: str) -> None:
        self.session = session
        self.project = project
        self.pipeline = pipeline
        self._lock = threading.Lock()
        self._records: dict[str, Mapping[str, Any]] | None = None
        self._made: dict[str, str | None] = {}

    def complete(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is there and complete."""
        if known := self.session.store.known(mfid):
            return known
        self._load()
        return self.session.store.known(mfid)

    def is_begun(self, mfid: str) -> bool:
        """True if there is an incomplete record under this id."""
        record = self._load().get(mfid)
        return record is not None and not is_complete(record)

    def siblings(self, step: str, output: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Id and recipe of each earlier result of this step, newest first."""
        found = [
            (mfid, record["recipe"])
            for mfid, record in self._load().items()
            if is_complete(record) and record.get("step") == step and record.get("output") == output
        ]
        return sorted(found, reverse=True)

    def attempt(self, first_mfid: str) -> int:
        """The latest attempt at the recipe whose first attempt has this id."""
        if self.session.store.known(first_mfid) is None:
            self._load()
        return self.session.store.attempt(first_mfid)

    def supersedes(self, mfid: str) -> str | None:
        """The dataset that this one was made to replace."""
        if mfid in self._made:
            return self._made[mfid]
        record = self._load().get(mfid)
        return None if record is None else record.get("supersedes")

    def made(self, supersedes: Mapping[str, str | None]) -> None:
        """These datasets (id and what each replaced) were made since the look-up."""
        with self._lock:
            self._made.update(supersedes)

    def _load(self) -> Mapping[str, Mapping[str, Any]]:
        with self._lock:
            if self._records is None:
                self._records = self._ask()
            return self._records

    def _ask(self) -> dict[str, Mapping[str, Any]]:
        try:
            found = self.session.client.datasets.list(
                project_id=self.project,
                keyword=pipeline_keyword(self.pipeline),
                include_metadata=True,
                include_links=True,
                limit=None,
            )
        except (NotFoundError, RefusedError):  # the project is not there yet
            return {}
        records: dict[str, Mapping[str, Any]] = {}
        complete: dict[str, DatasetRef] = {}
        for dataset in found:
            record = read_record(dataset.scientific_metadata)
            if record is None:
                continue
            records[dataset.unique_id] = record
            if is_complete(record):
                record = whole_record(self.session.client, dataset.unique_id, record)
                records[dataset.unique_id] = record
                ids = {dataset.unique_id, derived_mfid(record["recipe"])}  # two at a service that assigns ids itself
                complete |= dict.fromkeys(ids, known_dataset(dataset, record))
                if record["recipe"].get("attempt"):
                    self.session.store.note_attempt(*first_attempt(record["recipe"]))
        self.session.store.remember_as(complete)
        return records
