"""Delivery against a model: two machines, steps that give other bytes each time, lost answers, kills between any calls.

Each machine makes a small pipeline and delivers it with the real outbox, journal and deliverer. The service is a table
without locks that accepts each id once. The invariants are checked from outside: nothing lost, nothing duplicated, no
child before its parent or made from other bytes than its parent has, nothing reported as done that is not.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.core.journal import DELIVERED, OUTBOX, Journal, ResultRow
from crucible_lineage.errors import ConflictError, NotFoundError, UnreachableError
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration import outbox
from crucible_lineage.registration.deliver import Deliverer, DeliveryContext
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.queue import DROPPED, DeliveryQueue
from crucible_lineage.registration.register import RegistrationHooks
from tests.registration.test_delivery import dataset

SEEDS = int(os.environ.get("MODEL_SEEDS", "24"))
# name of a result -> those that it is made of
TREE: Mapping[str, tuple[str, ...]] = {"a": (), "b": (), "c": ("a",), "d": ("a", "b"), "e": ("c", "d")}


class KilledError(BaseException):
    """The process was killed."""


@dataclass
class Stored:
    """A dataset at the service."""

    sha256: str
    used: Mapping[str, str]  # parent -> the SHA-256 that this was made of
    complete: bool = False


@dataclass
class Service:
    """A Crucible: each id once, requests and answers that get lost."""

    dice: random.Random
    sets: dict[str, Stored] = field(default_factory=dict)
    faults: float = 0.08

    def shake(self) -> None:
        if self.dice.random() < self.faults:
            raise UnreachableError("no answer")

    def listed(self, mfid: str) -> list[Any]:
        self.shake()
        found = self.sets.get(mfid)
        return [SimpleNamespace(filename="out.txt", sha256_hash=found.sha256)] if found else []

    def delete(self, mfid: str, reason: str) -> None:
        self.shake()
        if mfid in self.sets and not self.sets[mfid].complete:
            del self.sets[mfid]


class Context(DeliveryContext):
    """A context that registers at the simulated service, and dies now and then."""

    service: Service
    die: Callable[[], None]

    def register(self, new: NewDataset, stages: RegistrationHooks) -> DatasetRef:
        service, ours = self.service, new.files[0].ref.sha256
        service.shake()
        self.die()
        there = service.sets.get(new.mfid)
        if there is None:
            used = {used.mfid: used.files[0].sha256 for used in new.record.used}
            for parent in used:
                if parent not in service.sets:
                    raise NotFoundError("no parent")
            service.sets[new.mfid] = there = Stored(ours, used)
            self.die()
            service.shake()
            stages.begun()
        elif not there.complete and there.sha256 != ours:
            if service.dice.random() < 0.7:
                raise ConflictError("another machine is at it")
            there.sha256, there.used = ours, {used.mfid: used.files[0].sha256 for used in new.record.used}
        if there.complete and there.sha256 != ours:
            stages.adopted()
            ref = new.files[0].ref
            return DatasetRef(new.mfid, new.name, (replace(ref, sha256=there.sha256),))
        self.die()
        stages.before_complete()
        service.shake()
        if there.sha256 == ours:
            assert all(service.sets[parent].complete for parent in there.used), "a child came before its parent"
            there.complete = True
        self.die()
        service.shake()
        return DatasetRef(new.mfid, new.name, tuple(file.ref for file in new.files))

    def register_together(self, datasets: Sequence[NewDataset]) -> bool:
        """Register as the embedded Crucible does: all, or none if one is there."""
        service = self.service
        service.shake()
        self.die()
        if any(new.mfid in service.sets for new in datasets):
            return False
        for new in datasets:
            used = {used.mfid: used.files[0].sha256 for used in new.record.used}
            if not used.keys() <= service.sets.keys():
                raise NotFoundError("no parent")
            service.sets[new.mfid] = Stored(new.files[0].ref.sha256, used, complete=True)
        self.die()
        service.shake()
        return True


class Mortal(Outbox):
    """An outbox that dies before or after it records the outcome of a payload."""

    die: Callable[[], None]

    def delivered(self, *names: str) -> None:
        self.die()
        super().delivered(*names)
        self.die()

    def dropped(self, name: str, state: str, why: str) -> None:
        self.die()
        super().dropped(name, state, why)
        self.die()


class Slow(Deliverer):
    """A deliverer that sends one payload at a time in the calling thread, in any allowed order."""

    dice: random.Random

    def _staff(self) -> None:
        return

    def step(self) -> bool:
        """Send the next payload that may be sent. Return False if there is none."""
        with self._changed:
            found = list(self.queue.free())
            if not found:
                return False
            entry = self.dice.choice(found)
            entries = self.queue.together(entry, is_embedded=self.context.client.is_embedded)
        self._send_all(entries)
        return True


class Machine:
    """A data folder whose process makes the tree and delivers it. It may die, and is then restarted."""

    def __init__(
        self, name: str, folder: Path, service: Service, dice: random.Random, tree: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.name, self.folder, self.service, self.dice, self.tree = name, folder, service, dice, tree
        self.deadly = dice.choice((0.0, 0.04))
        self.kills = 0
        self.begin()

    def begin(self) -> None:
        """Start a new process, which knows the contents of its folder."""
        self.journal = Journal(self.folder / "journal.sqlite", "service", lambda: "")
        self.outbox = Mortal(self.folder, self.journal, durable=False)
        self.outbox.die = self.die
        client = SimpleNamespace(
            latency_s=0.0,
            is_embedded=self.dice.random() < 0.5,
            files=SimpleNamespace(list=self.service.listed),
            datasets=SimpleNamespace(delete=self.service.delete),
        )
        context = Context(self.outbox, client, self.name, lambda name: _NoLock())  # type: ignore[arg-type]
        object.__setattr__(context, "service", self.service)
        object.__setattr__(context, "die", self.die)
        self.deliverer = Slow(context, self.hear)
        self.deliverer.dice = self.dice
        self.done: dict[str, NewDataset] = {}
        self.theirs: dict[str, str] = {}
        for row in self.outbox.all(again=True):
            payload = self.outbox.opened(row)
            assert payload is not None
            self.done[row.step] = payload.datasets[0]
        self.deliverer.take_up()

    def die(self) -> None:
        if self.dice.random() < self.deadly:
            raise KilledError

    def hear(self, row: ResultRow, _: object) -> None:
        if row.state == DROPPED:
            self.done.pop(row.step, None)
        elif row.state == DELIVERED and row.refs:
            (ref,) = row.refs.values()
            self.theirs[row.step] = ref.files[0].sha256

    def work(self) -> bool:
        """Make or send one result. Return False if nothing is left to do."""
        for step, parents in self.tree.items():
            if step in self.done or any(parent not in self.done for parent in parents):
                continue
            made_of = [self.as_it_is(parent) for parent in parents]
            new = dataset(self.folder, step, self.dice.choice("xyz"), *made_of)
            there = self.service.sets.get(new.mfid)
            if there is not None and there.complete:
                self.done[step], self.theirs[step] = new, there.sha256
                return True
            self.die()
            payload = self.outbox.put(step, "lab", [new], "run")
            self.die()
            self.done[step] = payload.datasets[0]
            self.theirs.pop(step, None)
            self.deliverer.add(payload.row(""))
            return True
        return self.deliverer.step()

    def as_it_is(self, step: str) -> NewDataset:
        """Return a result with the service's bytes, if those differ from ours."""
        new, sha256 = self.done[step], self.theirs.get(step)
        if sha256 is None:
            return new
        (file,) = new.files
        return replace(new, files=(replace(file, ref=replace(file.ref, sha256=sha256)),))

    def close(self) -> None:
        self.journal.close()


