"""When a call is tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from crucible_lineage.client.connection import RetryPolicy, may_repeat, retry_after_s
from crucible_lineage.errors import CrucibleError

POLICY = RetryPolicy(attempts=4, total_s=60.0, first_wait_s=1.0, longest_wait_s=3.0)


def waits(
    status: int | None,
    number: int = 1,
    elapsed_s: float = 0.0,
    *,
    repeatable: bool = True,
    reached: bool = True,
    retry_after_s: float | None = None,
) -> float | None:
    error = CrucibleError("no answer", status=status)
    error.__cause__ = None if reached else httpx.ConnectError("refused")
    return POLICY.wait_s(number, elapsed_s, retry_after_s, 1.0) if may_repeat(error, repeatable) else None


@pytest.mark.parametrize("status", [None, 429, 502, 503, 504])
def test_a_repeatable_call_is_tried_again_after_a_transient_failure(status: int | None) -> None:
    assert waits(status=status) == 1.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 500, 501])
def test_a_definite_answer_is_never_tried_again(status: int) -> None:
    assert waits(status=status) is None


def test_a_call_that_may_have_had_its_effect_is_not_repeated_unless_it_may_be() -> None:
    assert waits(repeatable=False, status=None) is None
    assert waits(repeatable=False, status=503) is None


def test_a_call_without_effect_is_repeated_whatever_it_is() -> None:
    assert waits(repeatable=False, status=429) == 1.0
    assert waits(repeatable=False, status=None, reached=False) == 1.0


def test_waits_double_up_to_the_longest() -> None:
    assert [waits(number=number, status=503) for number in (1, 2, 3)] == [1.0, 2.0, 3.0]


def test_the_service_decides_the_wait_if_it_names_one() -> None:
    assert waits(status=503, retry_after_s=17.0) == 17.0


def test_requested_waits_are_bounded_by_their_own_limit_only() -> None:
    assert waits(status=429, number=9, elapsed_s=200.0, retry_after_s=60.0) == 60.0
    assert waits(status=429, number=1, elapsed_s=250.0, retry_after_s=60.0) is None


def test_the_last_try_is_made_when_the_time_is_just_over() -> None:
    assert waits(status=503, number=3, elapsed_s=58.0) == 2.0
    assert waits(status=503, number=3, elapsed_s=60.0) is None


def test_the_defaults_go_on_for_a_restart() -> None:
    policy, elapsed_s, number = RetryPolicy(), 0.0, 1
    while (wait_s := policy.wait_s(number, elapsed_s, None, 0.0)) is not None:
        elapsed_s, number = elapsed_s + wait_s, number + 1
    assert elapsed_s == policy.total_s == 90.0


NOW = datetime(2026, 3, 1, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("Sun, 01 Mar 2026 10:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds
