"""Two machines register the same nondeterministic step at once: what is there at the end is one attempt, whole.

One of them is held at a call, just before it is sent or just after it was answered, while the other goes on; then the
other is held, too, while the first goes on. Every attempt has files, metadata and a run id of its own.
"""

from __future__ import annotations

import base64
import itertools
import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.provenance.environment import agent, software
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.provenance.record import KEY, read_record, step_activity, step_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.register import register_output
from tests.serving import RunningServer, start_server

STEP = int(os.environ.get("CRASH_STEP", "24"))  # `make crash` tries every pair of calls
PATIENCE_S = 0.05
MOST_CALLS = 60
NOW = "2026-01-01T00:00:00+00:00"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Gate(httpx.BaseTransport):
    """Holds one request: `before` it is sent, or `after` it was answered. `reached` and `opened` say how it stands."""

    def __init__(self) -> None:
        self.wire = httpx.HTTPTransport()
        self.calls = itertools.count(1)
        self.number, self.when = 0, "before"
        self.held = ""
        self.reached, self.opened = threading.Event(), threading.Event()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        mine = next(self.calls) == self.number
        if mine:
            self.held = f"{request.method} {request.url.raw_path.decode()}"
        if mine and self.when == "before":
            self._hold()
        response = self.wire.handle_request(request)
        if mine and self.when == "after":
            response.read()
            self._hold()
        return response

    @property
    def is_overwriting(self) -> bool:
        """True if the held request puts metadata in the place of others."""
        return "overwrite=true" in self.held or self.held.startswith("PATCH")

    def close(self) -> None:
        self.wire.close()

    def _hold(self) -> None:
        self.reached.set()
        assert self.opened.wait(60)


class Machine:
    """A machine that made the result once, with bytes, a picture, metadata and even a file name of this attempt."""

    def __init__(self, server: RunningServer, folder: Path, parent: str, nonce: str, name: str, ingest: bool) -> None:
        self.name, self.gate = name, Gate()
        self.client = CrucibleClient(server.url, server.api_key, transport=self.gate, state_folder=folder / "uploads")
        self.folder = folder
        self.new = replace(self._result(parent, nonce), ingest=ingest)
        self.outcome: DatasetRef | BaseException | None = None
        self.thread = threading.Thread(target=self._register, daemon=True)

    def run(self, number: int = 0, when: str = "before") -> None:
        """The registration is under way, or held at this call, or over."""
        self.gate.number, self.gate.when = number, when
        self.thread.start()
        while self.thread.is_alive() and not self.gate.reached.wait(0.002):
            if number == 0:
                self.thread.join(60)

    def finish(self) -> DatasetRef:
        self.gate.opened.set()
        self.thread.join(60)
        assert isinstance(self.outcome, DatasetRef), f"{self.name}: {self.outcome!r}"
        return self.outcome

    @property
    def was_held(self) -> bool:
        return self.gate.reached.is_set()

    def _register(self) -> None:
        try:
            self.outcome = register_output(self.client, self.new, f"machine{self.name}", patience_s=PATIENCE_S)
        except BaseException as error:
            self.outcome = error

    def _result(self, parent: str, nonce: str) -> NewDataset:
        contents = {
            "noise.txt": f"noise of {self.name}".encode(),
            f"log-{self.name}.txt": f"log of {self.name}".encode(),
            "plot.png": PIXEL + self.name.encode(),
        }
        self.folder.mkdir(parents=True)
        files = []
        for name, content in contents.items():
            path = self.folder / name
            path.write_bytes(content)
            files.append(LocalFile.of(path, scan_file(path), preview=name.endswith(".png")))
        recipe = {
            "kind": "step", "version": 2,
            "project": "lab", "step": "sample", "output": "out", "code": "c0de", "params": {"n": nonce},
            "inputs": {"spectrum": [{"origin": parent, "files": {}}]},
        }  # fmt: skip
        run = {"engine": "local", "run_id": self.name, f"{'flow' if self.name == 'A' else 'task'}_run_id": self.name}
        record = step_record(
            recipe=recipe,
            pipeline=None,
            used=[UsedDataset("spectrum", DatasetRef(parent, "spectrum", ()), ())],
            generated=[file.ref for file in files],
            activity=step_activity("sample", "lab:sample", "c0de", NOW, NOW, run=run),
            software=software(()),
            who=agent({"unique_id": None, "username": self.name, "is_service_account": None}),
            supersedes=None,
        )
        return NewDataset(
            mfid=derive_mfid(recipe, parent),
            fields={"project_id": "lab", "dataset_name": "noise", "timestamp": NOW},
            record=record,
            metadata={"seed": self.name, f"only_{self.name}": {"deep": self.name}},
            files=tuple(files),
            keywords=("noise",),
            parents=(parent,),
        )


