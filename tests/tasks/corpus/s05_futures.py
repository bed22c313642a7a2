"""Submitted tasks whose futures are arguments; scalars are proven by their futures."""

from pathlib import Path

from prefect import flow, task


@task
def count(text: str) -> int:
    return len(text.split())


@task
def add(left: int, right: int) -> int:
    return left + right


@task
def double(value: int) -> int:
    return 2 * value


@flow
def futures():
    one = count.submit("the quick brown fox")
    two = count.submit("jumps over")
    both = add.submit(one, two)
    return double.submit(both).result()


def main(folder: Path):
    return futures()


RETURNED = "12"
EDGES = [
    "count -> add",
    "count -> add",
    "add -> double",
]
