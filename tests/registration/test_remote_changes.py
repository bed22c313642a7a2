"""Registrations by others: one query for all steps, at intervals, and no step waits for it for long."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from crucible_lineage.errors import NotFoundError, UnreachableError
from crucible_lineage.refs import ProjectChanges
from crucible_lineage.registration import remote_changes
from crucible_lineage.registration.remote_changes import AWAY_S, EVERY_S, LATE_S, RemoteChanges

NOON, LATER = "2024-05-01T12:00:00Z", "2024-05-01T12:00:05Z"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class Service:
    """Returns changes, or raises; records since when changes were requested."""

    def __init__(self) -> None:
        self.changed: dict[str, str] = {}
        self.error: Exception | None = None
        self.asked: list[str | None] = []

    def changes(self, since: str | None) -> ProjectChanges:
        self.asked.append(since)
        if self.error is not None:
            raise self.error
        return ProjectChanges("", self.changed)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(remote_changes, "time", found)
    return found


class RunsAtOnce:
    """A thread that does its work on start."""

    def __init__(self, target: Callable[[], None], **_: object) -> None:
        self.start = target


def test_many_steps_share_one_query_that_continues_the_last_one(clock: Clock) -> None:
    service = Service()
    found = RemoteChanges(service.changes, NOON)
    assert not any(found.may_have(str(number)) for number in range(100))
    assert service.asked == [], "the plan has asked a moment ago"
    clock.now_s += LATE_S
    service.changed = {"one": LATER}
    assert [found.may_have(mfid) for mfid in ("one", "two", "three")] == [True, False, False]
    clock.now_s += LATE_S
    service.changed = {"two": LATER}
    assert [found.may_have(mfid) for mfid in ("one", "two", "three")] == [True, True, False]
    assert service.asked == [NOON, LATER]


def test_an_answer_a_second_old_is_refreshed_in_the_background(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_changes.threading, "Thread", RunsAtOnce)
    service = Service()
    found = RemoteChanges(service.changes, None)
    clock.now_s += EVERY_S
    service.error = RuntimeError("reported to nobody")
    assert not found.may_have("one")
    service.error, service.changed = None, {"one": NOON}
    assert found.may_have("one")
    assert service.asked == [None, None]


def test_no_step_waits_for_an_absent_service(clock: Clock) -> None:
    service = Service()
    service.error = UnreachableError("no answer")
    found = RemoteChanges(service.changes, None)
    clock.now_s += LATE_S
    assert not found.may_have("one")
    clock.now_s += AWAY_S
    assert not found.may_have("one")
    assert len(service.asked) == 1
    service.error = NotFoundError("no such project")
    clock.now_s += LATE_S
    assert not found.may_have("one")
    assert len(service.asked) == 2


def test_one_thread_waits_for_a_slow_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_changes, "EVERY_S", 0.0)
    begun, answered = threading.Event(), threading.Event()

    def changes(_: str | None) -> ProjectChanges:
        begun.set()
        answered.wait(30)
        return ProjectChanges("", {})

    asked = RemoteChanges(changes, None)
    assert not asked.may_have("0sh4")
    assert begun.wait(30)
    for _ in range(50):
        assert not asked.may_have("0sh4")
    waiting = [thread for thread in threading.enumerate() if thread.name == "others"]
    answered.set()
    for thread in waiting:
        thread.join(30)
    assert len(waiting) == 1
