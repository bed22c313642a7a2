"""A task that fails, and a flow that goes on."""

from pathlib import Path

from prefect import allow_failure, flow, task


@task
def good() -> list:
    return [float(value) for value in range(80)]


@task
def bad() -> list:
    raise ValueError("no beam")


@task
def collect(values: list, other) -> int:
    return len(values) + isinstance(other, Exception)


@flow
def tolerant():
    return collect.submit(good.submit(), allow_failure(bad.submit())).result()


def main(folder: Path):
    return tolerant()


RETURNED = "81"
EDGES = [
    "good -> collect",
]
