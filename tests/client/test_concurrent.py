"""Calls that do not depend on each other: at once where answers take long, one after the other where they do not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from crucible_lineage.client.http.concurrent import MAX_THREADS, ConcurrentCalls
from crucible_lineage.errors import ConflictError, NotFoundError


@pytest.fixture
def far() -> Iterator[ConcurrentCalls]:
    asked = ConcurrentCalls(lambda: 0.05)
    yield asked
    asked.close()


def meeting(number: int) -> Callable[[], int]:
    """A call that ends only when so many are under way."""
    return threading.Barrier(number, timeout=30).wait


def refused() -> int:
    raise NotFoundError("no parent")


def conflicting() -> int:
    raise ConflictError("a name is taken")


def test_far_away_all_are_under_way_at_once_and_told_in_their_order(far: ConcurrentCalls) -> None:
    meet = meeting(MAX_THREADS)
    assert far.all([partial(lambda n: (meet(), n)[1], number) for number in range(MAX_THREADS)]) == list(
        range(MAX_THREADS)
    )


def test_nearby_each_waits_for_the_one_before_in_the_thread_that_asks() -> None:
    near = ConcurrentCalls(lambda: 0.001)
    assert near.all([threading.get_ident] * 3) == [threading.get_ident()] * 3
    assert near.ahead(threading.get_ident)() == threading.get_ident()
    near.close()


def test_the_first_error_is_raised_when_all_have_ended(far: ConcurrentCalls) -> None:
    done = threading.Event()
    with pytest.raises(NotFoundError):
        far.all([lambda: 1, refused, conflicting, done.set])
    assert done.is_set()


def test_calls_that_ask_for_others_do_not_wait_for_threads_that_wait(far: ConcurrentCalls) -> None:
    inner = partial(far.all, [partial(int, "1")] * 5)
    assert far.all([inner] * (3 * MAX_THREADS)) == [[1] * 5] * (3 * MAX_THREADS)


def test_what_is_asked_ahead_is_under_way_before_it_is_wanted(far: ConcurrentCalls) -> None:
    begun = threading.Event()
    answer = far.ahead(lambda: (begun.set(), 7)[1])
    assert begun.wait(30)
    assert answer() == 7
    wrong = far.ahead(refused)  # an error is that of who wants to know
    with pytest.raises(NotFoundError):
        wrong()
