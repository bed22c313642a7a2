"""Order without data: wait_for, and states instead of results."""

from pathlib import Path

from prefect import flow, task


@task
def prepare() -> dict:
    return {"ready": True, "bins": list(range(100))}


@task
def log_it() -> None:
    return None


@task
def consume(state: dict) -> int:
    return len(state["bins"])


@flow
def ordered():
    logged = log_it.submit()
    state = prepare(return_state=True, wait_for=[logged])
    return consume(state)


def main(folder: Path):
    return ordered()


RETURNED = "100"
EDGES = [
    "prepare -> consume",
]
