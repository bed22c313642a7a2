"""Independent calls are concurrent if answers take long, and sequential otherwise."""

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
    """Return a call that ends only when so many run at once."""
    return threading.Barrier(number, timeout=30).wait


def refused() -> int:
    raise NotFoundError("no parent")


def conflicting() -> int:
    raise ConflictError("a name is taken")


def test_far_away_calls_are_concurrent_and_results_in_order(far: ConcurrentCalls) -> None:
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


def test_a_call_made_ahead_runs_before_its_result_is_requested(far: ConcurrentCalls) -> None:
    started = threading.Event()
    answer = far.ahead(lambda: (started.set(), 7)[1])
    assert started.wait(30)
    assert answer() == 7
    wrong = far.ahead(refused)  # the error is raised where the result is requested
    with pytest.raises(NotFoundError):
        wrong()
