"""The mirror against a model of a service: after any history of changes, it equals the service."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.slots import SlotClaim, slots_of, slots_to_json
from crucible_lineage.errors import NotFoundError
from crucible_lineage.refs import DatasetRef, ProjectChanges
from tests.runs import forget

PROJECT, SCOPE = "lab", "pipeline:raman"
Record = dict[str, Any]


class Found:
    """A dataset as a client returns it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.unique_id, self.modification_time = record["unique_id"], record["modification_time"]

    def model_dump(self) -> Record:
        return {**self.record, "scientific_metadata": {**self.record["scientific_metadata"]}}


class Service:
    """Datasets with a clock that dates each change. With `revisions` it tells when something was lost, as ours does;
    without, metadata may change undated, as nobody has shown that they do not.
    """

    def __init__(self, *, revisions: bool) -> None:
        self.records: dict[str, Record] = {}
        self.keywords: dict[str, set[str]] = {}
        self.revisions = revisions
        self.clock = self.losses = self.made = 0
        self.calls = 0

    @property
    def datasets(self) -> Service:
        return self

    def now(self) -> str:
        self.clock += 1
        return f"2026-03-01T12:00:00.{self.clock:06}+00:00"

    def create(self, mfid: str, keyword: str) -> None:
        now = self.now()
        self.made += 1
        self.keywords[mfid] = {keyword}
        self.records[mfid] = {
            "unique_id": mfid, "project_id": PROJECT, "dataset_name": f"data {mfid}", "creation_time": now,
            "modification_time": now, "links": [], "scientific_metadata": {},
        }  # fmt: skip
        self.change(mfid, step="scaled", status="incomplete", used=[{"mfid": "0" * 26}])

    def change(self, mfid: str, *, dated: bool = True, **record: Any) -> None:
        metadata = self.records[mfid]["scientific_metadata"]
        metadata["crucible_lineage"] = {**metadata.get("crucible_lineage", {}), **record}
        self._touch(mfid, dated=dated)

    def fill(self, mfid: str, slot: str, since: int, *, dated: bool = True) -> SlotClaim:
        claim = SlotClaim(f"2026-03-02T12:00:00.{since:06}+00:00", f"run {since}", "raman.yaml")
        metadata = self.records[mfid]["scientific_metadata"]
        slots = {**slots_of(metadata), slot: claim}
        self.records[mfid]["scientific_metadata"] = {**metadata, **slots_to_json(slots)}
        self._touch(mfid, dated=dated)
        return claim

    def _touch(self, mfid: str, *, dated: bool) -> None:
        if dated or self.revisions:
            self.records[mfid]["modification_time"] = self.now()

    def lose(self, mfid: str) -> None:
        self.losses += 1
        del self.records[mfid], self.keywords[mfid]

    # What a client asks

    def changes(self, project: str, since: str | None, keyword: str) -> ProjectChanges:
        self.calls += 1
        if project != PROJECT:  # statements, of which there are none
            return ProjectChanges("", {})
        found = {found.unique_id: found.modification_time for found in self._fitting(project, keyword, since)}
        if not self.revisions:
            return ProjectChanges("", found)
        return ProjectChanges(f"token{self.losses}:{self.made}", found, "0:")

    def iter(self, **filters: Any) -> Iterator[Found]:
        self.calls += 1
        if filters.get("project_id") != PROJECT:  # statements, of which there are none
            return iter(())
        since = filters.get("modification_time_gte")
        since = since.isoformat(timespec="microseconds") if hasattr(since, "isoformat") else since
        return iter(list(self._fitting(filters.get("project_id"), filters.get("keyword"), since)))

    def _fitting(self, project: str | None, keyword: str | None, since: str | None) -> Iterator[Found]:
        assert project == PROJECT
        for mfid, record in self.records.items():
            if keyword in (None, *self.keywords[mfid]) and (not since or record["modification_time"] >= since):
                yield Found(record)

    def get(self, mfid: str, **_: object) -> Found:
        self.calls += 1
        if mfid not in self.records:
            raise NotFoundError(f"there is no {mfid}", status=404)
        return Found(self.records[mfid])

    def count(self, **_: object) -> int:
        return len(self.records)


