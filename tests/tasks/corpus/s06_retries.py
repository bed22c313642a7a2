"""A task that fails twice and is tried again."""

from pathlib import Path

from prefect import flow, task

tries = {"flaky": 0}


@task(retries=2, retry_delay_seconds=0)
def flaky() -> list:
    tries["flaky"] += 1
    if tries["flaky"] < 3:
        raise ValueError("the service is warming up")
    return [{"sample": name, "value": len(name) * 1.5} for name in ("gold", "silver", "platinum") * 20]


@task
def after(rows: list) -> float:
    return sum(row["value"] for row in rows)


@flow
def retried():
    return after(flaky())


def main(folder: Path):
    tries["flaky"] = 0
    return retried()


RETURNED = "540.0"
EDGES = [
    "flaky -> after",
]
