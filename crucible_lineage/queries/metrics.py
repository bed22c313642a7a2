"""What a data folder did and what waits in it, as text that Prometheus reads. Nothing is asked of the service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.local.usage import disk_usage
from crucible_lineage.parked import failures
from crucible_lineage.session import Session
from crucible_lineage.times import utc

__all__ = ["metrics_text"]

PREFIX = "crucible_lineage"
Sample = tuple[Mapping[str, str], float]


def metrics_text(session: Session) -> str:
    """Return the metrics of a session's data folder in the text format of Prometheus, version 0.0.4."""
    return "".join(f"{line}\n" for line in _lines(session))


def _lines(session: Session) -> Iterator[str]:
    journal = session.journal
    runs = [({**_of(row), "outcome": row[2] or "under way"}, row[3]) for row in journal.run_counts()]
    yield from _metric("runs_total", "counter", "Runs that began here, by how they ended.", runs)
    ends = [({**_of(row), "outcome": row[2]}, utc(row[3]).timestamp()) for row in journal.last_ends()]
    yield from _metric("last_run_end_timestamp_seconds", "gauge", "When a run of the pipeline last ended so.", ends)
    results = [({"project": row[0], "state": row[1]}, row) for row in journal.result_counts()]
    for place, name, text in (
        (2, "results_total", "Results of steps, by their state."),
        (3, "step_seconds_total", "Time that steps took."),
        (4, "step_bytes_total", "Bytes that steps wrote."),
    ):
        yield from _metric(name, "counter", text, [(labels, float(row[place])) for labels, row in results])
    yield from _waiting(session)
    failed = failures(session).values()
    yield from _gauge("failed_results", "Results that failed and were not made since.", len(failed))
    yield from _gauge("parked_results", "Those that are not tried again.", sum(one.parked for one in failed))
    used = [({"part": part}, float(size)) for part, size in disk_usage(session.settings.data).items()]
    yield from _metric("disk_bytes", "gauge", "Room that the data folder takes.", used)


def _waiting(session: Session) -> Iterator[str]:
    waiting, now = session.outbox.waiting(), datetime.now(UTC)
    ages = [(now - utc(one.since)).total_seconds() for one in waiting if one.since]
    yield from _gauge("waiting_results", "Results that are made and not delivered.", len(waiting))
    yield from _gauge("waiting_oldest_seconds", "Age of the oldest of them.", max(0.0, *ages, 0.0))
    yield from _gauge("waiting_refused", "Those that Crucible refused.", sum(one.refused for one in waiting))
    damaged = len(session.outbox.set_aside())
    yield from _gauge("damaged_results", "Results that were damaged while they waited.", damaged)


def _of(row: Sequence[Any]) -> dict[str, str]:
    return {"pipeline": row[0], "project": row[1]}


def _gauge(name: str, text: str, value: float) -> Iterator[str]:
    return _metric(name, "gauge", text, [({}, value)])


def _metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"
    for labels, value in samples:
        named = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        yield f"{PREFIX}_{name}{f'{{{named}}}' if named else ''} {value:.15g}"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
