"""What we lean on in Prefect and it does not promise, each with the release in which it was seen: 3.9.1.

If one of these fails after an update of Prefect, it says which part of tasks has to be looked at.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
from copy import copy
from typing import Any

import cloudpickle
import pytest
from prefect import Task, flow, task, task_engine
from prefect.blocks.core import BlockNotSavedError
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
from prefect.task_runners import TaskRunner
from prefect.transactions import BaseTransaction
from prefect.utilities.callables import get_call_parameters
from pydantic import Secret as PydanticSecret
from pydantic import SecretStr

from crucible_lineage.errors import InputError
from crucible_lineage.tasks import hook, lineage, recording
from crucible_lineage.tasks.lineage import code_of, options_of
from crucible_lineage.tasks.recording import Destination, sent_by, sent_with


def add(left: int, right: int = 2) -> int:
    """Return the sum."""
    return left + right


def test_3_9_1_the_engines_have_a_place_for_each_hook() -> None:
    hook.require_places()
    for engine in hook.ENGINES:
        assert "parameters" in inspect.signature(engine).parameters
        assert "dependencies" in inspect.signature(engine.start).parameters
    assert not inspect.iscoroutinefunction(BaseTransaction.is_committed)


@pytest.mark.parametrize(("owner", "name"), hook.HOOKS)
def test_registering_refuses_a_prefect_without_a_place(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, None)
    with pytest.raises(InputError, match=f"has no place {name} like that of 3.9. Nothing was run"):
        hook.require_places()


def test_registering_refuses_a_place_with_other_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_engine.SyncTaskRunEngine, "call_task_fn", lambda self, transaction, more: None)
    with pytest.raises(InputError, match="registering cannot see the tasks of Prefect"):
        hook.require_places()


def test_3_9_1_a_setting_gives_the_temporary_server_time_to_start() -> None:
    importlib.import_module("crucible_lineage.tasks.flow")
    assert PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value() == 180


def test_3_9_1_a_method_is_bound_at_the_function_of_a_copy() -> None:
    class Bench:
        @task
        def measure(self) -> str:
            return type(self).__name__

    bench = Bench()
    bound = bench.measure
    assert bound.fn.__prefect_self__ is bench
    assert get_call_parameters(bound.fn, (), {}) == {"self": bench}
    assert code_of(bound) is code_of(Bench.measure)


def test_3_9_1_what_is_sent_with_a_flow_and_a_task_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[int] = []
    monkeypatch.setattr(hook, "install", lambda: installed.append(1))
    empty = flow(lambda: None, name="empty")
    sent = sent_with({"flow_run_context": {"flow": sent_by(empty, Destination("lab", None, run_id="1"))}})
    there = pickle.loads(pickle.dumps(sent))
    assert (there, installed) == (sent, [1]), "whoever reads it installs the hooks"
    assert sent_with({"flow_run_context": {"flow": empty}}) is None


def test_3_9_1_a_task_takes_its_code_along_where_a_flow_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "__getstate__", hook._with_code)
    made = task(add)
    assert "crucible_code" not in vars(copy(made))
    monkeypatch.setattr(recording, "here", {"run": None})
    there = cloudpickle.loads(cloudpickle.dumps(made))
    assert code_of(there) == code_of(made)
    assert there.fn(1) == 3


def test_3_9_1_contexts_transactions_and_runs_have_the_fields_that_are_read() -> None:
    assert {"write_on_commit", "on_rollback_hooks", "key"} <= set(BaseTransaction.model_fields)
    assert callable(BaseTransaction.get_parent)
    assert {"flow_run", "flow", "detached", "task_runner"} <= set(FlowRunContext.model_fields)
    assert {"task_run", "task"} <= set(TaskRunContext.model_fields)
    assert "task_inputs" in TaskRun.model_fields
    assert "dependencies" in inspect.signature(TaskRunner.submit).parameters


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


def test_3_9_1_a_secret_is_given_out_by_one_method() -> None:
    assert isinstance(Secret(value="word").value, (SecretStr, PydanticSecret))
    with pytest.raises(BlockNotSavedError):  # a saved one says its name
        Secret(value="word").get_block_placeholder()


@pytest.mark.parametrize("above", [True, False])
def test_options_of_a_function_describe_its_results(above: bool) -> None:
    def scaled(left: int) -> int:
        return left

    options = lineage.options(measurement="SAXS", ignore="password")
    made = options(task(scaled, name="named")) if above else task(options(scaled), name="named")
    changed = made.with_options(retries=1)
    assert (changed.name, options_of(changed)) == ("named", {"measurement": "SAXS", "ignore": ("password",)})
    with pytest.raises(TypeError, match="unexpected keyword argument 'measurements'"):
        lineage.options(measurements="SAXS")  # type: ignore[call-arg]