class _NoLock:
    def acquire(self, timeout: float = 0) -> Any:
        return nullcontext()


def history(seed: int, folder: Path) -> int:
    """Run and check one history; return how often a machine was killed."""
    with ExitStack() as stack:
        return _history(seed, folder, stack)


def _history(seed: int, folder: Path, stack: ExitStack) -> int:
    dice = random.Random(seed)
    service = Service(dice)
    part = TREE if dice.random() < 0.5 else {step: TREE[step] for step in ("a", "b")}
    machines = []
    for name, tree in (("one", TREE), ("two", part)):
        (folder / name).mkdir()
        machines.append(Machine(name, folder / name, service, dice, tree))
        stack.callback(machines[-1].close)
    for _ in range(2000):
        machine = dice.choice(machines)
        try:
            machine.work()
        except KilledError:
            machine.kills += 1
            machine.close()
            machine.begin()
        if all(len(machine.done) == len(machine.tree) and machine.outbox.is_empty for machine in machines):
            break
    service.faults = 0.0
    for machine in machines:
        machine.deadly = 0.0
        assert any(not machine.work() for _ in range(500)), f"{machine.name} never comes to an end"
        check(machine, service)
    return sum(machine.kills for machine in machines)


def check(machine: Machine, service: Service) -> None:
    assert set(machine.done) == set(machine.tree), f"{machine.name} lost {machine.tree.keys() - machine.done.keys()}"
    assert machine.outbox.all(again=True) == []
    for step, new in machine.done.items():
        there = service.sets.get(new.mfid)
        assert there is not None, f"{machine.name} says {step} is done, and it is nowhere"
        assert there.complete
        assert there.sha256 == machine.as_it_is(step).files[0].ref.sha256
    for stored in service.sets.values():
        for parent, sha256 in stored.used.items() if stored.complete else ():
            assert service.sets[parent].complete, "a child was complete before its parent"
            assert service.sets[parent].sha256 == sha256, "a child was made of other bytes than its parent has"
    assert not {state for (state,) in machine.journal.rows("SELECT state FROM result")}.intersection(OUTBOX)


def test_histories_of_two_machines_lose_nothing_and_report_no_false_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    for seed in range(SEEDS):
        monkeypatch.setattr(outbox, "MAX_OPEN", seed % 3)  # the others are read back when they are sent
        folder = tmp_path / str(seed)
        folder.mkdir()
        kills += history(seed, folder)
        shutil.rmtree(folder)
    assert kills > SEEDS / 8, "the histories are too tame"


def broken_by_id(waiting: DeliveryQueue, row: ResultRow, payload: object = None) -> str:
    """Recognize an overtaken parent by its id, as revision afca017 did."""
    return "overtaken" if row.parents & (waiting._theirs.keys() | waiting._void) else ""


def broken_order(waiting: DeliveryQueue, row: ResultRow) -> set[str]:
    """Let children not wait for their parents."""
    return set()


def broken_parents(deliverer: Deliverer, row: ResultRow, payload: object) -> None:
    """Do not compare the bytes of parents."""


@pytest.mark.parametrize(
    ("owner", "rule", "broken"),
    [
        (DeliveryQueue, "reason_to_drop", broken_by_id),
        (DeliveryQueue, "blocking", broken_order),
        (Deliverer, "_require_same_parents", broken_parents),
    ],
)
def test_the_model_notices_a_broken_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, rule: str, broken: Callable[..., object]
) -> None:
    monkeypatch.setattr(owner, rule, broken)
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            history(seed, folder)
        except AssertionError:
            return
        shutil.rmtree(folder)
    pytest.fail(f"60 histories did not notice that {rule} is broken")
