"""Outputs registered in this process: `registered.py ours|bare TASK URL KEY ARGUMENTS`; prints the cost as JSON.

`ours` is what a run does when a step has ended: hash the file, make the record, `register_output`. `bare` sends the
very same calls by httpx, with bodies that were made before, and looks into an answer only for what the next call needs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import httpx

from crucible_lineage.checksums import crc32c_text, scan_file
from crucible_lineage.client import CrucibleClient
from crucible_lineage.ids import derive_mfid, mfid_time
from crucible_lineage.provenance.digest import result_of
from crucible_lineage.provenance.environment import agent, software
from crucible_lineage.provenance.recipe import StepCode as StepCode
from crucible_lineage.provenance.recipe import UsedDataset, step_recipe
from crucible_lineage.provenance.record import KEY, Activity, read_record, step_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.new_dataset import LocalFile, NewDataset
from crucible_lineage.registration.read import read, registered
from crucible_lineage.registration.register import register_output
from tasks import measured

VALUES = "\n".join(f"{number / 7:.6f}" for number in range(1000))
KEYWORD = "pipeline:benchmark"
NOW = "2026-01-01T00:00:00+00:00"

Make = Callable[[int], NewDataset]


def output(parent: str, folder: Path, number: int) -> NewDataset:
    """A dataset of one small file, as a step with one parent and one parameter makes it; no two have the same bytes."""
    path = folder / f"scaled-{number}.txt"
    path.write_text(f"{number}\n{VALUES}")
    file = LocalFile.of(path, scan_file(path))
    used = [UsedDataset("counts", DatasetRef(parent, "counts", ()), ())]
    recipe = step_recipe("benchmark", StepCode("scale", "c0de", {}), "out", {"factor": number}, used)
    mfid = derive_mfid(recipe, parent)
    source = "def scale():\n" + "    pass\n" * 40
    return NewDataset(
        mfid=mfid,
        fields={"project_id": "benchmark", "dataset_name": "scaled", "timestamp": mfid_time(mfid).isoformat()},
        record=step_record(
            recipe=recipe,
            pipeline={"name": "benchmark", "hash": "abc"},
            used=used,
            generated=[file.ref],
            activity=Activity("scale", "lab:scale", "c0de", NOW, NOW, source=source),
            software=software(()),
            who=agent({"unique_id": "0000-0000-0000-0001", "username": "local", "is_service_account": False}),
            supersedes=None,
        ),
        metadata={f"value_{key}": key / 7 for key in range(10)},
        files=(file,),
        keywords=(KEYWORD,),
        parents=(parent,),
    )


class Ours:
    """By the library, counting its calls."""

    def __init__(self, url: str, key: str) -> None:
        self.client = CrucibleClient(url, key)
        self.calls = 0
        for part in (self.client._api, self.client._storage):
            part.event_hooks = {"request": [self._count]}
        self.client.health()
        read_record({KEY: {}})  # imports what reading records needs
        self.calls = 0

    def _count(self, _request: httpx.Request) -> None:
        self.calls += 1

    def new(self, make: Make, numbers: range) -> Callable[[], None]:
        return partial(each, lambda number: register_output(self.client, make(number)), numbers)

    def known(self, make: Make, numbers: range) -> Callable[[], None]:
        return partial(each, lambda new: read(self.client, new.mfid), [make(number) for number in numbers])

    def many(self, _make: Make, _numbers: range) -> Callable[[], None]:
        def listed() -> None:
            for dataset in self.client.datasets.list(keyword=KEYWORD, include_metadata=True, limit=None):
                assert registered(self.client, dataset).ref is not None

        return listed


class Bare:
    """The same calls by httpx, with bodies made before the clock runs."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.http = httpx.Client(headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
        self.http.get(f"{url}/health/ready")
        self.calls = 0

    def new(self, make: Make, numbers: range) -> Callable[[], None]:
        bodies = [(new, *self._bodies(new)) for new in map(make, numbers)]
        return partial(each, lambda those: self._register(*those), bodies)

    def known(self, make: Make, numbers: range) -> Callable[[], None]:
        paths = [f"/datasets/{new.mfid}?include_metadata=true&include_links=true" for new in map(make, numbers)]
        return partial(each, lambda path: self._sent("GET", path), paths)

    def many(self, _make: Make, _numbers: range) -> Callable[[], None]:
        path = f"/datasets?limit=1000&keyword={KEYWORD}&include_metadata=true"
        return partial(each, lambda path: self._sent("GET", path), [path])

    def _bodies(self, new: NewDataset) -> tuple[bytes, ...]:
        generated = (file.to_json() for file in new.record.files)
        result = result_of(new.metadata, generated)
        record = {**new.record.document(), "registrar": "a-1", "result": result}
        created = json.dumps({**new.fields, "unique_id": new.mfid, "public": False}).encode()
        done = {"status": "complete", "completed": {"a-1": NOW}}
        (file,) = new.files
        content = file.path.read_bytes()
        crc = crc32c_text(google_crc32c.value(content))
        announced = {"filename": file.ref.name, "size": len(content), "sha256_hash": file.ref.sha256}
        part = {"parts": [{"part_number": 1, "crc32c": crc}]}
        whole = {"sha256_hash": file.ref.sha256, "crc32c": crc}
        metadata = {**new.metadata, KEY: record}
        return created, content, *(json.dumps(one).encode() for one in (metadata, {KEY: done}, announced, part, whole))

    def _register(
        self, new: NewDataset, created: bytes, content: bytes, record: bytes, done: bytes, announced: bytes,
        part: bytes, whole: bytes,
    ) -> None:  # fmt: skip
        dataset, metadata = f"/datasets/{new.mfid}", f"/resources/{new.mfid}/metadata"
        upload = f"{dataset}/upload/multipart"
        self._sent("POST", "/datasets", created)
        self._sent("POST", metadata, record)
        self._sent("POST", f"{dataset}/keywords?keyword={KEYWORD}")
        self._sent("POST", f"/datasets/{new.parents[0]}/children/{new.mfid}?relationship_type=is_derived_from")
        begun = self._sent("POST", f"{upload}/initiate", announced)["upload_id"]
        (link,) = self._sent("POST", f"{upload}/{begun}/parts", part)["parts"]
        assert self.http.put(link["url"], headers=link["headers"], content=content).is_success
        self.calls += 1
        file = self._sent("POST", f"{upload}/complete", whole[:-1] + f', "upload_id": "{begun}"}}'.encode())
        self._sent("POST", f"/files/{file['mfid']}/ingest?status=requested")
        self._sent("PATCH", metadata, done)

    def _sent(self, method: str, path: str, body: bytes | None = None) -> Any:
        answer = self.http.request(method, self.url + path, content=body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        self.calls += 1
        return answer.json()


def each(work: Callable[[Any], object], items: Iterable[Any]) -> None:
    for item in items:
        work(item)


def main() -> None:
    who, task, url, key, text = sys.argv[1:]
    given = json.loads(text)
    subject = {"ours": Ours, "bare": Bare}[who](url, key)
    with tempfile.TemporaryDirectory() as folder:
        make = partial(output, given["parent"], Path(folder))
        make(0)  # what the first record imports and looks up
        cost = measured(getattr(subject, task)(make, range(given["first"], given["first"] + given["count"])))
        print(json.dumps({**cost, "calls": subject.calls}))


if __name__ == "__main__":
    main()
