"""Metrics of a data folder's runs, results and waiting deliveries. Makes no request to the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from crucible_lineage.checksums import unsealed
from crucible_lineage.core.folders import disk_usage
from crucible_lineage.masking import masked_text
from crucible_lineage.session import Session
from crucible_lineage.statements.failed import failures
from crucible_lineage.times import utc

PREFIX = "crucible_lineage"
COUNTER, GAUGE = "counter", "gauge"


@dataclass(frozen=True)
class Metric:
    """A metric: a counter, or a gauge, with a value for each combination of labels."""

    name: str
    kind: str
    text: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def metrics_text(session: Session) -> str:
    """Return the metrics of a session's data folder in the text format of Prometheus, version 0.0.4."""
    return masked_text("".join(f"{line}\n" for metric in metrics(session) for line in _lines(metric)))


def metrics(session: Session) -> Iterator[Metric]:
    """Yield the metrics of a session's data folder."""
    journal = session.journal
    runs = [({**_labels(row), "outcome": row[2] or "under way"}, float(row[3])) for row in journal.run_counts()]
    yield Metric("runs_total", COUNTER, "Runs started here, by outcome.", runs)
    ends = [({**_labels(row), "outcome": row[2]}, utc(row[3]).timestamp()) for row in journal.last_ends()]
    yield Metric(
        "last_run_end_timestamp_seconds", GAUGE, "End of the last run of the pipeline with this outcome.", ends
    )
    results = [
        ({"project": project, "state": state}, float(count)) for project, state, count in journal.result_counts()
    ]
    yield Metric("results_total", COUNTER, "Results of steps, by state.", results)
    yield from _waiting(session)
    yield _gauge("failed_results", "Failed results, not made since.", len(failures(session)))
    watched = [({"project": name}, age_s) for name, age_s in _watch_ages(session)]
    yield Metric("watch_age_seconds", GAUGE, "Time since `watch` last looked without an error.", watched)
    used = [({"part": part}, float(size)) for part, size in disk_usage(session.settings.data).items()]
    yield Metric("disk_bytes", GAUGE, "Space used by the data folder.", used)


def _waiting(session: Session) -> Iterator[Metric]:
    waiting, now = session.outbox.waiting(), datetime.now(UTC)
    ages = [(now - utc(one.made)).total_seconds() for one in waiting if one.made]
    yield _gauge("waiting_results", "Results waiting for delivery.", len(waiting))
    yield _gauge("waiting_oldest_seconds", "Age of the oldest waiting result.", max(0.0, *ages, 0.0))
    yield _gauge("waiting_refused", "Waiting results that Crucible refused.", sum(one.refused for one in waiting))
    damaged = len(session.outbox.set_aside())
    yield _gauge("damaged_results", "Results damaged while waiting.", damaged)


def _watch_ages(session: Session) -> Iterator[tuple[str, float]]:
    """Yield the projects that `watch` looks at, and how many seconds ago it last did."""
    rows = session.store.database.rows(
        "SELECT name, value FROM mark WHERE instance = ? AND name LIKE 'watching %'", session.store.instance
    )
    for name, value in rows:
        if at := dict(unsealed(value, name) or {}).get("at"):
            yield name.removeprefix("watching "), (datetime.now(UTC) - utc(at)).total_seconds()


def _labels(row: Sequence[object]) -> dict[str, str]:
    return {"pipeline": str(row[0]), "project": str(row[1])}


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(name, GAUGE, text, [({}, float(value))])


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{metric.name} {metric.text}"
    yield f"# TYPE {PREFIX}_{metric.name} {metric.kind}"
    for labels, value in metric.samples:
        named = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        yield f"{PREFIX}_{metric.name}{f'{{{named}}}' if named else ''} {value:.15g}"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
