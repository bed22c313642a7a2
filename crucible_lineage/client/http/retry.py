"""The decision whether and when to repeat a call, as a pure function."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from crucible_lineage.times import utc

TRANSIENT = frozenset({429, 502, 503, 504})  # the statuses that the official client repeats


@dataclass(frozen=True)
class RetryPolicy:
    """How long a call is repeated. The defaults outlast a restart of the service, not an outage.

    A call is given up after `total_s` or `attempts` tries; the last try starts when the time is over. If the service
    itself names a time (Retry-After, a second or more), the next try waits for it. Such tries are not counted, and
    continue for `asked_total_s`; a longer wait is not started, and the error says so.
    """

    attempts: float = 20
    total_s: float = 90.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    asked_total_s: float = 300.0


@dataclass(frozen=True)
class RetryState:
    """The state after a try; `number` counts the tries after which the service named no time.

    `jitter` is a random number from 0 to 1, drawn by the caller.
    """

    number: int
    elapsed_s: float
    repeatable: bool
    status: int | None = None
    reached: bool = True
    retry_after_s: float | None = None
    jitter: float = 0.5


def decide(attempt: RetryState, policy: RetryPolicy = RetryPolicy()) -> float | None:
    """Return the seconds to wait before the next try, or None to give up.

    A call that may not be repeated is tried again only if it certainly had no effect: the service was not reached
    (`reached` False), or it answered 429. A status of None means that no answer came.
    """
    if policy.attempts <= 1 or (attempt.status is not None and attempt.status not in TRANSIENT):
        return None
    without_effect = attempt.status == 429 or (attempt.status is None and not attempt.reached)
    if not (attempt.repeatable or without_effect):
        return None
    if attempt.retry_after_s:  # zero is no information
        return attempt.retry_after_s if attempt.elapsed_s + attempt.retry_after_s <= policy.asked_total_s else None
    left_s = policy.total_s - attempt.elapsed_s
    return None if attempt.number >= policy.attempts or left_s <= 0 else min(_wait_s(attempt, policy), left_s)


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Parse a Retry-After header, a number or a date, into seconds from now; None if it has neither."""
    if not header:
        return None
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", header.strip()):
        return max(0.0, float(header))
    try:
        moment = utc(parsedate_to_datetime(header))
    except ValueError:
        return None
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _wait_s(attempt: RetryState, policy: RetryPolicy) -> float:
    """Return a doubling wait, the upper half of which is random."""
    doublings = min(max(attempt.number, 1) - 1, 30)
    ceiling: float = min(policy.longest_wait_s, policy.first_wait_s * 2.0**doublings)
    return ceiling * (0.5 + attempt.jitter / 2)
