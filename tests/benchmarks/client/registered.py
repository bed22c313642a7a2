"""Outputs registered in this process: `registered.py ours|bare TASK URL KEY ARGUMENTS`; prints the cost as JSON.

`ours` is what a run does when a step has ended: hash the file, make the record, `register_output`. `bare` sends the
very same calls by httpx, with bodies that were made before, and looks into an answer only for what the next call needs.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
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

CONTENT = "\n".join(f"{number / 7:.6f}" for number in range(1000)).encode()
KEYWORD = "pipeline:benchmark"
NOW = "2026-01-01T00:00:00+00:00"
FIRST_WAIT_S = 0.1  # as the client waits for ingestion
SHA256, CRC = hashlib.sha256(CONTENT).hexdigest(), crc32c_text(google_crc32c.value(CONTENT))
ANNOUNCED = json.dumps({"filename": "scaled.txt", "size": len(CONTENT), "sha256_hash": SHA256}).encode()
PART = json.dumps({"parts": [{"part_number": 1, "crc32c": CRC}]}).encode()
WHOLE = json.dumps({"sha256_hash": SHA256, "crc32c": CRC}).encode()


Make = Callable[[int], NewDataset]


def output(parent: str, path: Path, number: int) -> NewDataset:
    """A dataset of one small file, as a step with one parent and one parameter makes it."""
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
    """By the library, counting its calls (those that only ask how an ingestion stands apart)."""

    def __init__(self, url: str, key: str) -> None:
        self.client = CrucibleClient(url, key)
        self.calls = 0
        for part in (self.client._api, self.client._storage):
            part.event_hooks = {"request": [self._count]}
        self.client.health()
        read_record({KEY: {}})  # imports what reading records needs
        self.calls = 0

    def _count(self, request: httpx.Request) -> None:
        self.calls += "/ingestion_requests/" not in request.url.path

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

    def _bodies(self, new: NewDataset) -> tuple[bytes, bytes, bytes]:
        generated = (file.to_json() for file in new.record.files)
        result = result_of(new.metadata, generated)
        record = {**new.record.document(), "registrar": "a-1", "result": result}
        created = json.dumps({**new.fields, "unique_id": new.mfid, "public": False}).encode()
        done = {"status": "complete", "completed": {"a-1": NOW}}
        return created, json.dumps({**new.metadata, KEY: record}).encode(), json.dumps({KEY: done}).encode()

    def _register(self, new: NewDataset, created: bytes, record: bytes, done: bytes) -> None:
        dataset, metadata = f"/datasets/{new.mfid}", f"/resources/{new.mfid}/metadata"
        upload = f"{dataset}/upload/multipart"
        self._sent("POST", "/datasets", created)
        self._sent("POST", metadata, record)
        self._sent("POST", f"{dataset}/keywords?keyword={KEYWORD}")
        self._sent("POST", f"/datasets/{new.parents[0]}/children/{new.mfid}?relationship_type=is_derived_from")
        begun = self._sent("POST", f"{upload}/initiate", ANNOUNCED)["upload_id"]
        (link,) = self._sent("POST", f"{upload}/{begun}/parts", PART)["parts"]
        assert self.http.put(link["url"], headers=link["headers"], content=CONTENT).is_success
        self.calls += 1
        file = self._sent("POST", f"{upload}/complete", WHOLE[:-1] + f', "upload_id": "{begun}"}}'.encode())
        request = self._sent("POST", f"/files/{file['mfid']}/ingest?status=requested")["id"]
        wait_s = FIRST_WAIT_S
        while self._sent("GET", f"/ingestion_requests/{request}", counted=False)["status"] in ("requested", "started"):
            time.sleep(wait_s)
            wait_s *= 1.6
        self._sent("PATCH", metadata, done)

    def _sent(self, method: str, path: str, body: bytes | None = None, *, counted: bool = True) -> Any:
        answer = self.http.request(method, self.url + path, content=body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        self.calls += counted
        return answer.json()


def each(work: Callable[[Any], object], items: Iterable[Any]) -> None:
    for item in items:
        work(item)


def main() -> None:
    who, task, url, key, text = sys.argv[1:]
    given = json.loads(text)
    subject = {"ours": Ours, "bare": Bare}[who](url, key)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scaled.txt"
        path.write_bytes(CONTENT)
        make = partial(output, given["parent"], path)
        make(0)  # what the first record imports and looks up
        cost = measured(getattr(subject, task)(make, range(given["first"], given["first"] + given["count"])))
        print(json.dumps({**cost, "calls": subject.calls}))


if __name__ == "__main__":
    main()
