"""Ids that a task chooses for what it creates: the same when the task, or its flow run, is tried again.

They follow from the flow run, the task and its arguments; where a flow run calls it several times with the same ones,
from which of the calls it is. So a repetition finds what an earlier try made, also where its answer was lost.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext

from crucible_lineage.ids import canonical_json, mfid_from_bytes, new_mfid, time_bits

__all__ = ["chosen_mfid"]

Call = tuple[str, int, str]  # flow run, its attempt, what is asked for

_lock = threading.Lock()
_calls: dict[Call, list[str]] = {}  # the task runs that asked for the same, in this attempt of their flow run


def chosen_mfid(kind: str, arguments: Mapping[str, object]) -> str:
    """The MFID of what this task run creates from these arguments. Outside of a task run, a new one at each call."""
    running = TaskRunContext.get()
    if running is None:
        return new_mfid()
    task_run = running.task_run
    asked = hashlib.sha256(canonical_json([kind, running.task.task_key, _plain(arguments)])).hexdigest()
    flow = FlowRunContext.get()
    if flow is None or flow.flow_run is None or flow.detached:  # on another machine nobody counts the calls of a flow
        return _mfid([str(task_run.id), asked], task_run.created)
    call = (str(flow.flow_run.id), flow.flow_run.run_count, asked)
    return _mfid([call[0], asked, _which(call, str(task_run.id))], flow.flow_run.created or task_run.created)


def _which(call: Call, task_run_id: str) -> int:
    """The number of this task run among those that ask for the same; a task that is tried again keeps its own."""
    with _lock:
        callers = _calls.setdefault(call, [])
        if task_run_id not in callers:
            callers.append(task_run_id)
        return callers.index(task_run_id)


def _mfid(parts: list[Any], moment: datetime | None) -> str:
    digest = int.from_bytes(hashlib.sha256(canonical_json(parts)).digest(), "big") >> (256 - 74)
    high = int.from_bytes(time_bits(moment or datetime.now(UTC)), "big")
    number = high << 80 | 7 << 76 | (digest >> 62) << 64 | 0b10 << 62 | digest & ((1 << 62) - 1)
    return mfid_from_bytes(number.to_bytes(16, "big"))


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int)) else str(value)
