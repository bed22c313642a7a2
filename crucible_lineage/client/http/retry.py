"""Whether a call is tried again, and after how long: one pure decision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Attempt", "RetryPolicy", "decide", "retry_after_s"]

TRANSIENT = frozenset({429, 502, 503, 504})  # the statuses that the service's official client repeats


@dataclass(frozen=True)
class RetryPolicy:
    """How long to go on. The defaults outlast a restart of the service, not an outage."""

    attempts: int = 5
    total_s: float = 90.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0


@dataclass(frozen=True)
class Attempt:
    """How the last try went. `jitter` is a random number from 0 to 1, drawn by the caller."""

    number: int
    elapsed_s: float
    repeatable: bool
    status: int | None = None
    reached: bool = True
    retry_after_s: float | None = None
    jitter: float = 0.5


def decide(attempt: Attempt, policy: RetryPolicy = RetryPolicy()) -> float | None:
    """Seconds to wait before the next try, or None to give up.

    A call that may not be repeated is tried again only if it certainly had no effect: the service was not reached
    (`reached` False), or it answered 429. A status of None means that no answer came.
    """
    if attempt.number >= policy.attempts:
        return None
    if attempt.status is not None and attempt.status not in TRANSIENT:
        return None
    without_effect = attempt.status == 429 or (attempt.status is None and not attempt.reached)
    if not (attempt.repeatable or without_effect):
        return None
    wait_s = _wait_s(attempt, policy)
    return None if attempt.elapsed_s + wait_s > policy.total_s else wait_s


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, from its number or its date; None if there is none to read."""
    if not header:
        return None
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", header.strip()):
        return max(0.0, float(header))
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _wait_s(attempt: Attempt, policy: RetryPolicy) -> float:
    """What the service asked for, else a doubling wait of which the upper half is random."""
    if attempt.retry_after_s is not None:
        return attempt.retry_after_s
    ceiling: float = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (attempt.number - 1))
    return ceiling * (0.5 + attempt.jitter / 2)