def judge(records: Mapping[str, Mapping[str, Any]], changed: Any) -> dict[str, DatasetRef]:
    """Trust complete datasets."""
    return {mfid: trusted(mfid) for mfid, record in records.items() if is_complete(record)}


def trusted(mfid: str) -> DatasetRef:
    return DatasetRef(mfid, f"data {mfid}", ())


def is_complete(record: Mapping[str, Any]) -> bool:
    return bool(record["scientific_metadata"]["crucible_lineage"]["status"] == "complete")


def truth(service: Service) -> dict[str, dict[str, SlotClaim]]:
    """Return the slots that complete results of the pipeline fill, by brute force."""
    found = {
        mfid: {
            slot: claim for slot, claim in slots_of(record["scientific_metadata"]).items() if slot.startswith("raman/")
        }
        for mfid, record in service.records.items()
        if is_complete(record)
    }
    return {mfid: slots for mfid, slots in found.items() if slots}


@pytest.mark.parametrize("revisions", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_after_any_history_the_mirror_equals_the_service(tmp_path: Path, seed: int, revisions: bool) -> None:
    dice, service = random.Random(seed), Service(revisions=revisions)
    path = tmp_path / "mirror.sqlite"
    mirrors = [Mirror(path, lambda: service, "a model") for _ in range(2)]  # type: ignore[arg-type,return-value]
    for number in range(60):
        ids = sorted(service.records)
        move = dice.choice(
            ("create", "complete", "fill", "own fill", "settle", "lose", "sync", "sync", "list", "forget")
        )
        one = dice.choice(ids) if ids else ""
        mirror, dated = dice.choice(mirrors), dice.random() < 0.5
        if move == "create" or not ids:
            service.create(f"{dice.randrange(10**6):06}{number:020}", dice.choice((SCOPE, SCOPE, "pipeline:other")))
        elif move == "complete":
            service.change(one, status="complete", dated=dated)
        elif move == "fill":
            service.fill(one, f"raman/scaled/out/{dice.randrange(3)}", number, dated=dated)
        elif move == "own fill" and mirror.known(one):
            service.fill(one, f"raman/scaled/out/{dice.randrange(3)}", number, dated=dated)
            service.keywords[one].add(SCOPE)
            mirror.note_slots(PROJECT, [SCOPE], one, slots_of(service.records[one]["scientific_metadata"]))
        elif move == "settle":
            listed = service.records.items()
            there = {
                mfid: (dataset["modification_time"], slots_of(dataset["scientific_metadata"]))
                for mfid, dataset in listed
            }
            mirror.settle(PROJECT, SCOPE, there)
        elif move == "lose":
            service.lose(one)
        elif move == "forget":
            forget(mirror)
        elif move == "list" and revisions:
            assert dict(mirror.snapshot(PROJECT).records) == service.records
        elif move == "sync":
            slots = {mfid: dataset_status.slots for mfid, dataset_status in mirror.sync(PROJECT, SCOPE, judge).items()}
            members = {mfid for mfid, words in service.keywords.items() if SCOPE in words}
            assert mirror.members(PROJECT, SCOPE) == members
            there = {mfid: slots.get(mfid) for mfid in members if mfid in truth(service)}
            assert there == {mfid: truth(service)[mfid] for mfid in there}
            assert slots.keys() <= service.records.keys()
            complete = {mfid for mfid in members if is_complete(service.records[mfid])}
            assert mirror.known_among(members).keys() == complete
            calls = service.calls
            mirror.sync(PROJECT, SCOPE, judge)
            assert not revisions or service.calls == calls + 1, "nothing has changed"
    with closing(mirrors[0]), closing(mirrors[1]):
        pass
