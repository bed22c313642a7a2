"""Facts about parents that steps are given, and their form in recipes.

For a result they are the fields of its registration, kept in its record: a service that adds fields or keywords later
changes no id. For measured data they are the whole record. As for parameters and names, fields that a result lacks come
from the measured data that it is about, where these agree.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from crucible_lineage.core.store import Ingestion
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.json_types import JsonMapping, JsonObject, text
from crucible_lineage.lineage.records import given_metadata, mappings, provenance, returned_values, shared
from crucible_lineage.machine.process import in_threads
from crucible_lineage.marks import KEY
from crucible_lineage.provenance.recipe import UsedDataset, result_of
from crucible_lineage.refs import DatasetFacts, Facts
from crucible_lineage.registration.ingestion import follow_ingestions
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import utc

log = logging.getLogger(__name__)

INGESTED_WITHIN_S, SOON_S = 60.0, 2.0  # chosen: ingestion mostly takes less than a second
MOST_NAMED = 3  # files in a message


class ParentFacts:
    """Facts about datasets at Crucible or in the outbox. Each is read once."""

    def __init__(self, session: Session, project: str) -> None:
        self._session = session
        self._project = project
        self._read: dict[str, tuple[DatasetFacts, tuple[str, ...]]] = {}  # own facts; datasets of the first input
        self._facts: dict[str, DatasetFacts] = {}  # including those shared by the data that a result is about

    def prefetch(self, mfids: Collection[str]) -> None:
        """Read these datasets and those that they are about, as far as visible, several at a time."""
        missing = {mfid for mfid in mfids if mfid not in self._facts}
        while missing:
            mfids = [mfid for mfid in sorted(missing) if mfid not in self._read]
            self._await_ingestion(mfids)
            waiting = {mfid: new for mfid in mfids if (new := self._session.outbox.dataset(mfid))}
            self._read |= {mfid: _undelivered(new) for mfid, new in waiting.items()}
            mfids = [mfid for mfid in mfids if mfid not in waiting]
            records = self._session.mirror.read_among(self._project, mfids)
            own = in_threads(lambda entry: self._own(*entry), list(records.items()))
            self._read |= {mfid: read for mfid, read in zip(records, own, strict=True) if read}
            sources = {source for mfid in missing if mfid in self._read for source in self._read[mfid][1]}
            missing = sources - self._read.keys()

    def _await_ingestion(self, mfids: Collection[str]) -> None:
        """Wait for Crucible to read files that this machine registered a moment ago; say so if it takes long."""
        store = self._session.store

        def left() -> list[Ingestion]:
            return [ingestion for ingestion in store.open_ingestions() if ingestion.mfid in mfids]

        if not (waiting := left()):
            return
        age_s = (datetime.now(UTC) - utc(max(ingestion.asked for ingestion in waiting))).total_seconds()
        with self._session.connect(at_most_s=0.0) as client:
            follow_ingestions(client, store, at_most_s=min(SOON_S, INGESTED_WITHIN_S - age_s))
            if age_s < INGESTED_WITHIN_S and (waiting := left()):
                files, left_s = amount(len(waiting), "file"), INGESTED_WITHIN_S - age_s
                log.warning(
                    "waiting until Crucible has read %s, whose facts a step takes, at most %.0f s", files, left_s
                )
                follow_ingestions(client, store, at_most_s=left_s)
        if waiting := left():
            named = ", ".join(f"{ingestion.file} of {ingestion.dataset!r}" for ingestion in waiting[:MOST_NAMED])
            log.warning("going on without what Crucible has not read yet: %s", named)

    def _known(self, mfid: str) -> DatasetFacts | None:
        if mfid not in self._facts and (read := self._read.get(mfid)) is not None:
            facts, about = read
            if about and (measured := self._measured(mfid)):  # completed by what these agree in
                agreed = shared(map(vars, measured))
                facts = replace(
                    facts,
                    instrument=facts.instrument or agreed.get("instrument"),
                    measurement=facts.measurement or agreed.get("measurement"),
                    metadata={**agreed["metadata"], **facts.metadata},
                )
            self._facts[mfid] = facts
        return self._facts.get(mfid)

    def _measured(self, mfid: str) -> list[DatasetFacts]:
        """Return the facts about the measured data that a dataset is about; none if some cannot be read."""
        measured: dict[str, DatasetFacts] = {}
        pending, seen = [mfid], set[str]()
        while pending:
            if (source := pending.pop()) in seen:
                continue
            seen.add(source)
            if (read := self._read.get(source)) is None:
                return []
            facts, about = read
            pending += about
            if not about:
                measured[source] = facts
        return list(measured.values())

    def of(self, used: Sequence[UsedDataset]) -> dict[str, list[dict[str, object]]]:
        """Return the facts about these parents for a recipe, by role. Raises InputError if one cannot be read."""
        self.prefetch([part.dataset.mfid for part in used])
        by_role: dict[str, list[JsonObject]] = {}
        for part in used:
            facts = self._known(part.dataset.mfid)
            if facts is None:
                raise InputError(
                    f"input {part.role!r}: the facts about dataset {part.dataset.mfid} ({part.dataset.name!r}) "
                    "cannot be read: it does not exist, or is not visible to this key"
                )
            by_role.setdefault(part.role, []).append(facts.known())
        return by_role

    def _own(self, mfid: str, record: JsonMapping) -> tuple[DatasetFacts, tuple[str, ...]] | None:
        about, stored = _about(record), provenance(record).get("facts")
        if isinstance(stored, Mapping):  # of a result: as registered, whatever a service has added since
            return replace(DatasetFacts.from_json(stored), metadata=returned_values(record)), about
        with suppress(ForbiddenError, NotFoundError):  # deleted or hidden since it was listed
            keywords = [word.keyword for word in self._session.client.datasets.get_keywords(mfid)]
            return DatasetFacts.of_fields(record, keywords, given_metadata(record)), about
        return None


def facts_in(recipe: JsonMapping) -> Facts | None:
    """Return the facts in a recipe; None if its step takes none."""
    stored = recipe.get("facts")
    if stored is None:
        return None
    by_role = {}
    for role, entries in stored.items():
        files = [tuple(entry["files"]) for entry in recipe["inputs"][role]]
        pairs = zip(entries, files, strict=True)
        by_role[role] = tuple(replace(DatasetFacts.from_json(entry), files=names) for entry, names in pairs)
    return Facts(by_role)


def _about(record: JsonMapping) -> tuple[str, ...]:
    """Return the datasets of a result's first input, except partners in time."""
    used = [entry for entry in mappings(provenance(record).get("used")) if not entry.get("chosen")]
    first = [text(entry.get("mfid")) for entry in used if entry.get("role") == used[0].get("role")]
    return tuple(dict.fromkeys(filter(None, first)))


def _undelivered(new: NewDataset) -> tuple[DatasetFacts, tuple[str, ...]]:
    record = {"result": result_of(new.metadata, ())}  # as the record will have it, so that the facts stay the same
    returned = returned_values({"scientific_metadata": {**new.metadata, KEY: record}})
    facts = DatasetFacts.of_fields({**new.fields, "unique_id": new.mfid}, new.keywords, returned)
    used = new.record.document().get("used")
    return facts, _about({"scientific_metadata": {KEY: {"used": used}}})