class Bench:
    """One server, and two machines for each trial, whose recipe is that trial's own."""

    def __init__(self, server: RunningServer, folder: Path, stack: ExitStack) -> None:
        self.server, self.folder, self.stack = server, folder, stack
        self.reader = stack.enter_context(CrucibleClient(server.url, server.api_key))
        self.reader.projects.create(project_id="lab", organization="x", project_lead="local")
        self.parent = self.reader.datasets.create({"project_id": "lab", "dataset_name": "spectrum"}).dsid

    def machines(self, trial: str, *, ingest: bool = False) -> tuple[Machine, Machine]:
        first, second = (Machine(self.server, self.folder / trial / n, self.parent, trial, n, ingest) for n in "AB")
        for machine in (first, second):
            self.stack.callback(machine.client.close)
        return first, second

    def winner(self, mfid: str, where: str = "") -> str:
        """Whose attempt is there; fails unless all of it is that one's."""
        dataset = self.reader.datasets.get(mfid, include_metadata=True)
        metadata = dict(dataset.scientific_metadata or {})
        record = metadata.pop(KEY)
        assert (read_record({KEY: record}) or pytest.fail(where)).is_complete, where
        name = record["activity"]["run"]["run_id"]
        expected = Machine(self.server, self.folder / f"wanted-{new_mfid()}", self.parent, "", name, False)
        expected.client.close()
        assert record["activity"]["run"] == expected.new.record.document()["activity"]["run"], where
        assert record["agent"]["username"] == name, where
        assert record["generated"] == expected.new.record.document()["generated"], where
        ours = {key: value for key, value in metadata.items() if key == "seed" or key.startswith("only_")}
        assert ours == expected.new.metadata, where
        files = {file.filename: self.reader.files.download_bytes(file) for file in self.reader.files.list(mfid)}
        assert files == {file.ref.name: file.path.read_bytes() for file in expected.new.files}, where
        pictures = [p.thumbnail_b64str for p in self.reader.datasets.get_thumbnails(mfid) if "plot" in p.thumbnail_name]
        assert pictures == [base64.b64encode(files["plot.png"]).decode()], where
        return str(name)

    def attempt_of(self, found: DatasetRef) -> str:
        """Whose attempt a machine was told of."""
        return next(file.name for file in found.files if file.name.startswith("log-"))[4]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        server = stack.enter_context(start_server(tmp_path / "service"))
        yield Bench(server, tmp_path, stack)


@pytest.mark.parametrize("when", ["before", "after"])
def test_held_at_any_call_while_another_machine_does_all(bench: Bench, when: str) -> None:
    for number in range(1, MOST_CALLS, max(1, STEP // 4)):
        first, second = bench.machines(f"{when}-{number}", ingest=STEP == 1)
        first.run(number, when)
        second.run()
        told = {bench.attempt_of(machine.finish()) for machine in (second, first)}
        assert told == {bench.winner(first.new.mfid)}, f"held {when} call {number}"
        if not first.was_held:
            assert number > 10, "so few calls cannot be all"
            return
    raise AssertionError("a registration of so many calls")


def test_held_in_turn_at_any_two_calls(bench: Bench) -> None:
    pairs = list(itertools.product(range(1, 21), range(1, 46), ["before", "after"], ["before", "after"]))
    late = []
    for trial, (one, other, when, then) in enumerate(random.Random(7).sample(pairs, len(pairs) // (8 * STEP))):
        first, second = bench.machines(f"turn-{trial}")
        first.run(one, when)
        second.run(other, then)
        told = {bench.attempt_of(machine.finish()) for machine in (first, second)}
        where = f"held {when} call {one}, then {then} call {other} ({second.gate.held})"
        if told != {bench.winner(first.new.mfid, where)}:
            late.append(second.gate)
    # A call that takes effect when its sender has long been given up is the one thing that cannot be undone.
    assert [gate.held for gate in late if gate.when == "after" or not gate.is_overwriting] == []
