"""A plugin of pytest for Prefect's own tests: each runs within `registering`, and so does each flow that it calls.

It is loaded by `-p within_registering`, with this folder alone on PYTHONPATH; without CRUCIBLE_LINEAGE_DATA the tests
run plain. Their server may take longer to start than they wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from prefect import flow_engine
from prefect.testing import fixtures

from crucible_lineage.tasks import CrucibleConnection, registering

DATA = os.environ.get("CRUCIBLE_LINEAGE_DATA")
START_S = 300
call_function = flow_engine.call_with_parameters


def within() -> Any:
    return registering("suite", crucible=CrucibleConnection(data=DATA))


def call_registering(function: Any, parameters: dict[str, Any]) -> Any:
    """Call the function of a flow as `@registering` makes it."""
    return call_function(within()(function), parameters)


fixtures.anyio = SimpleNamespace(sleep=anyio.sleep, move_on_after=lambda _: anyio.move_on_after(START_S))
fixtures.httpx = SimpleNamespace(**{**vars(httpx), "AsyncClient": partial(httpx.AsyncClient, timeout=START_S)})
if DATA:
    flow_engine.call_with_parameters = call_registering


@pytest.fixture(autouse=True)
def tasks_outside_of_flows() -> Iterator[None]:
    with within() if DATA else nullcontext():
        yield
