"""Independent calls are concurrent if answers take long, and sequential otherwise."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.connection import Connection
from crucible_lineage.errors import ConflictError, NotFoundError
from crucible_lineage.machine.process import in_threads

AT_ONCE = 8


def refused() -> int:
    raise NotFoundError("no parent")


def conflicting() -> int:
    raise ConflictError("a name is taken")


@pytest.fixture
def far(client: CrucibleClient, monkeypatch: pytest.MonkeyPatch) -> CrucibleClient:
    monkeypatch.setattr(Connection, "latency_s", 0.05)
    return client


def test_far_away_calls_are_concurrent_and_results_in_order(far: CrucibleClient) -> None:
    meet = threading.Barrier(AT_ONCE, timeout=30).wait  # ends only when so many run at once
    assert far.at_once(*(partial(lambda n: (meet(), n)[1], number) for number in range(AT_ONCE))) == [*range(AT_ONCE)]


def test_the_first_error_is_raised_when_all_have_ended(far: CrucibleClient) -> None:
    done = threading.Event()
    with pytest.raises(NotFoundError):
        far.at_once(lambda: 1, refused, conflicting, lambda: done.set() or 1)
    assert done.is_set()


def test_with_a_stop_the_first_failure_ends_the_others_and_leaves_out_the_rest() -> None:
    stopped, begun = threading.Event(), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise NotFoundError("no parent")
        assert stopped.wait(30)
        raise ConflictError("it was stopped")

    with pytest.raises(NotFoundError):
        in_threads(work, range(20), 2, stopped)
    assert begun in ([0, 1], [0, 1, 2])
