"""What is known of a pipeline's datasets: the local store first, then one bulk look-up by the pipeline's keyword."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import NotFoundError, RefusedError
from crucible_lineage.pipeline.plan.plan import Earlier
from crucible_lineage.provenance.attachment import whole_record
from crucible_lineage.provenance.recipe import derived_mfid, first_attempt
from crucible_lineage.provenance.record import is_complete, read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.register import known_dataset
from crucible_lineage.session import Session

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client.models import Dataset

__all__ = ["ProjectKnowledge", "pipeline_keyword"]


def pipeline_keyword(pipeline: str) -> str:
    """The keyword that all datasets made by a pipeline carry."""
    return f"pipeline:{pipeline}"


class ProjectKnowledge:
    """Answers from the store; asks Crucible once, for all datasets of the pipeline, when the store does not know.

    Without a pipeline, for all datasets of the project.
    """

    def __init__(self, session: Session, project: str, pipeline: str | None) -> None:
        self.session = session
        self.project = project
        self.pipeline = pipeline
        self._lock = threading.Lock()
        self._records: dict[str, Mapping[str, Any]] | None = None
        self._found: dict[str, Dataset] = {}
        self._made: dict[str, str | None] = {}
        self._indexed: _Index | None = None

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

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """The record of every dataset that has one, also of incomplete ones."""
        return self._load()

    def datasets(self) -> Mapping[str, Dataset]:
        """The datasets that have a record, as Crucible described them."""
        self._load()
        return self._found

    def made_from(self, step: str, output: str, parents: Collection[str]) -> Sequence[Earlier]:
        """Earlier results of a declared step that were made from one of these datasets, newest first."""
        index = self._index().by_parent
        found = {one.mfid: one for parent in parents for one in index.get((step, output, parent), ())}
        return [found[mfid] for mfid in sorted(found, reverse=True)]

    def about(self, step: str, output: str, subject: Collection[str]) -> Sequence[Earlier]:
        """Earlier results of a declared step that descend from all of these inputs, newest first."""
        index = self._index().by_root
        groups = [{one.mfid: one for one in index.get((step, output, root), ())} for root in subject]
        common = set.intersection(*(set(group) for group in groups)) if groups else set()
        return [groups[0][mfid] for mfid in sorted(common, reverse=True)]

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

    def _index(self) -> _Index:
        records = self._load()
        with self._lock:
            if self._indexed is None:
                self._indexed = _index(records)
            return self._indexed

    def _ask(self) -> dict[str, Mapping[str, Any]]:
        keyword: Any = {"keyword": pipeline_keyword(self.pipeline)} if self.pipeline else {}
        try:
            found = self.session.client.datasets.list(
                project_id=self.project, include_metadata=True, include_links=True, limit=None, **keyword
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
            self._found[dataset.unique_id] = dataset
            if is_complete(record):
                record = whole_record(self.session.client, dataset.unique_id, record)
                records[dataset.unique_id] = record
                ids = {dataset.unique_id}
                if "step" in record:
                    ids.add(derived_mfid(record["recipe"]))  # another one at a service that assigns ids itself
                complete |= dict.fromkeys(ids, known_dataset(dataset, record))
                if record["recipe"].get("attempt"):
                    self.session.store.note_attempt(*first_attempt(record["recipe"]))
        self.session.store.remember_as(complete)
        return records


@dataclass(frozen=True)
class _Index:
    """Earlier results by declared step, output, and parent or input of the pipeline that they descend from."""

    by_parent: Mapping[tuple[str, str, str], Sequence[Earlier]]
    by_root: Mapping[tuple[str, str, str], Sequence[Earlier]]


def _index(records: Mapping[str, Mapping[str, Any]]) -> _Index:
    by_parent: dict[tuple[str, str, str], list[Earlier]] = {}
    by_root: dict[tuple[str, str, str], list[Earlier]] = {}
    roots = _Roots(records)
    for mfid, record in records.items():
        if not is_complete(record) or "step" not in record:
            continue
        code = (record.get("activity") or {}).get("code") or {}
        one = Earlier(mfid, record["recipe"], code.get("source", ""))
        step = (record.get("pipeline") or {}).get("step") or record["step"]
        for parent in {entry["mfid"] for entry in record["used"]}:
            by_parent.setdefault((step, record["output"], parent), []).append(one)
        for root in roots.of(mfid):
            by_root.setdefault((step, record["output"], root), []).append(one)
    return _Index(by_parent, by_root)


class _Roots:
    """The datasets that a result descends from and that this pipeline did not make."""

    def __init__(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        self.records = records
        self.known: dict[str, frozenset[str]] = {}

    def of(self, mfid: str) -> frozenset[str]:
        """Its roots; those of every ancestor are found on the way, without recursion."""
        stack = [mfid]
        while stack:
            current = stack[-1]
            parents = self._parents(current)
            unknown = [parent for parent in parents if parent not in self.known and parent not in stack]
            if unknown:
                stack += unknown
                continue
            found = (self.known.get(parent, frozenset()) for parent in parents)
            self.known[current] = frozenset().union(*found) if parents else frozenset((current,))
            stack.pop()
        return self.known[mfid]

    def _parents(self, mfid: str) -> Sequence[str]:
        record = self.records.get(mfid)
        return [entry["mfid"] for entry in record.get("used", ())] if record else ()
