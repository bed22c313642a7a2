"""The claim protocol, checked against a simulated service: random histories of up to three machines.

The code under test is what registers for real. Simulated are the service, the clock and the machines: requests and
answers get lost, arrive late and twice; reads and listings are up to `STALE_S` old; machines are killed between any two
calls, restarted, and suspended; no step gives the same bytes twice; requests of the dead may still arrive; and a
worker merges back any older state of the metadata, whole, at any time. Every history can be repeated from its number.

What is assumed: a machine is not suspended for longer than the patience of others between its last look and a call that
takes something away, and a call that takes something away is not repeated by the network later.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from crucible_lineage.client.models import Dataset, FileRecord, IngestionRequest
from crucible_lineage.client.uploads import UploadedFile
from crucible_lineage.core.slots import SlotClaim, slots_of, slots_stated, slots_to_json
from crucible_lineage.errors import ConflictError, FileConflictError, LineageError, NotFoundError, UnreachableError
from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.machine.checksums import FileChecksums
from crucible_lineage.marks import record_in, registrations, settled
from crucible_lineage.provenance.environment import agent, software
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.provenance.record import KEY, read_record, step_activity, step_record
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration import claim as claims
from crucible_lineage.registration import read as trust
from crucible_lineage.registration import register
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.register import register_output

HISTORIES = int(os.environ.get("CLAIM_HISTORIES", "100"))  # `make crash` tries many more
PATIENCE_S = 4.0
STALE_S = 1.0
ENOUGH = 1500  # histories in which a broken rule has to show
MOST_STEPS = 6000
START = 1_780_000_000.0
RAW = "0tr9htwkj6699bssksbnh83j40"
SLOT = "lab/step/out/all"
AGENT = agent({"unique_id": None, "username": "model", "is_service_account": None})
SOFTWARE = software(())
TAKES_AWAY = ("delete", "replace")


class Violation(AssertionError):
    """A forbidden state was reached."""


class Killed(BaseException):
    """The machine was killed."""


@dataclass
class Stored:
    """A dataset at the service."""

    fields: dict[str, Any]
    metadata: dict[str, Any] | None = None
    modified: float = 0.0
    files: dict[str, tuple[str, str]] = field(default_factory=dict)  # by name: id and SHA-256
    keywords: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)
    earlier: list[dict[str, Any]] = field(default_factory=list)  # every state that the metadata had


class World:
    """The service, the clock, and the scheduler of steps: one at a time, in an order that follows from `seed`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = START
        self.datasets: dict[str, Stored] = {}
        self.history: dict[str, list[tuple[float, Stored]]] = {}
        self.requests: list[IngestionRequest] = []
        self.late: list[tuple[float, Callable[[], object]]] = []
        self.reported: dict[str, set[frozenset[tuple[str, str]]]] = {}
        self.held: dict[str, str] = {}  # by dataset: since when it is known to hold its slot
        self.contents: dict[str, str] = {}
        self.is_deep = self.random.random() < 0.5
        self.is_embedded = self.random.random() < 0.5
        self.moves_time = self.random.random() < 0.7
        self.loses = self.random.choice((0.0, 0.02, 0.1))
        self.kills = self.random.choice((0.0, 0.01, 0.04))
        self.suspends = self.random.choice((0.0, 0.0, 0.02))
        self.writes_back = self.random.choice((0.0, 0.05, 0.3))
        self.violation: Violation | None = None
        self.steps = 0

    def merged(self, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        result = dict(old)
        for key, value in new.items():
            before = result.get(key)
            both = self.is_deep and isinstance(before, dict) and isinstance(value, dict)
            result[key] = self.merged(before, value) if both else value
        return result

    def write(self, mfid: str, metadata: dict[str, Any]) -> dict[str, Any]:
        stored = self.datasets[mfid]
        stored.metadata = metadata  # which nobody changes from here on
        stored.earlier.append(metadata)
        self.changed(mfid)
        return metadata

    def changed(self, mfid: str) -> None:
        stored = self.datasets[mfid]
        if self.moves_time:
            stored.modified = self.now
        history = self.history.setdefault(mfid, [])
        history.append((self.now, replace(stored, files=dict(stored.files))))
        while len(history) > 1 and history[1][0] < self.now - 2 * STALE_S:
            del history[0]
        self.check(mfid)

    def seen(self, mfid: str) -> Stored:
        """Return the dataset as a read shows it, perhaps a little outdated."""
        then = self.now - self.random.choice((0.0, 0.0, 0.0, self.random.random() * STALE_S))
        found = None
        for when, stored in self.history.get(mfid, ()):
            if when <= then or found is None:
                found = stored
        if found is None or self.history[mfid][0][0] > then:
            raise NotFoundError(f"no {mfid}")
        return found

    def check(self, mfid: str) -> None:
        """Check that a complete dataset has the bytes of its record, and that its parents have the used bytes."""
        stored = self.datasets[mfid]
        known = registrations(stored.metadata)
        if known.complete is None:
            if mfid in self.reported and not known.contested and not known.by_name:
                raise Violation(f"{mfid} was reported as done and has no record")
            return
        record = record_in(stored.metadata)
        if record["status"] != "complete" or record["registrar"] not in record["completed"]:
            raise Violation(f"{mfid} is complete, and its record is not: {record}")
        there = {name: sha256 for name, (_, sha256) in stored.files.items()}
        wanted = {file["name"]: file["sha256"] for file in record["generated"]}
        if not wanted.items() <= there.items():
            raise Violation(f"{mfid} is complete with {there}, and its record says {wanted}")
        for reported in self.reported.get(mfid, ()):
            if reported != frozenset(wanted.items()):
                raise Violation(f"{mfid} was reported as done with {reported}, and is complete with {wanted}")
        plain = {k: v for k, v in settled(stored.metadata).items() if not k.startswith(KEY)}
        if plain.get("attempt") != there["out.txt"]:
            raise Violation(f"{mfid} has metadata of another attempt: {plain}")
        for used in record["used"]:
            if used["mfid"] == RAW:
                continue
            parent = self.datasets.get(used["mfid"])
            if parent is None or registrations(parent.metadata).shown is None:
                raise Violation(f"{mfid} is there before its parent")
            if any(parent.files.get(file["name"], ("", ""))[1] != file["sha256"] for file in used["files"]):
                raise Violation(f"{mfid} was made from other bytes than its parent has")

    def settle_late(self) -> None:
        for one in [one for one in self.late if one[0] <= self.now]:
            self.late.remove(one)
            one[1]()


class Network:
    """The network of a machine: each call may be lost, doubled or late, and the machine may die during it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.world = machine.world
        self.is_embedded = self.world.is_embedded
        self.datasets = SimpleNamespace(
            create=self.create,
            create_whole=self.create_whole,
            get=self.get,
            add_keyword=lambda mfid, word: self.call("keyword", lambda: self.do_add(mfid, "keywords", word)),
            link_parent_child=lambda parent, mfid, **_: self.call("link", lambda: self.do_add(mfid, "parents", parent)),
            get_thumbnails=lambda _: [],
        )
        self.metadata = SimpleNamespace(create=self.first, merge=self.merge, replace=self.replace)
        self.files = SimpleNamespace(
            announce=lambda *_, **__: None,
            withdraw=lambda _: None,
            linked_ahead=lambda _: [],
            upload=self.upload,
            list=self.list,
            delete=self.delete,
        )
        self.ingestions = SimpleNamespace(list=self.asked, request=self.request, wait=lambda *_, **__: None)

    def at_once(self, *calls: Callable[[], object]) -> None:
        for one in self.world.random.sample(calls, len(calls)):
            one()

    def call(self, what: str, effect: Callable[[], Any], *, again: bool = True) -> Any:
        world = self.world
        for _ in range(4):
            try:
                self.machine.pause(world.random.uniform(0.01, 0.2), what)
            except Killed:  # the request may be on its way
                if world.random.random() < 0.5:
                    world.late.append((world.now + world.random.uniform(0, 1.0), lambda: _quietly(effect)))
                raise
            if world.random.random() < world.loses:
                continue  # the request is lost
            answer: Any = None
            error: LineageError | None = None
            try:
                answer = effect()
            except LineageError as met:
                error = met
            if again and world.random.random() < world.loses:
                world.late.append((world.now + world.random.uniform(0, 1.5), lambda: _quietly(effect)))
            self.machine.pause(world.random.uniform(0.01, 0.2), what if what in TAKES_AWAY else "answer")
            if world.random.random() < world.loses:
                continue  # the answer is lost
            if error is not None:
                raise error
            return answer
        raise UnreachableError(f"{what}: no answer")

    def create(self, fields: dict[str, Any], linked: dict[str, Any]) -> Any:
        def effect() -> Any:
            mfid = fields["unique_id"]
            if mfid in self.world.datasets:
                raise ConflictError(f"{mfid} is taken", status=409)
            links = {name: set(values) for name, values in linked.items()}
            self.world.datasets[mfid] = Stored(dict(fields), modified=self.world.now, **links)
            self.world.changed(mfid)
            return SimpleNamespace(dsid=mfid)

        return self.call("create", effect)

    def create_whole(self, datasets: list[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]]) -> Any:
        ((fields, linked, files),) = datasets
        whole = copy.deepcopy({**linked, "files": files})

        def effect() -> dict[str, dict[str, IngestionRequest]]:
            mfid = fields["unique_id"]
            if mfid in self.world.datasets:
                raise ConflictError(f"{mfid} is taken", status=409)
            stored = {file["filename"]: (new_mfid(), file["sha256_hash"]) for file in whole["files"]}
            links = {name: set(whole[name]) for name in ("keywords", "parents")}
            self.world.datasets[mfid] = Stored(dict(fields), modified=self.world.now, files=stored, **links)
            self.world.write(mfid, whole["scientific_metadata"])
            asked = [file["filename"] for file in whole["files"] if file["ingest"]]
            return {mfid: {name: self.ingestion(stored[name][0], mfid) for name in asked}}

        return self.call("create", effect)

    def get(self, mfid: str, **_: bool) -> Dataset:
        def effect() -> Dataset:
            stored = self.world.seen(mfid)
            modified = datetime.fromtimestamp(stored.modified, UTC).isoformat()
            return Dataset.model_validate(
                {**stored.fields, "modification_time": modified, "scientific_metadata": stored.metadata, "links": []}
            )

        return self.call("get", effect)

    def first(self, mfid: str, metadata: dict[str, Any]) -> dict[str, Any]:
        def effect() -> dict[str, Any]:
            if self.world.datasets[mfid].metadata is not None:
                raise ConflictError("it has metadata", status=409)
            return self.world.write(mfid, metadata)

        return self.call("post", effect)

    def merge(self, mfid: str, metadata: dict[str, Any]) -> dict[str, Any]:
        sent, world = copy.deepcopy(metadata), self.world
        return self.call("patch", lambda: world.write(mfid, world.merged(world.datasets[mfid].metadata or {}, sent)))

    def replace(self, mfid: str, metadata: dict[str, Any]) -> dict[str, Any]:
        sent = copy.deepcopy(metadata)
        return self.call("replace", lambda: self.world.write(mfid, sent), again=False)

    def do_add(self, mfid: str, what: str, value: str) -> None:
        getattr(self.world.datasets[mfid], what).add(value)
        self.world.changed(mfid)

    def upload(self, mfid: str, path: Path, *, filename: str, checksums: FileChecksums) -> UploadedFile:
        def effect() -> UploadedFile:
            files = self.world.datasets[mfid].files
            if (there := files.get(filename)) is not None:
                if there[1] != checksums.sha256:
                    raise FileConflictError(f"{filename} is there", filename=filename, file_mfid=there[0], etag=None)
                return UploadedFile(self._file(mfid, filename, there), existed=True)
            files[filename] = (new_mfid(), checksums.sha256)
            self.world.changed(mfid)
            return UploadedFile(self._file(mfid, filename, files[filename]), existed=False)

        assert path
        return self.call("upload", effect, again=False)

    def list(self, mfid: str) -> list[FileRecord]:
        def effect() -> list[FileRecord]:
            return [self._file(mfid, name, there) for name, there in self.world.seen(mfid).files.items()]

        return self.call("list", effect)

    def delete(self, file_mfid: str) -> None:
        def effect() -> None:
            for mfid, stored in self.world.datasets.items():
                for name, (number, _) in list(stored.files.items()):
                    if number == file_mfid:
                        del stored.files[name]
                        self.world.changed(mfid)
                        return
            raise NotFoundError("no such file")

        self.call("delete", effect)

    def asked(self, dataset_mfid: str) -> list[IngestionRequest]:
        requests = [request for request in self.world.requests if request.dataset_mfid == dataset_mfid]
        return self.call("asked", lambda: requests)

    def request(self, file_mfid: str, _: str | None) -> IngestionRequest:
        def effect() -> IngestionRequest:
            (mfid,) = [
                mfid
                for mfid, dataset in self.world.datasets.items()
                if file_mfid in {n for n, _ in dataset.files.values()}
            ] or [""]
            if mfid and not registrations(self.world.datasets[mfid].metadata).ended:
                raise Violation(f"{mfid} is ingested before it is complete")
            return self.ingestion(file_mfid, mfid)

        return self.call("ingest", effect, again=False)

    def ingestion(self, file_mfid: str, mfid: str) -> IngestionRequest:
        made = IngestionRequest(id=len(self.world.requests), status="complete", file_mfid=file_mfid, dataset_mfid=mfid)
        self.world.requests.append(made)
        return made

    @staticmethod
    def _file(mfid: str, name: str, there: tuple[str, str]) -> FileRecord:
        return FileRecord(mfid=there[0], filename=name, dataset_mfid=mfid, sha256_hash=there[1])


class Machine:
    """A machine that makes a result and a child of it, and registers both; results survive its death."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.turn, self.given_back = threading.Semaphore(0), threading.Semaphore(0)
        self.wakes = world.now + world.random.choice((0.0, 0.0, world.random.uniform(0, 8)))
        self.attempts = 0
        self.made: dict[str, NewDataset] = {}
        self.thread: threading.Thread | None = None
        self.is_done = False
        self.doomed = False

    def step(self) -> None:
        """Run the machine until its next call."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._live, daemon=True)
            self.thread.start()
        self.turn.release()
        self.given_back.acquire()

    def pause(self, seconds: float, what: str) -> None:
        """Yield to other machines until the next turn; or die."""
        world = self.world
        if what not in TAKES_AWAY and world.random.random() < world.suspends:
            seconds += world.random.uniform(0, 4 * PATIENCE_S)
        self.wakes = world.now + seconds
        self.given_back.release()
        self.turn.acquire()
        if self.doomed or world.random.random() < world.kills:
            raise Killed

    def _live(self) -> None:
        self.turn.acquire()
        try:
            self._work()
            self.is_done = True
        except Violation as violation:
            self.world.violation = violation
        except Killed:
            if self.world.random.random() < 0.2:
                self.made.clear()  # its disk is gone, too: it makes all again
        except LineageError:
            pass  # it tries again later, with what it has made
        except Exception as error:
            traceback.print_exc()
            self.world.violation = Violation(f"{self.name} died of {error!r}")
        self.wakes = self.world.now + self.world.random.choice((0.05, self.world.random.uniform(0.1, 6.0)))
        self.thread = None
        self.given_back.release()

    def _work(self) -> None:
        client: Any = Network(self)
        parent = self._register(client, "parent", None)
        self._register(client, "child", parent)

    def _register(self, client: Any, step: str, parent: DatasetRef | None) -> DatasetRef:
        made = self.made.get(step)
        if made is None or (parent is not None and _hashes(made.record.used[0].files or ()) != _hashes(parent.files)):
            made = self.made[step] = self._make(step, parent)
        found = register_output(client, made, self.name, patience_s=PATIENCE_S)
        reported = _hashes(found.files)
        self.world.reported.setdefault(found.mfid, set()).add(reported)
        if len(self.world.reported[found.mfid]) > 1:
            raise Violation(f"{found.mfid} was reported as done with {self.world.reported[found.mfid]}")
        self.world.check(found.mfid)
        if self.world.random.random() < 0.5:
            since = datetime.fromtimestamp(self.world.now, UTC).isoformat(timespec="microseconds")
            client.metadata.merge(found.mfid, slots_stated({SLOT: SlotClaim(since, self.name, "lab.yaml")}))
            self.world.held[found.mfid] = max(since, self.world.held.get(found.mfid, ""))
        return found

    def _make(self, step: str, parent: DatasetRef | None) -> NewDataset:
        """Execute the step: no two executions give the same bytes."""
        self.attempts += 1
        attempt = f"{self.name}.{self.attempts}"
        used = parent or DatasetRef(RAW, "raw", ())
        files = {file.name: file.sha256 for file in used.files}
        recipe = {
            "kind": "step", "version": 2,
            "project": "lab", "step": step, "output": "out", "code": "c0de", "params": {},
            "inputs": {"from": [{"origin": used.mfid, "files": files}]},
        }  # fmt: skip
        local = tuple(
            _local(name, text)
            for name, text in {
                "out.txt": f"{step} {attempt}",
                "same.txt": "the same each time",
                f"log-{self.name}.txt": f"log of {step} {attempt}",
            }.items()
        )
        now = "2026-01-01T00:00:00+00:00"
        record = step_record(
            recipe=recipe,
            pipeline=None,
            used=[UsedDataset("from", used, used.files)],
            generated=[file.ref for file in local],
            activity=step_activity(step, f"lab:{step}", "c0de", now, now, run={"engine": "local", "run_id": attempt}),
            software=SOFTWARE,
            who=AGENT,
            supersedes=None,
        )
        return NewDataset(
            mfid=derive_mfid(recipe, used.mfid),
            fields={"project_id": "lab", "dataset_name": step, "timestamp": now},
            record=record,
            metadata={"attempt": local[0].ref.sha256, "of": {attempt: 1}},
            files=local,
            keywords=("model",),
            slots={SLOT: SlotClaim("2026-01-01T00:00:00+00:00", attempt, "lab.yaml")},
            parents=(used.mfid,) if parent else (),
        )


def _local(name: str, text: str) -> LocalFile:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return LocalFile(Path(name), FileRef(name, sha256, len(text)), FileChecksums(len(text), 0, sha256, 0, ()))


def _hashes(files: Any) -> frozenset[tuple[str, str]]:
    return frozenset((file.name, file.sha256) for file in files)


def _quietly(effect: Callable[[], object]) -> None:
    with suppress(LineageError):
        effect()


def _given(new: NewDataset) -> list[dict[str, object]]:
    files = {file.ref.name: file.checksums.sha256 for file in new.files}
    return [{"filename": name, "sha256_hash": sha256, "ingest": new.ingest} for name, sha256 in files.items()]


def one_history(seed: int, *, is_given: bool = False) -> World:
    """Run a history to its end, and check the result, also after every older state was merged back.

    `is_given`: the embedded Crucible gets each dataset by one call.
    """
    world = World(seed)
    machines = [Machine(world, f"machine{number}") for number in range(world.random.randint(1, 3))]
    names = (f"{number:08x}" for number in itertools.count(world.random.getrandbits(20)))
    scrambled = SimpleNamespace(token_hex=lambda _: hashlib.sha256(next(names).encode()).hexdigest()[:8])
    clock = SimpleNamespace(
        time=lambda: world.now,
        monotonic=lambda: world.now,
        sleep=lambda seconds: world.current.pause(seconds, "sleep"),  # type: ignore[attr-defined]
    )
    with ExitStack() as stack:
        for module in (claims, trust):
            stack.enter_context(mock.patch.object(module, "time", clock))
        stack.enter_context(mock.patch.object(claims, "secrets", scrambled))
        stack.enter_context(mock.patch.object(register, "given_files", _given if is_given else lambda _: None))
        try:
            _run(world, machines)
        finally:
            for machine in machines:
                machine.doomed = True
                while machine.thread is not None:
                    machine.step()
    _write_back(world, 40)
    for mfid, stored in world.datasets.items():
        if mfid in world.reported and registrations(stored.metadata).complete is None:
            raise Violation(f"{mfid} was reported as done and is not complete")
        if mfid in world.reported:
            assert read_record(stored.metadata).is_complete  # type: ignore[union-attr]
        world.check(mfid)
    for mfid, since in world.held.items():
        if slots_of(world.datasets[mfid].metadata)[SLOT].since < since:
            raise Violation(f"{mfid} no longer holds its slot since {since}")
    return world


def _run(world: World, machines: list[Machine]) -> None:
    while not all(machine.is_done for machine in machines):
        world.steps += 1
        if world.steps > MOST_STEPS:
            raise Violation("it never ends")
        if world.steps > MOST_STEPS // 2:  # from here on nothing goes wrong, and so all has to come to its end
            world.kills = world.loses = world.suspends = world.writes_back = 0.0
        busy = [machine for machine in machines if not machine.is_done]
        ready = [machine for machine in busy if machine.wakes <= world.now]
        if not ready:
            world.now = min([*(machine.wakes for machine in busy), *(when for when, _ in world.late)])
        world.now += 0.001
        world.settle_late()
        ready = [machine for machine in busy if machine.wakes <= world.now]
        if not ready:
            continue
        world.current = world.random.choice(ready)  # type: ignore[attr-defined]
        world.current.step()  # type: ignore[attr-defined]
        if world.violation is not None:
            raise world.violation
        if world.random.random() < world.writes_back:
            _write_back(world, 1)


def _write_back(world: World, times: int) -> None:
    """Merge back a complete older state of the metadata, as a worker does after parsing a file."""
    known = [mfid for mfid, stored in world.datasets.items() if stored.earlier]
    for _ in range(times if known else 0):
        mfid = world.random.choice(known)
        stored = world.datasets[mfid]
        older = {**world.random.choice(stored.earlier), "found": world.random.random()}
        world.write(mfid, world.merged(stored.metadata or {}, older))


def test_histories() -> None:
    first = int(os.environ.get("CLAIM_SEED", "0"))
    steps = reported = 0
    for seed in range(first, first + HISTORIES):
        try:
            world = one_history(seed)
        except Violation as violation:
            raise AssertionError(f"history {seed}: {violation}") from violation
        steps += world.steps
        reported += len(world.reported)
    print(f"{HISTORIES} histories, {steps} steps, {reported} results reported as done")


def _takes_over_what_was_complete(seen: claims.ClaimEvidence) -> claims.NextMove:
    return claims.NextMove.GO_ON if seen.state is claims.State.COMPLETE_BUT_FOR_OURS else TRUE_MOVE(seen)


def _takes_over_what_is_contested(seen: claims.ClaimEvidence) -> claims.NextMove:
    move = TRUE_MOVE(seen)
    is_ours = seen.owner is claims.Ownership.OURS
    return (claims.NextMove.GO_ON if is_ours else claims.NextMove.TAKE_OVER) if move is claims.NextMove.KEEP else move


def _believes_to_have_won(client: Any, held: claims.Claim) -> Any:
    return TRUE_COMPLETE(client, held) or True


def _ingests_at_once(own: register.Submission, held: claims.Claim) -> Any:
    files = TRUE_FILL(own, held)
    own.ingest(files, may_exist=False)
    return files


TRUE_MOVE, TRUE_COMPLETE, TRUE_FILL = claims.next_move, register.complete, register.Submission.fill
BROKEN = {  # and from which history on it is looked for, since some need a rare one
    "what was complete is taken over": (claims, "next_move", _takes_over_what_was_complete, 1010),
    "what came to its end is taken over": (claims, "next_move", _takes_over_what_is_contested, 1010),
    "an answer is not looked at": (register, "complete", _believes_to_have_won, 0),
    "a file is taken away without asking": (register, "require_claim", lambda *_: None, 265),
    "completion is a value that changes": (claims, "completion_mark", lambda *_: {}, 0),
    "what holds is a value that changes": (sys.modules[__name__], "slots_stated", slots_to_json, 0),
    "ingestion is asked for before": (register.Submission, "fill", _ingests_at_once, 0),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str) -> None:
    """The search is sharp enough: it goes red within a few hundred histories."""
    target, name, broken, first = BROKEN[rule]
    with mock.patch.object(target, name, broken):
        for seed in range(first, first + ENOUGH):
            try:
                one_history(seed)
            except Violation as violation:
                print(f"{rule}: history {seed}: {violation}")
                return
    raise AssertionError(f"{ENOUGH} histories, and nothing was found")
