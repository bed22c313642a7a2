"""A flow that fails, and says so as it did before."""

from pathlib import Path

from prefect import flow, task
from prefect.states import Failed


@task
def begin() -> list:
    return list(range(100))


@task
def finish(values: list) -> int:
    return len(values)


@task
def broken(number: int) -> int:
    raise RuntimeError("the lamp was off")


@flow
def failing():
    done = finish(begin())
    try:
        broken(done)
    except RuntimeError as error:
        return Failed(message=f"{done}: {error}")


def main(folder: Path):
    state = failing(return_state=True)
    return [state.type.value, state.message]


RETURNED = "['FAILED', '100: the lamp was off']"
EDGES = [
    "begin -> finish",
]
