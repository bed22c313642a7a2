"""What we lean on in Prefect and it does not promise, each with the release in which it was seen: 3.9.1.

If one of these fails after an update of Prefect, it says which part of tasks has to be looked at.
"""

from __future__ import annotations

import inspect
import pickle
from copy import copy
from typing import Any

import cloudpickle
import pytest
from prefect import Task, flow, task
from prefect.blocks.core import BlockNotSavedError
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.task_engine import AsyncTaskRunEngine, SyncTaskRunEngine, TaskRunTimeoutError
from prefect.task_runners import TaskRunner
from prefect.tasks import _generate_task_key
from prefect.transactions import BaseTransaction, TransactionState
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.timeout import timeout, timeout_async
from pydantic import Secret as PydanticSecret
from pydantic import SecretStr

from crucible_lineage.tasks import task as ours
from crucible_lineage.tasks.decorator import LineageTask

RELEASE = "3.9.1"


def add(left: int, right: int = 2) -> int:
    """Return the sum."""
    return left + right


def test_release_that_this_was_seen_in() -> None:
    import prefect

    assert prefect.__version__.startswith("3."), f"seen in {RELEASE}"


def test_3_9_1_the_key_of_a_task_follows_its_function_through_our_wrapper() -> None:
    assert ours(add).task_key == task(add).task_key == _generate_task_key(add)
    assert ours(add).source_code == task(add).source_code == inspect.getsource(add)


def test_3_9_1_parameters_are_read_through_the_wrapper() -> None:
    assert get_call_parameters(ours(add).fn, (1,), {}) == {"left": 1, "right": 2}


def test_3_9_1_with_options_makes_a_plain_task_of_any_class() -> None:
    class Other(Task[Any, Any]):
        pass

    assert type(Other(add).with_options(retries=1)) is Task
    assert type(ours(add).with_options(retries=1)) is LineageTask


@pytest.mark.parametrize("kind", ["sync", "async", "generator", "async generator"])
def test_3_9_1_the_kind_of_the_function_is_that_of_the_wrapper(kind: str) -> None:
    async def awaited() -> None: ...

    def yields() -> Any:
        yield 1

    async def yields_async() -> Any:
        yield 1

    functions = {"sync": add, "async": awaited, "generator": yields, "async generator": yields_async}
    plain, made = task(functions[kind]), ours(functions[kind])
    assert (made.isasync, made.isgenerator, made.name) == (plain.isasync, plain.isgenerator, plain.name)


def test_3_9_1_a_method_is_bound_at_the_function_of_a_copy() -> None:
    class Bench:
        @ours
        def measure(self) -> str:
            return type(self).__name__

    bench = Bench()
    bound = bench.measure
    assert bound.fn.__prefect_self__ is bench
    assert get_call_parameters(bound.fn, (), {}) == {"self": bench}


def test_3_9_1_a_task_keeps_what_is_needed_when_it_is_copied_and_pickled() -> None:
    made = ours(measurement="counting")(add)
    there = cloudpickle.loads(cloudpickle.dumps(copy(made)))
    assert there.fn(1) == 3
    assert there.task_description == made.task_description
    assert pickle.loads(pickle.dumps(made.task_description)) == made.task_description


def test_3_9_1_a_run_that_is_committed_inside_of_its_function_is_cached() -> None:
    assert TransactionState.COMMITTED.name == "COMMITTED"
    assert "state" in BaseTransaction.model_fields


def test_3_9_1_contexts_have_the_fields_that_are_read() -> None:
    assert {"flow_run", "flow", "detached", "task_runner"} <= set(FlowRunContext.model_fields)
    assert {"task_run", "task"} <= set(TaskRunContext.model_fields)


def test_3_9_1_a_flow_reads_annotations_from_its_wrapper() -> None:
    from crucible_lineage.tasks import registering

    text = (
        "from __future__ import annotations\nfrom pathlib import Path\ndef take(path: Path, n: int = 3) -> Path: ...\n"
    )
    namespace: dict[str, Any] = {"__name__": "elsewhere"}
    exec(text, namespace)
    made = flow(registering("lab")(namespace["take"]))
    assert made.parameters.properties["path"]["format"] == "path"
    assert made.validate_parameters({"path": "/a", "n": 4})["n"] == 4


def test_3_9_1_engines_call_the_function_of_a_task_at_one_place_and_know_there_whether_it_is_cached() -> None:
    for engine in (SyncTaskRunEngine, AsyncTaskRunEngine):
        assert list(inspect.signature(engine.call_task_fn).parameters) == ["self", "transaction"]
        assert "parameters" in inspect.signature(engine).parameters
    assert not inspect.iscoroutinefunction(BaseTransaction.is_committed)


def test_3_9_1_a_limit_is_kept_by_a_context_that_raises_the_engines_error() -> None:
    for limited in (timeout, timeout_async):
        assert list(inspect.signature(limited).parameters) == ["seconds", "timeout_exc_type"]
    assert issubclass(TaskRunTimeoutError, TimeoutError)


def test_3_9_1_a_run_names_the_runs_whose_futures_it_was_given() -> None:
    assert "task_inputs" in TaskRun.model_fields
    assert "dependencies" in inspect.signature(TaskRunner.submit).parameters


def test_3_9_1_a_secret_is_given_out_by_one_method() -> None:
    assert isinstance(Secret(value="word").value, (SecretStr, PydanticSecret))
    with pytest.raises(BlockNotSavedError):  # a saved one says its name
        Secret(value="word").get_block_placeholder()
