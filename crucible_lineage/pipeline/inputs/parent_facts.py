"""The facts that a step is given about its parents: read from their records, and the form in which recipes hold them.

Of a result they are what its registration gave, which its record keeps: a service that fills in fields or keywords
later changes no id. Of measured data they are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.facts import DatasetFacts, Facts
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.spec.ingestion import Ingest
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.session import Session

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.registration.new_dataset import NewDataset

__all__ = ["ParentFacts", "facts_in", "read_first"]

FEW = 12  # chosen: datasets that are asked for one by one; a listing of all of them costs more, and then tells all
AT_ONCE = 8  # what one client should ask of a shared service at a time


class ParentFacts:
    """Facts of datasets as Crucible has them, or as they wait here to be delivered. Each is read once."""

    def __init__(self, session: Session, project: str) -> None:
        self._session = session
        self._project = project
        self._facts: dict[str, DatasetFacts] = {}

    def look_ahead(self, mfids: Collection[str]) -> None:
        """Read these datasets ahead, as far as this key may see them, with fewer calls than one by one."""
        wanted = [mfid for mfid in dict.fromkeys(mfids) if mfid not in self._facts]
        for mfid in wanted:
            if waiting := self._session.outbox.dataset(mfid):
                self._facts[mfid] = _of_waiting(waiting)
        wanted = [mfid for mfid in wanted if mfid not in self._facts]
        if not wanted:
            return
        found = self._session.mirror.snapshot(self._project).records if len(wanted) > FEW else {}
        for mfid, facts in _in_threads(lambda one: self._ask(one, found.get(one)), wanted):
            if facts is not None:
                self._facts[mfid] = facts

    def of(self, used: Sequence[UsedDataset]) -> dict[str, list[dict[str, object]]]:
        """Return the facts about these parents for a recipe, by input. InputError if one cannot be read."""
        self.look_ahead([part.dataset.mfid for part in used])
        found: dict[str, list[dict[str, Any]]] = {}
        for part in used:
            facts = self._facts.get(part.dataset.mfid)
            if facts is None:
                raise InputError(
                    f"input {part.role!r}: the facts about dataset {part.dataset.mfid} ({part.dataset.name!r}) "
                    "cannot be read: there is none here that this key may see"
                )
            found.setdefault(part.role, []).append(facts.said())
        return found

    def _ask(self, mfid: str, known: Mapping[str, Any] | None) -> DatasetFacts | None:
        datasets = self._session.client.datasets
        try:
            record = known or datasets.get(mfid, include_metadata=True).model_dump()
            if facts := _as_registered(record):
                return facts
            return _as_it_stands(record, [word.keyword for word in datasets.get_keywords(mfid)])
        except (ForbiddenError, NotFoundError):
            return None


def facts_in(recipe: Mapping[str, Any]) -> Facts | None:
    """The facts that a step of this recipe is given; None if it asks for none."""
    stored = recipe.get("facts")
    if stored is None:
        return None
    of = {}
    for role, entries in stored.items():
        files = [tuple(entry["files"]) for entry in recipe["inputs"][role]]
        pairs = zip(entries, files, strict=True)
        of[role] = [replace(DatasetFacts.from_json(entry), files=names) for entry, names in pairs]
    return Facts(of)


def read_first(pipeline: BoundPipeline, inputs: Inputs) -> dict[str, tuple[InputItem, ...]]:
    """The inputs, where new files whose facts a step asks for are read by Crucible before it is made.

    A declaration that says itself whether they are read, and whether that is waited for, has its way.
    """
    asking = {
        source.source
        for step in pipeline.steps.values()
        if step.inspection.facts
        for given in step.sources.values()
        for source in given
    }

    def waiting(item: InputItem) -> InputItem:
        if item.new is None or "ingest" in item.new.model_fields_set:
            return item
        return replace(item, new=item.new.model_copy(update={"ingest": Ingest(wait=True)}))

    return {name: tuple(map(waiting, items)) if name in asking else items for name, items in inputs.items()}


def _of_waiting(new: NewDataset) -> DatasetFacts:
    from crucible_lineage.lineage.records import PROVENANCE_KEY, returned_values  # most steps ask for no facts
    from crucible_lineage.provenance.digest import result_of

    told = {"result": result_of(new.metadata, ())}  # as the record will have it, so that the facts stay the same
    returned = returned_values({"scientific_metadata": {**new.metadata, PROVENANCE_KEY: told}})
    return DatasetFacts.of_fields({**new.fields, "unique_id": new.mfid}, new.keywords, returned)


def _as_registered(record: Mapping[str, Any]) -> DatasetFacts | None:
    """The facts that the registration of a result gave; None for measured data and results of older versions.

    A service may fill in fields and keywords of a result later; its children keep their ids.
    """
    from crucible_lineage.lineage.records import provenance, returned_values  # most steps ask for no facts

    given = provenance(record).get("facts")
    if not isinstance(given, Mapping):
        return None
    return replace(DatasetFacts.from_json(given), metadata=returned_values(record))


def _as_it_stands(record: Mapping[str, Any], keywords: Collection[str]) -> DatasetFacts:
    from crucible_lineage.lineage.records import OWN_KEYS, provenance, returned_values  # most steps ask for no facts

    written = provenance(record)
    derived = bool(written.get("used") or (written.get("attached") or {}).get("used"))
    everything = {k: v for k, v in (record.get("scientific_metadata") or {}).items() if k not in OWN_KEYS}
    return DatasetFacts.of_fields(record, keywords, returned_values(record) if derived else everything)


def _in_threads(
    ask: Callable[[str], DatasetFacts | None], mfids: Sequence[str]
) -> Iterator[tuple[str, DatasetFacts | None]]:
    if len(mfids) < 2:
        return iter([(mfid, ask(mfid)) for mfid in mfids])
    from concurrent.futures import ThreadPoolExecutor  # most steps ask for no facts

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="facts") as pool:
        return iter(list(zip(mfids, pool.map(ask, mfids), strict=True)))
