"""The facts that a step is given about its parents: read from their records, and the form in which recipes hold them.

Of a result they are what its registration gave, which its record keeps: a service that fills in fields or keywords
later changes no id. Of measured data they are all there is. What a result does not say itself is what the measured data
share that it is about, as it is for parameters and names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

FEW = 12  # chosen: datasets that are asked for one by one; a listing of all of them costs more, and then tells all
INGESTED_WITHIN_S = 60.0  # chosen: the files of a dataset are mostly read within a second
AT_ONCE = 8  # what one client should ask of a shared service at a time


class ParentFacts:
    """Facts of datasets as Crucible has them, or as they wait here to be delivered. Each is read once."""

    def __init__(self, session: Session, project: str) -> None:
        self._session = session
        self._project = project
        self._read: dict[str, _Read] = {}
        self._facts: dict[str, DatasetFacts] = {}  # with what a result shares with the data it is about

    def look_ahead(self, mfids: Collection[str]) -> None:
        """Read these datasets and what they are about, as far as this key may see them, several at a time."""
        wanted = {mfid for mfid in mfids if mfid not in self._facts}
        while wanted:
            self._read_these([mfid for mfid in dict.fromkeys(sorted(wanted)) if mfid not in self._read])
            above = {one for mfid in wanted if mfid in self._read for one in self._read[mfid].about}
            wanted = above - self._read.keys()
            self._wait_until_ingested(wanted)

    def _wait_until_ingested(self, mfids: Collection[str]) -> None:
        """Let Crucible finish reading the files of these, as far as this machine has asked for it."""
        if not any(one.mfid in mfids for one in self._session.store.open_ingestions()):
            return
        from crucible_lineage.registration.ingestion import follow_ingestions  # few steps ask for facts

        with self._session.connect(at_most_s=0.0) as client:
            follow_ingestions(client, self._session.store, at_most_s=INGESTED_WITHIN_S)

    def _read_these(self, wanted: Sequence[str]) -> None:
        for mfid in wanted:
            if waiting := self._session.outbox.dataset(mfid):
                self._read[mfid] = _of_waiting(waiting)
        wanted = [mfid for mfid in wanted if mfid not in self._read]
        found = self._session.mirror.snapshot(self._project).records if len(wanted) > FEW else {}
        for mfid, read in _in_threads(lambda one: self._ask(one, found.get(one)), wanted):
            if read is not None:
                self._read[mfid] = read

    def _known(self, mfid: str) -> DatasetFacts | None:
        if mfid not in self._facts and (read := self._read.get(mfid)) is not None:
            measured = self._measured(mfid) if read.about else []
            self._facts[mfid] = _with_shared(read.facts, measured) if measured else read.facts
        return self._facts.get(mfid)

    def _measured(self, mfid: str) -> list[DatasetFacts]:
        """The facts of the measured data that a dataset is about; none if some of them cannot be read."""
        found: dict[str, DatasetFacts] = {}
        left, seen = [mfid], set[str]()
        while left:
            if (one := left.pop()) in seen:
                continue
            seen.add(one)
            if (read := self._read.get(one)) is None:
                return []
            left += read.about
            if not read.about:
                found[one] = read.facts
        return list(found.values())

    def of(self, used: Sequence[UsedDataset]) -> dict[str, list[dict[str, object]]]:
        """Return the facts about these parents for a recipe, by input. InputError if one cannot be read."""
        self.look_ahead([part.dataset.mfid for part in used])
        found: dict[str, list[dict[str, Any]]] = {}
        for part in used:
            facts = self._known(part.dataset.mfid)
            if facts is None:
                raise InputError(
                    f"input {part.role!r}: the facts about dataset {part.dataset.mfid} ({part.dataset.name!r}) "
                    "cannot be read: it does not exist, or is not visible to this key"
                )
            found.setdefault(part.role, []).append(facts.known())
        return found

    def _ask(self, mfid: str, known: Mapping[str, Any] | None) -> _Read | None:
        datasets = self._session.client.datasets
        try:
            record = known or datasets.get(mfid, include_metadata=True).model_dump()
            about = _about(record)
            if facts := _as_registered(record):
                return _Read(facts, about)
            return _Read(_as_it_stands(record, [word.keyword for word in datasets.get_keywords(mfid)]), about)
        except (ForbiddenError, NotFoundError):
            return None


@dataclass(frozen=True)
class _Read:
    """The facts of one dataset as it says them itself, and the datasets of the first input that it was made of."""

    facts: DatasetFacts
    about: tuple[str, ...] = ()


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
    asking: set[str] = set()
    left = [step for step in pipeline.steps.values() if step.inspection.facts]
    while left:  # what a result does not say itself, the data behind it say
        sources = {source.source for given in left.pop().sources.values() for source in given} - asking
        asking |= sources
        left += [pipeline.steps[name] for name in sources if name in pipeline.steps]

    def waiting(item: InputItem) -> InputItem:
        if item.new is None or "ingest" in item.new.model_fields_set:
            return item
        return replace(item, new=item.new.model_copy(update={"ingest": Ingest(wait=True)}))

    return {name: tuple(map(waiting, items)) if name in asking else items for name, items in inputs.items()}


def _about(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The datasets of the first input of a result, without partners in time, which it is not about."""
    from crucible_lineage.lineage.records import mappings, provenance, text  # most steps ask for no facts

    used = [entry for entry in mappings(provenance(record).get("used")) if not entry.get("chosen")]
    first = [text(entry.get("mfid")) for entry in used if entry.get("role") == used[0].get("role")]
    return tuple(dict.fromkeys(filter(None, first)))


def _with_shared(facts: DatasetFacts, above: Sequence[DatasetFacts]) -> DatasetFacts:
    """The facts of a result, with what the datasets that it is about share and it does not say itself."""
    first, *others = above
    keys = [key for key, value in first.metadata.items()
            if all(key in one.metadata and one.metadata[key] == value for one in others)]  # fmt: skip
    shared = {key: first.metadata[key] for key in keys if key not in facts.metadata}
    same = {name: getattr(first, name) for name in ("instrument", "measurement")
            if all(getattr(one, name) == getattr(first, name) for one in others)}  # fmt: skip
    return replace(
        facts,
        instrument=facts.instrument or same.get("instrument"),
        measurement=facts.measurement or same.get("measurement"),
        metadata={**facts.metadata, **shared},
    )


def _of_waiting(new: NewDataset) -> _Read:
    from crucible_lineage.lineage.records import PROVENANCE_KEY, returned_values  # most steps ask for no facts
    from crucible_lineage.provenance.digest import result_of

    told = {"result": result_of(new.metadata, ())}  # as the record will have it, so that the facts stay the same
    returned = returned_values({"scientific_metadata": {**new.metadata, PROVENANCE_KEY: told}})
    facts = DatasetFacts.of_fields({**new.fields, "unique_id": new.mfid}, new.keywords, returned)
    used = new.record.document().get("used")
    return _Read(facts, _about({"scientific_metadata": {PROVENANCE_KEY: {"used": used}}}))


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


def _in_threads(ask: Callable[[str], _Read | None], mfids: Sequence[str]) -> Iterator[tuple[str, _Read | None]]:
    if len(mfids) < 2:
        return iter([(mfid, ask(mfid)) for mfid in mfids])
    from concurrent.futures import ThreadPoolExecutor  # most steps ask for no facts

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="facts") as pool:
        return iter(list(zip(mfids, pool.map(ask, mfids), strict=True)))
