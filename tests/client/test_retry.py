"""When a call is tried again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

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


@pytest.mark.parametrize(
    ("statuses", "asked", "expected"),
    [
        pytest.param((None, 429, 502, 503, 504), {}, 1.0, id="a transient failure of a repeatable call"),
        pytest.param((400, 401, 403, 404, 409, 412, 422, 500, 501), {}, None, id="a definite answer"),
        pytest.param((None, 503), {"repeatable": False}, None, id="a call that may have had its effect"),
        pytest.param((429,), {"repeatable": False}, 1.0, id="a call without effect, refused"),
        pytest.param((None,), {"repeatable": False, "reached": False}, 1.0, id="a call without effect, not sent"),
        pytest.param((503,), {"number": 3}, 3.0, id="waits double up to the longest"),
        pytest.param((503,), {"retry_after_s": 17.0}, 17.0, id="the service decides the wait if it names one"),
        pytest.param((429,), {"number": 9, "elapsed_s": 200.0, "retry_after_s": 60.0}, 60.0, id="a limit of their own"),
        pytest.param((429,), {"elapsed_s": 250.0, "retry_after_s": 60.0}, None, id="beyond their own limit"),
        pytest.param((503,), {"number": 3, "elapsed_s": 58.0}, 2.0, id="the last try when the time is just over"),
    ],
)
def test_a_call_is_tried_again_after(statuses: Any, asked: Any, expected: float | None) -> None:
    assert [waits(status, **asked) for status in statuses] == [expected] * len(statuses)


def test_the_defaults_go_on_for_a_restart() -> None:
    policy, elapsed_s, number = RetryPolicy(), 0.0, 1
    while (wait_s := policy.wait_s(number, elapsed_s, None, 0.0)) is not None:
        elapsed_s, number = elapsed_s + wait_s, number + 1
    assert elapsed_s == policy.total_s == 90.0


NOW = datetime(2026, 3, 1, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("-3", 0.0), ("Sun, 01 Mar 2026 10:00:30 GMT", 30.0), ("soon", None), (None, None)],
)
def test_retry_after_is_read_as_seconds_or_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds
